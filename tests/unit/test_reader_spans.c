/* test_reader_spans.c - several spans on their way in one reader: the same rows as one at a time,
 * in the order that was asked, each as soon as it is there.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "loaderd/fetch.h"
#include "proto/order.h"
#include "tests/test.h"
#include "tests/unit/reader_process.h"

static struct set_config small_set(void)
{
    return (struct set_config){"features", H5T_STD_U16LE, 2, {64, 10}, {16, 10}, SHUFFLE_GZIP, 0};
}

/* The checksums of an epoch's spans, asked for `ahead` at a time. In a file of two data sets the
 * chunks of one of which end inside spans, so that in file order one is kept for the next span. */
static uint64_t epoch_read(const char *path, struct reader_open *open, uint64_t ahead,
                           uint64_t checksum[], uint64_t *decoded)
{
    struct harness h;
    struct reader_done done;
    CHECK(harness_open(&h, path, open) == 0);
    harness_arm(&h, ahead);
    uint64_t spans = h.described.spans, sent = 0;
    *decoded = 0;
    for (uint64_t span = 0; span < spans; span++) {
        for (; sent < spans && sent < span + ahead; sent++)
            harness_send(&h, 0, sent, sent % ahead);
        CHECK(harness_answer(&h, span, &done) == 0);
        checksum[span] = done.checksum;
        *decoded += done.bytes_decoded;
    }
    harness_close(&h);
    return spans;
}

TEST(reads_sent_together_are_answered_in_order_and_alike)
{
    struct set_config sets[2] = {small_set(), small_set()};
    uint64_t one[40], many[40], decoded[2];
    for (int i = 0; i < 2; i++) {
        sets[i].dims[0] = 12 * 16 - 5;
        sets[i].dims[1] = sets[i].chunk[1] = 2000; /* decoding takes longer than asking for more */
    }
    sets[1].name = "targets";
    sets[0].chunk[0] = 24;
    file_make("together.h5", sets, 2);
    for (int round = 0; round < 6; round++) {
        struct reader_open open = open_default();
        open.shuffle = round % 2;
        open.workers = (uint64_t)round / 2; /* none, one, two */
        open.span_rows = 16;
        open.window_spans = 4; /* whose answers may come together */
        open.drop_behind = round > 3;
        uint64_t spans = epoch_read("together.h5", &open, 1, one, &decoded[0]);
        CHECK_EQ(epoch_read("together.h5", &open, READER_SPANS_MAX, many, &decoded[1]), spans);
        CHECK(memcmp(one, many, spans * sizeof *one) == 0);
        CHECK_EQ(decoded[0], decoded[1]);
    }
}

/* What stands before a damaged chunk is delivered, in order, then comes the sentence: to each span
 * that wants a part of it. What follows is delivered again. */
