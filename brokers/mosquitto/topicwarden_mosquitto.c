/* topicwarden's plugin for Mosquitto: writes who did what, and what the broker decided, into a ring in memory.
 *
 * It changes nothing the broker decides. It waits for nobody, unless plugin_opt_attribute asks it to (asking.c bounds
 * that), and uses the broker's public interface only, but for a client's socket where its port is wanted (peer.c).
 *
 * Build (Debian: apt install mosquitto-dev libmosquitto-dev):  make
 * Configure, before every other plugin line:
 *     plugin /usr/lib/x86_64-linux-gnu/topicwarden_mosquitto.so
 * Oldest version: Mosquitto 2.0.11. Built against 2.1 headers it is for 2.1. README.md has the rest.
 *
 * WARNING about neutrality, seen in the sources of 2.0.11 to 2.0.22 (security.c): "defer" is not neutral there. If
 * every registered callback defers, an access check is DENIED and a login with a user name is REFUSED, while with no
 * callback at all they are allowed. So, where no other plugin decides, a second callback of ours stands behind the
 * broker's own (acl_file, password_file), and answers what the broker would have answered without us when it is
 * reached: nobody before it had anything to say. Where another plugin decides, deferring is neutral, and we defer.
 * In 2.1 MOSQ_ERR_PLUGIN_IGNORE is neutral, but only ahead of the others (plugin_acl_check.c keeps the last answer). */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "asking.h"
#include "broker_api.h"
#include "broker_config.h"
#include "names.h"
#include "observe.h"
#include "options.h"
#include "peer.h"
#include "ring.h"

#define PLUGIN_VERSION (0u << 16 | 1u << 8 | 0u)
#define INSTANCES_MAX TW_LISTENERS_MAX
#define EXPORT __attribute__((visibility("default")))
#define TEXT_OF(x) #x
#define VERSION_TEXT(major, minor, revision) TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(revision)

/* One plugin line: the whole broker's, or under per_listener_settings a listener's. */
struct instance {
    mosquitto_plugin_id_t *id;          /* NULL: no callback registered */
    int set;                            /* which options: index of a listener or TW_SET_* */
    struct tw_scope scope;              /* what is registered */
    bool others_decide_acl, others_decide_auth;
    bool nobody_decides_acl;            /* found out since the last reload: our second callback was reached */
    bool acl_second, auth_second;       /* whether the second callbacks stand behind the broker's own now */
    int allow_anonymous;                /* 1, 0, or -1 when we cannot be sure */
};

static struct instance instances[INSTANCES_MAX];
static int instance_count;              /* initialised so far, in the broker's order */
static int instances_alive;
static struct tw_options options;
static struct tw_broker_config at_start;
#if TW_BROKER_2_1
static enum tw_identity vouching;       /* what an accepted login with a user name amounts to */
#endif
static char config_path[4096];
static char own_path[4096];

/* ---- what 2.0 and 2.1 call differently ---------------------------------------------------------------------- */

/* Present in the broker from 2.1 on: a plugin built for one of the two must not work in the other. */
extern int mosquitto_client_port(const struct mosquitto *client) __attribute__((weak));

#if TW_BROKER_2_1
#define NEUTRAL MOSQ_ERR_PLUGIN_IGNORE
#else
#define NEUTRAL MOSQ_ERR_PLUGIN_DEFER
#endif

static bool built_for_this_broker(void) {
    bool broker_is_2_1 = mosquitto_client_port != NULL;
    if(broker_is_2_1 == (bool)TW_BROKER_2_1) return true;
    mosquitto_log_printf(MOSQ_LOG_ERR,
                         "topicwarden: this plugin was built for Mosquitto %d.%d and the broker is another; it does "
                         "nothing. Build it again with this broker's headers",
                         LIBMOSQUITTO_MAJOR, LIBMOSQUITTO_MINOR);
    return false;
}

/* ---- callbacks ---------------------------------------------------------------------------------------------- */

static int on_acl_second(int event, void *event_data, void *userdata) {
    struct instance *instance = userdata;
    (void)event;
    (void)event_data;
    instance->nobody_decides_acl = true;
    tw_observe_nobody_objects();
    return MOSQ_ERR_SUCCESS;
}

