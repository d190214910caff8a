/* Drives the plugin's callbacks without a broker: for measurements, and for fuzzing under sanitizers.
 *
 *   harness bench RING COUNT PAYLOAD_BYTES TOPICS CLIENTS on|off   nanoseconds for each publish: plugin, then nothing
 *   harness topics RING COUNT                     COUNT distinct topics; resident memory before and after
 *   harness clients RING COUNT                    COUNT clients at once; the same
 *   harness random RING SEED STEPS                callbacks in any order with hostile names, reused contexts, and
 *                                                 sockets that are others' or none; prints the ports of the real ones
 *   harness moved RING                            one client, thrice on one context, without a login; prints its ports
 *   harness config FILE...                        what the plugin reads from each mosquitto.conf
 *   harness payload                               stdin: lines of hexadecimal; stdout: entropy and shape of each
 *   harness hash                                  stdin: lines of hexadecimal; stdout: SipHash-1-3, key 00 01 .. 0f */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "broker_api.h"
#include "broker_config.h"
#include "payload.h"
#include "siphash.h"

struct mosquitto {                      /* our own: the plugin sees clients through the functions below only … */
    int ident, sock;                    /* … and by these two, where the broker has them */
    const char *id, *user, *address;
    int protocol_version;
};

static MOSQ_FUNC_generic_callback callbacks[32];
static void *userdata[32];
static MOSQ_FUNC_generic_callback second_acl;
static void *second_userdata;
static unsigned log_lines;

/* ---- the broker's functions --------------------------------------------------------------------------------- */

const char *mosquitto_client_id(const struct mosquitto *client) { return client->id; }
const char *mosquitto_client_username(const struct mosquitto *client) { return client->user; }
const char *mosquitto_client_address(const struct mosquitto *client) { return client->address; }
bool mosquitto_client_clean_session(const struct mosquitto *client) { (void)client; return true; }
int mosquitto_client_protocol(const struct mosquitto *client) { (void)client; return mp_mqtt; }
int mosquitto_client_protocol_version(const struct mosquitto *client) { return client->protocol_version; }
void *mosquitto_client_certificate(const struct mosquitto *client) { (void)client; return NULL; }

int mosquitto_callback_register(mosquitto_plugin_id_t *identifier, int event, MOSQ_FUNC_generic_callback callback,
                                const void *event_data, void *data) {
    (void)identifier;
    (void)event_data;
    if(event == MOSQ_EVT_ACL_CHECK && callbacks[event]) {
        second_acl = callback;
        second_userdata = data;
        return MOSQ_ERR_SUCCESS;
    }
    if(callbacks[event]) return MOSQ_ERR_ALREADY_EXISTS;
    callbacks[event] = callback;
    userdata[event] = data;
    return MOSQ_ERR_SUCCESS;
}

int mosquitto_callback_unregister(mosquitto_plugin_id_t *identifier, int event, MOSQ_FUNC_generic_callback callback,
                                  const void *event_data) {
    (void)identifier;
    (void)event_data;
    if(event == MOSQ_EVT_ACL_CHECK && callback == second_acl) second_acl = NULL;
    else if(callbacks[event] == callback) callbacks[event] = NULL;
    else return MOSQ_ERR_NOT_FOUND;
    return MOSQ_ERR_SUCCESS;
}

void mosquitto_log_printf(int level, const char *format, ...) {
    char line[2048];
    va_list values;
    va_start(values, format);
    vsnprintf(line, sizeof line, format, values);
    va_end(values);
    log_lines++;
    if(level != MOSQ_LOG_INFO) fprintf(stderr, "%s\n", line);
}

/* ---- driving ------------------------------------------------------------------------------------------------ */

static int call(int event, void *data) {
    return callbacks[event] ? callbacks[event](event, data, userdata[event]) : MOSQ_ERR_SUCCESS;
}

