/* sums.c - see sums.h: files of a head and float32 numbers. A head that does not check is that of a
 * generation being worked on. */
#include "fisherd/sums.h"

#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"
#include "proto/order.h"

enum { HEAD_BYTES = 4096, JOB_BYTES = 129, FAULT_AROUND_BYTES = 2 << 20 };

static const char *const file_names[SUMS_FILES] = {"sums-0", "sums-1", "half"};

/* What the file holds; a host's own numbers, for its next process. */
struct head {
    char job[JOB_BYTES];
    uint64_t numbers, position;
    double weight;
    uint64_t check; /* of what is before it */
};

static uint64_t head_check(const struct head *h)
{
    return order_hash(h, offsetof(struct head, check));
}

static void file_path(char path[4200], const char *directory, int file)
{
    snprintf(path, 4200, "%s/%s", directory, file_names[file]);
}

static uint64_t numbers_bytes(const struct sums *s)
{
    return s->config.numbers * sizeof(float);
}

/* Do the file's numbers mean anything? */
static int head_read(const struct sums *s, int file, struct head *h)
{
    return pread(s->fd[file], h, sizeof *h, 0) == (ssize_t)sizeof *h && h->check == head_check(h);
}

/* 1: the file holds sums of the job, of h->position samples. */
static int file_holds(const struct sums *s, int file, struct head *h)
{
    return head_read(s, file, h) && strncmp(h->job, s->config.job, JOB_BYTES) == 0 &&
           h->numbers == s->config.numbers;
}

static int sync_file(const struct sums *s, int file, struct err *e)
{
    char path[4200];
    file_path(path, s->config.directory, file);
    return durable_sync(s->fd[file], path, e);
}

/* What is in the file is from now on the sums of so many samples of that weight. */
static int head_write(const struct sums *s, int file, int valid, uint64_t position, double weight,
                      struct err *e)
{
    char path[4200];
    struct head h;
    memset(&h, 0, sizeof h); /* its padding is checked, too */
    snprintf(h.job, sizeof h.job, "%s", s->config.job);
    h.numbers = s->config.numbers;
    h.position = position;
    h.weight = weight;
    h.check = valid ? head_check(&h) : ~head_check(&h);
    file_path(path, s->config.directory, file);
    if (durable_pwrite_all(s->fd[file], &h, sizeof h, 0, path, e) < 0)
        return -1;
    return sync_file(s, file, e);
}

static int head_spoil(const struct sums *s, int file, struct err *e)
{
    return head_write(s, file, 0, 0, 0, e);
}

static int file_open(struct sums *s, int file, struct err *e)
{
    char path[4200];
    uint64_t bytes = HEAD_BYTES + numbers_bytes(s);
    file_path(path, s->config.directory, file);
    struct stat st;
    s->fd[file] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->fd[file] < 0 || fstat(s->fd[file], &st) < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot open %s", path);
    s->made[file] = st.st_size == 0;
    errno = durable_may("write") < 0 ? errno : posix_fallocate(s->fd[file], 0, (off_t)bytes);
    if (errno)
        return err_errno(e, EXIT_CODE_TEMPORARY,
                         "cannot keep %" PRIu64 " sums in %s, which takes %" PRIu64
                         " MiB three times while the estimate is made",
                         s->config.numbers, path, bytes >> 20);
    s->map[file] = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd[file], 0);
    if (s->map[file] == MAP_FAILED) {
        s->map[file] = NULL;
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot map %s", path);
    }
    return 0;
}

static float *file_numbers(const struct sums *s, int file)
{
    return (float *)((char *)s->map[file] + HEAD_BYTES);
}

/* Those at either end, too: what is still wanted of them comes back from the file. And those before
 * them: where pages are in the page cache, a fault brings others around it, of a block that was
 * released already. */
