/* sandbox.c - see sandbox.h: the reader's system calls, one row a call, made into a BPF program.
 *
 * All threads are there before (SECCOMP_FILTER_FLAG_TSYNC puts the filter on each), so no call that
 * makes one is in the list; nor is any that opens, connects, executes or signals another process.
 * A row may test arguments: reading is for the file's descriptor, messages for the pair's, a limit
 * is memory's and the reader's own.
 * Opening is refused instead of ending the process because the C library itself tries it at odd
 * moments (malloc looks at /proc/sys/vm when a heap shrinks) and does well without.
 *
 * Under a sanitizer the same filter holds with what its reports and its leak check need besides
 * (SANITIZER rows: they may open for reading, start their tracer and look at the process), and
 * memory is not bounded: its shadow counts as terabytes.
 */
#include "loaderd/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "loaderd/reader.h"
#include "proto/log.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

enum {
    /* File, pair, standard streams, arena and door, and a few to spare. */
    DESCRIPTORS_MAX = 16,
    CALLS_MAX = 128,
    TESTS_MAX = 2, /* of a call's arguments */
    INSTRUCTIONS_A_CALL = 3 + 2 * TESTS_MAX,
    INSTRUCTIONS_AROUND = 6,
};

#ifdef ARCHITECTURE

enum test { ALWAYS, EQUALS, WITHOUT };

/* Allowed if the low half of argument `argument` equals `value`, or has none of its bits; and that
 * of the other one too, if it is tested. */
struct call {
    unsigned number;
    enum test test;
    unsigned argument;
    uint32_t value;
    enum test other_test;
    unsigned other_argument;
    uint32_t other_value;
};

static const struct call calls[] = {
    /* the file, the pair, the log */
    {SYS_pread64, EQUALS, 0, READER_FILE_FD},
    {SYS_lseek, EQUALS, 0, READER_FILE_FD},
    {SYS_fadvise64, EQUALS, 0, READER_FILE_FD},
    {SYS_recvmsg, EQUALS, 0, READER_PAIR_FD},
    {SYS_sendmsg, EQUALS, 0, READER_PAIR_FD},
    {SYS_write, EQUALS, 0, STDERR_FILENO},
    {SYS_writev, EQUALS, 0, STDERR_FILENO}, /* malloc's last words */
#ifdef SYS_poll
    {SYS_poll},
#endif
    {SYS_ppoll},
    {SYS_close},
    {SYS_fstat},
    {SYS_newfstatat, EQUALS, 3, AT_EMPTY_PATH}, /* how glibc says fstat */
    {SYS_fcntl, EQUALS, 1, F_GET_SEALS},
    /* memory, never executable */
    {SYS_mmap, WITHOUT, 2, PROT_EXEC},
    {SYS_mprotect, WITHOUT, 2, PROT_EXEC},
    {SYS_munmap},
    {SYS_mremap},
    {SYS_madvise},
    {SYS_brk},
    /* downwards: there is a hard limit; not those of another process of the same user */
    {SYS_prlimit64, EQUALS, 1, RLIMIT_DATA, EQUALS, 0, 0},
    /* threads that exist, time, signals to oneself (see below), the end */
    {SYS_futex},
    {SYS_set_robust_list},
    {SYS_sched_yield},
#ifdef SYS_rseq
    {SYS_rseq},
#endif
    {SYS_clock_gettime},
    {SYS_gettimeofday},
    {SYS_getrusage},
    {SYS_sysinfo}, /* glibc's qsort, of how much memory there is */
    {SYS_clock_nanosleep},
    {SYS_getrandom},
    {SYS_getpid},
    {SYS_gettid},
    {SYS_getppid},
#ifdef SYS_alarm
    {SYS_alarm},
#endif
    {SYS_setitimer},
    {SYS_rt_sigaction},
    {SYS_rt_sigprocmask},
    {SYS_rt_sigreturn},
    {SYS_restart_syscall},
    {SYS_exit},
    {SYS_exit_group},
};

static const struct call sanitizer_calls[] = {
    {SYS_openat, WITHOUT, 2, O_ACCMODE | O_CREAT},
#ifdef SYS_open
    {SYS_open, WITHOUT, 1, O_ACCMODE | O_CREAT},
#endif
#ifdef SYS_readlink
    {SYS_readlink},
#endif
    {SYS_readlinkat},
    {SYS_read},
    {SYS_getdents64},
    {SYS_ioctl}, /* is it a terminal? */
    {SYS_uname},
    {SYS_clone},
    {SYS_wait4},
    {SYS_ptrace},
    {SYS_process_vm_readv},
    {SYS_prctl},
    {SYS_sigaltstack},
    {SYS_sched_getaffinity},
    {SYS_nanosleep},
};

static const unsigned opens[] = {
    SYS_openat,
#ifdef SYS_open
    SYS_open,
#endif
};

struct program {
    struct sock_filter code[CALLS_MAX * INSTRUCTIONS_A_CALL + INSTRUCTIONS_AROUND];
    unsigned short count;
};

