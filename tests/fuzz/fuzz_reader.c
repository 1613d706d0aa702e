/* fuzz_reader.c - real readers on mutated files, and on files given whole.
 *
 *   fuzz_reader --probe FILE...                       one line a file: served | rejected: why |
 * died: of what fuzz_reader SEED COUNT LIMIT_S DIRECTORY BASE...  COUNT mutations of the bases, or
 * as many as LIMIT_S allows
 *
 * A base is a file of bases.py with its .map beside it. Mutations aim at numbers of the file's
 * structure, then at its other structure, seldom at rows; the checksums of HDF5's newer structures
 * are mended after three of four, or nothing behind them would be reached. Each file goes through a
 * forked reader_main over its pair: opened, armed, all spans read. A reader may reject it, serve
 * it, or end at a limit (time, memory). libhdf5 has faults of its own, which the reader contains
 * and loaderd turns into a rejection: a death whose innermost frames are libhdf5's counts as
 * faulted. Any other death is ours: the file is kept in DIRECTORY and the exit code is 1. The last
 * line is "N mutations, N served, N rejected, N limited, N faulted in libhdf5, N died, N a second".
 */
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "loaderd/child.h"
#include "loaderd/reader.h"
#include "proto/arena.h"

/* libhdf5's own, exported: Jenkins' lookup3, which ends each checked structure. */
uint32_t H5_checksum_metadata(const void *data, size_t bytes, uint32_t initial);

#if defined(__SANITIZE_ADDRESS__)
/* A size that a file claims must fail as it does without the sanitizer: by a NULL. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1:max_allocation_size_mb=512:detect_leaks=0:symbolize=0";
}
#endif

enum {
    BYTES_MAX = 1 << 20,
    PLACES_MAX = 16384,
    SUMMED_MAX = 4096, /* longest structure with a checksum that is looked for */
    BASES_MAX = 64,
    PATIENCE_MS = 10000,
    SPANS_MAX = 64,
};
#define SPAN_BYTES (1ull << 20)

static void die(const char *what)
{
    perror(what);
    exit(EXIT_CODE_TEMPORARY);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- a reader on one file ------------------------------------------------------------------- */

enum outcome { SERVED, REJECTED, LIMITED, FAULTED, DIED, OUTCOMES };

struct result {
    enum outcome outcome;
    char text[800];
};

static struct arena arena;
static int door[2];
static int output; /* what readers say on standard error, of the last one */

#if !defined(__SANITIZE_ADDRESS__) /* which reports by itself */
enum { FRAMES_MAX = 40, FRAMES_OF_HANDLER = 2 };

/* Where it happened, as lines "module(...)[...]"; then the fault again, for good. */
static void on_fault(int number)
{
    void *frames[FRAMES_MAX];
    int count = backtrace(frames, FRAMES_MAX);
    if (count > FRAMES_OF_HANDLER)
        backtrace_symbols_fd(frames + FRAMES_OF_HANDLER, count - FRAMES_OF_HANDLER, STDERR_FILENO);
    raise(number); /* SA_RESETHAND */
}

static void faults_report(void)
{
    static char stack[1 << 16];
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = on_fault,
                               .sa_flags = (int)(SA_RESETHAND | SA_NODEFER | SA_ONSTACK)};
    void *frame;
    backtrace(&frame, 1); /* loads what it needs before the sandbox closes */
    sigaltstack(&alternative, NULL);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
}
#else
static void faults_report(void)
{
}
#endif

/* Does `text` name libhdf5 before it names us? */
static int names_foreign(char *text)
{
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        if (strstr(line, "libhdf5"))
            return 1;
        if (strstr(line, "fuzz_reader"))
            return 0;
    }
    return 0;
}

/* Were the innermost frames of the last reader's report libhdf5's, and, if it names a buffer, was
 * that libhdf5's own? (One of ours that it overruns is our fault: too small.) */
static int fault_is_foreign(void)
{
    char said[16384];
    ssize_t got = pread(output, said, sizeof said - 1, 0);
    said[got > 0 ? got : 0] = 0;
    char *owner = strstr(said, "allocated by thread");
    if (owner)
        owner[-1] = 0;
    return names_foreign(said) && (!owner || names_foreign(owner));
}

static pid_t reader_fork(int file, int pair)
{
    if (ftruncate(output, 0) != 0)
        die("ftruncate");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid > 0)
        return pid;
    int up[2] = {fcntl(file, F_DUPFD, 40), fcntl(pair, F_DUPFD, 40)};
    dup2(output, STDERR_FILENO);
    dup2(up[0], READER_FILE_FD);
    dup2(up[1], READER_PAIR_FD);
    close_range(READER_PAIR_FD + 1, ~0u, 0);
    faults_report();
    _exit(reader_main());
}