static int acl_answer(struct instance *instance) {
#if !TW_BROKER_2_1
    if(instance->others_decide_acl) return NEUTRAL;
    if(instance->nobody_decides_acl) return MOSQ_ERR_SUCCESS;
    /* The broker walks the list as we append to it, so this already counts for the check being made. */
    if(!instance->acl_second)
        instance->acl_second = mosquitto_callback_register(instance->id, MOSQ_EVT_ACL_CHECK, on_acl_second, NULL,
                                                           instance) == MOSQ_ERR_SUCCESS;
#else
    (void)instance;
#endif
    return NEUTRAL;
}

/* What is known when a subscription is checked, unless the second callback or 2.1's own event says more. */
static uint8_t subscription_verdict(const struct instance *instance) {
#if TW_BROKER_2_1
    (void)instance;
    return TW_VERDICT(TW_DENIED, TW_INFERRED);          /* allowed ones are followed by MOSQ_EVT_SUBSCRIBE */
#else
    if(instance->others_decide_acl) return TW_VERDICT(TW_UNKNOWN, TW_CERTAINTY_UNKNOWN);
    if(instance->nobody_decides_acl) return TW_VERDICT(TW_ALLOWED, TW_EXACT);
    return TW_VERDICT(TW_ALLOWED, TW_INFERRED);         /* acl_file of 2.0 grants every subscription, filters reads */
#endif
}

static int on_acl(int event, void *event_data, void *userdata) {
    struct instance *instance = userdata;
    const struct mosquitto_evt_acl_check *check = event_data;
    (void)event;
    switch(check->access) {
        case MOSQ_ACL_WRITE: tw_observe_write(check, instance->scope); break;
        case MOSQ_ACL_SUBSCRIBE:
        case MOSQ_ACL_UNSUBSCRIBE:
            tw_observe_subscription(check, instance->scope, subscription_verdict(instance));
            break;
        case MOSQ_ACL_READ:
            if(options.deliver)
                tw_observe_read(check, instance->scope,
                                instance->nobody_decides_acl ? TW_VERDICT(TW_ALLOWED, TW_EXACT)
                                                             : TW_VERDICT(TW_UNKNOWN, TW_CERTAINTY_UNKNOWN));
            break;
        default: break;
    }
    return acl_answer(instance);
}

#if !TW_BROKER_2_1
static int on_auth_second(int event, void *event_data, void *userdata) {
    const struct instance *instance = userdata;
    const struct mosquitto_evt_basic_auth *login = event_data;
    (void)event;
    if(!mosquitto_client_username(login->client)) return NEUTRAL;   /* the broker asks allow_anonymous itself */
    tw_observe_unvouched(instance->allow_anonymous == 1);
    return instance->allow_anonymous == 1 ? MOSQ_ERR_SUCCESS : MOSQ_ERR_AUTH;
}
#endif

static int on_auth(int event, void *event_data, void *userdata) {
    struct instance *instance = userdata;
    const struct mosquitto_evt_basic_auth *login = event_data;
    (void)event;
#if !TW_BROKER_2_1
    tw_observe_login(login->client, TW_IDENTITY_VERIFIED);
    if(!instance->others_decide_auth && !instance->auth_second)
        instance->auth_second = mosquitto_callback_register(instance->id, MOSQ_EVT_BASIC_AUTH, on_auth_second, NULL,
                                                            instance) == MOSQ_ERR_SUCCESS;
#else
    (void)instance;
    tw_observe_login(login->client, vouching);
#endif
    return NEUTRAL;
}

static int on_message(int event, void *event_data, void *userdata) {
    const struct instance *instance = userdata;
    (void)event;
    tw_observe_message(event_data, instance->scope);
    return MOSQ_ERR_SUCCESS;
}

static int on_disconnect(int event, void *event_data, void *userdata) {
    const struct instance *instance = userdata;
    const struct mosquitto_evt_disconnect *gone = event_data;
    (void)event;
    tw_observe_disconnect(gone->client, instance->scope);
    return MOSQ_ERR_SUCCESS;
}

static int on_tick(int event, void *event_data, void *userdata) {
    (void)event;
    (void)event_data;
    (void)userdata;
    tw_observe_tick();
    return MOSQ_ERR_SUCCESS;
}