static void pages_release(const struct sums *s, int file, uint64_t first, uint64_t count)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), map = (uintptr_t)s->map[file];
    uintptr_t begin = (uintptr_t)(file_numbers(s, file) + first) / page * page;
    uintptr_t end = ((uintptr_t)(file_numbers(s, file) + first + count) + page - 1) / page * page;
    begin = begin - map > FAULT_AROUND_BYTES ? begin - FAULT_AROUND_BYTES : map;
    madvise((void *)begin, end - begin, MADV_DONTNEED); /* shared: what was written stays */
}

void sums_release(struct sums *s, uint64_t first, uint64_t count)
{
    if (sums_in_memory(s))
        return;
    pages_release(s, s->working, first, count);
    pages_release(s, SUMS_HALF, first, count);
}

static void step_add(struct sums *s, enum sums_step step)
{
    s->pending |= 1u << step;
}

/* The other generation becomes the one that is worked on, beginning as `committed`. */
static int work_on_other(struct sums *s, int committed, struct err *e)
{
    s->working = 1 - committed;
    s->at = file_numbers(s, s->working);
    step_add(s, SUMS_COPY);
    return head_spoil(s, s->working, e);
}

/* Nothing was committed: zeroes. */
static int begin_anew(struct sums *s, struct err *e)
{
    struct head h;
    s->has_half = 0;
    s->position = s->working = 0;
    s->weight = s->half_weight = 0;
    s->at = file_numbers(s, 0);
    for (int file = 0; file < SUMS_FILES; file++)
        if (head_read(s, file, &h) && head_spoil(s, file, e) < 0)
            return -1;
    if (!s->made[SUMS_0]) /* it may have held something */
        step_add(s, SUMS_CLEAR);
    return 0;
}

/* Numbers [at, at + count) of one file into another. */
static int piece_copy(struct sums *s, int from, int to, uint64_t at, uint64_t count, struct err *e)
{
    char path[4200];
    const float *numbers = file_numbers(s, from) + at;
    file_path(path, s->config.directory, to);
    if (durable_pwrite_all(s->fd[to], numbers, count * sizeof *numbers,
                           HEAD_BYTES + at * sizeof *numbers, path, e) < 0)
        return -1;
    pages_release(s, from, at, count);
    return 0;
}

