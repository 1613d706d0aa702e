/* test_h5file.c - the house's HDF5 files: what is written is read back, equal content is an equal
 * file, damage and a full disk are one sentence and leave the old file. */
#include "proto/h5file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"
#include "tests/test.h"

static const uint64_t dims_weight[2] = {3, 5}, dims_bias[1] = {3};
static const float weight[15] = {0.5f, -1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 1e-30f};
static const float bias[3] = {-1, 0, 1};

static int small_fill(struct h5writer *w, struct err *e)
{
    if (h5writer_array(w, "parameters/0.weight", H5TYPE_F32, 2, dims_weight, weight, e) < 0 ||
        h5writer_array(w, "parameters/0.bias", H5TYPE_F32, 1, dims_bias, bias, e) < 0 ||
        h5writer_text(w, "", "model", "linear out=3\nrelu", e) < 0 ||
        h5writer_text(w, "", "empty", "", e) < 0)
        return -1;
    return h5writer_u64(w, "parameters", "count", UINT64_MAX - 1, e) < 0 ||
                   h5writer_f64(w, "parameters/0.bias", "mean", 0.25, e) < 0
               ? -1
               : 0;
}

static int small_write(const char *path, struct err *e)
{
    struct h5writer *w;
    if (h5writer_open(&w, path, e) < 0)
        return -1;
    if (small_fill(w, e) < 0) {
        h5writer_abandon(&w);
        return -1;
    }
    return h5writer_commit(&w, e);
}

static char *file_read(const char *path, size_t *bytes)
{
    struct err e;
    char *data;
    CHECK_OK(durable_read(path, 1 << 24, &data, bytes, &e), e);
    return data;
}

/* Number of files in the present directory. */
static int files_here(void)
{
    FILE *list = popen("ls -A | wc -l", "r");
    int count = -1;
    CHECK(list && fscanf(list, "%d", &count) == 1);
    pclose(list);
    return count;
}

TEST(h5file_round_trip)
{
    struct err e;
    struct h5reader *r;
    struct h5array a;
    char text[64];
    uint64_t number;
    double real;
    float back[15];
    CHECK_OK(small_write("a.h5", &e), e);
    CHECK_OK(h5reader_open(&r, "a.h5", &e), e);
    CHECK_OK(h5reader_text(r, "", "model", text, sizeof text, &e), e);
    CHECK_STR(text, "linear out=3\nrelu");
    CHECK_OK(h5reader_text(r, "", "empty", text, sizeof text, &e), e);
    CHECK_STR(text, "");
    CHECK_OK(h5reader_u64(r, "parameters", "count", &number, &e), e);
    CHECK(number == UINT64_MAX - 1);
    CHECK_OK(h5reader_f64(r, "parameters/0.bias", "mean", &real, &e), e);
    CHECK(real == 0.25);
    CHECK_OK(h5reader_array(r, "parameters/0.weight", &a, &e), e);
    CHECK(a.type == H5TYPE_F32 && a.rank == 2 && a.dims[0] == 3 && a.dims[1] == 5 && a.bytes == 60);
    CHECK_OK(h5reader_read(r, &a, back, &e), e);
    CHECK(memcmp(back, weight, sizeof weight) == 0);
    h5reader_close(&r);
    h5reader_close(&r); /* harmless twice */
    CHECK_EQ(files_here(), 1);
}

TEST(h5file_arrays_are_aligned_and_can_be_mapped)
{
    struct err e;
    struct h5reader *r;
    struct h5array a;
    size_t bytes;
    CHECK_OK(small_write("a.h5", &e), e);
    char *file = file_read("a.h5", &bytes);
    CHECK_OK(h5reader_open(&r, "a.h5", &e), e);
    CHECK_OK(h5reader_array(r, "parameters/0.weight", &a, &e), e);
    CHECK(a.file_offset % 64 == 0 && a.file_offset + sizeof weight <= bytes);
    CHECK(memcmp(file + a.file_offset, weight, sizeof weight) == 0);
    CHECK_OK(h5reader_array(r, "parameters/0.bias", &a, &e), e);
    CHECK(a.file_offset % 64 == 0 && memcmp(file + a.file_offset, bias, sizeof bias) == 0);
    h5reader_close(&r);
    free(file);
}