#if TW_BROKER_2_1
static int on_connect(int event, void *event_data, void *userdata) {
    const struct instance *instance = userdata;
    const struct mosquitto_evt_connect *connect = event_data;
    (void)event;
    tw_observe_connected(connect->client, instance->scope);
    return MOSQ_ERR_SUCCESS;
}

static int on_offline(int event, void *event_data, void *userdata) {
    const struct instance *instance = userdata;
    const struct mosquitto_evt_client_offline *gone = event_data;
    (void)event;
    tw_observe_disconnect(gone->client, instance->scope);
    return MOSQ_ERR_SUCCESS;
}

static int on_subscribe(int event, void *event_data, void *userdata) {
    const struct mosquitto_evt_subscribe *made = event_data;
    (void)event;
    (void)userdata;
    tw_observe_subscribed(made->client);
    return MOSQ_ERR_SUCCESS;
}

static int on_unsubscribe(int event, void *event_data, void *userdata) {
    const struct mosquitto_evt_unsubscribe *ended = event_data;
    (void)event;
    (void)userdata;
    tw_observe_subscribed(ended->client);
    return MOSQ_ERR_SUCCESS;
}
#endif

/* ---- what the configuration says ---------------------------------------------------------------------------- */

#if !TW_BROKER_2_1
static const struct tw_listener *same_listener(const struct tw_broker_config *config, const struct tw_listener *wanted) {
    for(int i = 0; i < config->listener_count; i++)
        if(config->listeners[i].port == wanted->port && strcmp(config->listeners[i].host, wanted->host) == 0)
            return &config->listeners[i];
    return NULL;
}

/* Whether a login with a user name is allowed where nothing checks it: 1, 0, or -1 when versions differ.
 * `config` is the file as it is now, at_start as it was: listeners and per_listener_settings cannot change. */
static int allow_anonymous(const struct instance *instance, const struct tw_broker_config *config) {
    if(instance->set == TW_SET_BROKER) {
        if(!at_start.local_only) return config->allow_anonymous == 1;
        /* Without a listener line everybody is allowed; 2.0.11 does so even against an explicit false. */
        return config->allow_anonymous == 0 ? -1 : 1;
    }
    if(instance->set == TW_SET_DEFAULT_LISTENER) {
        /* Kept over reloads when given; when not given its default changes with the first reload. */
        return at_start.default_allow_anonymous;
    }
    const struct tw_listener *listener = same_listener(config, &at_start.listeners[instance->set]);
    return listener ? listener->allow_anonymous == 1 : instance->allow_anonymous;
}

static void drop_auth(struct instance *instance, const char *why) {
    mosquitto_callback_unregister(instance->id, MOSQ_EVT_BASIC_AUTH, on_auth, NULL);
    if(instance->auth_second) mosquitto_callback_unregister(instance->id, MOSQ_EVT_BASIC_AUTH, on_auth_second, NULL);
    instance->auth_second = false;
    instance->scope.auth = false;
    tw_ring.header->mode &= ~(uint32_t)TW_MODE_AUTH;
    tw_ring_mark(TW_MARK_MODE, tw_ring.header->mode);
    mosquitto_log_printf(MOSQ_LOG_WARNING,
                         "topicwarden: logins are no longer observed: %s. Correct mosquitto.conf and restart the broker",
                         why);
}

/* The broker goes on with its old settings when it refuses the file; under per_listener_settings with those of each
 * listener as far as it had read. So a new value counts only from a file that raises no doubt; in doubt we step aside,
 * which is always neutral. What raised doubt at the start already is no reason: the broker took that file. */
static void reload_anonymous(struct instance *instance) {
    if(!instance->scope.auth || instance->others_decide_auth) return;
    static struct tw_broker_config now;
    bool readable = tw_broker_config_read(&now, config_path, own_path);
    bool doubtful = now.doubt[0] && strcmp(now.doubt, at_start.doubt) != 0;
    int value = readable ? allow_anonymous(instance, &now) : instance->allow_anonymous;
    if(readable && now.per_listener != at_start.per_listener) drop_auth(instance, "per_listener_settings was changed");
    else if(at_start.per_listener && doubtful && now.listener_count > 0) drop_auth(instance, now.doubt);
    else if(value == instance->allow_anonymous) return;
    else if(doubtful) drop_auth(instance, now.doubt);
    else if(value < 0) drop_auth(instance, "allow_anonymous false without a listener differs between versions");
    else instance->allow_anonymous = value;
}
#endif

