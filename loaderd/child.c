/* child.c - see child.h. The reader is this program again (/proc/self/exe, so an upgraded file on
 * disk makes no difference), with the file at descriptor 3, its end of the pair at 4 and nothing
 * else of ours but standard error.
 */
#include "loaderd/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/arena.h"
#include "proto/door.h"
#include "proto/limits.h"

enum { ABOVE_READER_FDS = 10 };

extern char **environ;

int child_file_open(const char *path, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* never wait in a FIFO */
    if (fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open the data file %s", path);
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return err_set(e, EXIT_CODE_PERMANENT, "cannot read %s: it is %s; expected an HDF5 file", path,
                   S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
}

/* In the forked child, system calls only: dies with its parent, dispositions and mask of a fresh
 * process, the descriptors in their places, all others closed. */
_Noreturn static void reader_exec(char **argv, int file, int pair)
{
    sigset_t none;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(file, READER_FILE_FD) >= 0 && dup2(pair, READER_PAIR_FD) >= 0) {
        close_range(READER_PAIR_FD + 1, ~0u, 0); /* they are close-on-exec besides */
        execve("/proc/self/exe", argv, environ);
    }
    _exit(EXIT_CODE_TEMPORARY); /* which the parent sees as a reader that died */
}

/* fork, not posix_spawn: that holds the parent still until the exec, so a child that is stopped
 * (SIGSTOP) in that instant would stop loaderd as a whole. Returns an errno. */
static int reader_spawn(pid_t *pid, const char *run, int file, int pair)
{
    char *argv[] = {"loaderd", "--reader", "--run", (char *)run, NULL};
    *pid = fork();
    if (*pid == 0)
        reader_exec(argv, file, pair);
    return *pid < 0 ? errno : 0;
}

int child_start(struct child *c, const char *run, int file, struct err *e)
{
    int ends[2];
    *c = CHILD_NONE;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot make a pair of sockets for a reader");
    /* Above the places they go to, so that neither dup2 overwrites the other's source. */
    int file_up = fcntl(file, F_DUPFD_CLOEXEC, ABOVE_READER_FDS);
    int pair_up = fcntl(ends[1], F_DUPFD_CLOEXEC, ABOVE_READER_FDS);
    int failed = file_up < 0 || pair_up < 0 ? errno : reader_spawn(&c->pid, run, file_up, pair_up);
    if (file_up >= 0)
        close(file_up);
    if (pair_up >= 0)
        close(pair_up);
    close(ends[1]);
    c->pair = ends[0];
    if (!failed)
        return 0;
    c->pid = 0;
    child_kill(c);
    errno = failed;
    return err_errno(e, EXIT_CODE_TEMPORARY, "cannot start a reader");
}

void child_kill(struct child *c)
{
    if (c->pid > 0) {
        kill(c->pid, SIGKILL);
        while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    if (c->pair >= 0)
        close(c->pair);
    *c = CHILD_NONE;
}

int child_fault(struct child *c)
{
    siginfo_t info = {0};
    int waited;
    if (c->pid <= 0)
        return 0;
    kill(c->pid, SIGKILL); /* its end may not be complete yet; what caused that stands */
    while ((waited = waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOWAIT)) < 0 && errno == EINTR)
        ;
    if (waited < 0 || info.si_code == CLD_EXITED)
        return 0;
    return child_fault_name(info.si_status) ? info.si_status : 0;
}

const char *child_fault_name(int fault)
{
    switch (fault) {
    case SIGSEGV:
        return "an access outside its memory (SIGSEGV)";
    case SIGBUS:
        return "an access outside its memory (SIGBUS)";
    case SIGABRT:
        return "a failed check of its own (SIGABRT)";
    case SIGFPE:
        return "an impossible division (SIGFPE)";
    case SIGILL:
        return "an impossible instruction (SIGILL)";
    case SIGSYS:
        return "a system call that its sandbox forbids (SIGSYS)";
    case SIGALRM:
        return "a request that took too long (SIGALRM)";
    case SIGPROF:
        return "a request that made it compute for too long (SIGPROF)";
    default:
        return NULL;
    }
}

const char *child_fault_meaning(int fault)
{
    switch (fault) {
    case SIGPROF:
        return "computing what the file asks for took over its limit";
    case SIGALRM:
        return "reading it took over its limit: its disk is too slow or the file is damaged";
    default:
        return "the file is damaged or hostile";
    }
}

int child_is_stopped(const struct child *c)
{
    siginfo_t info = {0};
    return c->pid > 0 && waitid(P_PID, (id_t)c->pid, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == c->pid;
}

int child_send(struct child *c, const struct reader_packet *packet, const int *fds, int fd_count,
               struct err *e)
{
    return door_send(c->pair, packet, sizeof *packet, fds, fd_count, e);
}

static int text_ends(const char *text, size_t capacity)
{
    return memchr(text, 0, capacity) != NULL;
}

static int field_possible(const struct msg_field_info *f, uint64_t span_bytes)
{
    return text_ends(f->name, sizeof f->name) && text_ends(f->type, sizeof f->type) &&
           text_ends(f->pointer, sizeof f->pointer) && f->values && f->values <= 1ull << 32 &&
           f->row_bytes && f->row_bytes <= 1ull << 36 && f->offset % 64 == 0 &&
           f->offset <= span_bytes && span_bytes <= 1ull << 40 && f->items_max <= 1ull << 40 &&
           f->batch_items_max <= 1ull << 40 && f->slice_items_max <= 1ull << 40 &&
           f->sample_items_max <= 1ull << 40;
}

/* Does what the reader says lie within what messages.def lets us pass on? */
static int described_possible(const struct reader_described *d)
{
    if (!text_ends(d->fingerprint, sizeof d->fingerprint) ||
        !text_ends(d->layout, sizeof d->layout) || d->field_count < 1 ||
        d->field_count > SPAN_FIELDS_MAX || !d->rows || d->rows > 1ull << 48 || !d->chunk_rows ||
        d->chunk_rows > 1ull << 40 || !d->spans || d->spans > 1ull << 40 || !d->span_rows ||
        d->span_rows > 1ull << 40 || d->streams > 1 << 20 || d->chunk_bytes_max > 1ull << 40 ||
        d->kept_bytes > 1ull << 40)
        return 0;
    for (uint32_t i = 0; i < d->field_count; i++)
        if (!field_possible(&d->fields[i], d->span_bytes_max))
            return 0;
    return 1;
}

static int packet_possible(const struct reader_packet *p)
{
    switch (p->kind) {
    case READER_DESCRIBED:
        return described_possible(&p->described);
    case READER_ARMED:
        return 1;
    case READER_DONE:
        return p->done.epoch <= 1ull << 40 && p->done.span <= 1ull << 40 &&
               p->done.slot < ARENA_SLOTS_MAX && p->done.rows <= 1ull << 40;
    case READER_REJECTED:
        return text_ends(p->text, sizeof p->text);
    default:
        return 0;
    }
}

int child_recv(struct child *c, struct reader_packet *packet, struct err *e)
{
    int fds[DOOR_FDS_MAX], fd_count = 0;
    struct err local = {0};
    memset(packet, 0, sizeof *packet);
    ssize_t got = door_recv(c->pair, packet, sizeof *packet, fds, &fd_count, &local);
    for (int i = 0; i < fd_count; i++)
        close(fds[i]);
    if (got < 0 && !local.code)
        return 0;
    if (got == (ssize_t)sizeof *packet && fd_count == 0 && packet_possible(packet))
        return 1;
    if (got == 0)
        return err_set(e, EXIT_CODE_TEMPORARY, "its reader process died while it read the file");
    return err_set(e, EXIT_CODE_TEMPORARY, "its reader process sent something impossible");
}

int child_wait(struct child *c, struct reader_packet *packet, int timeout_ms, struct err *e)
{
    struct pollfd wait = {.fd = c->pair, .events = POLLIN};
    int ready;
    while ((ready = poll(&wait, 1, timeout_ms)) < 0 && errno == EINTR)
        ;
    int got = ready > 0 ? child_recv(c, packet, e) : 0;
    return got ? got
               : err_set(e, EXIT_CODE_TEMPORARY, "its reader process did not answer within %d s",
                         timeout_ms / 1000);
}

uint64_t child_workers(uint64_t asked)
{
    return limits_decoders("", asked);
}