TEST(reads_sent_with_damaged_ones_are_answered)
{
    struct set_config sets[2] = {small_set(), small_set()};
    struct reader_open open = open_default();
    struct reader_done done;
    struct harness h;
    hsize_t at[2] = {64, 0}; /* chunk 4: the end of span 2, the beginning of span 3 */
    sets[0].dims[0] = sets[1].dims[0] = 8 * 24;
    sets[0].chunk[0] = 24; /* of which spans are made */
    sets[1].name = "targets";
    file_make("third.h5", sets, 2);
    hid_t file = H5Fopen("third.h5", H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t made = H5Dopen2(file, "train/targets", H5P_DEFAULT);
    CHECK(H5Dwrite_chunk(made, H5P_DEFAULT, 0, at, 5, "wrong") >= 0);
    H5Dclose(made);
    H5Fclose(file);
    open.shuffle = 0;
    open.span_rows = 24;
    CHECK(harness_open(&h, "third.h5", &open) == 0);
    harness_arm(&h, 8);
    for (uint64_t span = 0; span < 8; span++)
        harness_send(&h, 0, span, span);
    for (uint64_t span = 0; span < 8; span++) {
        int damaged = span == 2 || span == 3;
        CHECK_EQ(harness_answer(&h, span, &done), damaged ? -1 : 0);
        if (damaged)
            CHECK_HAS(h.reason, "chunk 4 of train/targets");
    }
    harness_close(&h);
}

/* Where in the file the bytes of a row of train/features stand. */
static uint64_t row_address(hid_t set, uint64_t row, uint64_t chunk_rows, uint64_t row_bytes)
{
    hsize_t at[2] = {0}, bytes;
    unsigned mask;
    haddr_t address;
    if (!chunk_rows)
        return H5Dget_offset(set) + row * row_bytes;
    at[0] = row / chunk_rows * chunk_rows;
    CHECK(H5Dget_chunk_info_by_coord(set, at, &mask, &address, &bytes) >= 0);
    return address + row % chunk_rows * row_bytes;
}

/* What is copied as it is stored stands modulo 64 as in the file, where its address is a multiple
 * of 8: also behind other data sets, in every span of any order. What is decoded begins with its
 * slot. Row for row it is what H5Dread says: reader_compare.c knows offsets, too. */
TEST(spans_stand_as_their_bytes_do_in_the_file)
{
    uint64_t other = 0, decoded = 0;
    for (int round = 0; round < 6; round++) {
        struct set_config sets[2] = {small_set(), small_set()};
        struct reader_open open = open_default();
        struct reader_done done;
        struct harness h;
        sets[0].name = "targets"; /* small, and in the file first */
        sets[0].dims[1] = sets[0].chunk[1] = 3;
        sets[1].dims[0] = sets[0].dims[0] = 20 * 12;
        sets[1].chunk[0] = sets[0].chunk[0] = 12;
        sets[1].dims[1] = sets[1].chunk[1] = 11 + (hsize_t)round;
        sets[1].filters = round % 3 == 2 ? GZIP : PLAIN;
        if (round % 3 == 1)
            sets[1].chunk[0] = 0;
        file_make("stand.h5", sets, 2);
        hid_t file = H5Fopen("stand.h5", H5F_ACC_RDONLY, H5P_DEFAULT);
        hid_t set = H5Dopen2(file, "train/features", H5P_DEFAULT);
        open.shuffle = round / 3;
        open.span_rows = 12;
        CHECK(harness_open(&h, "stand.h5", &open) == 0);
        harness_arm(&h, 1);
        struct order o = {.seed = open.seed,
                          .shuffle = open.shuffle,
                          .rows = h.described.rows,
                          .chunk_rows = h.described.chunk_rows,
                          .span_rows = h.described.span_rows,
                          .window_spans = 1};
        for (uint64_t span = 0; span < h.described.spans; span++) {
            struct order_run run = {0};
            CHECK(harness_read(&h, 0, span, 0, &done) == 0 && order_run_next(&o, 0, span, &run));
            uint64_t at = row_address(set, run.first, sets[1].chunk[0], sets[1].dims[1] * 2) % 64;
            CHECK_EQ(done.offset, sets[1].filters == PLAIN ? at / 8 * 8 : 0);
            other += done.offset != 0;
            decoded += sets[1].filters == GZIP;
        }
        harness_close(&h);
        H5Dclose(set);
        H5Fclose(file);
    }
    CHECK(other > 20);
    CHECK_EQ(decoded, 40);
}

/* How often the reader's threads but its main one have gone to sleep. */
static uint64_t threads_slept(const struct harness *h)
{
    char path[64], line[128];
    unsigned long long count;
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)h->child.pid);
    DIR *tasks = opendir(path);
    CHECK(tasks != NULL);
    for (struct dirent *task; (task = readdir(tasks));) {
        if (atoi(task->d_name) <= 0 || atoi(task->d_name) == h->child.pid)
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/status", (int)h->child.pid, task->d_name);
        FILE *f = fopen(path, "r");
        CHECK(f != NULL);
        while (fgets(line, sizeof line, f))
            if (sscanf(line, "voluntary_ctxt_switches: %llu", &count) == 1)
                sum += count;
        fclose(f);
    }
    closedir(tasks);
    return sum;
}

