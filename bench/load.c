/* A load generator for MQTT brokers: clients that publish as fast as the broker takes it, over plain sockets.
 *
 *   load PORT CLIENTS PAYLOAD_BYTES QOS MESSAGES SECONDS
 *
 * Sends MESSAGES in all, or for SECONDS when MESSAGES is 0; QoS 0 or 1 (then at most 16 unacknowledged a client).
 * Each client publishes to 16 topics in turn. Ends when the broker has answered for everything it was sent, and
 * prints the number of messages and the seconds taken. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS_MAX = 256, TOPICS = 16, WINDOW = 16, PACKET_MAX = 8192 };

struct client {
    int socket;
    uint8_t packets[TOPICS][PACKET_MAX];
    size_t lengths[TOPICS];
    long sent, answered;
    size_t part;                        /* bytes of an answer received so far */
};

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void send_all(int to, const uint8_t *data, size_t length) {
    while(length) {
        ssize_t sent = send(to, data, length, MSG_NOSIGNAL);
        if(sent < 0) fail("send");
        data += sent;
        length -= (size_t)sent;
    }
}

static void receive_all(int from, uint8_t *data, size_t length) {
    while(length) {
        ssize_t got = recv(from, data, length, 0);
        if(got <= 0) fail("recv");
        data += got;
        length -= (size_t)got;
    }
}

static void put_text(uint8_t **at, const char *text) {
    size_t length = strlen(text);
    *(*at)++ = (uint8_t)(length >> 8);
    *(*at)++ = (uint8_t)length;
    memcpy(*at, text, length);
    *at += length;
}

static void connect_client(struct client *client, int port, int number) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char id[32];
    int one = 1;
    uint8_t packet[64] = {0x10, 0}, *at = packet + 2, answer[4];
    client->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if(client->socket < 0 || connect(client->socket, (struct sockaddr *)&address, sizeof address)) fail("connect");
    setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    snprintf(id, sizeof id, "load-%d", number);
    put_text(&at, "MQTT");
    *at++ = 4;
    *at++ = 2;
    *at++ = 0;
    *at++ = 0;
    put_text(&at, id);
    packet[1] = (uint8_t)(at - packet - 2);
    send_all(client->socket, packet, (size_t)(at - packet));
    receive_all(client->socket, answer, sizeof answer);
    if(answer[3] != 0) {
        fprintf(stderr, "refused: %d\n", answer[3]);
        exit(1);
    }
}

static void make_packets(struct client *client, int number, size_t payload, int qos) {
    for(int topic = 0; topic < TOPICS; topic++) {
        uint8_t *packet = client->packets[topic], body[PACKET_MAX - 8], *at = body;
        char name[64];
        snprintf(name, sizeof name, "load/client-%d/topic-%d", number, topic);
        put_text(&at, name);
        if(qos) {
            *at++ = 0;
            *at++ = (uint8_t)(topic + 1);
        }
        for(size_t i = 0; i < payload; i++) *at++ = (uint8_t)("{\"value\": 21.5, \"unit\": \"C\"} "[(i + (size_t)topic) % 29]);
        size_t left = (size_t)(at - body), size = left;
        *packet++ = (uint8_t)(0x30 | qos << 1);
        do {
            *packet++ = (uint8_t)(left % 128 | (left >= 128 ? 128 : 0));
            left /= 128;
        } while(left);
        memcpy(packet, body, size);
        client->lengths[topic] = (size_t)(packet - client->packets[topic]) + size;
    }
}

static void send_next(struct client *client) {
    int topic = (int)(client->sent++ % TOPICS);
    send_all(client->socket, client->packets[topic], client->lengths[topic]);
}

/* PUBACK is 4 bytes in MQTT 3.1.1; nothing else comes. */
static void take_answers(struct client *client, bool wait) {
    uint8_t buffer[4096];
    ssize_t got = recv(client->socket, buffer, sizeof buffer, wait ? 0 : MSG_DONTWAIT);
    if(got == 0 || (got < 0 && errno != EAGAIN)) fail("recv");
    if(got > 0) {
        client->part += (size_t)got;
        client->answered += (long)(client->part / 4);
        client->part %= 4;
    }
}

int main(int count, char **given) {
    if(count != 7) {
        fprintf(stderr, "usage: load PORT CLIENTS PAYLOAD_BYTES QOS MESSAGES SECONDS\n");
        return 2;
    }
    int port = atoi(given[1]), clients = atoi(given[2]), qos = atoi(given[4]);
    size_t payload = (size_t)atoi(given[3]);
    long messages = atol(given[5]);
    double seconds = atof(given[6]);
    if(clients < 1 || clients > CLIENTS_MAX || payload > PACKET_MAX - 256 || qos < 0 || qos > 1) return 2;
    struct client *all = calloc((size_t)clients, sizeof *all);
    if(!all) fail("calloc");
    for(int i = 0; i < clients; i++) {
        connect_client(&all[i], port, i);
        make_packets(&all[i], i, payload, qos);
    }
    double begin = now();
    for(long sent = 0; messages ? sent < messages : (sent & 0xff) || now() - begin < seconds; sent++) {
        struct client *client = &all[sent % clients];
        if(qos)
            while(client->sent - client->answered >= WINDOW) take_answers(client, true);
        send_next(client);
    }
    long total = 0;
    for(int i = 0; i < clients; i++) {
        static const uint8_t ping[2] = {0xc0, 0};
        uint8_t answer[2];
        while(qos && all[i].answered < all[i].sent) take_answers(&all[i], true);
        send_all(all[i].socket, ping, sizeof ping);
        receive_all(all[i].socket, answer, sizeof answer);
        total += all[i].sent;
    }
    printf("%ld %.6f\n", total, now() - begin);
    return 0;
}
