/* test_sandbox.c - what a reader can no longer do, each try in a process of its own, from the main
 * thread and from one that was there before.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loaderd/reader.h"
#include "loaderd/sandbox.h"
#include "tests/test.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

#define MEMORY_BYTES (64ull << 20)

/* Each tries one thing and returns what it got: 0 allowed, else the errno. */
static long outcome(long result)
{
    return result < 0 ? errno : 0;
}
static long try_socket(void)
{
    return outcome(socket(AF_INET, SOCK_STREAM, 0));
}
static long try_connect(void)
{
    return outcome(connect(READER_PAIR_FD, NULL, 0));
}
static long try_execve(void)
{
    return outcome(syscall(SYS_execve, "/bin/true", NULL, NULL));
}
static long try_fork(void)
{
    return outcome(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL));
}
static long try_kill(void)
{
    return outcome(kill(getppid(), 0));
}
static long try_signal_parent(void)
{
    return outcome(syscall(SYS_tgkill, getppid(), getppid(), 0));
}
static long try_compute_long(void)
{
    sandbox_time_limit(15, 1);
    for (volatile unsigned i = 0;; i++)
        ;
    return 0;
}
static long try_wait_long(void)
{
    sandbox_time_limit(1, 15);
    return poll(NULL, 0, 10000);
}
static long try_limits_off(void)
{
    struct itimerval cpu;
    sandbox_time_limit(15, 15);
    sandbox_time_limit(0, 0);
    long rest = alarm(0);
    return setitimer(ITIMER_PROF, &(struct itimerval){0}, &cpu) || rest || cpu.it_value.tv_sec;
}
static long try_ptrace(void)
{
    return outcome(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
}
static long try_unlink(void)
{
    return outcome(unlink("witness"));
}
static long try_write_file(void)
{
    return outcome(write(READER_FILE_FD, "x", 1));
}
static long try_executable_memory(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? errno : 0;
}
static long try_make_executable(void)
{
    void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return outcome(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}
static long try_limit_files(void)
{
    return outcome(syscall(SYS_prlimit64, 0, 7 /* RLIMIT_NOFILE */, NULL, NULL));
}
static long try_limit_parent(void)
{
    struct rlimit now;
    return outcome(syscall(SYS_prlimit64, getppid(), RLIMIT_DATA, NULL, &now));
}
static long try_other_architecture(void)
{
    return outcome(syscall(0x40000000 | SYS_getpid)); /* x32 */
}
static long try_open_for_writing(void)
{
    return outcome(open("witness", O_RDWR));
}
static long try_open(void)
{
    return outcome(open("witness", O_RDONLY));
}
static long try_read_file(void)
{
    char byte;
    return outcome(pread(READER_FILE_FD, &byte, 1, 0));
}
static long try_memory(void)
{
    void *p =
        mmap(NULL, MEMORY_BYTES / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? errno : 0;
}
static long try_memory_beyond(void)
{
    void *p =
        mmap(NULL, MEMORY_BYTES * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? errno : 0;
}
static long try_memory_lowered(void)
{
    sandbox_memory_lower(1 << 20);
    return try_memory();
}
static long try_raise_memory(void)
{
    sandbox_memory_lower(1 << 20);
    sandbox_memory_lower(MEMORY_BYTES); /* comes too late */
    return try_memory();
}
static long try_abort(void)
{
    abort();
}

static pthread_barrier_t closed;
static long (*thread_try)(void);

static void *thread_main(void *self)
{
    (void)self;
    pthread_barrier_wait(&closed);
    return (void *)thread_try();
}

/* In the child: the errno of the try as exit code. */
static void child_main(long (*try)(void), int in_thread)
{
    pthread_t thread;
    struct err e = {0};
    int file = open("witness", O_RDWR), ends[2];
    if (file < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) != 0)
        _exit(99);
    dup2(file, 20);
    dup2(ends[1], 21);
    dup2(20, READER_FILE_FD);
    dup2(21, READER_PAIR_FD);
    thread_try = try;
    pthread_barrier_init(&closed, NULL, 2);
    if (in_thread && pthread_create(&thread, NULL, thread_main, NULL) != 0)
        _exit(98);
    if (sandbox_enter(MEMORY_BYTES, &e) != 0)
        _exit(97);
    void *result = NULL;
    if (in_thread) {
        pthread_barrier_wait(&closed);
        pthread_join(thread, &result);
    } else {
        result = (void *)try();
    }
    _exit((int)(long)result);
}

/* -signal, or the errno of the try (0: it was allowed). */
static int tried(long (*try)(void), int in_thread)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        child_main(try, in_thread);
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void witness_make(void)
{
    FILE *f = fopen("witness", "w");
    CHECK(f && fputs("here", f) >= 0 && fclose(f) == 0);
}

TEST_LIMIT(forbidden_calls_end_the_reader, 60)
{
    static const struct {
        const char *name;
        long (*try)(void);
        int sanitizer_needs;
    } forbidden[] = {
        {"socket", try_socket, 0},
        {"connect", try_connect, 0},
        {"execve", try_execve, 0},
        {"fork", try_fork, 1},
        {"kill", try_kill, 0},
        {"tgkill of the parent", try_signal_parent, 0},
        {"ptrace", try_ptrace, 1},
        {"unlink", try_unlink, 0},
        {"write to the file", try_write_file, 0},
        {"executable memory", try_executable_memory, 0},
        {"memory made executable", try_make_executable, 0},
        {"another limit than memory's", try_limit_files, 0},
        {"a limit of the parent", try_limit_parent, 0},
        {"a call of another architecture", try_other_architecture, 0},
    };
    witness_make();
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
        for (int in_thread = 0; in_thread < 2; in_thread++) {
            if (SANITIZED && forbidden[i].sanitizer_needs)
                continue;
            int got = tried(forbidden[i].try, in_thread);
            if (got != -SIGSYS)
                test_fail(__FILE__, __LINE__, "%s%s gave %d, not SIGSYS", forbidden[i].name,
                          in_thread ? " in a thread" : "", got);
        }
    CHECK(access("witness", F_OK) == 0);
}

TEST(needed_calls_go_on)
{
    witness_make();
    for (int in_thread = 0; in_thread < 2; in_thread++) {
        CHECK_EQ(tried(try_read_file, in_thread), 0);
        CHECK_EQ(tried(try_memory, in_thread), 0);
        CHECK_EQ(tried(try_open_for_writing, in_thread), SANITIZED ? -SIGSYS : EACCES);
        if (!SANITIZED)
            CHECK_EQ(tried(try_open, in_thread), EACCES);
    }
    CHECK_EQ(tried(try_abort, 0), -SIGABRT); /* our own checks still say so */
}

TEST(time_is_bounded)
{
    witness_make();
    CHECK_EQ(tried(try_compute_long, 0), -SIGPROF);
    CHECK_EQ(tried(try_wait_long, 0), -SIGALRM);
    CHECK_EQ(tried(try_limits_off, 0), 0);
}

TEST(memory_is_bounded)
{
    if (SANITIZED)
        test_skip("memory is not bounded under a sanitizer");
    witness_make();
    CHECK_EQ(tried(try_memory_beyond, 0), ENOMEM);
    CHECK_EQ(tried(try_memory_lowered, 0), ENOMEM);
    CHECK_EQ(tried(try_raise_memory, 0), ENOMEM);
}