static int acl(struct mosquitto *client, const char *topic, const void *payload, uint32_t length, int access) {
    struct mosquitto_evt_acl_check check;
    memset(&check, 0, sizeof check);
    check.client = client;
    check.topic = topic;
    check.payload = payload;
    check.payloadlen = length;
    check.access = access;
    int answer = call(MOSQ_EVT_ACL_CHECK, &check);
    if(answer == MOSQ_ERR_PLUGIN_DEFER && second_acl) answer = second_acl(MOSQ_EVT_ACL_CHECK, &check, second_userdata);
    return answer;
}

static void message(struct mosquitto *client, char *topic, void *payload, uint32_t length) {
    struct mosquitto_evt_message data;
    memset(&data, 0, sizeof data);
    data.client = client;
    data.topic = topic;
    data.payload = payload;
    data.payloadlen = length;
    call(MOSQ_EVT_MESSAGE, &data);
}

static void login(struct mosquitto *client) {
    struct mosquitto_evt_basic_auth data;
    memset(&data, 0, sizeof data);
    data.client = client;
    data.username = (char *)(uintptr_t)client->user;
    call(MOSQ_EVT_BASIC_AUTH, &data);
}

static void disconnect(struct mosquitto *client) {
    struct mosquitto_evt_disconnect data;
    memset(&data, 0, sizeof data);
    data.client = client;
    call(MOSQ_EVT_DISCONNECT, &data);
}

static void tick(void) {
    struct mosquitto_evt_tick data;
    memset(&data, 0, sizeof data);
    call(MOSQ_EVT_TICK, &data);
}

static char config_file[64];
static const char *peer_port = "off";

static void *start(const char *ring, const char *slots, const char *entropy) {
    /* A configuration with our line in it. The plugin compares files by inode, so its own is this program. */
    snprintf(config_file, sizeof config_file, "/tmp/topicwarden-harness-%ld.conf", (long)getpid());
    char self[512];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length < 0 ? 0 : length] = 0;
    FILE *file = fopen(config_file, "we");
    if(!file) exit(1);
    fprintf(file, "plugin %s\nlistener 1883\nallow_anonymous true\n", self);
    fclose(file);
    struct mosquitto_opt given[] = {
        {(char *)(uintptr_t)"ring", (char *)(uintptr_t)ring},
        {(char *)(uintptr_t)"slots", (char *)(uintptr_t)slots},
        {(char *)(uintptr_t)"entropy", (char *)(uintptr_t)entropy},
        {(char *)(uintptr_t)"deliver", (char *)(uintptr_t)"all"},
        {(char *)(uintptr_t)"config", config_file},
        {(char *)(uintptr_t)"peer_port", (char *)(uintptr_t)peer_port},
        {(char *)(uintptr_t)"attribute", (char *)(uintptr_t)"/nobody/listens"},
    };
    bool looking = strcmp(peer_port, "on") == 0;
    void *data = NULL;
    static char identifier;
    mosquitto_plugin_init((mosquitto_plugin_id_t *)(void *)&identifier, &data, given, looking ? 7 : 6);
    unlink(config_file);
    return data;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static long resident_kib(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if(!file || fscanf(file, "%*d %ld", &pages) != 1) pages = -1;
    if(file) fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static int nothing(int event, void *data, void *unused) {
    (void)event;
    (void)data;
    (void)unused;
    return MOSQ_ERR_SUCCESS;
}

static uint64_t random_state = 1;

static uint32_t random32(void) {        /* xorshift64*: the same numbers for the same seed everywhere */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 0x2545f4914f6cdd1du) >> 32);
}

static struct mosquitto *make_clients(unsigned count) {
    struct mosquitto *clients = calloc(count, sizeof *clients);
    if(!clients) exit(1);
    for(unsigned i = 0; i < count; i++) {
        char *id = NULL, *user = NULL;
        if(asprintf(&id, "device-%06u", i) < 0 || asprintf(&user, "sensor-%04u", i % 1000) < 0) exit(1);
        clients[i] = (struct mosquitto){2, -1, id, user, "192.0.2.7", 4};
        login(&clients[i]);
    }
    tick();
    return clients;
}

