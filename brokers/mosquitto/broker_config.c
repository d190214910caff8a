#include "broker_config.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Options Mosquitto 2.0.11 to 2.0.22 and 2.1 know. An unlisted word makes the broker refuse the whole file; at SIGHUP
 * it then goes on with what it had, so we must not believe such a file either. */
static const char *const known_words[] = {
    "accept_protocol_versions", "acl_file", "address", "addresses", "allow_anonymous", "allow_duplicate_messages",
    "allow_zero_length_clientid", "auth_plugin", "auth_plugin_deny_special_chars", "auto_id_prefix",
    "autosave_interval", "autosave_on_changes", "bind_address", "bind_interface", "bridge_alpn",
    "bridge_attempt_unsubscribe", "bridge_bind_address", "bridge_cafile", "bridge_capath", "bridge_certfile",
    "bridge_identity", "bridge_insecure", "bridge_keyfile", "bridge_max_packet_size", "bridge_outgoing_retain",
    "bridge_protocol_version", "bridge_psk", "bridge_require_ocsp", "bridge_tls_version", "cafile", "capath",
    "certfile", "check_retain_source", "ciphers", "ciphers_tls1.3", "cleansession", "clientid", "clientid_prefixes",
    "connection", "connection_messages", "crlfile", "dhparamfile", "http_dir", "idle_timeout", "include_dir",
    "keepalive_interval", "keyfile", "listener", "local_cleansession", "local_clientid", "local_password",
    "local_username", "log_dest", "log_facility", "log_timestamp", "log_timestamp_format", "log_type",
    "max_connections", "max_inflight_bytes", "max_inflight_messages", "max_keepalive", "max_packet_size", "max_qos",
    "max_queued_bytes", "max_queued_messages", "max_topic_alias", "maximum_qos", "memory_limit", "message_size_limit",
    "mount_point", "notification_topic", "notifications", "notifications_local_only", "password", "password_file",
    "per_listener_settings", "persistence", "persistence_file", "persistence_location",
    "persistent_client_expiration", "pid_file", "plugin", "port", "protocol", "psk_file", "psk_hint",
    "queue_qos0_messages", "remote_clientid", "remote_password", "remote_username", "require_certificate",
    "restart_timeout", "retain_available", "retain_expiry_interval", "retained_persistence", "retry_interval",
    "round_robin", "set_tcp_nodelay", "socket_domain", "start_type", "sys_interval", "threshold", "tls_engine",
    "tls_engine_kpass_sha1", "tls_keyform", "tls_version", "topic", "try_private", "upgrade_outgoing_qos",
    "use_identity_as_username", "use_subject_as_username", "use_username_as_clientid", "user", "username",
    "websockets_headers_size", "websockets_log_level",
};

struct reader {
    struct tw_broker_config *config;
    struct stat own;
    bool own_known;
    bool security_seen;
};