/* A failure shows when all of the file is synced. */
static void piece_write_out(struct sums *s, int file, uint64_t at, uint64_t count)
{
    sync_file_range(
        s->fd[file], (off_t)(HEAD_BYTES + at * sizeof *s->at), (off_t)(count * sizeof *s->at),
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
}

static int step_piece(struct sums *s, enum sums_step step, uint64_t at, uint64_t count,
                      struct err *e)
{
    if (step == SUMS_CLEAR) {
        memset(s->at + at, 0, count * sizeof *s->at);
        pages_release(s, s->working, at, count);
    }
    if (step == SUMS_COPY)
        return piece_copy(s, 1 - s->working, s->working, at, count, e);
    if (step == SUMS_KEEP_HALF && piece_copy(s, s->working, SUMS_HALF, at, count, e) < 0)
        return -1;
    if (step == SUMS_KEEP_HALF || step == SUMS_WRITE_OUT)
        piece_write_out(s, step == SUMS_KEEP_HALF ? SUMS_HALF : s->working, at, count);
    return 0;
}

/* All pieces of the step are done. */
static int step_end(struct sums *s, enum sums_step step, struct err *e)
{
    s->pending &= ~(1u << step);
    s->next = 0;
    if (step == SUMS_KEEP_HALF) {
        if (sync_file(s, SUMS_HALF, e) < 0 ||
            head_write(s, SUMS_HALF, 1, s->config.half_at, s->half_weight, e) < 0)
            return -1;
        s->has_half = 1;
    }
    if (step == SUMS_WRITE_OUT) {
        if (sync_file(s, s->working, e) < 0 ||
            head_write(s, s->working, 1, s->position, s->weight, e) < 0)
            return -1;
        return s->go_on ? work_on_other(s, s->working, e) : 0;
    }
    return 0;
}

int sums_turn(struct sums *s, struct err *e)
{
    if (!s->pending)
        return 1;
    enum sums_step step = (enum sums_step)__builtin_ctz(s->pending);
    uint64_t left = s->config.numbers - s->next;
    if (left == 0)
        return step_end(s, step, e);
    uint64_t count = left < s->config.resident ? left : s->config.resident;
    if (step_piece(s, step, s->next, count, e) < 0)
        return -1;
    s->next += count;
    return 0;
}

static int files_open(struct sums *s, struct err *e)
{
    struct head head[SUMS_FILES] = {0};
    int valid[SUMS_FILES], newest = SUMS_0;
    if (mkdir(s->config.directory, 0700) < 0 && errno != EEXIST)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot make directory %s", s->config.directory);
    for (int file = 0; file < SUMS_FILES; file++) {
        if (file_open(s, file, e) < 0)
            return -1;
        valid[file] = file_holds(s, file, &head[file]);
    }
    s->half = file_numbers(s, SUMS_HALF);
    s->has_half = valid[SUMS_HALF] && head[SUMS_HALF].position == s->config.half_at;
    if (valid[SUMS_1] && (!valid[SUMS_0] || head[SUMS_1].position > head[SUMS_0].position))
        newest = SUMS_1;
    int half_due = s->config.half_at && head[newest].position >= s->config.half_at && !s->has_half;
    if (!valid[newest] || half_due)
        return begin_anew(s, e);
    s->position = head[newest].position;
    s->weight = head[newest].weight;
    s->half_weight = s->has_half ? head[SUMS_HALF].weight : 0;
    return work_on_other(s, newest, e);
}

/* After a failure: others need a full disk, too. */
static void made_remove(const struct sums *s)
{
    char path[4200];
    for (int file = 0; file < SUMS_FILES; file++) {
        file_path(path, s->config.directory, file);
        if (s->made[file])
            unlink(path);
    }
}

int sums_open(struct sums *s, const struct sums_config *c, struct err *e)
{
    *s = (struct sums){.config = *c, .fd = {-1, -1, -1}};
    ensure(c->numbers > 0 && c->resident > 0);
    if (!sums_in_memory(s)) {
        int result = files_open(s, e);
        if (result < 0)
            made_remove(s);
        return result;
    }
    s->at = calloc(c->numbers, sizeof *s->at);
    s->half = c->half_at ? malloc(c->numbers * sizeof *s->half) : NULL;
    return s->at && (s->half || !c->half_at)
               ? 0
               : err_errno(e, EXIT_CODE_TEMPORARY,
                           "cannot hold the sums of the Fisher information");
}

void sums_close(struct sums *s)
{
    if (!s->config.numbers)
        return;
    if (sums_in_memory(s)) {
        free(s->at);
        free(s->half);
    }
    for (int file = 0; file < SUMS_FILES; file++) {
        if (s->map[file])
            munmap(s->map[file], HEAD_BYTES + numbers_bytes(s));
        if (s->fd[file] >= 0)
            close(s->fd[file]);
    }
    memset(s, 0, sizeof *s);
}

void sums_half(struct sums *s)
{
    s->half_weight = s->weight;
    if (!sums_in_memory(s)) {
        step_add(s, SUMS_KEEP_HALF);
        return;
    }
    memcpy(s->half, s->at, numbers_bytes(s));
    s->has_half = 1;
}

void sums_commit(struct sums *s, uint64_t position, int go_on)
{
    s->position = position;
    s->go_on = go_on;
    if (!sums_in_memory(s))
        step_add(s, SUMS_WRITE_OUT);
}

void sums_remove(const char *directory)
{
    char path[4200];
    for (int file = 0; file < SUMS_FILES; file++) {
        file_path(path, directory, file);
        unlink(path);
    }
}
