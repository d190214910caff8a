#include "payload.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "topicwarden_wire.h"

enum {                                  /* classes of bytes; the OR over a payload says all we ask */
    CONTROL = 0x01,                     /* never in printable text; tab, line feed, carriage return are not in it */
    HIGH = 0x02,                        /* part of a multi-byte UTF-8 character, or not text */
    UPPER = 0x04,
    LOWER = 0x08,
    DIGIT = 0x10,
    PLAIN_ALPHABET = 0x20,              /* + /   (RFC 4648 section 4) */
    URL_ALPHABET = 0x40,                /* - _   (section 5) */
    PADDING = 0x80,                     /* = and line feed, which base64 may end with */
    OTHER = 0x100                       /* anything else */
};
#define FRACTION 20                     /* fixed point: integer additions do not wait for each other as floats do */

static uint16_t class_of[256];
static bool hex_digit[256];
static uint32_t step[TW_PAYLOAD_LOOKED_AT];     /* step[c] = (c+1) log2(c+1) - c log2 c */
static double log2_of[TW_PAYLOAD_LOOKED_AT + 1];

void tw_payload_setup(void) {
    for(int i = 0; i < 256; i++) {
        uint16_t class;
        if(i >= 0x80) class = HIGH;
        else if(i == '=' || i == '\n') class = PADDING;
        else if(i == '\t' || i == '\r') class = OTHER;
        else if(i < 0x20 || i == 0x7f) class = CONTROL;
        else if(i >= 'A' && i <= 'Z') class = UPPER;
        else if(i >= 'a' && i <= 'z') class = LOWER;
        else if(i >= '0' && i <= '9') class = DIGIT;
        else if(i == '+' || i == '/') class = PLAIN_ALPHABET;
        else if(i == '-' || i == '_') class = URL_ALPHABET;
        else class = OTHER;
        class_of[i] = class;
        hex_digit[i] = (i >= '0' && i <= '9') || (i >= 'a' && i <= 'f') || (i >= 'A' && i <= 'F');
    }
    double before = 0;
    for(int i = 1; i <= TW_PAYLOAD_LOOKED_AT; i++) {
        double now = i * log2((double)i);
        step[i - 1] = (uint32_t)((now - before) * (1 << FRACTION) + 0.5);
        log2_of[i] = log2((double)i);
        before = now;
    }
}

/* Whether the bytes are UTF-8 (RFC 3629) without C1 control characters; `cut`: the last character may be incomplete. */
static bool printable_utf8(const uint8_t *text, size_t length, bool cut) {
    size_t i = 0;
    while(i < length) {
        uint8_t first = text[i];
        if(first < 0x80) {
            i++;
            continue;
        }
        size_t more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
        if(first < 0xc2 || first > 0xf4) return false;
        for(size_t k = 1; k <= more; k++) {
            if(i + k >= length) return cut;
            uint8_t next = text[i + k];
            uint8_t low = 0x80, high = 0xbf;
            if(k == 1) {
                if(first == 0xe0) low = 0xa0;
                else if(first == 0xed) high = 0x9f;
                else if(first == 0xf0) low = 0x90;
                else if(first == 0xf4) high = 0x8f;
                else if(first == 0xc2) low = 0xa0;
            }
            if(next < low || next > high) return false;
        }
        i += more + 1;
    }
    return true;
}

static bool is_space(uint8_t byte) {
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static bool is_json(const uint8_t *text, size_t length) {
    /* At most 64 blanks at each end: a payload of nothing but blanks must not cost its whole length. */
    for(int i = 0; i < 64 && length && is_space(text[0]); i++) text++, length--;
    for(int i = 0; i < 64 && length && is_space(text[length - 1]); i++) length--;
    if(length < 2) return false;
    uint8_t last = text[length - 1];
    return (text[0] == '{' && last == '}') || (text[0] == '[' && last == ']');
}

static bool is_hex(const uint8_t *text, size_t length, size_t looked, unsigned classes) {
    if(length < 16 || length % 2 || (classes & ~(unsigned)(UPPER | LOWER | DIGIT))) return false;
    if(!(classes & DIGIT) || !(classes & (UPPER | LOWER))) return false;
    for(size_t i = 0; i < looked; i++)
        if(!hex_digit[text[i]]) return false;
    return true;
}

/* Base64 is told from words, names and numbers by how often neighbours differ in class: 0.64 of the positions in
 * base64 of random bytes, well under 0.3 in CamelCase names with a number behind them. */
static bool is_base64(const uint8_t *text, size_t length, size_t looked, unsigned all) {
    size_t padding = 0;
    if((all & OTHER) || !(all & UPPER) || !(all & LOWER)) return false;
    if(length && text[length - 1] == '\n') {
        if(looked == length) looked--;
        length--;
    }
    if(length < 16) return false;
    if(text[length - 1] == '=') padding = text[length - 2] == '=' ? 2 : 1;
    if(padding ? length % 4 != 0 : length % 4 == 1) return false;
    if(looked > length - padding) looked = length - padding;
    unsigned classes = 0;
    size_t changes = 0;
    for(size_t i = 0; i < looked; i++) {
        classes |= class_of[text[i]];
        changes += i > 0 && class_of[text[i]] != class_of[text[i - 1]];
    }
    if(classes & PADDING) return false;
    if((classes & PLAIN_ALPHABET) && (classes & URL_ALPHABET)) return false;
    if(!padding && !(classes & (DIGIT | PLAIN_ALPHABET | URL_ALPHABET))) return false;
    return changes * 8 >= looked * 3;
}

static uint8_t shape_of(const uint8_t *payload, size_t length, size_t looked, unsigned classes) {
    if(classes & CONTROL) return TW_SHAPE_BINARY;
    if((classes & HIGH) && !printable_utf8(payload, looked, length > looked)) return TW_SHAPE_BINARY;
    if(is_json(payload, length)) return TW_SHAPE_JSON;
    if(classes & HIGH) return TW_SHAPE_TEXT;
    if(is_hex(payload, length, looked, classes)) return TW_SHAPE_HEX;
    if(is_base64(payload, length, looked, classes)) return TW_SHAPE_BASE64;
    return TW_SHAPE_TEXT;
}

struct tw_looks tw_payload_look(const uint8_t *payload, size_t length) {
    if(length == 0 || !payload) return (struct tw_looks){.entropy = 0, .shape = TW_SHAPE_EMPTY};
    size_t looked = length < TW_PAYLOAD_LOOKED_AT ? length : TW_PAYLOAD_LOOKED_AT;
    uint16_t seen[256];
    memset(seen, 0, sizeof seen);
    uint64_t sum = 0;
    unsigned classes = 0;
    for(size_t i = 0; i < looked; i++) {
        sum += step[seen[payload[i]]++];
        classes |= class_of[payload[i]];
    }
    /* The plug-in estimator: H = log2 n - (1/n) sum c log2 c, over the counts c of each byte value. */
    double bits = log2_of[looked] - (double)sum / (double)(1 << FRACTION) / (double)looked;
    if(bits < 0) bits = 0;
    return (struct tw_looks){
        .entropy = (uint16_t)(bits * TW_ENTROPY_SCALE + 0.5),
        .shape = shape_of(payload, length, looked, classes),
    };
}
