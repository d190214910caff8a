/* A load generator and a drain for AMQP 0-9-1 brokers, over librabbitmq.
 *
 *   amqp_load publish PORT USER VHOST EXCHANGE KEY BODY_BYTES MESSAGES SECONDS
 *   amqp_load drain   PORT USER VHOST EXCHANGE KEY
 *
 * The password is in the environment, AMQP_PASSWORD. cc -O2 -std=c11 -Wall -Wextra -Werror -o amqp_load ... -lrabbitmq
 *
 * publish: MESSAGES in all, or for SECONDS when MESSAGES is 0, without confirmations, as fast as the broker takes them.
 * Ends when the broker has answered a passive declare sent behind them, so it has seen every one; prints the number of
 * messages and the seconds taken.
 *
 * drain: binds an exclusive queue of its own to EXCHANGE with KEY, consumes from it without acknowledgements and prints
 * "ready"; then, for each line on its input, prints the messages and the bytes of bodies it got so far. Ends with its input. */
#define _POSIX_C_SOURCE 200809L
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { CHANNEL = 1, FRAME_MAX = 131072, BODY_MAX = 100000, CLOCK_EVERY = 256, ASKED_MAX = 64 };

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* Ends the program when the broker refused or the connection broke. */
static void expect(amqp_rpc_reply_t reply, const char *what) {
    if(reply.reply_type == AMQP_RESPONSE_NORMAL) return;
    if(reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) fail(what, amqp_error_string2(reply.library_error));
    fail(what, reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD ? "the broker closed the channel"
                                                          : "the broker closed the connection");
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static amqp_connection_state_t connect_to(int port, const char *user, const char *vhost) {
    const char *password = getenv("AMQP_PASSWORD");
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = connection ? amqp_tcp_socket_new(connection) : NULL;
    if(!password) fail("AMQP_PASSWORD", "is not set");
    if(!socket) fail("amqp_tcp_socket_new", "out of memory");
    if(amqp_socket_open(socket, "127.0.0.1", port) != AMQP_STATUS_OK) fail("connect", "no broker there");
    expect(amqp_login(connection, vhost, 0, FRAME_MAX, 0, AMQP_SASL_METHOD_PLAIN, user, password), "login");
    amqp_channel_open(connection, CHANNEL);
    expect(amqp_get_rpc_reply(connection), "channel.open");
    return connection;
}

static void publish(amqp_connection_state_t connection, const char *exchange, const char *key, size_t size,
                    long messages, double seconds) {
    static char body[BODY_MAX];
    amqp_bytes_t content = {size, body}, to = amqp_cstring_bytes(exchange), with = amqp_cstring_bytes(key);
    long sent = 0;
    double begin = now();
    for(size_t i = 0; i < size; i++) body[i] = "{\"value\": 21.5, \"unit\": \"C\"} "[i % 29];
    for(; messages ? sent < messages : (sent % CLOCK_EVERY) || now() - begin < seconds; sent++)
        if(amqp_basic_publish(connection, CHANNEL, to, with, 0, 0, NULL, content) != AMQP_STATUS_OK)
            fail("basic.publish", "the connection broke");
    amqp_exchange_declare(connection, CHANNEL, to, amqp_cstring_bytes("topic"), 1, 0, 0, 0, amqp_empty_table);
    expect(amqp_get_rpc_reply(connection), "exchange.declare");
    printf("%ld %.6f\n", sent, now() - begin);
}

/* Answers what was asked on the input meanwhile; false at its end. */
static bool answer(uint64_t messages, uint64_t bytes) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char asked[ASKED_MAX];
    while(poll(&input, 1, 0) > 0) {
        ssize_t got = read(STDIN_FILENO, asked, sizeof asked);
        if(got <= 0) return false;
        for(ssize_t i = 0; i < got; i++)
            if(asked[i] == '\n') printf("%llu %llu\n", (unsigned long long)messages, (unsigned long long)bytes);
        fflush(stdout);
    }
    return true;
}

static void drain(amqp_connection_state_t connection, const char *exchange, const char *key) {
    uint64_t messages = 0, bytes = 0;
    bool idle = true;
    amqp_queue_declare_ok_t *queue =
        amqp_queue_declare(connection, CHANNEL, amqp_empty_bytes, 0, 0, 1, 1, amqp_empty_table);
    expect(amqp_get_rpc_reply(connection), "queue.declare");
    amqp_bytes_t name = amqp_bytes_malloc_dup(queue->queue);
    amqp_queue_bind(connection, CHANNEL, name, amqp_cstring_bytes(exchange), amqp_cstring_bytes(key), amqp_empty_table);
    expect(amqp_get_rpc_reply(connection), "queue.bind");
    amqp_basic_consume(connection, CHANNEL, name, amqp_empty_bytes, 0, 1, 1, amqp_empty_table);
    expect(amqp_get_rpc_reply(connection), "basic.consume");
    amqp_bytes_free(name);
    puts("ready");
    fflush(stdout);
    /* Looking at the input costs a system call: only now and then while there is much to do. */
    while(!(idle || messages % CLOCK_EVERY == 0) || answer(messages, bytes)) {
        amqp_envelope_t envelope;
        struct timeval patience = {0, 20000};
        amqp_maybe_release_buffers(connection);
        amqp_rpc_reply_t reply = amqp_consume_message(connection, &envelope, &patience, 0);
        idle = reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION && reply.library_error == AMQP_STATUS_TIMEOUT;
        if(idle) continue;
        expect(reply, "basic.deliver");
        messages++;
        bytes += envelope.message.body.len;
        amqp_destroy_envelope(&envelope);
    }
}

int main(int count, char **given) {
    bool publishing = count == 10 && !strcmp(given[1], "publish"), draining = count == 7 && !strcmp(given[1], "drain");
    if(!publishing && !draining) {
        fprintf(stderr, "usage: amqp_load publish PORT USER VHOST EXCHANGE KEY BODY_BYTES MESSAGES SECONDS\n"
                        "       amqp_load drain PORT USER VHOST EXCHANGE KEY\n");
        return 2;
    }
    long size = publishing ? atol(given[7]) : 0;
    if(size < 0 || size > BODY_MAX) fail(given[7], "not a size we send");
    amqp_connection_state_t connection = connect_to(atoi(given[2]), given[3], given[4]);
    if(publishing) publish(connection, given[5], given[6], (size_t)size, atol(given[8]), atof(given[9]));
    else drain(connection, given[5], given[6]);
    amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(connection);
    return 0;
}