static double publish_many(struct mosquitto *clients, unsigned client_count, char (*topics)[64], unsigned topic_count,
                           unsigned count, uint8_t *payload, uint32_t length) {
    double begin = seconds();
    for(unsigned i = 0; i < count; i++) {
        struct mosquitto *client = &clients[i % client_count];
        char *topic = topics[(i * 7) % topic_count];
        payload[i % length] = (uint8_t)i;
        acl(client, topic, payload, length, MOSQ_ACL_WRITE);
        message(client, topic, payload, length);
    }
    return (seconds() - begin) * 1e9 / count;
}

static int by_value(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

static int bench(char **given) {
    unsigned count = (unsigned)atoi(given[1]), topic_count = (unsigned)atoi(given[3]), client_count = (unsigned)atoi(given[4]);
    uint32_t length = (uint32_t)atoi(given[2]);
    if(!count || !length || !topic_count || !client_count) return 2;
    void *data = start(given[0], "524288", given[5]);
    struct mosquitto *clients = make_clients(client_count);
    char (*topics)[64] = calloc(topic_count, sizeof *topics);
    uint8_t *payload = malloc(length);
    if(!topics || !payload) return 1;
    for(unsigned i = 0; i < topic_count; i++) snprintf(topics[i], sizeof topics[i], "plant/hall-%u/sensor-%04u/telemetry", i % 8, i);
    for(uint32_t i = 0; i < length; i++) payload[i] = (uint8_t)("{\"temperature\":21.5,\"unit\":\"C\"}"[i % 31]);
    enum { ROUNDS = 9 };
    double with[ROUNDS], without[ROUNDS];
    MOSQ_FUNC_generic_callback kept[32];
    memcpy(kept, callbacks, sizeof kept);
    publish_many(clients, client_count, topics, topic_count, count / 10 + 1, payload, length);
    for(int round = 0; round < ROUNDS; round++) {
        with[round] = publish_many(clients, client_count, topics, topic_count, count, payload, length);
        callbacks[MOSQ_EVT_ACL_CHECK] = callbacks[MOSQ_EVT_MESSAGE] = nothing;
        without[round] = publish_many(clients, client_count, topics, topic_count, count, payload, length);
        memcpy(callbacks, kept, sizeof kept);
    }
    qsort(with, ROUNDS, sizeof with[0], by_value);
    qsort(without, ROUNDS, sizeof without[0], by_value);
    printf("%.2f %.2f\n", with[ROUNDS / 2], without[ROUNDS / 2]);
    mosquitto_plugin_cleanup(data, NULL, 0);
    return 0;
}

static int many_topics(char **given) {
    void *data = start(given[0], "524288", "on");
    struct mosquitto *client = make_clients(1);
    long before = resident_kib();
    char topic[64];
    for(unsigned i = 0, count = (unsigned)atoi(given[1]); i < count; i++) {
        snprintf(topic, sizeof topic, "flood/%u", i);
        acl(client, topic, topic, 10, MOSQ_ACL_WRITE);
        message(client, topic, topic, 10);
    }
    printf("%ld %ld\n", before, resident_kib());
    mosquitto_plugin_cleanup(data, NULL, 0);
    return 0;
}

static int many_clients(char **given) {
    unsigned count = (unsigned)atoi(given[1]);
    void *data = start(given[0], "524288", "on");
    long before = resident_kib();
    struct mosquitto *clients = make_clients(count);
    for(unsigned i = 0; i < count; i++) {
        acl(&clients[i], "a", NULL, 0, MOSQ_ACL_WRITE);
        message(&clients[i], (char *)(uintptr_t)"a", NULL, 0);
    }
    printf("%ld %ld\n", before, resident_kib());
    mosquitto_plugin_cleanup(data, NULL, 0);
    return 0;
}

/* A name of its own allocation, so that reading past its end is seen: empty, short, at the limits, up to 64 KiB. */
static char *random_name(void) {
    static const unsigned lengths[] = {0, 1, 2, 7, 30, 31, 32, 61, 62, 63, 64, 65, 200, 1023, 1024, 1025, 3000, 65535};
    unsigned length = lengths[random32() % 18];
    if(random32() % 4) length %= 40;
    char *name = malloc(length + 1);
    if(!name) exit(1);
    for(unsigned i = 0; i < length; i++) name[i] = (char)(1 + random32() % 255);
    name[length] = 0;
    return name;
}

static int sockets[16];
static unsigned socket_count;

/* Connected sockets of both kinds, one that is connected to nobody, and what is no socket. */
static void make_sockets(void) {
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), pair[2];
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, peer;
    socklen_t length = sizeof place;
    if(bind(listening, (struct sockaddr *)&place, sizeof place) != 0 || listen(listening, 8) != 0 ||
       getsockname(listening, (struct sockaddr *)&place, &length) != 0)
        exit(1);
    for(int i = 0; i < 4; i++) {
        int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if(connect(client, (struct sockaddr *)&place, sizeof place) != 0) exit(1);
        length = sizeof peer;
        int accepted = accept4(listening, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC);
        if(accepted < 0) exit(1);
        sockets[socket_count++] = accepted;
        printf("%u\n", ntohs(peer.sin_port));
    }
    if(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) exit(1);
    sockets[socket_count++] = pair[0];
    sockets[socket_count++] = listening;
    sockets[socket_count++] = STDERR_FILENO;
    sockets[socket_count++] = -1;
    sockets[socket_count++] = 1000000;
}

