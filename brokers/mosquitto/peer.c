/* No broker tells a plugin its client's port (mosquitto_client_port of 2.1 is the listener's), but the socket does.
 *
 * WARNING: where the socket is, is not part of the broker's interface. Seen in 2.0.0 to 2.0.22 and 2.1.0 to 2.1.2, built
 * WITH_EPOLL, as on Linux they are by default: `struct mosquitto` begins with `int ident`, 2 for clients, and `int sock`.
 * So nothing is believed that does not agree with what the interface tells: the number must be an open socket whose
 * peer has the very address the broker gives for this client, and in 2.1 whose own port is the listener's. In all other
 * cases (another layout, a proxy's PROXY header) the port is not known. A bridge that the broker itself connects has no
 * address at all, so it is never taken for a client. */
#include "peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "asking.h"
#include "attribute_wire.h"
#include "broker_api.h"
#include "ring.h"

#define IDENT_CLIENT 2                  /* id_client of enum struct_ident */

#if TW_BROKER_2_1
/* Weak here too, or the plugin could not be loaded into a broker of 2.0 to say that it is for another. */
extern int mosquitto_client_port(const struct mosquitto *client) __attribute__((weak));
#endif

union address {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
    struct sockaddr_un local;
    struct sockaddr_storage room;
};

static bool looking, asking;

void tw_peer_setup(bool ports, const char *ask_at, unsigned wait_ms) {
    asking = ask_at[0] != 0;
    looking = ports || asking;
    tw_asking_setup(ask_at, wait_ms);
}

static int socket_of(const struct mosquitto *client) {
    int head[2];
    memcpy(head, client, sizeof head);
    return head[0] == IDENT_CLIENT ? head[1] : -1;
}

/* Writes an address's family, bytes and port as the helper wants them; false when it is no IP address. */
static bool read_address(const union address *address, uint8_t *family, uint8_t bytes[16], uint16_t *port) {
    memset(bytes, 0, 16);
    if(address->any.sa_family == AF_INET) {
        *family = TW_FAMILY_IPV4;
        *port = ntohs(address->ipv4.sin_port);
        memcpy(bytes, &address->ipv4.sin_addr, 4);
        return true;
    }
    if(address->any.sa_family != AF_INET6) return false;
    *port = ntohs(address->ipv6.sin6_port);
    if(IN6_IS_ADDR_V4MAPPED(&address->ipv6.sin6_addr)) {
        *family = TW_FAMILY_IPV4;
        memcpy(bytes, (const uint8_t *)&address->ipv6.sin6_addr + 12, 4);
    } else {
        *family = TW_FAMILY_IPV6;
        memcpy(bytes, &address->ipv6.sin6_addr, 16);
    }
    return true;
}

/* Whether the socket's peer has the address that the broker gives, spelt as the broker spells it. */
static bool agrees(const union address *peer, const union address *own, const char *told) {
    char text[INET6_ADDRSTRLEN];
    switch(peer->any.sa_family) {
        case AF_INET: return inet_ntop(AF_INET, &peer->ipv4.sin_addr, text, sizeof text) && strcmp(text, told) == 0;
        case AF_INET6: return inet_ntop(AF_INET6, &peer->ipv6.sin6_addr, text, sizeof text) && strcmp(text, told) == 0;
        case AF_UNIX: return strncmp(own->local.sun_path, told, sizeof own->local.sun_path) == 0;
        default: return false;
    }
}

static bool is_of_this_machine(const struct tw_attribute_request *request) {
    static const uint8_t loopback[16] = {[15] = 1};
    if(memcmp(request->client_address, request->broker_address, 16) == 0) return true;
    if(request->family == TW_FAMILY_IPV4) return request->client_address[0] == 127;
    return memcmp(request->client_address, loopback, 16) == 0;
}

static void ask_for(struct tw_attribute_request *request, int file, const union address *peer, const struct stat *about) {
    if(request->family == TW_FAMILY_UNIX) {
        struct ucred who;
        socklen_t length = sizeof who;
        if(getsockopt(file, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 && who.pid > 0) request->pid = (uint32_t)who.pid;
        request->inode = about->st_ino;
    } else if(!is_of_this_machine(request)) {
        return;
    } else if(request->family == TW_FAMILY_IPV6) {
        request->scope = peer->ipv6.sin6_scope_id;
    }
    tw_ask(request);
}

static uint16_t unknown(void) {
    tw_ring.header->peers_unknown++;
    return 0;
}

uint16_t tw_peer_port(const struct mosquitto *client, const char *address, bool begins) {
    if(!looking || !address) return 0;
    union address peer, own;
    memset(&peer, 0, sizeof peer);
    memset(&own, 0, sizeof own);
    socklen_t peer_length = sizeof peer, own_length = sizeof own;
    struct stat about;
    int file = socket_of(client);
    if(file < 0 || fstat(file, &about) != 0 || !S_ISSOCK(about.st_mode)) return unknown();
    if(getpeername(file, &peer.any, &peer_length) != 0 || getsockname(file, &own.any, &own_length) != 0) return unknown();
    if(!agrees(&peer, &own, address)) return unknown();
    struct tw_attribute_request request;
    memset(&request, 0, sizeof request);
    uint8_t own_family;
    if(peer.any.sa_family == AF_UNIX) {
        request.family = TW_FAMILY_UNIX;
    } else if(!read_address(&peer, &request.family, request.client_address, &request.client_port) ||
              !read_address(&own, &own_family, request.broker_address, &request.broker_port) ||
              own_family != request.family) {
        return unknown();
    }
#if TW_BROKER_2_1
    if(mosquitto_client_port(client) != request.broker_port) return unknown();
#endif
    if(asking && begins) ask_for(&request, file, &peer, &about);
    return request.client_port;
}