/* Send one packet and wait for the answer. 1: *packet is one; 0: there is a result. */
static int ask(struct child *c, struct reader_packet *packet, const int *fds, int fd_count,
               struct result *r)
{
    struct err e = {0};
    struct pollfd wait = {.fd = c->pair, .events = POLLIN};
    int got = 0;
    if (child_send(c, packet, fds, fd_count, &e) == 0 && poll(&wait, 1, PATIENCE_MS) == 1)
        got = child_recv(c, packet, &e);
    if (got == 1 && packet->kind == READER_REJECTED) {
        r->outcome = REJECTED;
        snprintf(r->text, sizeof r->text, "rejected: %s", packet->text);
    } else if (got != 1) {
        r->outcome = e.code ? DIED : LIMITED;
        snprintf(r->text, sizeof r->text, "%s", e.code ? e.text : "limited: no answer within 10 s");
    }
    return got == 1 && packet->kind != READER_REJECTED;
}

static void spans_read(struct child *c, const struct reader_described *d, struct result *r)
{
    struct reader_packet packet = {.kind = READER_ARENA,
                                   .arena = {.slots = 1, .slot_bytes = arena.slot_bytes}};
    if (!ask(c, &packet, (int[]){arena.fd, door[1]}, 2, r))
        return;
    for (uint64_t span = 0; span < d->spans && span < SPANS_MAX; span++) {
        packet = (struct reader_packet){.kind = READER_READ,
                                        .read = {.span = span, .generation = span + 1}};
        if (!ask(c, &packet, NULL, 0, r))
            return;
    }
}

/* How it ended, once the pair is closed; a second to do so. */
static void end_judge(struct child *c, struct result *r)
{
    int status, waited = 0;
    double end = now_s() + (r->outcome == LIMITED ? 0 : PATIENCE_MS / 1000);
    close(c->pair);
    while ((waited = waitpid(c->pid, &status, WNOHANG)) == 0 && now_s() < end)
        usleep(100);
    if (waited == 0) {
        kill(c->pid, SIGKILL);
        waitpid(c->pid, &status, 0);
        r->outcome = LIMITED;
        return;
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGALRM && WTERMSIG(status) != SIGPROF) {
        r->outcome = DIED;
        snprintf(r->text, sizeof r->text, "died: %s", strsignal(WTERMSIG(status)));
    } else if (WIFSIGNALED(status) || WEXITSTATUS(status) == EXIT_CODE_TEMPORARY) {
        r->outcome = LIMITED;
        snprintf(r->text, sizeof r->text, "limited: %s", WIFSIGNALED(status) ? "time" : "memory");
    } else if (WEXITSTATUS(status) != 0) {
        r->outcome = DIED;
        snprintf(r->text, sizeof r->text, "died: exit code %d", WEXITSTATUS(status));
    }
    if (r->outcome == DIED && fault_is_foreign())
        r->outcome = FAULTED;
}

static struct result reader_try(int file)
{
    struct result r = {.outcome = SERVED};
    struct reader_packet packet = {.kind = READER_OPEN,
                                   .open = {.split = "train",
                                            .features = "features",
                                            .targets = "targets",
                                            .weights = "weights",
                                            .window = 7,
                                            .window_spans = 4,
                                            .batch_rows = 3,
                                            .epoch_count = 1,
                                            .epochs = {{0, 2}},
                                            .seed = 1,
                                            .span_rows = 8,
                                            .span_bytes_chosen = SPAN_BYTES,
                                            .span_bytes_limit = SPAN_BYTES,
                                            .workers = 1,
                                            .shuffle = 1,
                                            .verify = 1}};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        die("socketpair");
    struct child c = {.pair = ends[0], .pid = reader_fork(file, ends[1])};
    close(ends[1]);
    if (ask(&c, &packet, NULL, 0, &r)) {
        struct reader_described d = packet.described;
        snprintf(r.text, sizeof r.text, "served: %llu rows, %llu spans", (unsigned long long)d.rows,
                 (unsigned long long)d.spans);
        spans_read(&c, &d, &r);
    }
    end_judge(&c, &r);
    return r;
}

/* ---- bases ---------------------------------------------------------------------------------- */

struct range {
    uint32_t at, bytes;
};

struct base {
    const char *path;
    uint32_t bytes, field_count, sum_count;
    unsigned char *content, *is_data;
    struct range field[PLACES_MAX], sum[PLACES_MAX];
};