static void rename_client(struct mosquitto *client) {
    free((void *)(uintptr_t)client->id);
    free((void *)(uintptr_t)client->user);
    client->id = random32() % 20 ? random_name() : NULL;
    client->user = random32() % 3 ? random_name() : NULL;
    static const char *const addresses[] = {"192.0.2.1", "127.0.0.1", "127.0.0.1", "/run/socket", ""};
    client->ident = random32() % 8 ? 2 : (int)random32();
    client->sock = random32() % 8 ? sockets[random32() % socket_count] : (int)random32();
    client->address = random32() % 10 ? addresses[random32() % 5] : NULL;
    client->protocol_version = 3 + (int)(random32() % 3);
}

static int any_order(char **given) {
    enum { CONTEXTS = 24 };
    struct mosquitto *contexts[CONTEXTS];
    random_state = strtoull(given[1], NULL, 10) * 2654435761u + 1;
    make_sockets();
    if(random_state % 4) peer_port = "on";
    void *data = start(given[0], "1024", "on");
    for(int i = 0; i < CONTEXTS; i++) {
        contexts[i] = calloc(1, sizeof **contexts);
        if(!contexts[i]) return 1;
        rename_client(contexts[i]);
    }
    for(unsigned step = 0, steps = (unsigned)atoi(given[2]); step < steps; step++) {
        unsigned which = random32() % CONTEXTS;
        struct mosquitto *client = contexts[which];
        char *topic = random_name(), *payload = random_name();
        uint32_t length = (uint32_t)strlen(payload);
        struct mosquitto_evt_reload reload;
        memset(&reload, 0, sizeof reload);
        switch(client->id ? random32() % 12 : 8 + random32() % 4) {
            case 0:
            case 1: acl(client, topic, payload, length, MOSQ_ACL_WRITE); break;
            case 2:
            case 3:
                acl(client, topic, payload, length, MOSQ_ACL_WRITE);
                message(client, topic, payload, length);
                break;
            case 4: message(client, topic, payload, length); break;
            case 5: acl(client, topic, NULL, 0, MOSQ_ACL_SUBSCRIBE); break;
            case 6: acl(client, topic, NULL, 0, MOSQ_ACL_UNSUBSCRIBE); break;
            case 7: acl(client, topic, payload, length, MOSQ_ACL_READ); break;
            case 8: login(client); break;
            case 9: disconnect(client); break;
            case 10: tick(); break;
            default:
                if(random32() % 8 == 0) call(MOSQ_EVT_RELOAD, &reload);
                if(random32() % 2) {    /* gone without a word, its place taken by another */
                    free((void *)(uintptr_t)client->id);
                    free((void *)(uintptr_t)client->user);
                    free(client);
                    contexts[which] = calloc(1, sizeof **contexts);
                    if(!contexts[which]) return 1;
                }
                rename_client(contexts[which]);
        }
        free(topic);
        free(payload);
    }
    mosquitto_plugin_cleanup(data, NULL, 0);
    for(int i = 0; i < CONTEXTS; i++) {
        free((void *)(uintptr_t)contexts[i]->id);
        free((void *)(uintptr_t)contexts[i]->user);
        free(contexts[i]);
    }
    return 0;
}

