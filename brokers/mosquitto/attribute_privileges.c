#include "attribute_privileges.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* /proc/PID/fd and /proc/PID/exe of other users: PTRACE_MODE_READ, and reading a folder that is theirs alone. */
#define NEEDED (1ull << CAP_SYS_PTRACE | 1ull << CAP_DAC_READ_SEARCH)

static bool capabilities(long call, uint64_t *permitted) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    memset(data, 0, sizeof data);
    for(int half = 0; half < 2; half++)
        data[half].permitted = data[half].effective = (uint32_t)(*permitted >> (32 * half));
    if(syscall(call, &head, data) != 0) return false;
    *permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
    return true;
}

const char *tw_privileges_drop(void) {
    uint64_t permitted = 0;
    if(!capabilities(SYS_capget, &permitted)) return "capget";
    if((permitted & NEEDED) != NEEDED)
        return "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: run it as root, in a container with --cap-add SYS_PTRACE "
               "--cap-add DAC_READ_SEARCH";
    /* Best effort: what follows needs privileges itself, and who has none has none to lose. */
    if(permitted & 1ull << CAP_SETGID) (void)!setgroups(0, NULL);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if(permitted & 1ull << CAP_SETPCAP) {
        for(unsigned long one = 0; one < 64; one++)
            if(!(NEEDED >> one & 1)) prctl(PR_CAPBSET_DROP, one, 0, 0, 0);
        prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                     SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED, 0, 0, 0);
    }
    uint64_t kept = NEEDED;
    if(!capabilities(SYS_capset, &kept)) return "capset";
    if(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return "no_new_privs";
    /* Command lines hold passwords: neither a debugger nor a core file gets at them. */
    if(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return "not dumpable";
    struct rlimit none = {0, 0};
    return setrlimit(RLIMIT_CORE, &none) == 0 ? NULL : "no core files";
}