TEST(h5file_equal_content_is_an_equal_file)
{
    struct err e;
    size_t bytes[2];
    CHECK_OK(small_write("a.h5", &e), e);
    for (int i = 0; i < 100; i++) /* another state of the heap */
        free(memset(malloc((size_t)i * 100 + 1), 0xa5, (size_t)i * 100 + 1));
    sleep(1); /* a time would be another one now */
    CHECK_OK(small_write("b.h5", &e), e);
    char *a = file_read("a.h5", &bytes[0]), *b = file_read("b.h5", &bytes[1]);
    CHECK_EQ(bytes[0], bytes[1]);
    CHECK(memcmp(a, b, bytes[0]) == 0);
    free(a);
    free(b);
}

TEST(h5file_gzip_of_every_type_and_rank_is_read_back_by_libhdf5)
{
    struct err e;
    struct h5writer *w;
    struct h5reader *r;
    struct h5array a;
    static uint8_t data[7 * 11 * 5 * 8], back[sizeof data];
    const uint64_t dims[3] = {7, 11, 5}, chunk[3] = {3, 4, 9};
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i % 37 == 0 ? test_random() : i / 100);
    CHECK_OK(h5writer_open(&w, "a.h5", &e), e);
    for (int t = 0; t < H5TYPE_COUNT; t++) {
        CHECK_EQ(h5type_of(h5type_name((enum h5type)t)), t);
        CHECK_OK(h5writer_gzip(w, h5type_name((enum h5type)t), (enum h5type)t, 3, dims, chunk, 6,
                               data, &e),
                 e);
    }
    CHECK_OK(h5writer_commit(&w, &e), e);
    CHECK_OK(h5reader_open(&r, "a.h5", &e), e);
    for (int t = 0; t < H5TYPE_COUNT; t++) {
        memset(back, 1, sizeof back);
        CHECK_OK(h5reader_array(r, h5type_name((enum h5type)t), &a, &e), e);
        CHECK(a.type == (enum h5type)t && a.rank == 3 && a.file_offset == UINT64_MAX);
        CHECK_EQ(a.bytes, 385 * h5type_bytes((enum h5type)t));
        CHECK_OK(h5reader_read(r, &a, back, &e), e);
        CHECK(memcmp(back, data, a.bytes) == 0);
    }
    h5reader_close(&r);
}

TEST(h5file_rows_come_in_pieces)
{
    struct err e;
    struct h5writer *w;
    struct h5reader *r;
    struct h5array a;
    static uint8_t features[1000 * 13], back[sizeof features];
    uint16_t targets[1000];
    const uint64_t dims[2] = {1000, 13};
    for (size_t i = 0; i < sizeof features; i++)
        features[i] = (uint8_t)test_random();
    for (size_t i = 0; i < 1000; i++)
        targets[i] = (uint16_t)(i * 3);
    CHECK_OK(h5writer_open(&w, "a.h5", &e), e);
    CHECK_OK(h5writer_rows_begin(w, "train/features", H5TYPE_U8, 2, dims, 256, 6, &e), e);
    CHECK_OK(h5writer_rows_begin(w, "train/targets", H5TYPE_U16, 1, dims, 256, 1, &e), e);
    for (uint64_t at = 0; at < 1000; at += 512) {
        uint64_t rows = at + 512 < 1000 ? 512 : 1000 - at;
        CHECK_OK(h5writer_rows_append(w, "train/features", features + at * 13, rows, &e), e);
        CHECK_OK(h5writer_rows_append(w, "train/targets", targets + at, rows, &e), e);
    }
    CHECK_OK(h5writer_commit(&w, &e), e);
    CHECK_OK(h5reader_open(&r, "a.h5", &e), e);
    CHECK_OK(h5reader_array(r, "train/features", &a, &e), e);
    CHECK_OK(h5reader_read(r, &a, back, &e), e);
    CHECK(a.rank == 2 && a.dims[0] == 1000 && memcmp(back, features, sizeof features) == 0);
    CHECK_OK(h5reader_array(r, "train/targets", &a, &e), e);
    CHECK_OK(h5reader_read(r, &a, back, &e), e);
    CHECK(a.type == H5TYPE_U16 && memcmp(back, targets, sizeof targets) == 0);
    h5reader_close(&r);
}

