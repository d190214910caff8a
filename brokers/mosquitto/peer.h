/* Finds out which TCP port a client has, and who it is when it is a process of this machine. */
#ifndef TOPICWARDEN_PEER_H
#define TOPICWARDEN_PEER_H

#include <stdbool.h>
#include <stdint.h>

struct mosquitto;

/* `ports`: whether to look at all. `ask_at`: the helper's socket, "" for none; `wait_ms`: the longest wait for it. */
void tw_peer_setup(bool ports, const char *ask_at, unsigned wait_ms);

/* Returns the port of a client that is connected, 0 when it has none or it is not known. `address`: what the broker
 * says, may be NULL. `begins`: it has just connected, so a client of this machine is looked up; that may wait. */
uint16_t tw_peer_port(const struct mosquitto *client, const char *address, bool begins);

#endif
