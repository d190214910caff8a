/* topicwarden-attribute: tells which process is at the other end of a broker's connection, while it still lives.
 *
 * The plugin asks it when a client of this machine logs in (plugin_opt_attribute); the client waits for the broker's
 * answer meanwhile, so even one that lives 20 ms is still there. It answers the plugin first and then writes what it
 * found to its standard output, for topicwarden, which starts it. README.md has the threat model.
 *
 * Build:  make        Run, as root:  topicwarden-attribute [--allow USER]... [--group GROUP] SOCKET
 *
 *   --allow USER   who may ask, besides root: the broker's user, by name or number; `mosquitto` when none is given
 *   --group GROUP  the group that may open the socket; the first such user's own when it is not given
 *
 * Standard output must be a pipe (attribute_wire.h is the format). It ends when standard input does, on SIGTERM and
 * when nobody reads its output any more. Exit status: 0 ended so, 2 wrong usage, 3 cannot work here.
 *
 * WARNING: it has privileges and is asked by processes that have none. What they send has a fixed size and names
 * nothing but a connection of their own; nothing in it is used as a path or a size. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "attribute_find.h"
#include "attribute_output.h"
#include "attribute_privileges.h"
#include "attribute_process.h"

#define BROKERS_MAX 16
#define ALLOWED_MAX 16
#define QUEUE_MAX 64                    /* requests of one broker looked at in one go; all but the last are too late */
#define HANGING_SECONDS 2

struct broker {
    int connection;
    uid_t user;
};

static struct broker brokers[BROKERS_MAX];
static int broker_count;
static uid_t allowed[ALLOWED_MAX];
static int allowed_count;
static gid_t socket_group;
static struct sockaddr_un place = {.sun_family = AF_UNIX};
static struct stat placed;

static int fail(int status, const char *message, const char *detail) {
    fprintf(stderr, "topicwarden-attribute: %s%s%s\n", message, detail ? ": " : "", detail ? detail : "");
    return status;
}

/* ---- options ------------------------------------------------------------------------------------------------ */

static bool id_of_number(const char *text, uint32_t *id) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if(text[0] < '0' || text[0] > '9' || *end != 0 || errno != 0 || value >= UINT32_MAX) return false;
    *id = (uint32_t)value;
    return true;
}

static bool allow(const char *name, bool *group_given) {
    if(allowed_count == ALLOWED_MAX) return false;
    uint32_t user;
    const struct passwd *account = id_of_number(name, &user) ? getpwuid(user) : getpwnam(name);
    if(account) user = account->pw_uid;
    else if(!id_of_number(name, &user)) return false;
    if(account && !*group_given) {
        socket_group = account->pw_gid;
        *group_given = true;
    }
    allowed[allowed_count++] = user;
    return true;
}

static int read_options(int count, char **given) {
    bool group_given = false, users_given = false;
    socket_group = getegid();
    allowed[allowed_count++] = 0;
    for(int i = 1; i < count; i++) {
        if(strcmp(given[i], "--group") == 0 && i + 1 < count) {
            const struct group *group = getgrnam(given[++i]);
            uint32_t number;
            if(!group && !id_of_number(given[i], &number)) return fail(2, "there is no such group", given[i]);
            socket_group = group ? group->gr_gid : number;
            group_given = true;
        } else if(strcmp(given[i], "--allow") == 0 && i + 1 < count) {
            if(!allow(given[++i], &group_given)) return fail(2, "there is no such user, or there are too many", given[i]);
            users_given = true;
        } else if(given[i][0] == '-' || place.sun_path[0] != 0) {
            return fail(2, "usage: topicwarden-attribute [--allow USER]... [--group GROUP] SOCKET", NULL);
        } else if(given[i][0] != '/' || strlen(given[i]) >= sizeof place.sun_path) {
            return fail(2, "the socket must be an absolute path of at most 107 bytes", given[i]);
        } else {
            memcpy(place.sun_path, given[i], strlen(given[i]) + 1);
        }
    }
    if(place.sun_path[0] == 0) return fail(2, "usage: topicwarden-attribute [--allow USER]... [--group GROUP] SOCKET", NULL);
    if(!users_given && getpwnam("mosquitto")) allow("mosquitto", &group_given);
    return 0;
}