#if TW_BROKER_2_1
/* The broker does not show us who said yes. With several listeners it may be one's password_file, and not another's. */
static enum tw_identity who_vouches(const struct tw_broker_config *config) {
    bool somebody = config->password_file;
    for(int i = 0; i < config->plugin_count; i++) somebody |= config->plugins[i].kind != TW_PLUGIN_OURS;
    if(!somebody) return TW_IDENTITY_CLAIMED;
    return config->listener_count <= 1 ? TW_IDENTITY_VERIFIED : TW_IDENTITY_UNKNOWN;
}
#endif

static int on_reload(int event, void *event_data, void *userdata) {
    struct instance *instance = userdata;
    (void)event;
    (void)event_data;
    if(instance == &instances[0]) tw_observe_reload();
    else tw_observe_settle();
#if !TW_BROKER_2_1
    /* The broker appends its own callbacks again after this; ours must come behind them again. */
    if(instance->acl_second) mosquitto_callback_unregister(instance->id, MOSQ_EVT_ACL_CHECK, on_acl_second, NULL);
    if(instance->auth_second) mosquitto_callback_unregister(instance->id, MOSQ_EVT_BASIC_AUTH, on_auth_second, NULL);
    instance->acl_second = instance->auth_second = false;
    instance->nobody_decides_acl = false;
    reload_anonymous(instance);
#else
    static struct tw_broker_config now;
    if(tw_broker_config_read(&now, config_path, own_path)) vouching = who_vouches(&now);
    else vouching = TW_IDENTITY_UNKNOWN;
#endif
    return MOSQ_ERR_SUCCESS;
}

/* The set of options of the n-th time the broker initialises us: it goes through the listeners in the file's order,
 * the default listener last, and through each one's plugins in order. TW_SET_BROKER - 2 when there is no such line. */
static int set_of_line(const struct tw_broker_config *config, int wanted) {
    int seen = 0;
    for(int round = 0; round <= config->listener_count; round++) {
        int set = !config->per_listener ? TW_SET_BROKER
                  : round < config->listener_count ? round : TW_SET_DEFAULT_LISTENER;
        if(!config->per_listener && round > 0) break;
        for(int i = 0; i < config->plugin_count; i++)
            if(config->plugins[i].kind == TW_PLUGIN_OURS && (TW_BROKER_2_1 || config->plugins[i].set == set))
                if(seen++ == wanted) return set;
    }
    return TW_SET_DEFAULT_LISTENER - 1;
}

/* Decides what may be registered for the instance; returns the TW_MODE_* flags that say what may not. */
static uint32_t plan(struct instance *instance, bool readable) {
    instance->scope = (struct tw_scope){.acl = false, .auth = false};
    if(readable) instance->set = set_of_line(&at_start, instance_count - 1);
    if(!readable || instance->set < TW_SET_DEFAULT_LISTENER) {
        mosquitto_log_printf(MOSQ_LOG_WARNING,
                             "topicwarden: the broker's configuration is not understood (%s), so only accepted publishes "
                             "are observed. Name the file with plugin_opt_config and let the broker's user read it",
                             readable ? "our own plugin line was not found" : at_start.doubt);
        return TW_MODE_CONFIG_UNREADABLE;
    }
    bool behind_ours = false;
    const struct tw_plugin_line *problem = NULL;
    bool unknown = false;
    instance->others_decide_acl = instance->others_decide_auth = false;
    for(int i = 0; i < at_start.plugin_count; i++) {
        const struct tw_plugin_line *line = &at_start.plugins[i];
        if(line->set != instance->set && !TW_BROKER_2_1) continue;
        if(line->kind == TW_PLUGIN_OURS) {
            behind_ours = true;
            continue;
        }
        bool known = line->kind == TW_PLUGIN_DYNAMIC_SECURITY;
        bool acl = known || options.others_decide_acl, auth = known || options.others_decide_auth;
        instance->others_decide_acl |= acl;
        instance->others_decide_auth |= auth;
        if(!known && !options.other_plugins_told && !TW_BROKER_2_1) {
            problem = line;
            unknown = true;
        }
        bool may_decide = acl || auth || !options.other_plugins_told;
        if(may_decide && (!behind_ours || line->global) && !unknown) problem = line;
    }
    if(problem) {
        mosquitto_log_printf(MOSQ_LOG_WARNING,
                             unknown ? "topicwarden: %s may decide logins and access too, so only accepted publishes are "
                                       "observed. Say what it decides: plugin_opt_other_plugins none, acl, auth or "
                                       "acl,auth"
                                     : "topicwarden: %s is asked before this plugin, so only accepted publishes are "
                                       "observed. Put topicwarden's plugin line first",
                             problem->path);
        return TW_MODE_OTHER_PLUGIN;
    }
    instance->scope.acl = instance->scope.auth = true;
#if TW_BROKER_2_1
    vouching = who_vouches(&at_start);
#else
    instance->allow_anonymous = allow_anonymous(instance, &at_start);
    if(!instance->others_decide_auth && instance->allow_anonymous < 0) {
        instance->scope.auth = false;
        mosquitto_log_printf(MOSQ_LOG_WARNING, "topicwarden: logins are not observed here: what allow_anonymous means "
                                               "without a listener line differs between versions. Add a listener line "
                                               "and, under per_listener_settings, allow_anonymous to each");
    }
#endif
    return 0;
}

