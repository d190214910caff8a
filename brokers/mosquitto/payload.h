/* What a payload looks like: its entropy and its shape. The payload itself goes nowhere. */
#ifndef TOPICWARDEN_PAYLOAD_H
#define TOPICWARDEN_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

#define TW_PAYLOAD_LOOKED_AT 1024       /* bytes from the start that are judged; the end decides only on brackets */

struct tw_looks {
    uint16_t entropy;                   /* bits per byte * TW_ENTROPY_SCALE, or TW_ENTROPY_UNKNOWN */
    uint8_t shape;                      /* enum tw_shape */
};

void tw_payload_setup(void);
struct tw_looks tw_payload_look(const uint8_t *payload, size_t length);

#endif