/* Where a span would begin to be copied well never decides how long it may be, or whether it may: a
 * run that is resumed has the order that it began with. */
TEST(a_span_that_fills_its_limit_begins_with_its_slot)
{
    enum { SPAN_BYTES = 12 * 64 };
    struct set_config set = small_set();
    set.dims[0] = 20 * 12;
    set.chunk[0] = 12;
    set.dims[1] = set.chunk[1] = 32;
    set.filters = PLAIN;
    file_make("fills.h5", &set, 1);
    for (uint64_t more = 0; more <= 56; more += 28) {
        struct reader_open open = open_default();
        struct reader_done done;
        struct harness h;
        uint64_t others = 0;
        open.span_bytes_chosen = open.span_bytes_limit = SPAN_BYTES + more;
        CHECK(harness_open(&h, "fills.h5", &open) == 0);
        CHECK_EQ(h.described.span_rows, 12);
        CHECK_EQ(h.described.span_bytes_max, SPAN_BYTES + (more < 56 ? 0 : 56));
        harness_arm(&h, 1);
        for (uint64_t span = 0; span < h.described.spans; span++) {
            CHECK(harness_read(&h, 0, span, 0, &done) == 0);
            others += done.offset != 0;
        }
        CHECK(more < 56 ? others == 0 : others > 0);
        harness_close(&h);
    }
}

/* The page cache forgets a file. 0: it does not, as where the file has no other place. */
static int page_cache_drop(const char *path)
{
    unsigned char there = 1;
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && fsync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    void *page = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 1 << 20);
    CHECK(page != MAP_FAILED && mincore(page, 1, &there) == 0 && munmap(page, 1) == 0);
    close(fd);
    return !(there & 1);
}

/* Out of the page cache the main thread copies by itself, with few exceptions (a read that was held
 * up looks like a slow disk); for a device all are woken, span for span, and so they are for a disk
 * that has to be waited for, however fast it is. */
TEST(cached_bytes_are_copied_by_one_thread_unless_for_a_device)
{
    enum { READS = 100, CACHED = 0, DEVICE, DISK, CASES };
    struct set_config set = small_set();
    uint64_t slept[CASES];
    int dropped = 1;
    set.dims[0] = 8 * 16;
    set.dims[1] = set.chunk[1] = 16384; /* 512 KiB a chunk */
    set.filters = PLAIN;
    file_make("cached.h5", &set, 1);
    for (int from = 0; from < CASES; from++) {
        struct reader_open open = open_default();
        struct reader_done done;
        struct harness h;
        open.span_rows = 64;
        open.singly = from == DEVICE;
        CHECK(harness_open(&h, "cached.h5", &open) == 0);
        harness_arm(&h, 1);
        CHECK(harness_read(&h, 0, 0, 0, &done) == 0);
        uint64_t before = threads_slept(&h);
        for (uint64_t i = 0; i < READS; i++) {
            if (from == DISK && i % 2 == 0)
                dropped &= page_cache_drop("cached.h5");
            CHECK(harness_read(&h, i, i % 2, 0, &done) == 0);
        }
        slept[from] = threads_slept(&h) - before;
        harness_close(&h);
    }
    CHECK(slept[DEVICE] > READS / 2 && 4 * slept[CACHED] < slept[DEVICE]);
    CHECK(!dropped || slept[DISK] > READS / 2);
}

/* A read for which something has to come, and one of what is there. */
static int slow_read(int fd, void *out, uint64_t bytes, uint64_t at)
{
    (void)fd, (void)at;
    memset(out, 1, bytes);
    return clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 1000}, NULL);
}

