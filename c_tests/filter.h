/* Filters of system calls (seccomp), for tests of what a sandbox refuses. Include check.h first. */
#ifndef FILTER_H
#define FILTER_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* What feature macros hide. */
#ifdef __cplusplus
extern "C" {
#endif
extern long syscall(long number, ...);
#ifdef __cplusplus
}
#endif

enum { OWN_THREAD = 0, ALL_THREADS = SECCOMP_FILTER_FLAG_TSYNC };

/* Has a system call answer this error from now on. Answers 0 where there are no filters. */
static inline int refuse(unsigned call, unsigned error, unsigned threads)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program;
    program.len = sizeof steps / sizeof steps[0];
    program.filter = steps;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, threads, &program) == 0;
}

/* Whether there are filters. */
static inline int can_filter(void)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(refuse(SYS_membarrier, 1, ALL_THREADS) ? 0 : 1);
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return has(WIFEXITED(status) && WEXITSTATUS(status) == 0, "filters of system calls");
}

#endif
