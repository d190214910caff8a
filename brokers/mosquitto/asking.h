/* Asks the helper topicwarden-attribute whose a connection is, and never waits long for it. */
#ifndef TOPICWARDEN_ASKING_H
#define TOPICWARDEN_ASKING_H

#include "attribute_wire.h"

#define TW_WAIT_MS_DEFAULT 30
#define TW_WAIT_MS_MAX 100

/* `socket_path`: "" for no helper. */
void tw_asking_setup(const char *socket_path, unsigned wait_ms);
void tw_asking_close(void);

/* Asks, waits until the helper has read what it needs, and counts how it went in the ring's header. The answer changes
 * nothing here: what was found goes to topicwarden, from the helper. Gives the request its version and id. */
void tw_ask(struct tw_attribute_request *request);

#endif
