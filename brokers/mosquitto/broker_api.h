/* The broker's public interface, and nothing else of it; one place for the differences between 2.0 and 2.1. */
#ifndef TOPICWARDEN_BROKER_API_H
#define TOPICWARDEN_BROKER_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mosquitto.h>

#if LIBMOSQUITTO_VERSION_NUMBER >= 2001000
#define TW_BROKER_2_1 1                 /* its mosquitto.h includes the rest, and warns of the old names */
#else
#define TW_BROKER_2_1 0
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#endif

/* The subject of the client's certificate as RFC 2253 text; false when it has none (or none that was required). */
bool tw_certificate_subject(struct mosquitto *client, char *subject, size_t room, size_t *length);

#endif
