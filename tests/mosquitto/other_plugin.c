/* Another plugin, for tests: denies access to secret/..., refuses the user ghost, and vouches for the user known. */
#include <string.h>

#include "broker_api.h"

static mosquitto_plugin_id_t *ours;

static int on_acl(int event, void *event_data, void *userdata) {
    const struct mosquitto_evt_acl_check *check = event_data;
    (void)event;
    (void)userdata;
    if(strncmp(check->topic, "secret/", 7) == 0) return MOSQ_ERR_ACL_DENIED;
    return strncmp(check->topic, "defer/", 6) == 0 ? MOSQ_ERR_PLUGIN_DEFER : MOSQ_ERR_SUCCESS;
}

static int on_auth(int event, void *event_data, void *userdata) {
    const struct mosquitto_evt_basic_auth *login = event_data;
    (void)event;
    (void)userdata;
    if(login->username && strcmp(login->username, "ghost") == 0) return MOSQ_ERR_AUTH;
    return login->username && strcmp(login->username, "alice") == 0 ? MOSQ_ERR_SUCCESS : MOSQ_ERR_PLUGIN_DEFER;
}

int mosquitto_plugin_version(int count, const int *versions) {
    for(int i = 0; i < count; i++)
        if(versions[i] == 5) return 5;
    return -1;
}

static int decides(struct mosquitto_opt *options, int count, const char *what) {
    for(int i = 0; i < count; i++)
        if(strcmp(options[i].key, "decides") == 0) return strstr(options[i].value, what) != NULL;
    return 1;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **userdata, struct mosquitto_opt *options, int count) {
    *userdata = NULL;
    ours = identifier;
    if(decides(options, count, "acl")) mosquitto_callback_register(identifier, MOSQ_EVT_ACL_CHECK, on_acl, NULL, NULL);
    if(decides(options, count, "auth"))
        mosquitto_callback_register(identifier, MOSQ_EVT_BASIC_AUTH, on_auth, NULL, NULL);
    return MOSQ_ERR_SUCCESS;
}

int mosquitto_plugin_cleanup(void *userdata, struct mosquitto_opt *options, int count) {
    (void)userdata;
    (void)options;
    (void)count;
    mosquitto_callback_unregister(ours, MOSQ_EVT_ACL_CHECK, on_acl, NULL);
    mosquitto_callback_unregister(ours, MOSQ_EVT_BASIC_AUTH, on_auth, NULL);
    return MOSQ_ERR_SUCCESS;
}
