/* From a connection to a process: the kernel's socket diagnostics tell the inode and the user of the client's socket,
 * and /proc/PID/fd who holds that inode.
 *
 * A short-lived client is among the newest processes, so those are looked at first. Process ids wrap around: newest is
 * what comes before the last one given out (/proc/loadavg), not what is highest. */
#include "attribute_find.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "attribute_process.h"

#define SEARCH_NS 20000000u             /* the plugin waits 30 ms by default */
#define PROCESSES_MAX 262144u
#define NEWEST 64u                      /* process ids tried without asking which there are */
#define HOLDERS 64u                     /* processes that had a client's socket before: those that live long */

enum held { NOT_HELD, HELD, NO_TIME };

struct socket_facts {
    uint32_t inode;                     /* 0: no process has it */
    uint32_t user;
};

static int netlink = -1;
static int proc = -1;
static uint32_t sequence;
static uint32_t processes[PROCESSES_MAX];
static uint32_t holders[HOLDERS];
static unsigned holder_next;
static uint64_t deadline;

static uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool tw_find_setup(void) {
    proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    netlink = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    return proc >= 0 && netlink >= 0;
}

/* ---- the kernel's socket diagnostics ------------------------------------------------------------------------ */

/* Asks one question and returns the length of the answer's body, 0 when there is none. The kernel answers within send. */
static size_t diagnose(const void *question, size_t length, void *answer, size_t room) {
    struct {
        struct nlmsghdr head;
        uint8_t body[sizeof(struct inet_diag_req_v2)];
    } message;
    union {
        struct nlmsghdr head;
        uint8_t bytes[4096];
    } got;
    if(length > sizeof message.body) return 0;
    memset(&message, 0, sizeof message);
    message.head.nlmsg_len = (uint32_t)(NLMSG_HDRLEN + length);
    message.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    message.head.nlmsg_flags = NLM_F_REQUEST;
    message.head.nlmsg_seq = ++sequence;
    memcpy(message.body, question, length);
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    if(sendto(netlink, &message, message.head.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0) return 0;
    for(int tries = 0; tries < 64; tries++) {
        struct sockaddr_nl from;
        socklen_t from_length = sizeof from;
        ssize_t size = recvfrom(netlink, &got, sizeof got, MSG_DONTWAIT, (struct sockaddr *)&from, &from_length);
        if(size < 0) return 0;
        if(from_length < sizeof from || from.nl_pid != 0 || (size_t)size < sizeof got.head) continue;
        if(got.head.nlmsg_seq != sequence || got.head.nlmsg_len > (size_t)size) continue;
        if(got.head.nlmsg_type != SOCK_DIAG_BY_FAMILY || got.head.nlmsg_len <= NLMSG_HDRLEN) return 0;
        size_t body = got.head.nlmsg_len - NLMSG_HDRLEN;
        if(body > room) body = room;
        memcpy(answer, got.bytes + NLMSG_HDRLEN, body);
        return body;
    }
    return 0;
}

static bool tcp_socket(const struct tw_attribute_request *request, bool clients_end, struct socket_facts *facts) {
    size_t bytes = request->family == TW_FAMILY_IPV4 ? 4 : 16;
    const uint8_t *own = clients_end ? request->client_address : request->broker_address;
    const uint8_t *other = clients_end ? request->broker_address : request->client_address;
    uint16_t own_port = htons(clients_end ? request->client_port : request->broker_port);
    uint16_t other_port = htons(clients_end ? request->broker_port : request->client_port);
    struct inet_diag_req_v2 question;
    memset(&question, 0, sizeof question);
    question.sdiag_family = request->family == TW_FAMILY_IPV4 ? AF_INET : AF_INET6;
    question.sdiag_protocol = IPPROTO_TCP;
    question.idiag_states = ~0u;
    question.id.idiag_sport = own_port;
    question.id.idiag_dport = other_port;
    memcpy(question.id.idiag_src, own, bytes);
    memcpy(question.id.idiag_dst, other, bytes);
    question.id.idiag_if = request->scope;
    question.id.idiag_cookie[0] = question.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    struct inet_diag_msg answer;
    if(diagnose(&question, sizeof question, &answer, sizeof answer) < sizeof answer) return false;
    /* Where there is no such connection the kernel answers with whoever listens there. */
    if(answer.id.idiag_sport != own_port || answer.id.idiag_dport != other_port) return false;
    facts->inode = answer.idiag_inode;
    facts->user = answer.idiag_uid;
    return true;
}

/* `peer`: the inode of the other end, where there is one. `path` may be NULL. */
static bool unix_socket(uint32_t inode, struct socket_facts *facts, uint32_t *peer, char *path, size_t room) {
    struct unix_diag_req question;
    memset(&question, 0, sizeof question);
    question.sdiag_family = AF_UNIX;
    question.udiag_states = ~0u;
    question.udiag_ino = inode;
    question.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER | UDIAG_SHOW_UID;
    question.udiag_cookie[0] = question.udiag_cookie[1] = ~0u;
    union {
        struct unix_diag_msg message;
        uint8_t bytes[2048];
    } answer;
    size_t length = diagnose(&question, sizeof question, &answer, sizeof answer);
    if(length < sizeof answer.message || answer.message.udiag_ino != inode) return false;
    facts->inode = inode;
    facts->user = TW_ATTRIBUTE_NOBODY;
    *peer = 0;
    if(path) path[0] = 0;
    for(size_t at = NLMSG_ALIGN(sizeof answer.message); at + sizeof(struct rtattr) <= length;) {
        struct rtattr attribute;
        memcpy(&attribute, answer.bytes + at, sizeof attribute);
        if(attribute.rta_len < sizeof attribute || attribute.rta_len > length - at) break;
        const uint8_t *value = answer.bytes + at + sizeof attribute;
        size_t value_length = attribute.rta_len - sizeof attribute;
        if(attribute.rta_type == UNIX_DIAG_PEER && value_length >= 4) memcpy(peer, value, 4);
        if(attribute.rta_type == UNIX_DIAG_UID && value_length >= 4) memcpy(&facts->user, value, 4);
        if(attribute.rta_type == UNIX_DIAG_NAME && path && value_length > 0 && value_length < room) {
            memcpy(path, value, value_length);
            path[value_length] = 0;
        }
        at += RTA_ALIGN(attribute.rta_len);
    }
    return facts->user != TW_ATTRIBUTE_NOBODY;
}

/* ---- who holds an inode ------------------------------------------------------------------------------------- */

/* The entries of a folder, without allocating. */
struct folder {
    int file;
    size_t at, filled;
    _Alignas(8) char buffer[32768];
};

static const char *next_entry(struct folder *folder) {
    if(folder->at >= folder->filled) {
        long got = syscall(SYS_getdents64, folder->file, folder->buffer, sizeof folder->buffer);
        if(got <= 0) return NULL;
        folder->filled = (size_t)got;
        folder->at = 0;
    }
    const struct dirent64 *entry = (const void *)(folder->buffer + folder->at);
    folder->at += entry->d_reclen;
    return entry->d_name;
}

static enum held holds(int process, uint32_t inode) {
    static struct folder folder;
    char wanted[32], link[64];
    int length = snprintf(wanted, sizeof wanted, "socket:[%u]", inode);
    folder.file = openat(process, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    folder.at = folder.filled = 0;
    if(folder.file < 0) return NOT_HELD;
    enum held found = NOT_HELD;
    unsigned looked = 0;
    for(const char *name; found == NOT_HELD && (name = next_entry(&folder)) != NULL;) {
        if(name[0] == '.') continue;
        /* The link's text, never what it leads to: that could be a file system that does not answer. */
        ssize_t size = readlinkat(folder.file, name, link, sizeof link);
        if(size == length && memcmp(link, wanted, (size_t)size) == 0) found = HELD;
        else if(++looked % 32 == 0 && monotonic_ns() > deadline) found = NO_TIME;
    }
    close(folder.file);
    return found;
}

/* Which processes are looked at: first those that seem to be of the socket's user. */
enum pass { LIKELY, OTHERS, ANY };

static int open_process(uint32_t pid) {
    char name[16];
    snprintf(name, sizeof name, "%u", pid);
    return openat(proc, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* Looks whether a process has the socket, and is of the user who made it. A socket can be handed to others: to blame
 * whoever was given it would be wrong. Root may make one for somebody else. */
static enum held examine(uint32_t pid, enum pass pass, const struct socket_facts *facts, struct tw_found *found) {
    if(pid == 0) return NOT_HELD;
    if(monotonic_ns() > deadline) return NO_TIME;
    int process = open_process(pid);
    if(process < 0) return NOT_HELD;
    struct stat about;
    enum held held = NOT_HELD;
    if(fstat(process, &about) == 0) {
        /* A process that may not be looked at (a set-user-id program) has root's name here. */
        bool likely = about.st_uid == facts->user || about.st_uid == 0;
        if(pass == ANY || likely == (pass == LIKELY)) held = holds(process, facts->inode);
    }
    struct tw_identity_of_process who;
    if(held == HELD && !tw_process_identity(process, &who)) held = NOT_HELD;
    if(held == HELD && who.pid != pid) {
        /* The number of a thread: the process is its group's leader. */
        close(process);
        process = open_process(who.pid);
        pid = who.pid;
        held = process < 0 ? NOT_HELD : holds(process, facts->inode);
    }
    if(held == HELD && facts->user != 0 && facts->user != who.users[0] && facts->user != who.users[1] &&
       facts->user != who.users[2] && facts->user != who.users[3])
        held = NOT_HELD;
    if(held == HELD) {
        found->process = process;
        found->pid = pid;
    } else if(process >= 0) {
        close(process);
    }
    return held;
}

static uint32_t last_process(void) {
    char text[128];
    ssize_t size = tw_process_read_file(proc, "loadavg", text, sizeof text - 1);
    if(size <= 0) return 0;
    text[size] = 0;
    const char *last = strrchr(text, ' ');
    return last ? (uint32_t)strtoul(last + 1, NULL, 10) : 0;
}

/* Lists the processes, newest first. */
static size_t list_processes(uint32_t last) {
    static struct folder folder;
    folder.file = proc;
    folder.at = folder.filled = 0;
    lseek(proc, 0, SEEK_SET);
    size_t count = 0, newest = 0;
    for(const char *name; count < PROCESSES_MAX && (name = next_entry(&folder)) != NULL;) {
        if(name[0] < '1' || name[0] > '9') continue;
        processes[count++] = (uint32_t)strtoul(name, NULL, 10);
    }
    /* They come in ascending order: what is left of `last` is turned round to the front, then what is right of it. */
    while(newest < count && processes[newest] <= last) newest++;
    for(size_t low = 0, high = newest; low + 1 < high; low++) {
        uint32_t swapped = processes[low];
        processes[low] = processes[--high];
        processes[high] = swapped;
    }
    for(size_t low = newest, high = count; low + 1 < high; low++) {
        uint32_t swapped = processes[low];
        processes[low] = processes[--high];
        processes[high] = swapped;
    }
    return count;
}

static void remember(uint32_t pid) {
    for(unsigned i = 0; i < HOLDERS; i++)
        if(holders[i] == pid) return;
    holders[holder_next++ % HOLDERS] = pid;
}

static enum tw_attribute_result find_holder(const struct socket_facts *facts, uint32_t hint, struct tw_found *found) {
    uint32_t last = last_process();
    enum held held = examine(hint, ANY, facts, found);
    for(uint32_t i = 0; held == NOT_HELD && i < NEWEST && i < last; i++) held = examine(last - i, LIKELY, facts, found);
    for(unsigned i = 1; held == NOT_HELD && i <= HOLDERS; i++)
        held = examine(holders[(holder_next - i) % HOLDERS], ANY, facts, found);
    size_t count = held == NOT_HELD ? list_processes(last) : 0;
    for(enum pass pass = LIKELY; pass <= OTHERS; pass++)
        for(size_t i = 0; held == NOT_HELD && i < count; i++) held = examine(processes[i], pass, facts, found);
    if(held == HELD && count > 0) remember(found->pid);
    return held == HELD ? TW_ATTRIBUTE_FOUND : held == NO_TIME ? TW_ATTRIBUTE_OUT_OF_TIME : TW_ATTRIBUTE_NO_PROCESS;
}

enum tw_attribute_result tw_find(const struct tw_attribute_request *request, uid_t asking, struct tw_found *found) {
    *found = (struct tw_found){.socket_user = TW_ATTRIBUTE_NOBODY, .process = -1};
    deadline = monotonic_ns() + SEARCH_NS;
    struct socket_facts broker, client;
    uint32_t hint = 0;
    if(request->family == TW_FAMILY_UNIX) {
        uint32_t peer, back;
        if(request->inode == 0 || request->inode > UINT32_MAX) return TW_ATTRIBUTE_NO_CONNECTION;
        if(!unix_socket((uint32_t)request->inode, &broker, &peer, found->path, sizeof found->path) ||
           broker.user != asking || peer == 0 || !unix_socket(peer, &client, &back, NULL, 0) || back != broker.inode) {
            found->path[0] = 0;         /* of somebody else's socket nothing is told */
            return TW_ATTRIBUTE_NO_CONNECTION;
        }
        hint = request->pid;
    } else if(!tcp_socket(request, false, &broker) || broker.user != asking || !tcp_socket(request, true, &client)) {
        return TW_ATTRIBUTE_NO_CONNECTION;
    }
    found->socket_user = client.user;
    if(client.inode == 0) return TW_ATTRIBUTE_NO_PROCESS;
    return find_holder(&client, hint, found);
}