static int ready_read(int fd, void *out, uint64_t bytes, uint64_t at)
{
    (void)fd, (void)at;
    memset(out, 2, bytes);
    return 0;
}

TEST(reads_that_slept_are_counted)
{
    static char out[4096];
    struct decoders *p;
    struct err e;
    CHECK_OK(decoders_open(&p, 0, 0, &e), e);
    for (int slow = 0; slow < 2; slow++) {
        struct decoders_batch batch = {0};
        for (uint64_t i = 0; i < 10; i++) {
            struct decoders_job *job = decoders_take(p, 0);
            CHECK(job != NULL);
            job->batch = &batch;
            job->read = slow ? slow_read : ready_read;
            job->bytes = sizeof out;
            job->plain_out = out;
            decoders_do(p, job);
        }
        CHECK_EQ(batch.sleeps, slow ? 10 : 0);
    }
    decoders_close(&p);
}

/* What the next span's bytes are read by follows from how those of the last one came. */
TEST(a_fast_disk_is_told_from_the_page_cache)
{
    static const struct {
        double read_s;
        uint64_t sleeps;
        int reads_wait, copies_wait;
    } cases[] = {{0.1, 0, 0, 0}, {0.1, 1, 0, 1}, {10, 0, 1, 1}, {0.1, 0, 0, 0}};
    struct fetch f = {0};
    struct err e;
    CHECK_OK(decoders_open(&f.decoders, 0, 0, &e), e);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fetch_span s = {.bytes_read = 1 << 30, .failure.code = 1}; /* 10 GiB/s, or 0.1 */
        s.batch.read_s = cases[i].read_s;
        s.batch.sleeps = cases[i].sleeps;
        CHECK(fetch_end(&f, &s, &e) != 0);
        CHECK_EQ(f.reads_wait, cases[i].reads_wait);
        CHECK_EQ(f.copies_wait, cases[i].copies_wait);
    }
    decoders_close(&f.decoders);
}

/* Zeros, which are soon decoded. */
static void rows_clear(hid_t set, hsize_t row, hsize_t rows, hsize_t columns)
{
    hsize_t first[2] = {row, 0}, count[2] = {rows, columns};
    hid_t memory = H5Screate_simple(2, count, NULL), space = H5Dget_space(set);
    uint16_t *zeros = calloc(rows * columns, sizeof *zeros);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, first, NULL, count, NULL);
    CHECK(H5Dwrite(set, H5T_NATIVE_UINT16, memory, space, H5P_DEFAULT, zeros) >= 0);
    free(zeros);
    H5Sclose(memory);
    H5Sclose(space);
}

/* Spans that each end within a chunk, whose rest the next one asked for does not want: what is kept
 * of one is still decoded when the next is to be kept in its place. */