/* A client known by its certificate comes back on a context that was freed meanwhile: nothing but its socket is new. */
static int moved(char **given) {
    struct mosquitto client = {.ident = 2, .id = "device", .user = "by certificate", .address = "127.0.0.1"};
    make_sockets();
    peer_port = "on";
    void *data = start(given[0], "1024", "off");
    for(int round = 0; round < 3; round++) {
        client.sock = sockets[round];
        if(round == 1) acl(&client, "a", NULL, 0, MOSQ_ACL_SUBSCRIBE);
        if(round == 2) acl(&client, "a", NULL, 0, MOSQ_ACL_WRITE);     /* looks like a will until the message comes */
        message(&client, (char *)(uintptr_t)"a", NULL, 0);
        disconnect(&client);
    }
    mosquitto_plugin_cleanup(data, NULL, 0);
    return 0;
}

static int read_configs(char **files) {
    static struct tw_broker_config config;
    for(; *files; files++) {
        bool readable = tw_broker_config_read(&config, *files, "/proc/self/exe");
        printf("readable=%d per_listener=%d local_only=%d anonymous=%d default_anonymous=%d doubt='%s'", readable,
               config.per_listener, config.local_only, config.allow_anonymous, config.default_allow_anonymous,
               config.doubt);
        for(int i = 0; i < config.listener_count; i++)
            printf(" listener=%d,%s,%d", config.listeners[i].port, config.listeners[i].host,
                   config.listeners[i].allow_anonymous);
        for(int i = 0; i < config.plugin_count; i++)
            printf(" plugin=%d,%d,%s", config.plugins[i].set, (int)config.plugins[i].kind, config.plugins[i].path);
        printf("\n");
    }
    return 0;
}

static int each_line(void (*judge)(const uint8_t *, size_t)) {
    char *line = NULL;
    size_t room = 0;
    for(ssize_t length; (length = getline(&line, &room, stdin)) >= 0;) {
        size_t bytes = 0, digits = strspn(line, "0123456789abcdef");
        uint8_t *data = malloc(digits / 2 + 1);
        if(!data) return 1;
        for(size_t i = 0; i + 1 < digits; i += 2) {
            unsigned value = 0;
            sscanf(line + i, "%2x", &value);
            data[bytes++] = (uint8_t)value;
        }
        judge(data, bytes);
        free(data);
    }
    free(line);
    return 0;
}

static void print_looks(const uint8_t *data, size_t bytes) {
    struct tw_looks looks = tw_payload_look(data, bytes);
    printf("%u %u\n", looks.entropy, looks.shape);
}

static void print_hash(const uint8_t *data, size_t bytes) {
    struct tw_hash_key key = {.low = 0x0706050403020100u, .high = 0x0f0e0d0c0b0a0908u};
    printf("%016llx\n", (unsigned long long)tw_hash(&key, data, bytes));
}

int main(int count, char **given) {
    if(count == 8 && strcmp(given[1], "bench") == 0) return bench(given + 2);
    if(count == 4 && strcmp(given[1], "topics") == 0) return many_topics(given + 2);
    if(count == 4 && strcmp(given[1], "clients") == 0) return many_clients(given + 2);
    if(count == 5 && strcmp(given[1], "random") == 0) return any_order(given + 2);
    if(count == 3 && strcmp(given[1], "moved") == 0) return moved(given + 2);
    if(count >= 3 && strcmp(given[1], "config") == 0) return read_configs(given + 2);
    if(count == 2 && strcmp(given[1], "payload") == 0) {
        tw_payload_setup();
        return each_line(print_looks);
    }
    if(count == 2 && strcmp(given[1], "hash") == 0) return each_line(print_hash);
    fprintf(stderr, "usage: see the beginning of harness.c\n");
    return 2;
}