/* ---- coming and going --------------------------------------------------------------------------------------- */

static void register_all(struct instance *instance) {
    mosquitto_plugin_id_t *id = instance->id;
    if(instance->scope.acl) mosquitto_callback_register(id, MOSQ_EVT_ACL_CHECK, on_acl, NULL, instance);
    if(instance->scope.auth) mosquitto_callback_register(id, MOSQ_EVT_BASIC_AUTH, on_auth, NULL, instance);
    mosquitto_callback_register(id, MOSQ_EVT_DISCONNECT, on_disconnect, NULL, instance);
    mosquitto_callback_register(id, MOSQ_EVT_TICK, on_tick, NULL, instance);
    mosquitto_callback_register(id, MOSQ_EVT_RELOAD, on_reload, NULL, instance);
#if TW_BROKER_2_1
    mosquitto_callback_register(id, MOSQ_EVT_CONNECT, on_connect, NULL, instance);
    mosquitto_callback_register(id, MOSQ_EVT_CLIENT_OFFLINE, on_offline, NULL, instance);
    if(instance->scope.acl) {
        mosquitto_callback_register(id, MOSQ_EVT_SUBSCRIBE, on_subscribe, NULL, instance);
        mosquitto_callback_register(id, MOSQ_EVT_UNSUBSCRIBE, on_unsubscribe, NULL, instance);
    }
#endif
}

static void unregister_all(struct instance *instance) {
    static const struct {
        int event;
        MOSQ_FUNC_generic_callback callback;
    } registered[] = {
        {MOSQ_EVT_ACL_CHECK, on_acl},
        {MOSQ_EVT_ACL_CHECK, on_acl_second},
        {MOSQ_EVT_BASIC_AUTH, on_auth},
        {MOSQ_EVT_MESSAGE, on_message},
        {MOSQ_EVT_DISCONNECT, on_disconnect},
        {MOSQ_EVT_TICK, on_tick},
        {MOSQ_EVT_RELOAD, on_reload},
#if TW_BROKER_2_1
        {MOSQ_EVT_CONNECT, on_connect},
        {MOSQ_EVT_CLIENT_OFFLINE, on_offline},
        {MOSQ_EVT_SUBSCRIBE, on_subscribe},
        {MOSQ_EVT_UNSUBSCRIBE, on_unsubscribe},
#else
        {MOSQ_EVT_BASIC_AUTH, on_auth_second},
#endif
    };
    if(!instance->id) return;
    for(size_t i = 0; i < sizeof registered / sizeof registered[0]; i++)
        mosquitto_callback_unregister(instance->id, registered[i].event, registered[i].callback, NULL);
    instance->id = NULL;
}