TEST(chunks_kept_for_spans_that_do_not_come_do_no_harm)
{
    struct set_config sets[2] = {small_set(), small_set()};
    struct reader_open open = open_default();
    struct reader_done done;
    uint64_t alone[READER_SPANS_MAX];
    sets[0].dims[0] = sets[1].dims[0] = 48 * READER_SPANS_MAX;
    sets[1].name = "targets";
    sets[1].dims[1] = sets[1].chunk[1] = 4000;
    sets[1].filters = GZIP; /* decoded in place all the while */
    sets[0].chunk[0] = 24;
    file_make("strides.h5", sets, 2);
    hid_t file = H5Fopen("strides.h5", H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t made = H5Dopen2(file, "train/targets", H5P_DEFAULT);
    for (hsize_t i = 0; i < READER_SPANS_MAX; i++) /* all but those to be kept: they overlap */
        rows_clear(made, 48 * i, 16, 4000);
    H5Dclose(made);
    H5Fclose(file);
    open.shuffle = 0;
    open.span_rows = 24;
    for (int together = 0; together < 9; together++) { /* first not, then eight times */
        struct harness h;
        CHECK(harness_open(&h, "strides.h5", &open) == 0);
        harness_arm(&h, READER_SPANS_MAX);
        for (uint64_t i = 0; i < READER_SPANS_MAX; i++)
            if (together)
                harness_send(&h, 0, 2 * i, i);
        for (uint64_t i = 0; i < READER_SPANS_MAX; i++) {
            if (!together)
                harness_send(&h, 0, 2 * i, i);
            CHECK(harness_answer(&h, 2 * i, &done) == 0);
            if (together)
                CHECK_EQ(done.checksum, alone[i]);
            alone[i] = done.checksum;
        }
        harness_close(&h);
    }
}

enum { COPIED_BYTES = 3 << 20 };
static unsigned char copied_from[COPIED_BYTES];

static int read_by_copying(int fd, void *out, uint64_t bytes, uint64_t at)
{
    (void)fd;
    memcpy(out, copied_from + at, bytes);
    return 0;
}

/* With threads that only read and without, one decoding or several: each byte of a job comes once
 * to its place, whoever brings it, and jobs that only a decoder can do are not in their way. */
TEST(threads_divide_what_they_only_read)
{
    static const struct {
        unsigned workers, readers;
    } threads[] = {{0, 0}, {1, 0}, {1, 1}, {1, 6}, {5, 0}};
    static const uint64_t sizes[] = {1, 4095, 300000, 524287, 524288, 1 << 20, COPIED_BYTES};
    enum { SIZES = sizeof sizes / sizeof *sizes, ROUNDS = 3 };
    char *out = malloc(COPIED_BYTES + 1);
    struct err e;
    for (uint64_t i = 0; i < COPIED_BYTES; i++)
        copied_from[i] = (unsigned char)test_random();
    for (size_t k = 0; k < sizeof threads / sizeof *threads; k++) {
        struct decoders *p;
        CHECK_OK(decoders_open(&p, threads[k].workers, threads[k].readers, &e), e);
        for (int i = 0; i < SIZES * ROUNDS; i++) {
            struct decoders_batch batch = {0};
            const struct decode_plan plan = {0};
            uint64_t bytes = sizes[i % SIZES];
            char decoded[64];
            memset(out, 0, bytes);
            out[bytes] = 77;
            for (int plain = 0; plain < 2; plain++) {
                struct decoders_job *job;
                while (!(job = decoders_take(p, 1)))
                    ;
                *job = (struct decoders_job){.batch = &batch, .read = read_by_copying};
                job->name = "train/features";
                job->bytes = plain ? bytes : sizeof decoded;
                job->plain_out = plain ? out : NULL;
                job->plan = &plan;
                job->chunk_bytes = sizeof decoded;
                job->part_count = 1;
                job->part[0] = (struct decoders_part){0, sizeof decoded, decoded};
                decoders_submit(p, job);
            }
            decoders_wait(p, &batch);
            CHECK(decoders_is_done(p, &batch) && !batch.failure.code);
            CHECK(memcmp(out, copied_from, bytes) == 0 && out[bytes] == 77);
            CHECK(memcmp(decoded, copied_from, sizeof decoded) == 0);
        }
        decoders_close(&p);
    }
    free(out);
}

static int read_by_a_bad_disk(int fd, void *out, uint64_t bytes, uint64_t at)
{
    (void)fd, (void)out, (void)bytes, (void)at;
    errno = EIO;
    return -1;
}

TEST(what_a_disk_fails_to_read_is_named)
{
    struct decoders *p;
    struct decoders_batch batch = {0};
    struct err e = {0};
    char place[8];
    CHECK_OK(decoders_open(&p, 1, 0, &e), e);
    struct decoders_job *job = decoders_take(p, 1);
    *job = (struct decoders_job){.batch = &batch,
                                 .read = read_by_a_bad_disk,
                                 .at = 400,
                                 .bytes = sizeof place,
                                 .plain_out = place,
                                 .name = "train/features",
                                 .chunk = 7};
    decoders_submit(p, job);
    decoders_wait(p, &batch);
    decoders_close(&p);
    CHECK_EQ(batch.failure.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(batch.failure.text, "chunk 7 of train/features cannot be read: 8 bytes at byte 400: "
                                  "Input/output error");
}

/* ---- when answers come ----------------------------------------------------------------------- */

enum { CHUNK_ROWS = 16, SPAN_BYTES = 24 << 20 };

/* Two spans of that many chunks, those of the first soon decoded, of the second not. */
static void quick_then_slow(const char *path, hsize_t span_chunks)
{
    size_t bytes = SPAN_BYTES / span_chunks, stored = 0;
    hsize_t columns = bytes / CHUNK_ROWS / 2;
    struct set_config set = {"features",
                             H5T_STD_U16LE,
                             2,
                             {2 * span_chunks * CHUNK_ROWS, columns},
                             {CHUNK_ROWS, columns},
                             GZIP,
                             0};
    hid_t group, file = file_create(path, "train", &group), made = set_create(group, &set);
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(1);
    unsigned char *plain = calloc(bytes, 1), *out = malloc(2 * bytes);
    for (hsize_t i = 0; i < 2 * span_chunks; i++) {
        hsize_t at[2] = {i * CHUNK_ROWS, 0};
        for (size_t j = 0; i == span_chunks && j < bytes; j++)
            plain[j] = (unsigned char)(test_random() % 97);
        if (i % span_chunks == 0)
            stored = libdeflate_zlib_compress(c, plain, bytes, out, 2 * bytes);
        CHECK(H5Dwrite_chunk(made, H5P_DEFAULT, 0, at, stored, out) >= 0);
    }
    libdeflate_free_compressor(c);
    free(plain);
    free(out);
    H5Dclose(made);
    H5Gclose(group);
    H5Fclose(file);
}

/* When the first of the two is answered, as a part of the time until the second is. */
static double first_answer(const char *path, hsize_t span_chunks, uint64_t window_spans)
{
    struct reader_open open = open_default();
    struct reader_done done;
    struct harness h;
    open.shuffle = 0;
    open.workers = 1;
    open.span_rows = span_chunks * CHUNK_ROWS;
    open.span_bytes_chosen = open.span_bytes_limit = 64 << 20;
    open.window_spans = window_spans;
    open.receipt = open.verify = 0;
    CHECK(harness_open(&h, path, &open) == 0);
    harness_arm(&h, 2);
    double begin = decoders_clock_s();
    harness_send(&h, 0, 0, 0);
    harness_send(&h, 0, 1, 1);
    CHECK(harness_answer(&h, 0, &done) == 0);
    double first = decoders_clock_s() - begin;
    CHECK(harness_answer(&h, 1, &done) == 0);
    double last = decoders_clock_s() - begin;
    harness_close(&h);
    return first / last;
}

/* It waits neither for the next span to begin, which takes until most of twelve chunks are decoded
 * and no time where there is one, nor, in one window with it, for its end. A busy machine may delay
 * us: one of three tries is enough. */
TEST(an_answer_does_not_wait_for_a_slow_span)
{
    for (int i = 0; i < 3; i++) {
        hsize_t span_chunks = i < 2 ? 12 : 1;
        uint64_t window_spans = i ? 2 : 1;
        double part = 1;
        if (i != 1)
            quick_then_slow("slow.h5", span_chunks);
        for (int tries = 0; tries < 3 && part > 0.5; tries++)
            part = first_answer("slow.h5", span_chunks, window_spans);
        if (part > 0.5)
            test_fail(__FILE__, __LINE__,
                      "spans of %d chunks, windows of %d: answered after %.2f of the time",
                      (int)span_chunks, (int)window_spans, part);
    }
}
