/* What the plugin uses of Mosquitto 2.1's broker interface: facts of the interface, written down for a compile check.
 * Seen in 2.1.2. Included by mosquitto.h. */
#ifndef MOSQUITTO_BROKER_H
#define MOSQUITTO_BROKER_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum mosquitto_protocol { mp_mqtt, mp_mqttsn, mp_websockets, mp_http_api };

enum {
    MOSQ_ACL_READ = 0x01,
    MOSQ_ACL_WRITE = 0x02,
    MOSQ_ACL_SUBSCRIBE = 0x04,
    MOSQ_ACL_UNSUBSCRIBE = 0x08
};

enum mosquitto_plugin_event {
    MOSQ_EVT_RELOAD = 1,
    MOSQ_EVT_ACL_CHECK = 2,
    MOSQ_EVT_BASIC_AUTH = 3,
    MOSQ_EVT_MESSAGE = 7,
    MOSQ_EVT_TICK = 9,
    MOSQ_EVT_DISCONNECT = 10,
    MOSQ_EVT_CONNECT = 11,
    MOSQ_EVT_SUBSCRIBE = 12,
    MOSQ_EVT_UNSUBSCRIBE = 13,
    MOSQ_EVT_CLIENT_OFFLINE = 28
};

struct mosquitto_opt {
    char *key;
    char *value;
};

struct mosquitto_subscription {
    char *clientid;
    char *topic_filter;
    mosquitto_property *properties;
    uint32_t identifier;
    uint8_t options;
    uint8_t padding[3];
    void *future2[8];
};

struct mosquitto_evt_reload {
    void *future;
    struct mosquitto_opt *options;
    int option_count;
    void *future2[4];
};

struct mosquitto_evt_acl_check {
    void *future;
    struct mosquitto *client;
    const char *topic;
    const void *payload;
    mosquitto_property *properties;
    int access;
    uint32_t payloadlen;
    uint8_t qos;
    bool retain;
    void *future2[4];
};

struct mosquitto_evt_basic_auth {
    void *future;
    struct mosquitto *client;
    char *username;
    char *password;
    void *future2[4];
};

struct mosquitto_evt_message {
    void *future;
    struct mosquitto *client;
    char *topic;
    void *payload;
    mosquitto_property *properties;
    char *reason_string;
    uint32_t payloadlen;
    uint8_t qos;
    uint8_t reason_code;
    bool retain;
    uint8_t padding;
    void *future2[4];
};

struct mosquitto_evt_tick {
    void *future;
    long now_ns;
    long next_ms;
    time_t now_s;
    time_t next_s;
    void *future2[4];
};

struct mosquitto_evt_connect {
    void *future;
    struct mosquitto *client;
    void *future2[4];
};

struct mosquitto_evt_disconnect {
    void *future;
    struct mosquitto *client;
    int reason;
    void *future2[4];
};

struct mosquitto_evt_client_offline {
    void *future;
    struct mosquitto *client;
    int reason;
    void *future2[4];
};

struct mosquitto_evt_subscribe {
    void *future;
    struct mosquitto *client;
    struct mosquitto_subscription data;
    void *future2[8];
};

struct mosquitto_evt_unsubscribe {
    void *future;
    struct mosquitto *client;
    struct mosquitto_subscription data;
    void *future2[8];
};

typedef int (*MOSQ_FUNC_generic_callback)(int event, void *event_data, void *userdata);
typedef struct mosquitto_plugin_id_t mosquitto_plugin_id_t;

int mosquitto_callback_register(mosquitto_plugin_id_t *identifier, int event, MOSQ_FUNC_generic_callback callback,
                                const void *event_data, void *userdata);
int mosquitto_callback_unregister(mosquitto_plugin_id_t *identifier, int event, MOSQ_FUNC_generic_callback callback,
                                  const void *event_data);
void mosquitto_log_printf(int level, const char *format, ...);

const char *mosquitto_client_address(const struct mosquitto *client);
void *mosquitto_client_certificate(const struct mosquitto *client);
bool mosquitto_client_clean_session(const struct mosquitto *client);
const char *mosquitto_client_id(const struct mosquitto *client);
int mosquitto_client_port(const struct mosquitto *client);
int mosquitto_client_protocol(const struct mosquitto *client);
int mosquitto_client_protocol_version(const struct mosquitto *client);
const char *mosquitto_client_username(const struct mosquitto *client);

#endif
