/* Records, in their order, the changes a process makes to files below one folder; and fails them when it is told to.
 *
 * For tests of power loss and full disks: see disk.py. Preloaded, so that it sees what any library of the process
 * writes. What it cannot see (mappings, system calls made directly) the reader of the recording finds out: replayed
 * into an empty folder it must give the folder that is there. Nothing is synced while it records.
 *
 * Build: gcc -std=gnu11 -O1 -Wall -Werror -shared -fPIC -o disk_recorder.so disk_recorder.c
 * Run:   LD_PRELOAD=./disk_recorder.so program, which calls disk_record, disk_fail, disk_mark and disk_stop
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct head {
    uint32_t code;
    uint32_t first, second; /* bytes of the two paths */
    uint32_t data;
    int64_t number; /* flags, offset or length */
};

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static int out = -1;
static char below[PATH_MAX];
static long fail_from, fail_times;
static int fail_error;

EXPORT long disk_changes; /* tried so far, failed ones too */

static void put(const void *data, size_t size)
{
    const char *at = data;
    while (size) {
        long written = syscall(SYS_write, out, at, size);
        if (written <= 0)
            _exit(70);
        at += written;
        size -= (size_t)written;
    }
}

static void record(char code, const char *first, const char *second, const void *data, size_t size, int64_t number)
{
    struct head head = {(uint32_t)code, (uint32_t)strlen(first), second ? (uint32_t)strlen(second) : 0, (uint32_t)size,
                        number};
    put(&head, sizeof head);
    put(first, head.first);
    put(second ? second : "", head.second);
    put(data ? data : "", size);
}

static int inside(const char *path)
{
    size_t size = strlen(below);
    return out >= 0 && !strncmp(path, below, size) && (path[size] == '/' || !path[size]);
}