TEST(h5file_sets_grow_along_any_axis)
{
    struct err e;
    struct h5writer *w;
    struct h5reader *r;
    struct h5array a;
    enum { TOTAL = 1000, PIECE = 256 };
    static uint16_t pairs[2][TOTAL], piece[2 * PIECE], back[2 * TOTAL];
    const uint64_t dims[2] = {2, 0}, rows[2] = {0, 3};
    for (int i = 0; i < 2 * TOTAL; i++)
        pairs[i / TOTAL][i % TOTAL] = (uint16_t)test_random();
    CHECK_OK(h5writer_open(&w, "a.h5", &e), e);
    CHECK_OK(h5writer_growing_begin(w, "g/pairs", H5TYPE_U16, 2, dims, 1, PIECE, 6, &e), e);
    CHECK_OK(h5writer_growing_begin(w, "g/rows", H5TYPE_U8, 2, rows, 0, PIECE, 6, &e), e);
    CHECK_OK(h5writer_growing_begin(w, "g/none", H5TYPE_U16, 2, dims, 1, PIECE, 6, &e), e);
    for (int at = 0; at < TOTAL; at += PIECE) {
        int count = TOTAL - at < PIECE ? TOTAL - at : PIECE;
        for (int k = 0; k < 2; k++)
            memcpy(piece + k * count, &pairs[k][at], (size_t)count * sizeof piece[0]);
        CHECK_OK(h5writer_rows_append(w, "g/pairs", piece, (uint64_t)count, &e), e);
    }
    CHECK_OK(h5writer_rows_append(w, "g/rows", "abcdef", 2, &e), e);
    CHECK_OK(h5writer_commit(&w, &e), e);
    CHECK_OK(h5reader_open(&r, "a.h5", &e), e);
    CHECK_OK(h5reader_array(r, "g/pairs", &a, &e), e);
    CHECK(a.rank == 2 && a.dims[0] == 2 && a.dims[1] == TOTAL);
    CHECK_OK(h5reader_read(r, &a, back, &e), e);
    CHECK(memcmp(back, pairs, sizeof pairs) == 0);
    CHECK_OK(h5reader_columns(r, &a, 200, 300, back, &e), e); /* over a chunk's end */
    CHECK(memcmp(back, &pairs[0][200], 600) == 0 && memcmp(back + 300, &pairs[1][200], 600) == 0);
    CHECK_OK(h5reader_columns(r, &a, TOTAL, 0, back, &e), e);
    CHECK_OK(h5reader_array(r, "g/rows", &a, &e), e);
    CHECK(a.dims[0] == 2 && a.dims[1] == 3);
    CHECK_OK(h5reader_read(r, &a, back, &e), e);
    CHECK(memcmp(back, "abcdef", 6) == 0);
    CHECK_OK(h5reader_array(r, "g/none", &a, &e), e);
    CHECK(a.dims[0] == 2 && a.dims[1] == 0 && a.bytes == 0);
    h5reader_close(&r);
}

TEST(h5file_a_set_without_all_its_rows_is_no_file)
{
    struct err e;
    struct h5writer *w;
    const uint64_t dims[1] = {10};
    uint8_t data[10] = {0};
    CHECK_OK(h5writer_open(&w, "a.h5", &e), e);
    CHECK_OK(h5writer_rows_begin(w, "x", H5TYPE_U8, 1, dims, 4, 6, &e), e);
    CHECK_OK(h5writer_rows_append(w, "x", data, 8, &e), e);
    CHECK(h5writer_commit(&w, &e) < 0 && !w);
    CHECK_HAS(e.text, "x has 8 of its 10 rows");
    CHECK_EQ(files_here(), 0);
}

struct seen {
    char names[256];
};

static int name_add(void *self, const struct h5array *array)
{
    struct seen *s = self;
    strcat(s->names, array->name);
    strcat(s->names, " ");
    return 0;
}

TEST(h5file_sets_are_visited_in_the_order_they_were_made)
{
    struct err e;
    struct h5writer *w;
    struct h5reader *r;
    struct seen s = {""};
    const uint64_t one[1] = {1};
    CHECK_OK(h5writer_open(&w, "a.h5", &e), e);
    const char *names[] = {"m/z", "m/b/q", "m/a", "other", "m/b/c"};
    for (int i = 0; i < 5; i++)
        CHECK_OK(h5writer_array(w, names[i], H5TYPE_U8, 1, one, "x", &e), e);
    CHECK_OK(h5writer_commit(&w, &e), e);
    CHECK_OK(h5reader_open(&r, "a.h5", &e), e);
    CHECK_OK(h5reader_each(r, "m", name_add, &s, &e), e);
    CHECK_STR(s.names, "m/z m/b/q m/b/c m/a ");
    s.names[0] = 0;
    CHECK_OK(h5reader_each(r, "", name_add, &s, &e), e);
    CHECK_STR(s.names, "m/z m/b/q m/b/c m/a other ");
    CHECK(h5reader_each(r, "nowhere", name_add, &s, &e) < 0);
    CHECK_HAS(e.text, "/nowhere in a.h5");
    h5reader_close(&r);
}