static void doubt(struct tw_broker_config *config, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void doubt(struct tw_broker_config *config, const char *format, ...) {
    if(config->doubt[0]) return;
    va_list values;
    va_start(values, format);
    vsnprintf(config->doubt, sizeof config->doubt, format, values);
    va_end(values);
    for(char *at = config->doubt; *at; at++)
        if(iscntrl((unsigned char)*at)) *at = '?';
}

static bool is_known(const char *word) {
    if(strncmp(word, "auth_opt_", 9) == 0 || strncmp(word, "plugin_opt_", 11) == 0) return true;
    for(size_t i = 0; i < sizeof known_words / sizeof known_words[0]; i++)
        if(strcmp(word, known_words[i]) == 0) return true;
    return false;
}

static char *trim(char *text) {
    while(isspace((unsigned char)text[0])) text++;
    size_t length = strlen(text);
    while(length && isspace((unsigned char)text[length - 1])) text[--length] = 0;
    return text;
}

/* The set of options that the current line speaks of. */
static int current_set(struct reader *reader, int listener) {
    reader->security_seen = true;
    return reader->config->per_listener ? listener : TW_SET_BROKER;
}

static bool read_bool(struct tw_broker_config *config, const char *word, char **rest, int *value) {
    const char *given = strtok_r(NULL, " ", rest);
    if(given && (strcmp(given, "true") == 0 || strcmp(given, "1") == 0)) {
        *value = 1;
        return true;
    }
    if(given && (strcmp(given, "false") == 0 || strcmp(given, "0") == 0)) {
        *value = 0;
        return true;
    }
    doubt(config, "%s has the value '%s'", word, given ? given : "");
    return false;
}

static bool add_plugin(struct reader *reader, int set, bool global, char *path) {
    struct tw_broker_config *config = reader->config;
    if(config->plugin_count == TW_PLUGINS_MAX) {
        doubt(config, "more than %d plugins", TW_PLUGINS_MAX);
        return false;
    }
    struct tw_plugin_line *line = &config->plugins[config->plugin_count++];
    const char *slash = strrchr(path, '/');
    struct stat status;
    line->set = set;
    line->global = global;
    snprintf(line->path, sizeof line->path, "%s", path);
    if(reader->own_known && stat(path, &status) == 0 && status.st_dev == reader->own.st_dev &&
       status.st_ino == reader->own.st_ino)
        line->kind = TW_PLUGIN_OURS;
    else if(strcmp(slash ? slash + 1 : path, "mosquitto_dynamic_security.so") == 0)
        line->kind = TW_PLUGIN_DYNAMIC_SECURITY;
    else
        line->kind = TW_PLUGIN_OTHER;
    return true;
}

static bool add_listener(struct tw_broker_config *config, char **rest, int *listener) {
    config->local_only = false;
    const char *port = strtok_r(NULL, " ", rest);
    const char *host = port ? strtok_r(NULL, " ", rest) : NULL;
    if(host && host[0] == '#') host = NULL;
    if(!port) {
        doubt(config, "a listener line without a port");
        return true;
    }
    if(config->listener_count == TW_LISTENERS_MAX) {
        doubt(config, "more than %d listeners", TW_LISTENERS_MAX);
        return false;
    }
    struct tw_listener *added = &config->listeners[config->listener_count];
    added->port = atoi(port);
    added->allow_anonymous = -1;
    snprintf(added->host, sizeof added->host, "%s", host ? host : "");
    *listener = config->listener_count++;
    return true;
}

static bool read_file(struct reader *reader, const char *path, int level);

/* The broker's order (2.0.11 to 2.1, conf_includedir.c): letter by letter, and of two letters that differ only in case
 * the capital comes first, whatever follows. So A2.conf is read before a1.conf. */
static int by_name(const void *left, const void *right) {
    const char *a = *(const char *const *)left, *b = *(const char *const *)right;
    while(*a && *a == *b) a++, b++;
    int order = toupper((unsigned char)*a) - toupper((unsigned char)*b);
    return order ? order : (unsigned char)*a - (unsigned char)*b;
}

static bool read_folder(struct reader *reader, const char *folder) {
    char *paths[1024];
    size_t count = 0;
    bool good = true;
    DIR *open_folder = opendir(folder);
    if(!open_folder) {
        doubt(reader->config, "include_dir %s: %s", folder, strerror(errno));
        return false;
    }
    for(struct dirent *entry; good && (entry = readdir(open_folder)) != NULL;) {
        size_t length = strlen(entry->d_name);
        if(length <= 5 || strcmp(entry->d_name + length - 5, ".conf") != 0) continue;
        char *path = NULL;
        if(count == sizeof paths / sizeof paths[0] || asprintf(&path, "%s/%s", folder, entry->d_name) < 0) {
            doubt(reader->config, "include_dir %s has too many files", folder);
            good = false;
        } else {
            paths[count++] = path;
        }
    }
    closedir(open_folder);
    qsort(paths, count, sizeof paths[0], by_name);
    for(size_t i = 0; i < count; i++) {
        if(good) good = read_file(reader, paths[i], 1);
        free(paths[i]);
    }
    return good;
}

static void set_allow_anonymous(struct tw_broker_config *config, int set, int value) {
    if(set == TW_SET_BROKER) config->allow_anonymous = value;
    else if(set == TW_SET_DEFAULT_LISTENER) config->default_allow_anonymous = value;
    else config->listeners[set].allow_anonymous = value;
}

/* One line without its line ending. `listener` is the listener later lines belong to. */
static bool read_line(struct reader *reader, char *line, int level, int *listener) {
    struct tw_broker_config *config = reader->config;
    char *rest = NULL, *word = strtok_r(line, " ", &rest);
    int value;
    if(!word) return true;
    bool global = strcmp(word, "global_plugin") == 0 || strcmp(word, "plugin_load") == 0;
    if(strcmp(word, "plugin") == 0 || strcmp(word, "auth_plugin") == 0 || global) {
        char *path = strtok_r(NULL, "", &rest);
        path = path ? trim(path) : NULL;
        if(path && strcmp(word, "plugin_load") == 0) {          /* 2.1: `plugin_load name path` */
            char *space = strchr(path, ' ');
            path = space ? trim(space) : path;
        }
        if(path && path[0]) return add_plugin(reader, current_set(reader, *listener), global, path);
        doubt(config, "%s without a path", word);
    } else if(strcmp(word, "allow_anonymous") == 0) {
        int set = current_set(reader, *listener);
        if(read_bool(config, word, &rest, &value)) set_allow_anonymous(config, set, value);
    } else if(strcmp(word, "per_listener_settings") == 0) {
        if(read_bool(config, word, &rest, &value)) config->per_listener = value == 1;
        if(reader->security_seen && config->per_listener) doubt(config, "per_listener_settings after security settings");
    } else if(strcmp(word, "listener") == 0) {
        return add_listener(config, &rest, listener);
    } else if(strcmp(word, "port") == 0 || strcmp(word, "bind_address") == 0) {
        config->local_only = false;
    } else if(strcmp(word, "include_dir") == 0) {
        char *folder = strtok_r(NULL, "", &rest);
        if(level > 0) return true;              /* only the main file's count */
        if(folder) return read_folder(reader, folder);
        doubt(config, "include_dir without a folder");
    } else if(strcmp(word, "acl_file") == 0 || strcmp(word, "password_file") == 0 || strcmp(word, "psk_file") == 0 ||
              strcmp(word, "auto_id_prefix") == 0 || strcmp(word, "allow_zero_length_clientid") == 0) {
        reader->security_seen = true;
        if(strcmp(word, "password_file") == 0) config->password_file = true;
    } else if(!is_known(word)) {
        doubt(config, "unknown option '%.64s'", word);
    }
    return true;
}

static bool read_file(struct reader *reader, const char *path, int level) {
    FILE *file = fopen(path, "re");
    struct stat status;
    if(!file || fstat(fileno(file), &status) != 0 || S_ISDIR(status.st_mode)) {
        doubt(reader->config, "%s: %s", path, file ? "is not a file" : strerror(errno));
        if(file) fclose(file);
        return false;
    }
    int listener = TW_SET_DEFAULT_LISTENER;     /* each file starts over, as in the broker */
    char *line = NULL;
    size_t room = 0;
    bool good = true;
    for(ssize_t length; good && (length = getline(&line, &room, file)) >= 0;) {
        if(line[0] == '#' || line[0] == '\n' || line[0] == '\r') continue;
        length = (ssize_t)strlen(line);
        while(length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r')) line[--length] = 0;
        good = read_line(reader, line, level, &listener);
    }
    if(ferror(file)) {
        doubt(reader->config, "%s: %s", path, strerror(errno));
        good = false;
    }
    free(line);
    fclose(file);
    return good;
}

bool tw_broker_config_read(struct tw_broker_config *config, const char *path, const char *own_path) {
    struct reader reader = {.config = config};
    memset(config, 0, sizeof *config);
    config->local_only = true;
    config->allow_anonymous = -1;
    config->default_allow_anonymous = -1;
    reader.own_known = own_path && stat(own_path, &reader.own) == 0;
    return read_file(&reader, path, 0);
}

bool tw_broker_config_path(char *path, size_t room) {
    char arguments[16384];
    int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    if(file < 0) return false;
    ssize_t length = read(file, arguments, sizeof arguments - 1);
    close(file);
    if(length <= 0) return false;
    arguments[length] = 0;
    bool found = false;
    const char *end = arguments + length;
    for(const char *word = arguments; word < end; word += strlen(word) + 1) {
        if(strcmp(word, "-c") != 0 && strcmp(word, "--config-file") != 0) continue;
        const char *value = word + strlen(word) + 1;
        if(value >= end) break;
        found = snprintf(path, room, "%s", value) < (int)room;
        word = value;
    }
    return found;
}