/* The first plugin line makes the ring and reads the configuration for all of them. False: do nothing at all. */
static bool start(const struct mosquitto_opt *given, int count, bool *readable) {
    static bool config_readable;
    if(instance_count > 1) {
        *readable = config_readable;
        return tw_ring.header != NULL;
    }
    tw_options_read(&options, given, count);
    if(!built_for_this_broker()) return false;
    if(!tw_names_setup()) {
        mosquitto_log_printf(MOSQ_LOG_ERR, "topicwarden: no memory for the caches; nothing is observed");
        return false;
    }
    const char *failed = tw_ring_create(options.ring, options.slots, options.mode, PLUGIN_VERSION,
                                        VERSION_TEXT(LIBMOSQUITTO_MAJOR, LIBMOSQUITTO_MINOR, LIBMOSQUITTO_REVISION));
    if(failed) {
        mosquitto_log_printf(MOSQ_LOG_ERR,
                             "topicwarden: ring file %.500s: cannot %s: %s; nothing is observed. Its folder must exist "
                             "and belong to the broker's user",
                             options.ring, failed, strerror(errno));
        tw_names_close();
        return false;
    }
    tw_observe_setup(options.entropy);
    tw_peer_setup(options.peer_port, options.attribute, options.attribute_wait_ms);
    Dl_info about;
    own_path[0] = 0;
    if(dladdr((void *)instances, &about) && about.dli_fname)
        snprintf(own_path, sizeof own_path, "%s", about.dli_fname);
    memset(&at_start, 0, sizeof at_start);
    if(options.config[0]) snprintf(config_path, sizeof config_path, "%s", options.config);
    else if(!tw_broker_config_path(config_path, sizeof config_path)) config_path[0] = 0;
    if(config_path[0]) config_readable = tw_broker_config_read(&at_start, config_path, own_path);
    else {
        config_readable = false;
        snprintf(at_start.doubt, sizeof at_start.doubt, "no -c on the broker's command line");
    }
    *readable = config_readable;
    return true;
}

EXPORT int mosquitto_plugin_version(int supported_version_count, const int *supported_versions) {
    for(int i = 0; i < supported_version_count; i++)
        if(supported_versions[i] == 5) return 5;
    return -1;
}

EXPORT int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **userdata, struct mosquitto_opt *given,
                                 int option_count) {
    instances_alive++;
    *userdata = NULL;
    if(instance_count == INSTANCES_MAX) return MOSQ_ERR_SUCCESS;
    struct instance *instance = &instances[instance_count++];
    memset(instance, 0, sizeof *instance);
    bool readable = false;
    if(!start(given, option_count, &readable)) return MOSQ_ERR_SUCCESS;
    uint32_t mode = plan(instance, readable);
    if(mosquitto_callback_register(identifier, MOSQ_EVT_MESSAGE, on_message, NULL, instance) != MOSQ_ERR_SUCCESS)
        return MOSQ_ERR_SUCCESS;        /* a second line for the same set of options: the first does the work */
    instance->id = identifier;
    *userdata = instance;
    register_all(instance);
    mode |= (instance->scope.acl ? TW_MODE_DECISIONS : 0u) | (instance->scope.auth ? TW_MODE_AUTH : 0u) |
            (options.deliver ? TW_MODE_DELIVER : 0u) | (options.entropy ? TW_MODE_ENTROPY : 0u) |
            (options.peer_port || options.attribute[0] ? TW_MODE_PEER_PORT : 0u) |
            (options.attribute[0] ? TW_MODE_ATTRIBUTE : 0u) |
            (readable && at_start.per_listener ? TW_MODE_PER_LISTENER : 0u);
    tw_ring.header->mode |= mode;
    tw_ring_mark(TW_MARK_MODE, tw_ring.header->mode);
    mosquitto_log_printf(MOSQ_LOG_INFO, "topicwarden: writing to %.500s", options.ring);
    return MOSQ_ERR_SUCCESS;
}

EXPORT int mosquitto_plugin_cleanup(void *userdata, struct mosquitto_opt *given, int option_count) {
    (void)given;
    (void)option_count;
    if(userdata) unregister_all(userdata);
    if(--instances_alive > 0) return MOSQ_ERR_SUCCESS;
    if(tw_ring.header) {
        tw_observe_settle();
        tw_ring_close();
        tw_names_close();
        tw_asking_close();
    }
    instance_count = 0;
    instances_alive = 0;
    return MOSQ_ERR_SUCCESS;
}