TEST(h5file_wrong_questions_get_one_sentence)
{
    struct err e;
    struct h5reader *r;
    struct h5array a;
    char text[64];
    uint64_t number;
    CHECK(h5reader_open(&r, "nothing.h5", &e) < 0 && !r);
    CHECK_STR(e.text, "cannot open nothing.h5: No such file or directory");
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_OK(durable_write("text.h5", "no HDF5 here", 12, &e), e);
    CHECK(h5reader_open(&r, "text.h5", &e) < 0 && !r);
    CHECK_STR(e.text, "cannot open text.h5 as HDF5: file signature not found");
    CHECK_OK(small_write("a.h5", &e), e);
    CHECK_OK(h5reader_open(&r, "a.h5", &e), e);
    CHECK(h5reader_text(r, "", "count", text, sizeof text, &e) < 0);
    CHECK_STR(e.text, "/ in a.h5 has no attribute count");
    CHECK(h5reader_text(r, "parameters", "count", text, sizeof text, &e) < 0);
    CHECK_HAS(e.text, "attribute count of /parameters in a.h5 is not a text");
    CHECK(h5reader_u64(r, "", "model", &number, &e) < 0);
    CHECK_HAS(e.text, "is not a 64-bit unsigned integer");
    CHECK(h5reader_text(r, "", "model", text, 17, &e) < 0);
    CHECK_HAS(e.text, "has 17 bytes, at most 16 fit");
    CHECK(h5reader_array(r, "parameters/9.weight", &a, &e) < 0);
    CHECK_HAS(e.text, "cannot open data set parameters/9.weight in a.h5");
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    h5reader_close(&r);
}

TEST(h5file_text_too_long_for_an_attribute_is_refused)
{
    struct err e;
    struct h5writer *w;
    struct h5reader *r;
    char *text = calloc(1, 70000), *back = calloc(1, 70000);
    memset(text, 'x', 65001);
    CHECK_OK(h5writer_open(&w, "a.h5", &e), e);
    CHECK(h5writer_text(w, "", "long", text, &e) < 0);
    CHECK_HAS(e.text, "has 65001 bytes, at most 65000 fit");
    text[65000] = 0;
    CHECK_OK(h5writer_text(w, "", "long", text, &e), e);
    CHECK_OK(h5writer_commit(&w, &e), e);
    CHECK_OK(h5reader_open(&r, "a.h5", &e), e);
    CHECK_OK(h5reader_text(r, "", "long", back, 70000, &e), e);
    CHECK_STR(back, text);
    h5reader_close(&r);
    free(text);
    free(back);
}

TEST(h5file_truncated_anywhere_is_an_error_and_never_a_crash)
{
    struct err e;
    struct h5reader *r;
    CHECK_OK(small_write("whole.h5", &e), e);
    size_t bytes;
    char *whole = file_read("whole.h5", &bytes);
    for (size_t cut = 0; cut < bytes; cut += 1 + bytes / 97) {
        CHECK_OK(durable_write("cut.h5", whole, cut, &e), e);
        CHECK(h5reader_open(&r, "cut.h5", &e) < 0);
        CHECK_HAS(e.text, "cannot open cut.h5");
        CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    }
    free(whole);
}

TEST(h5file_every_failing_write_leaves_the_old_file)
{
    struct err e;
    size_t old_bytes, bytes;
    CHECK_OK(small_write("a.h5", &e), e);
    char *old = file_read("a.h5", &old_bytes);
    const char *calls[] = {"write", "fsync", "rename"};
    for (int c = 0; c < 3; c++) {
        int failed = 0;
        for (int n = 1; n < 40; n++) {
            char hook[64];
            snprintf(hook, sizeof hook, "%s:%d:ENOSPC", calls[c], n);
            CHECK_OK(durable_fail_after(hook, &e), e);
            int result = small_write("a.h5", &e);
            CHECK_OK(durable_fail_after(NULL, NULL), e);
            if (result == 0)
                break;
            failed++;
            CHECK_HAS(e.text, "No space left on device");
            CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
            CHECK_EQ(files_here(), 1);
            char *now = file_read("a.h5", &bytes);
            CHECK(bytes == old_bytes && memcmp(now, old, bytes) == 0);
            free(now);
        }
        CHECK(failed >= (c == 0 ? 3 : 1) && failed < 39);
    }
    free(old);
}