static void emit(struct program *p, uint16_t code, uint32_t k, uint8_t if_true, uint8_t if_false)
{
    ensure(p->count < sizeof p->code / sizeof *p->code);
    p->code[p->count++] = (struct sock_filter)BPF_JUMP(code, k, if_true, if_false);
}

static void emit_load(struct program *p, size_t offset)
{
    emit(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void emit_return(struct program *p, uint32_t action)
{
    emit(p, BPF_RET | BPF_K, action, 0, 0);
}

/* On to the next instruction if the test is passed, else `skip` further. Both architectures are
 * little-endian: the low half of an argument stands first. */
static void emit_test(struct program *p, enum test test, unsigned argument, uint32_t value,
                      uint8_t skip)
{
    emit_load(p, offsetof(struct seccomp_data, args) + argument * sizeof(uint64_t));
    if (test == EQUALS)
        emit(p, BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip);
    else
        emit(p, BPF_JMP | BPF_JSET | BPF_K, value, skip, 0);
}

static void emit_call(struct program *p, const struct call *c)
{
    int tests = (c->test != ALWAYS) + (c->other_test != ALWAYS);
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, c->number, 0, (uint8_t)(1 + (tests ? 2 * tests + 1 : 0)));
    if (tests > 1)
        emit_test(p, c->other_test, c->other_argument, c->other_value, 3);
    if (tests)
        emit_test(p, c->test, c->argument, c->value, 1);
    emit_return(p, SECCOMP_RET_ALLOW);
    if (tests)
        emit_return(p, SECCOMP_RET_KILL_PROCESS);
}

static void program_make(struct program *p)
{
    const struct call abort_call = {SYS_tgkill, EQUALS, 0, (uint32_t)getpid()};
    p->count = 0;
    emit_load(p, offsetof(struct seccomp_data, arch));
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    emit_return(p, SECCOMP_RET_KILL_PROCESS);
    emit_load(p, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        emit_call(p, &calls[i]);
    emit_call(p, &abort_call);
    if (SANITIZED)
        for (size_t i = 0; i < sizeof sanitizer_calls / sizeof *sanitizer_calls; i++)
            emit_call(p, &sanitizer_calls[i]);
    for (size_t i = 0; i < sizeof opens / sizeof *opens; i++) {
        emit(p, BPF_JMP | BPF_JEQ | BPF_K, opens[i], 0, 1);
        emit_return(p, SECCOMP_RET_ERRNO | EACCES);
    }
    emit_return(p, SECCOMP_RET_KILL_PROCESS);
}

static int filter_load(struct err *e)
{
    static struct program program;
    program_make(&program);
    struct sock_fprog filter = {.len = program.count, .filter = program.code};
    long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
    if (result == 0)
        return 0;
    if (result < 0 && errno == ENOSYS) {
        log_warn("part=reader this kernel has no seccomp: the reader runs without a filter");
        return 0;
    }
    if (result > 0) /* the number of a thread that would not take it */
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot put the reader's filter on thread %ld",
                       result);
    return err_errno(e, EXIT_CODE_TEMPORARY, "cannot load the reader's seccomp filter");
}

#else

static int filter_load(struct err *e)
{
    (void)e;
    log_warn("part=reader there is no seccomp filter for this architecture: the reader runs "
             "without one");
    return 0;
}

#endif

/* Private writable memory of this process now, from /proc/self/statm: what RLIMIT_DATA counts, and
 * the stack. */
static uint64_t memory_now(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%*u %*u %*u %*u %*u %llu", &pages) != 1)
            pages = 0;
        fclose(f);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t memory_base; /* before the first byte of the file */

void sandbox_memory_lower(uint64_t memory_bytes)
{
    struct rlimit limit;
    if (SANITIZED || __builtin_add_overflow(memory_bytes, memory_base, &memory_bytes) ||
        getrlimit(RLIMIT_DATA, &limit) != 0 || limit.rlim_max <= memory_bytes)
        return;
    setrlimit(RLIMIT_DATA, &(struct rlimit){memory_bytes, memory_bytes});
}

void sandbox_time_limit(uint64_t wall_s, uint64_t cpu_s)
{
    struct itimerval cpu = {.it_value.tv_sec = (time_t)cpu_s};
    alarm((unsigned)wall_s);
    setitimer(ITIMER_PROF, &cpu, NULL);
}

int sandbox_enter(uint64_t memory_bytes, struct err *e)
{
    const struct rlimit none = {0, 0}, few = {DESCRIPTORS_MAX, DESCRIPTORS_MAX};
    tzset(); /* reads its file now: later neither our log nor libhdf5 could */
    memory_base = memory_now();
    sandbox_memory_lower(memory_bytes);
    if (setrlimit(RLIMIT_CORE, &none) != 0 || setrlimit(RLIMIT_NOFILE, &few) != 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot limit the reader");
    return filter_load(e);
}