static uint64_t state;

static uint64_t random_next(void) /* splitmix64 */
{
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static uint32_t below(uint32_t n)
{
    return n ? (uint32_t)(random_next() % n) : 0;
}

static void map_read(struct base *b)
{
    char path[4096], word[8];
    unsigned first, second;
    snprintf(path, sizeof path, "%s.map", b->path);
    FILE *f = fopen(path, "r");
    if (!f)
        die(path);
    while (fscanf(f, "%7s %u %u", word, &first, &second) == 3) {
        if (strcmp(word, "field") == 0 && b->field_count < PLACES_MAX)
            b->field[b->field_count++] = (struct range){first, second};
        else if (strcmp(word, "data") == 0 && first <= second && second <= b->bytes)
            memset(b->is_data + first, 1, second - first);
    }
    fclose(f);
}

/* A structure with a checksum begins with four letters and ends where the sum of what is before is
 * right. */
static void sums_find(struct base *b)
{
    for (uint32_t at = 0; at + 8 < b->bytes; at++) {
        const unsigned char *p = b->content + at;
        int named = memcmp(p, "\x89HDF", 4) == 0;
        if (!named && !(p[0] >= 'A' && p[0] <= 'Z' && p[1] >= 'A' && p[1] <= 'Z' && p[2] >= 'A' &&
                        p[2] <= 'Z' && p[3] >= 'A' && p[3] <= 'Z'))
            continue;
        for (uint32_t n = 8; n < SUMMED_MAX && at + n + 4 <= b->bytes; n++) {
            uint32_t stored;
            memcpy(&stored, p + n, 4);
            if (stored && stored == H5_checksum_metadata(p, n, 0) && b->sum_count < PLACES_MAX) {
                b->sum[b->sum_count++] = (struct range){at, n};
                break;
            }
        }
    }
}

static void base_read(struct base *b, const char *path)
{
    b->path = path;
    b->content = malloc(BYTES_MAX);
    b->is_data = calloc(1, BYTES_MAX);
    FILE *f = fopen(path, "rb");
    if (!f || !b->content || !b->is_data)
        die(path);
    b->bytes = (uint32_t)fread(b->content, 1, BYTES_MAX, f);
    fclose(f);
    if (b->bytes < 512 || b->bytes == BYTES_MAX)
        die("a base is too small or too large");
    map_read(b);
    sums_find(b);
}

/* ---- mutations ------------------------------------------------------------------------------ */

static uint64_t value_hostile(const struct base *b, uint64_t old)
{
    switch (below(14)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return 1ull << below(64);
    case 3:
        return (1ull << below(64)) - 1;
    case 4:
        return b->bytes;
    case 5:
        return b->bytes - below(16);
    case 6:
        return old + 1;
    case 7:
        return old - 1;
    case 8:
        return old * 2;
    case 9:
        return old << 16;
    case 10:
        return below(b->bytes);
    case 11:
        return below(b->bytes) & ~7u;
    case 12:
        return random_next();
    default:
        return below(300);
    }
}

static uint32_t place_structure(const struct base *b)
{
    uint32_t at = below(b->bytes);
    for (int i = 0; i < 50 && b->is_data[at]; i++)
        at = below(b->bytes);
    return at;
}

static void field_mutate(const struct base *b, unsigned char *copy)
{
    const struct range *f = &b->field[below(b->field_count)],
                       *other = &b->field[below(b->field_count)];
    uint64_t value = 0;
    memcpy(&value, copy + f->at, f->bytes);
    if (below(3) == 0 && other->bytes == f->bytes)
        memcpy(&value, b->content + other->at, f->bytes); /* addresses that lead in circles */
    else
        value = value_hostile(b, value);
    memcpy(copy + f->at, &value, f->bytes);
}

static void bytes_mutate(const struct base *b, unsigned char *copy, unsigned how)
{
    uint32_t at = place_structure(b), from = place_structure(b), n = 1 + below(64);
    n = n < b->bytes - at ? n : b->bytes - at;
    n = n < b->bytes - from ? n : b->bytes - from;
    switch (how) {
    case 0:
        copy[at] ^= (unsigned char)(1 << below(8));
        break;
    case 1:
        copy[at] = (unsigned char)random_next();
        break;
    case 2:
        copy[at] = (unsigned char)below(20); /* types, versions, counts, flags are small */
        break;
    case 3:
        memmove(copy + at, b->content + from, n);
        break;
    case 4:
        memset(copy + at, below(2) ? 0xff : 0, n / 2 + 1);
        break;
    default:
        copy[below(b->bytes)] = (unsigned char)random_next();
        break;
    }
}

/* Mutate `copy`; the file's new size. */
static uint32_t file_mutate(const struct base *b, unsigned char *copy)
{
    memcpy(copy, b->content, b->bytes);
    for (uint32_t n = 1 + below(4); n; n--) {
        uint32_t how = below(12);
        if (how < 6 && b->field_count)
            field_mutate(b, copy);
        else
            bytes_mutate(b, copy, how < 6 ? 1 : how - 6);
    }
    uint32_t bytes = below(40) ? b->bytes : below(b->bytes);
    if (below(4))
        for (uint32_t i = 0; i < b->sum_count; i++) {
            uint32_t sum = H5_checksum_metadata(copy + b->sum[i].at, b->sum[i].bytes, 0);
            memcpy(copy + b->sum[i].at + b->sum[i].bytes, &sum, 4);
        }
    return bytes;
}

/* ---- main ----------------------------------------------------------------------------------- */

static void died_keep(const char *directory, unsigned long long seed, unsigned long long i,
                      const struct base *b, const unsigned char *copy, uint32_t bytes,
                      const struct result *r)
{
    char path[4096], said[4096] = "";
    ssize_t got = pread(output, said, sizeof said - 1, 0);
    snprintf(path, sizeof path, "%s/died-%llu-%llu.h5", directory, seed, i);
    FILE *f = fopen(path, "wb");
    if (f) {
        fwrite(copy, 1, bytes, f);
        fclose(f);
    }
    printf("FAIL %s of %s: %s\n%.*s\n", path, b->path, r->text, got > 0 ? (int)got : 0, said);
    fflush(stdout);
}

static int fuzz(unsigned long long seed, unsigned long long count, double limit_s,
                const char *directory, char **paths, int path_count)
{
    static struct base bases[BASES_MAX];
    static unsigned char copy[BYTES_MAX];
    unsigned long long counts[OUTCOMES] = {0}, i = 0;
    int file = memfd_create("mutated", MFD_CLOEXEC), base_count = 0;
    for (; base_count < path_count && base_count < BASES_MAX; base_count++)
        base_read(&bases[base_count], paths[base_count]);
    double begin = now_s();
    for (; i < count && now_s() - begin < limit_s; i++) {
        state = seed * 0x2545f4914f6cdd1d + i; /* each alone can be made again */
        const struct base *b = &bases[below((uint32_t)base_count)];
        uint32_t bytes = file_mutate(b, copy);
        if (ftruncate(file, 0) != 0 || pwrite(file, copy, bytes, 0) != (ssize_t)bytes)
            die("cannot write the mutated file");
        struct result r = reader_try(file);
        counts[r.outcome]++;
        if (r.outcome == DIED)
            died_keep(directory, seed, i, b, copy, bytes, &r);
        else if (r.outcome == LIMITED)
            printf("limited %llu-%llu of %s: %s\n", seed, i, b->path, r.text);
    }
    printf("%llu mutations, %llu served, %llu rejected, %llu limited, %llu faulted in libhdf5, "
           "%llu died, %.0f a second\n",
           i, counts[SERVED], counts[REJECTED], counts[LIMITED], counts[FAULTED], counts[DIED],
           (double)i / (now_s() - begin));
    return counts[DIED] ? 1 : 0;
}

static int probe(char **paths, int count)
{
    for (int i = 0; i < count; i++) {
        struct err e = {0};
        int file = child_file_open(paths[i], &e);
        struct result r = {.outcome = REJECTED};
        if (file >= 0)
            r = reader_try(file);
        else
            snprintf(r.text, sizeof r.text, "rejected: %.700s", e.text);
        printf("%s\n", r.text);
        if (file >= 0)
            close(file);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    signal(SIGPIPE, SIG_IGN);
    output = memfd_create("output", MFD_CLOEXEC);
    fcntl(output, F_SETFL, O_APPEND);
    if (output < 0 || arena_create(&arena, 1, SPAN_BYTES, &e) != 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, door) != 0)
        die(e.code ? e.text : "cannot begin");
    if (argc >= 3 && strcmp(argv[1], "--probe") == 0)
        return probe(argv + 2, argc - 2);
    if (argc >= 6)
        return fuzz(strtoull(argv[1], NULL, 10), strtoull(argv[2], NULL, 10), atof(argv[3]),
                    argv[4], argv + 5, argc - 5);
    fprintf(stderr, "fuzz_reader: expected --probe FILE... or SEED COUNT LIMIT_S DIRECTORY "
                    "BASE...\n");
    return EXIT_CODE_PERMANENT;
}