/* A limit on the size of files makes write(2) inside libhdf5 fail, as a full disk does. */
TEST(h5file_a_write_that_fails_inside_libhdf5_is_temporary_and_leaves_nothing)
{
    struct err e;
    struct rlimit limit = {0, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    static float big[100000];
    const uint64_t dims[1] = {100000};
    for (uint64_t bytes = 0; bytes <= 300000; bytes += 60000) {
        struct h5writer *w;
        limit.rlim_cur = bytes;
        CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
        int result = h5writer_open(&w, "a.h5", &e);
        if (result == 0)
            result = h5writer_array(w, "big", H5TYPE_F32, 1, dims, big, &e);
        if (result == 0)
            result = h5writer_commit(&w, &e);
        else
            h5writer_abandon(&w);
        limit.rlim_cur = RLIM_INFINITY;
        CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
        CHECK(result < 0);
        CHECK_HAS(e.text, "File too large");
        CHECK_EQ(files_here(), 0);
    }
    CHECK_OK(small_write("a.h5", &e), e);
}

TEST(h5file_sweep_removes_only_what_the_dead_left)
{
    struct err e;
    struct h5writer *w;
    CHECK_OK(small_write("a.h5", &e), e);
    CHECK_OK(small_write("b.h5.tmp-999999", &e), e);
    CHECK_OK(small_write("c.h5.tmp-12x", &e), e);
    CHECK_OK(h5writer_open(&w, "d.h5", &e), e);
    h5writer_sweep("anything.h5");
    CHECK(access("a.h5", F_OK) == 0 && access("c.h5.tmp-12x", F_OK) == 0);
    CHECK(access("b.h5.tmp-999999", F_OK) < 0);
    CHECK_OK(h5writer_commit(&w, &e), e);
    CHECK(access("d.h5", F_OK) == 0);
}

TEST(h5file_sweep_of_a_file_removes_only_what_the_dead_left_of_it)
{
    struct err e;
    struct h5writer *w;
    char own[64], living[64];
    const char *const stay[] = {"x/b.h5.tmp-999999999",
                                "x/a.h5.tmp-99999999x",
                                "x/aa.h5.tmp-999999999",
                                "x/a.h5.tmp-",
                                own,
                                living};
    CHECK(mkdir("x", 0700) == 0);
    CHECK_OK(h5writer_open(&w, "x/a.h5", &e), e);
    snprintf(own, sizeof own, "x/a.h5.tmp-%d", (int)getpid());
    CHECK_STR(h5writer_temporary(w), own);
    snprintf(living, sizeof living, "x/a.h5.tmp-%d", (int)getppid());
    for (int i = 0; i < 6; i++)
        if (stay[i] != own)
            CHECK_OK(small_write(stay[i], &e), e);
    CHECK_OK(small_write("x/a.h5.tmp-999999999", &e), e);
    h5writer_sweep_dead("x/a.h5");
    for (int i = 0; i < 6; i++)
        CHECK(access(stay[i], F_OK) == 0);
    CHECK(access("x/a.h5.tmp-999999999", F_OK) < 0);
    CHECK_OK(h5writer_commit(&w, &e), e);
    CHECK_OK(small_write("a.h5.tmp-999999999", &e), e);
    h5writer_sweep_dead("a.h5");
    CHECK(access("a.h5.tmp-999999999", F_OK) < 0);
}

TEST(h5file_digest_knows_names_shapes_and_bytes)
{
    struct err e;
    struct digest *d;
    char one[65], two[65];
    const uint64_t flat[1] = {15}, turned[2] = {5, 3};
    CHECK_OK(digest_open(&d, &e), e);
    digest_close(&d, one);
    CHECK_STR(one, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK_OK(digest_open(&d, &e), e);
    digest_bytes(d, "ab", 2);
    digest_bytes(d, "c", 1);
    digest_close(&d, one);
    CHECK_STR(one, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK_OK(digest_open(&d, &e), e);
    digest_array(d, "w", H5TYPE_F32, 2, dims_weight, weight);
    digest_close(&d, one);
    for (int i = 0; i < 4; i++) {
        float changed[15];
        memcpy(changed, weight, sizeof changed);
        if (i == 3)
            ((uint8_t *)changed)[17] ^= 1;
        CHECK_OK(digest_open(&d, &e), e);
        digest_array(d, i == 0 ? "v" : "w", H5TYPE_F32, i == 1 ? 1 : 2,
                     i == 1   ? flat
                     : i == 2 ? turned
                              : dims_weight,
                     changed);
        digest_close(&d, two);
        CHECK(strcmp(one, two) != 0);
    }
}