/* ---- the socket --------------------------------------------------------------------------------------------- */

/* Whoever can write to the folder could put another's file in the socket's place while we look. */
static const char *folder_problem(void) {
    char folder[sizeof place.sun_path];
    memcpy(folder, place.sun_path, sizeof folder);
    char *slash = strrchr(folder, '/');
    slash[slash == folder] = 0;
    struct stat about;
    if(mkdir(folder, 0755) != 0 && errno != EEXIST) return strerror(errno);
    if(lstat(folder, &about) != 0) return strerror(errno);
    if(!S_ISDIR(about.st_mode)) return "its folder is not one";
    if((about.st_uid != 0 && about.st_uid != geteuid()) || about.st_mode & (S_IWGRP | S_IWOTH))
        return "its folder must belong to root and be writable by nobody else";
    return NULL;
}

/* Takes away what a helper that was killed left; a living one's socket stays. */
static bool clear_place(void) {
    struct stat about;
    if(lstat(place.sun_path, &about) != 0) return errno == ENOENT;
    int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool dead = probe >= 0 && connect(probe, (struct sockaddr *)&place, sizeof place) != 0 && errno == ECONNREFUSED;
    if(probe >= 0) close(probe);
    if(!S_ISSOCK(about.st_mode) || !dead) {
        errno = EADDRINUSE;
        return false;
    }
    return unlink(place.sun_path) == 0;
}

/* The file gets its group and mode as it is made, so that no path is followed twice. */
static int open_place(void) {
    int listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if(listening < 0 || !clear_place()) return -1;
    mode_t mask = umask(0117);
    gid_t own = getegid();
    bool bound = setegid(socket_group) == 0 && bind(listening, (struct sockaddr *)&place, sizeof place) == 0;
    int error = errno;
    if(setegid(own) != 0) bound = false;
    umask(mask);
    errno = error;
    return bound && listen(listening, BROKERS_MAX) == 0 && lstat(place.sun_path, &placed) == 0 ? listening : -1;
}

static void remove_place(void) {
    struct stat about;
    if(lstat(place.sun_path, &about) == 0 && about.st_dev == placed.st_dev && about.st_ino == placed.st_ino)
        unlink(place.sun_path);
}

/* ---- brokers ------------------------------------------------------------------------------------------------ */

static void welcome(int listening) {
    int connection = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if(connection < 0) return;
    struct ucred who;
    socklen_t length = sizeof who;
    bool known = false;
    if(getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0)
        for(int i = 0; i < allowed_count; i++) known |= allowed[i] == who.uid;
    if(!known || broker_count == BROKERS_MAX) close(connection);
    else brokers[broker_count++] = (struct broker){connection, who.uid};
}

static bool well_formed(const struct tw_attribute_request *request) {
    if(request->version != TW_ATTRIBUTE_VERSION) return false;
    if(request->family == TW_FAMILY_UNIX) return true;
    return (request->family == TW_FAMILY_IPV4 || request->family == TW_FAMILY_IPV6) && request->client_port != 0 &&
           request->broker_port != 0;
}

