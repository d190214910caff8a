/* What the plugin uses of Mosquitto 2.1's library interface: facts of the interface, written down for a compile check.
 * Seen in 2.1.2. */
#ifndef MOSQUITTO_H
#define MOSQUITTO_H

#define LIBMOSQUITTO_MAJOR 2
#define LIBMOSQUITTO_MINOR 1
#define LIBMOSQUITTO_REVISION 2
#define LIBMOSQUITTO_VERSION_NUMBER (LIBMOSQUITTO_MAJOR * 1000000 + LIBMOSQUITTO_MINOR * 1000 + LIBMOSQUITTO_REVISION)

enum { MOSQ_LOG_INFO = 1, MOSQ_LOG_NOTICE = 2, MOSQ_LOG_WARNING = 4, MOSQ_LOG_ERR = 8, MOSQ_LOG_DEBUG = 16 };

enum mosq_err_t {
    MOSQ_ERR_SUCCESS = 0,
    MOSQ_ERR_NOT_FOUND = 6,
    MOSQ_ERR_AUTH = 11,
    MOSQ_ERR_ACL_DENIED = 12,
    MOSQ_ERR_PLUGIN_DEFER = 17,
    MOSQ_ERR_ALREADY_EXISTS = 31,
    MOSQ_ERR_PLUGIN_IGNORE = 32
};

struct mosquitto;
typedef struct mqtt5__property mosquitto_property;

#include "mosquitto/broker.h"
#include "mosquitto/broker_plugin.h"

#endif
