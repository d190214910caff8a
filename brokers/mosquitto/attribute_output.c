#include "attribute_output.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUFFER (1u << 20)               /* three of the largest records, and thousands of usual ones */

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "records are little endian: this machine would have to turn them round"
#endif

static uint8_t buffer[BUFFER];
static size_t begin, filled;            /* what waits is [begin, filled) */
static uint64_t dropped;

bool tw_output_setup(void) {
    struct stat about;
    if(fstat(STDOUT_FILENO, &about) != 0) return false;
    if(!S_ISFIFO(about.st_mode) && !S_ISSOCK(about.st_mode)) {
        errno = ESPIPE;
        return false;
    }
    int flags = fcntl(STDOUT_FILENO, F_GETFL);
    return flags >= 0 && fcntl(STDOUT_FILENO, F_SETFL, flags | O_NONBLOCK) == 0;
}

static void put(const void *data, size_t length) {
    memcpy(buffer + filled, data, length);
    filled += length;
}

static bool make_room(size_t length) {
    if(begin == filled) begin = filled = 0;
    if(length > BUFFER - filled && begin > 0) {
        memmove(buffer, buffer + begin, filled - begin);
        filled -= begin;
        begin = 0;
    }
    return length <= BUFFER - filled;
}

static void begin_record(struct tw_attribute_record *record, enum tw_attribute_kind kind) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    memset(record, 0, sizeof *record);
    record->magic = TW_ATTRIBUTE_MAGIC;
    record->version = TW_ATTRIBUTE_VERSION;
    record->kind = (uint8_t)kind;
    record->time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    record->dropped = dropped;
    record->socket_user = record->user = record->login_user = TW_ATTRIBUTE_NOBODY;
    record->size = sizeof *record;
}

void tw_output_ready(void) {
    struct tw_attribute_record record;
    begin_record(&record, TW_ATTRIBUTE_READY);
    if(make_room(record.size)) put(&record, sizeof record);
}

void tw_output_connection(const struct tw_attribute_request *request, const struct tw_found *found,
                          enum tw_attribute_result result, const struct tw_process *process) {
    struct tw_attribute_record record;
    begin_record(&record, TW_ATTRIBUTE_CONNECTION);
    record.result = (uint8_t)result;
    record.family = request->family;
    record.client_port = request->client_port;
    record.broker_port = request->broker_port;
    memcpy(record.client_address, request->client_address, sizeof record.client_address);
    memcpy(record.broker_address, request->broker_address, sizeof record.broker_address);
    record.socket_user = found->socket_user;
    record.path_length = (uint32_t)strlen(found->path);
    if(process) {
        record.flags = process->cut ? TW_ATTRIBUTE_CUT : 0;
        record.pid = found->pid;
        record.parent_pid = process->parent_pid;
        record.start_ticks = process->start_ticks;
        record.user = process->user;
        record.login_user = process->login_user;
        record.terminal = process->terminal;
        record.executable_length = (uint32_t)process->executable_length;
        record.parent_executable_length = (uint32_t)process->parent_executable_length;
        record.command_length = (uint32_t)process->command_length;
        record.cgroup_length = (uint32_t)process->cgroup_length;
    }
    record.size += record.executable_length + record.parent_executable_length + record.command_length +
                   record.cgroup_length + record.path_length;
    if(!make_room(record.size)) {
        dropped++;
        return;
    }
    put(&record, sizeof record);
    if(process) {
        put(process->executable, process->executable_length);
        put(process->parent_executable, process->parent_executable_length);
        put(process->command, process->command_length);
        put(process->cgroup, process->cgroup_length);
    }
    put(found->path, record.path_length);
}

bool tw_output_waiting(void) {
    return begin < filled;
}

bool tw_output_flush(void) {
    while(begin < filled) {
        ssize_t written = write(STDOUT_FILENO, buffer + begin, filled - begin);
        if(written > 0) begin += (size_t)written;
        else if(written < 0 && errno == EINTR) continue;
        else return written < 0 && errno == EAGAIN;
    }
    return true;
}
