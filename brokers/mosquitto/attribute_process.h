/* Reads what a process is, from /proc. */
#ifndef TOPICWARDEN_ATTRIBUTE_PROCESS_H
#define TOPICWARDEN_ATTRIBUTE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "attribute_wire.h"

struct tw_identity_of_process {
    uint32_t pid;                       /* of the whole process, also when a thread was asked for */
    uint32_t users[4];                  /* real, effective, saved, of file accesses */
};

struct tw_process {
    uint32_t parent_pid, user, login_user;
    int32_t terminal;
    uint64_t start_ticks;
    bool cut;                           /* the command line is longer */
    size_t executable_length, parent_executable_length, command_length, cgroup_length;
    char executable[TW_ATTRIBUTE_PATH_MAX], parent_executable[TW_ATTRIBUTE_PATH_MAX];
    char cgroup[TW_ATTRIBUTE_CGROUP_MAX];
    char command[TW_ATTRIBUTE_COMMAND_MAX];
};

/* `process`: O_PATH of /proc/PID, which stays that process's, so that nothing here can be of another. */
bool tw_process_identity(int process, struct tw_identity_of_process *who);
/* False when it ended meanwhile. */
bool tw_process_read(int process, struct tw_process *read);
/* Reads at most `room` bytes of a file below `folder`; -1 when it cannot be read. */
ssize_t tw_process_read_file(int folder, const char *name, char *to, size_t room);

#endif