static void answer(const struct broker *broker, const struct tw_attribute_request *request) {
    static struct tw_process process;
    /* Should a process manage to make the kernel wait while we read it, the alarm ends us, and we are started again. */
    struct itimerval hanging = {.it_value = {.tv_sec = HANGING_SECONDS}}, off = {.it_value = {.tv_sec = 0}};
    setitimer(ITIMER_REAL, &hanging, NULL);
    struct tw_found found;
    enum tw_attribute_result result = tw_find(request, broker->user, &found);
    if(result == TW_ATTRIBUTE_FOUND && !tw_process_read(found.process, &process)) result = TW_ATTRIBUTE_GONE;
    if(found.process >= 0) close(found.process);
    setitimer(ITIMER_REAL, &off, NULL);
    bool is_found = result == TW_ATTRIBUTE_FOUND;
    struct tw_attribute_answer reply = {
        .version = TW_ATTRIBUTE_VERSION, .id = request->id, .pid = is_found ? found.pid : 0, .result = result,
    };
    send(broker->connection, &reply, sizeof reply, MSG_DONTWAIT | MSG_NOSIGNAL);
    /* Of a connection that is not the broker's own nobody is told anything. */
    if(result != TW_ATTRIBUTE_NO_CONNECTION) tw_output_connection(request, &found, result, is_found ? &process : NULL);
}

/* Answers the last request that came; false when the broker is gone or sends nonsense. */
static bool serve(const struct broker *broker) {
    struct tw_attribute_request request, next;
    bool asked = false, good = true;
    for(int i = 0; i < QUEUE_MAX; i++) {
        ssize_t size = recv(broker->connection, &next, sizeof next, MSG_DONTWAIT | MSG_TRUNC);
        if(size < 0 && (errno == EAGAIN || errno == EINTR)) break;
        good = size == (ssize_t)sizeof next && well_formed(&next);
        if(!good) break;
        request = next;
        asked = true;
    }
    if(asked) answer(broker, &request);
    return good;
}

/* ---- the loop ----------------------------------------------------------------------------------------------- */

static void run(int listening, int signals) {
    enum { STDIN, SIGNALS, STDOUT, LISTENING, FIXED };
    for(;;) {
        struct pollfd polled[FIXED + BROKERS_MAX] = {
            [STDIN] = {STDIN_FILENO, POLLIN, 0},
            [SIGNALS] = {signals, POLLIN, 0},
            [STDOUT] = {STDOUT_FILENO, tw_output_waiting() ? POLLOUT : 0, 0},
            [LISTENING] = {listening, POLLIN, 0},
        };
        int count = broker_count;
        for(int i = 0; i < count; i++) polled[FIXED + i] = (struct pollfd){brokers[i].connection, POLLIN, 0};
        if(poll(polled, (nfds_t)(FIXED + count), -1) < 0 && errno != EINTR) return;
        char ignored[256];
        if(polled[STDIN].revents && read(STDIN_FILENO, ignored, sizeof ignored) <= 0) return;
        if(polled[SIGNALS].revents || polled[STDOUT].revents & POLLERR) return;
        for(int i = count - 1; i >= 0; i--) {
            if(!polled[FIXED + i].revents || serve(&brokers[i])) continue;
            close(brokers[i].connection);
            brokers[i] = brokers[--broker_count];
        }
        if(polled[LISTENING].revents) welcome(listening);
        if(!tw_output_flush()) return;
    }
}

int main(int count, char **given) {
    int wrong = read_options(count, given);
    if(wrong) return wrong;
    if(!tw_output_setup()) return fail(3, "standard output must be a pipe: topicwarden reads it", strerror(errno));
    const char *problem = folder_problem();
    if(problem) return fail(3, place.sun_path, problem);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, SIG_DFL);
    int signals = signalfd(-1, &blocked, SFD_CLOEXEC);
    if(signals < 0 || !tw_find_setup()) return fail(3, "the kernel's socket diagnostics are missing", strerror(errno));
    int listening = open_place();
    if(listening < 0) return fail(3, place.sun_path, strerror(errno));
    problem = tw_privileges_drop();
    if(problem) {
        remove_place();
        return fail(3, "it lacks", problem);
    }
    tw_output_ready();
    if(tw_output_flush()) run(listening, signals);
    remove_place();
    return 0;
}
