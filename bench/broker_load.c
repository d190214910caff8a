/* Publishes QoS 0 messages of a given size over a few connections as fast as the broker takes them, for a number of
 * messages or of seconds, and prints: messages, messages per second, and the broker's CPU nanoseconds per message.
 *
 *   broker_load PORT CONNECTIONS BYTES MESSAGES SECONDS BROKER_PID        (MESSAGES 0: until SECONDS are over) */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64
#define TOPICS 16

struct packet {
    uint8_t bytes[4096];
    size_t length;
};

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void receive(int connection, uint8_t *bytes, size_t length) {
    while(length) {
        ssize_t got = recv(connection, bytes, length, 0);
        if(got <= 0) fail("the broker closed the connection");
        bytes += got;
        length -= (size_t)got;
    }
}

static int dial(int port, int number) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int connection = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if(connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    uint8_t packet[64] = {0x10, 0, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0};
    int id = snprintf((char *)packet + 14, sizeof packet - 14, "load-%d", number);
    packet[1] = (uint8_t)(12 + id);
    packet[13] = (uint8_t)id;
    if(send(connection, packet, 14 + (size_t)id, 0) != 14 + id) fail("send");
    receive(connection, packet, 4);
    if(packet[3] != 0) {
        fprintf(stderr, "the broker refused the connection: %d\n", packet[3]);
        exit(1);
    }
    return connection;
}

static void build(struct packet *packet, int connection, int topic, int size) {
    char name[64];
    int length = snprintf(name, sizeof name, "bench/%d/t%d", connection, topic);
    uint32_t rest = (uint32_t)(2 + length + size), seed = (uint32_t)(connection * 977 + topic);
    uint8_t *to = packet->bytes;
    *to++ = 0x30;
    for(; rest > 127; rest >>= 7) *to++ = (uint8_t)(rest | 0x80);
    *to++ = (uint8_t)rest;
    *to++ = 0;
    *to++ = (uint8_t)length;
    memcpy(to, name, (size_t)length);
    to += length;
    for(int i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        *to++ = (uint8_t)(seed >> 24);
    }
    packet->length = (size_t)(to - packet->bytes);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double cpu_ns(int pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/schedstat", pid);
    FILE *file = fopen(path, "r");
    double spent = 0;
    if(!file || fscanf(file, "%lf", &spent) != 1) fail(path);
    fclose(file);
    return spent;
}

int main(int count, char **given) {
    static struct packet packets[CONNECTIONS_MAX][TOPICS];
    static int connections[CONNECTIONS_MAX];
    if(count != 7) return 2;
    int port = atoi(given[1]), width = atoi(given[2]), size = atoi(given[3]), pid = atoi(given[6]);
    long messages = atol(given[4]), sent = 0;
    double seconds = atof(given[5]);
    if(width < 1 || width > CONNECTIONS_MAX || size < 0 || size > 3900) return 2;
    for(int i = 0; i < width; i++) {
        connections[i] = dial(port, i);
        for(int k = 0; k < TOPICS; k++) build(&packets[i][k], i, k, size);
    }
    double cpu = cpu_ns(pid), began = now();
    for(long round = 0; messages ? sent < messages : (round & 255) || now() - began < seconds; round++) {
        for(int i = 0; i < width; i++) {
            const struct packet *packet = &packets[i][round % TOPICS];
            if(send(connections[i], packet->bytes, packet->length, 0) != (ssize_t)packet->length) fail("send");
            sent++;
        }
    }
    /* A PINGRESP comes after everything before it was dealt with. */
    uint8_t ping[2] = {0xc0, 0};
    for(int i = 0; i < width; i++)
        if(send(connections[i], ping, 2, 0) != 2) fail("send");
    for(int i = 0; i < width; i++) receive(connections[i], ping, 2);
    printf("%ld %.0f %.1f\n", sent, (double)sent / (now() - began), (cpu_ns(pid) - cpu) / (double)sent);
    return 0;
}