/* The absolute path of a name; a relative one is taken as it is given. */
static int named(int folder, const char *name, char path[PATH_MAX])
{
    char link[64];
    ssize_t size = 0;
    if (out < 0)
        return 0;
    if (name[0] != '/') {
        if (folder == AT_FDCWD)
            strcpy(link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        size = readlink(link, path, PATH_MAX - 1);
        if (size < 0)
            return 0;
        path[size++] = '/';
    }
    if ((size_t)size + strlen(name) >= PATH_MAX)
        return 0;
    strcpy(path + size, name);
    return inside(path);
}

/* The path an open file has now; none for what has no name any more: nobody finds it after a crash. */
static int opened(int descriptor, char path[PATH_MAX])
{
    char link[64];
    struct stat about;
    if (out < 0)
        return 0;
    int error = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    int known = size > 0 && !fstat(descriptor, &about) && about.st_nlink > 0;
    if (known) {
        path[size] = 0;
        known = inside(path);
    }
    errno = error;
    return known;
}

/* Whether this change has to fail; `errno` is set then. */
static int fails(void)
{
    long number = disk_changes++;
    if (number < fail_from || number >= fail_from + fail_times)
        return 0;
    errno = fail_error;
    return 1;
}

EXPORT void disk_record(const char *folder, const char *recording)
{
    strcpy(below, folder);
    disk_changes = fail_times = 0;
    out = (int)syscall(SYS_openat, AT_FDCWD, recording, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

/* Fail so many changes from number `from` on (from 0); a write among them first writes half. */
EXPORT void disk_fail(long from, long times, int error)
{
    fail_from = from;
    fail_times = times;
    fail_error = error;
}

EXPORT void disk_mark(const char *text)
{
    pthread_mutex_lock(&guard);
    record('!', text, NULL, NULL, 0, 0);
    pthread_mutex_unlock(&guard);
}

EXPORT void disk_stop(void)
{
    pthread_mutex_lock(&guard);
    close(out);
    out = -1;
    pthread_mutex_unlock(&guard);
}

/* A change by name: done and recorded under one lock, so that the recording has the order in which they were done. */
#define BY_NAME(code, first, second, number, call)               \
    do {                                                         \
        pthread_mutex_lock(&guard);                              \
        long result_ = fails() ? -1 : (call);                    \
        int error_ = errno;                                      \
        if (result_ >= 0)                                        \
            record(code, first, second, NULL, 0, number);        \
        else                                                     \
            record('!', "failed", NULL, NULL, 0, 0);             \
        errno = error_;                                          \
        pthread_mutex_unlock(&guard);                            \
        return (int)result_;                                     \
    } while (0)

static int open_at(int folder, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];
    if (flags & (O_CREAT | O_TRUNC) && named(folder, name, path))
        BY_NAME('O', path, NULL, flags & O_TRUNC ? 1 : 0, syscall(SYS_openat, folder, name, flags, mode));
    return (int)syscall(SYS_openat, folder, name, flags, mode);
}

#define OPEN(symbol)                                             \
    EXPORT int symbol(const char *name, int flags, ...)          \
    {                                                            \
        va_list rest;                                            \
        va_start(rest, flags);                                   \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                            \
        return open_at(AT_FDCWD, name, flags, mode);             \
    }
#define OPENAT(symbol)                                           \
    EXPORT int symbol(int folder, const char *name, int flags, ...) \
    {                                                            \
        va_list rest;                                            \
        va_start(rest, flags);                                   \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                            \
        return open_at(folder, name, flags, mode);               \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

static ssize_t written(int descriptor, const void *data, size_t size, off_t at, int positioned)
{
    char path[PATH_MAX];
    if (!opened(descriptor, path))
        return positioned ? syscall(SYS_pwrite64, descriptor, data, size, at) : syscall(SYS_write, descriptor, data, size);
    pthread_mutex_lock(&guard);
    long result = -1;
    if (fails()) {
        /* What there is room for is written; it is the next attempt that fails. */
        if (size > 1 && disk_changes - 1 == fail_from) {
            size /= 2;
            fail_from++;
            errno = 0;
        } else {
            size = 0;
        }
    }
    if (size) {
        result = positioned ? syscall(SYS_pwrite64, descriptor, data, size, at) : syscall(SYS_write, descriptor, data, size);
        if (result > 0)
            record('W', path, NULL, data, (size_t)result, positioned ? at : lseek(descriptor, 0, SEEK_CUR) - result);
    }
    pthread_mutex_unlock(&guard);
    return result;
}

EXPORT ssize_t write(int descriptor, const void *data, size_t size)
{
    return written(descriptor, data, size, 0, 0);
}

EXPORT ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    char path[PATH_MAX];
    if (!opened(descriptor, path))
        return syscall(SYS_writev, descriptor, parts, count);
    ssize_t total = 0;
    for (int number = 0; number < count; number++) {
        ssize_t result = written(descriptor, parts[number].iov_base, parts[number].iov_len, 0, 0);
        if (result < 0)
            return total ? total : result;
        total += result;
        if ((size_t)result < parts[number].iov_len)
            break;
    }
    return total;
}

EXPORT ssize_t pwrite(int descriptor, const void *data, size_t size, off_t at)
{
    return written(descriptor, data, size, at, 1);
}

EXPORT ssize_t pwrite64(int descriptor, const void *data, size_t size, off_t at)
{
    return written(descriptor, data, size, at, 1);
}

EXPORT int ftruncate(int descriptor, off_t size)
{
    char path[PATH_MAX];
    if (opened(descriptor, path))
        BY_NAME('T', path, NULL, size, syscall(SYS_ftruncate, descriptor, size));
    return (int)syscall(SYS_ftruncate, descriptor, size);
}

EXPORT int ftruncate64(int descriptor, off_t size)
{
    return ftruncate(descriptor, size);
}

EXPORT int fsync(int descriptor)
{
    char path[PATH_MAX];
    if (opened(descriptor, path))
        BY_NAME('S', path, NULL, 0, 0);
    return (int)syscall(SYS_fsync, descriptor);
}

EXPORT int fdatasync(int descriptor)
{
    return fsync(descriptor);
}

EXPORT int syncfs(int descriptor)
{
    char path[PATH_MAX];
    if (opened(descriptor, path))
        BY_NAME('Y', path, NULL, 0, 0);
    return (int)syscall(SYS_syncfs, descriptor);
}

EXPORT int renameat2(int old_folder, const char *old, int new_folder, const char *new, unsigned flags)
{
    char from[PATH_MAX], to[PATH_MAX];
    if (named(old_folder, old, from) && named(new_folder, new, to))
        BY_NAME('R', from, to, flags, syscall(SYS_renameat2, old_folder, old, new_folder, new, flags));
    return (int)syscall(SYS_renameat2, old_folder, old, new_folder, new, flags);
}

EXPORT int renameat(int old_folder, const char *old, int new_folder, const char *new)
{
    return renameat2(old_folder, old, new_folder, new, 0);
}

EXPORT int rename(const char *old, const char *new)
{
    return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0);
}

EXPORT int linkat(int old_folder, const char *old, int new_folder, const char *new, int flags)
{
    char from[PATH_MAX], to[PATH_MAX];
    if (named(old_folder, old, from) && named(new_folder, new, to))
        BY_NAME('L', from, to, 0, syscall(SYS_linkat, old_folder, old, new_folder, new, flags));
    return (int)syscall(SYS_linkat, old_folder, old, new_folder, new, flags);
}

EXPORT int link(const char *old, const char *new)
{
    return linkat(AT_FDCWD, old, AT_FDCWD, new, 0);
}

EXPORT int unlinkat(int folder, const char *name, int flags)
{
    char path[PATH_MAX];
    if (named(folder, name, path))
        BY_NAME(flags & AT_REMOVEDIR ? 'X' : 'U', path, NULL, 0, syscall(SYS_unlinkat, folder, name, flags));
    return (int)syscall(SYS_unlinkat, folder, name, flags);
}

EXPORT int unlink(const char *name)
{
    return unlinkat(AT_FDCWD, name, 0);
}

EXPORT int remove(const char *name)
{
    int result = unlinkat(AT_FDCWD, name, 0);
    return result && errno == EISDIR ? unlinkat(AT_FDCWD, name, AT_REMOVEDIR) : result;
}

EXPORT int rmdir(const char *name)
{
    return unlinkat(AT_FDCWD, name, AT_REMOVEDIR);
}

EXPORT int mkdirat(int folder, const char *name, mode_t mode)
{
    char path[PATH_MAX];
    if (named(folder, name, path))
        BY_NAME('M', path, NULL, 0, syscall(SYS_mkdirat, folder, name, mode));
    return (int)syscall(SYS_mkdirat, folder, name, mode);
}

EXPORT int mkdir(const char *name, mode_t mode)
{
    return mkdirat(AT_FDCWD, name, mode);
}
