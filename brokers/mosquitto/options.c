#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "asking.h"

#define SLOTS_MIN 1024
#define SLOTS_MAX (1 << 24)

static void warn(const char *key, const char *value, const char *wanted) {
    mosquitto_log_printf(MOSQ_LOG_WARNING, "topicwarden: plugin_opt_%s '%.200s' is not %s; the default is used", key,
                         value, wanted);
}

static bool number(const char *text, int base, unsigned long *value) {
    char *end = NULL;
    if(text[0] < '0' || text[0] > '9') return false;
    errno = 0;
    *value = strtoul(text, &end, base);
    return errno == 0 && *end == 0;
}

static void copy_path(char *to, size_t room, const char *key, const char *value) {
    if(value[0] == 0 || strlen(value) >= room) warn(key, value, "a path");
    else memcpy(to, value, strlen(value) + 1);
}

static void read_other_plugins(struct tw_options *options, const char *value) {
    bool acl = strcmp(value, "acl") == 0, auth = strcmp(value, "auth") == 0;
    bool both = strcmp(value, "acl,auth") == 0 || strcmp(value, "auth,acl") == 0;
    if(!acl && !auth && !both && strcmp(value, "none") != 0) {
        warn("other_plugins", value, "none, acl, auth or acl,auth");
        return;
    }
    options->other_plugins_told = true;
    options->others_decide_acl = acl || both;
    options->others_decide_auth = auth || both;
}

static void read_one(struct tw_options *options, const char *key, const char *value) {
    unsigned long parsed;
    if(strcmp(key, "ring") == 0) {
        copy_path(options->ring, sizeof options->ring, key, value);
    } else if(strcmp(key, "config") == 0) {
        copy_path(options->config, sizeof options->config, key, value);
    } else if(strcmp(key, "slots") == 0) {
        if(number(value, 10, &parsed) && parsed >= SLOTS_MIN && parsed <= SLOTS_MAX && (parsed & (parsed - 1)) == 0)
            options->slots = (uint32_t)parsed;
        else warn(key, value, "a power of two from 1024 to 16777216");
    } else if(strcmp(key, "mode") == 0) {
        if(number(value, 8, &parsed) && parsed <= 0777 && (parsed & 0600) == 0600) options->mode = (unsigned)parsed;
        else warn(key, value, "an octal file mode that lets the owner read and write, such as 0640");
    } else if(strcmp(key, "entropy") == 0) {
        if(strcmp(value, "on") == 0) options->entropy = true;
        else if(strcmp(value, "off") == 0) options->entropy = false;
        else warn(key, value, "on or off");
    } else if(strcmp(key, "deliver") == 0) {
        if(strcmp(value, "all") == 0) options->deliver = true;
        else if(strcmp(value, "off") == 0) options->deliver = false;
        else warn(key, value, "off or all");
    } else if(strcmp(key, "peer_port") == 0) {
        if(strcmp(value, "on") == 0) options->peer_port = true;
        else if(strcmp(value, "off") == 0) options->peer_port = false;
        else warn(key, value, "on or off");
    } else if(strcmp(key, "attribute") == 0) {
        if(value[0] == '/' && strlen(value) < sizeof options->attribute)
            memcpy(options->attribute, value, strlen(value) + 1);
        else warn(key, value, "an absolute path of at most 107 bytes");
    } else if(strcmp(key, "attribute_wait") == 0) {
        if(number(value, 10, &parsed) && parsed >= 1 && parsed <= TW_WAIT_MS_MAX)
            options->attribute_wait_ms = (unsigned)parsed;
        else warn(key, value, "a number of milliseconds from 1 to 100");
    } else if(strcmp(key, "other_plugins") == 0) {
        read_other_plugins(options, value);
    } else {
        mosquitto_log_printf(MOSQ_LOG_WARNING, "topicwarden: there is no option plugin_opt_%.200s; it is ignored", key);
    }
}

void tw_options_read(struct tw_options *options, const struct mosquitto_opt *given, int count) {
    memset(options, 0, sizeof *options);
    snprintf(options->ring, sizeof options->ring, "%s", "/run/topicwarden/mosquitto.ring");
    options->slots = 524288;
    options->mode = 0640;
    options->entropy = true;
    options->attribute_wait_ms = TW_WAIT_MS_DEFAULT;
    for(int i = 0; i < count; i++)
        if(given[i].key && given[i].value) read_one(options, given[i].key, given[i].value);
}
