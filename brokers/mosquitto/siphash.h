/* SipHash-1-3 (Aumasson and Bernstein, 2012): keyed, so that nobody can choose names that fall into one cache set. */
#ifndef TOPICWARDEN_SIPHASH_H
#define TOPICWARDEN_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct tw_hash_key {
    uint64_t low, high;
};

#define TW_ROTATE(x, bits) (((x) << (bits)) | ((x) >> (64 - (bits))))
#define TW_SIP_ROUND                                                                                                   \
    do {                                                                                                               \
        v0 += v1, v1 = TW_ROTATE(v1, 13) ^ v0, v0 = TW_ROTATE(v0, 32);                                                 \
        v2 += v3, v3 = TW_ROTATE(v3, 16) ^ v2;                                                                         \
        v0 += v3, v3 = TW_ROTATE(v3, 21) ^ v0;                                                                         \
        v2 += v1, v1 = TW_ROTATE(v1, 17) ^ v2, v2 = TW_ROTATE(v2, 32);                                                 \
    } while(0)

/* Overflow of the additions is meant. The value is the published one on little-endian machines. */
static inline uint64_t tw_hash(const struct tw_hash_key *key, const void *data, size_t length) {
    uint64_t v0 = key->low ^ 0x736f6d6570736575u, v1 = key->high ^ 0x646f72616e646f6du;
    uint64_t v2 = key->low ^ 0x6c7967656e657261u, v3 = key->high ^ 0x7465646279746573u;
    const uint8_t *bytes = data;
    size_t left = length;
    for(; left >= 8; left -= 8, bytes += 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        v3 ^= word;
        TW_SIP_ROUND;
        v0 ^= word;
    }
    uint64_t last = (uint64_t)length << 56;
    for(size_t i = 0; i < left; i++) last |= (uint64_t)bytes[i] << (8 * i);
    v3 ^= last;
    TW_SIP_ROUND;
    v0 ^= last;
    v2 ^= 0xff;
    TW_SIP_ROUND;
    TW_SIP_ROUND;
    TW_SIP_ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

#endif
