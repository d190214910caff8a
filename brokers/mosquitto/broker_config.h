/* The few facts of mosquitto.conf that decide what a neutral answer is: which plugins stand before and behind us in
 * the same set of options, and whether anonymous logins are allowed. Everything else is asked of the broker itself. */
#ifndef TOPICWARDEN_BROKER_CONFIG_H
#define TOPICWARDEN_BROKER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#define TW_LISTENERS_MAX 256
#define TW_PLUGINS_MAX 256
#define TW_SET_BROKER (-1)              /* the broker-wide options: everything, unless per_listener_settings is on */
#define TW_SET_DEFAULT_LISTENER (-2)    /* options before the first `listener` line under per_listener_settings */

enum tw_plugin_kind { TW_PLUGIN_OURS, TW_PLUGIN_DYNAMIC_SECURITY, TW_PLUGIN_OTHER };

struct tw_plugin_line {
    int set;                            /* index of a listener, or TW_SET_* */
    enum tw_plugin_kind kind;
    bool global;                        /* `global_plugin` of 2.1: asked before all others */
    char path[256];                     /* for messages; cut */
};

struct tw_listener {
    int port;                           /* 0: a unix socket */
    char host[256];                     /* address or socket path; "" when the line has none */
    int allow_anonymous;                /* -1 not given */
};

struct tw_broker_config {
    bool per_listener;
    bool local_only;                    /* no listener at all: the broker listens on loopback by itself */
    int allow_anonymous;                /* of the broker-wide set; -1 not given */
    int default_allow_anonymous;        /* of TW_SET_DEFAULT_LISTENER; -1 not given */
    int listener_count;
    struct tw_listener listeners[TW_LISTENERS_MAX];
    bool password_file;                 /* given anywhere */
    int plugin_count;
    struct tw_plugin_line plugins[TW_PLUGINS_MAX];
    /* The first thing the broker may refuse the file for, or that we do not understand; "" when there is none. */
    char doubt[256];
};

/* Reads the file and the include_dir files it names, as Mosquitto 2.0 does. `own_path` is this plugin's file.
 * Returns false with the reason in `config->doubt` when the file cannot be read or has too many listeners or plugins. */
bool tw_broker_config_read(struct tw_broker_config *config, const char *path, const char *own_path);

/* The value of -c or --config-file in /proc/self/cmdline (relative to the broker's working directory). */
bool tw_broker_config_path(char *path, size_t room);

#endif
