#include "attribute_process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXECS_FOLLOWED 3                /* how often a process may start another program while it is read */

struct stat_fields {
    uint32_t parent_pid;
    int32_t terminal;
    uint64_t start_ticks;
    char state;
};

ssize_t tw_process_read_file(int folder, const char *name, char *to, size_t room) {
    int file = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if(file < 0) return -1;
    size_t filled = 0;
    while(filled < room) {
        ssize_t got = read(file, to + filled, room - filled);
        if(got < 0 && errno == EINTR) continue;
        if(got < 0 && filled == 0) filled = SIZE_MAX;
        if(got <= 0) break;
        filled += (size_t)got;
    }
    close(file);
    return filled == SIZE_MAX ? -1 : (ssize_t)filled;
}

bool tw_process_identity(int process, struct tw_identity_of_process *who) {
    char text[2048];
    ssize_t size = tw_process_read_file(process, "status", text, sizeof text - 1);
    if(size <= 0) return false;
    text[size] = 0;
    /* The first line is the program's name, in which the kernel escapes line feeds. */
    const char *group = strstr(text, "\nTgid:"), *users = strstr(text, "\nUid:");
    return group && users && sscanf(group + 6, "%u", &who->pid) == 1 &&
           sscanf(users + 5, "%u %u %u %u", &who->users[0], &who->users[1], &who->users[2], &who->users[3]) == 4;
}

static bool read_stat(int process, struct stat_fields *fields) {
    char text[1024];
    ssize_t size = tw_process_read_file(process, "stat", text, sizeof text - 1);
    if(size <= 0) return false;
    text[size] = 0;
    const char *rest = strrchr(text, ')');      /* the name before it may hold anything */
    unsigned long long start;
    if(!rest || sscanf(rest + 1,
                       " %c %u %*d %*d %d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                       &fields->state, &fields->parent_pid, &fields->terminal, &start) != 4)
        return false;
    fields->start_ticks = start;
    return true;
}

static size_t read_link(int process, const char *name, char *to, size_t room) {
    ssize_t size = readlinkat(process, name, to, room);
    return size < 0 ? 0 : (size_t)size;
}

/* Reads the executable and the arguments of one and the same program. */
static void read_program(int process, struct tw_process *read) {
    static char again[TW_ATTRIBUTE_PATH_MAX];
    for(int tries = 0; tries < EXECS_FOLLOWED; tries++) {
        read->executable_length = read_link(process, "exe", read->executable, sizeof read->executable);
        ssize_t size = tw_process_read_file(process, "cmdline", read->command, sizeof read->command);
        read->command_length = size < 0 ? 0 : (size_t)size;
        size_t length = read_link(process, "exe", again, sizeof again);
        if(length == read->executable_length && memcmp(again, read->executable, length) == 0) break;
    }
    read->cut = read->command_length == sizeof read->command;
}

static void read_parent(int process, struct tw_process *read) {
    char name[32];
    struct stat_fields now;
    snprintf(name, sizeof name, "/proc/%u/exe", read->parent_pid);
    read->parent_executable_length =
        read->parent_pid == 0 ? 0 : read_link(AT_FDCWD, name, read->parent_executable, sizeof read->parent_executable);
    /* While it is still the parent its number was not given to another. */
    if(read_stat(process, &now) && now.parent_pid == read->parent_pid) return;
    read->parent_pid = 0;
    read->parent_executable_length = 0;
}

bool tw_process_read(int process, struct tw_process *read) {
    struct stat_fields fields;
    struct tw_identity_of_process who;
    char number[16];
    if(!read_stat(process, &fields) || fields.state == 'Z' || fields.state == 'X') return false;
    if(!tw_process_identity(process, &who)) return false;
    read->parent_pid = fields.parent_pid;
    read->terminal = fields.terminal;
    read->start_ticks = fields.start_ticks;
    read->user = who.users[0];
    ssize_t size = tw_process_read_file(process, "loginuid", number, sizeof number - 1);
    number[size < 0 ? 0 : size] = 0;
    read->login_user = size > 0 ? (uint32_t)strtoul(number, NULL, 10) : TW_ATTRIBUTE_NOBODY;
    size = tw_process_read_file(process, "cgroup", read->cgroup, sizeof read->cgroup);
    read->cgroup_length = size < 0 ? 0 : (size_t)size;
    read_program(process, read);
    read_parent(process, read);
    return read->executable_length > 0 || read->command_length > 0;
}
