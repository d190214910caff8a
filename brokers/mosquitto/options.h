/* The plugin_opt_* lines of mosquitto.conf. */
#ifndef TOPICWARDEN_OPTIONS_H
#define TOPICWARDEN_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "broker_api.h"

struct tw_options {
    char ring[4096];
    char config[4096];                  /* "": from the broker's command line */
    uint32_t slots;
    unsigned mode;
    bool entropy;
    bool deliver;
    bool other_plugins_told;            /* whether other_plugins was given */
    bool others_decide_acl, others_decide_auth;
    bool peer_port;
    char attribute[108];                /* the helper's socket; "": none */
    unsigned attribute_wait_ms;
};

/* Reads the options; what is unknown or malformed is logged as a warning and left at its default. */
void tw_options_read(struct tw_options *options, const struct mosquitto_opt *given, int count);

#endif
