/* test_seen.c - a source that changes while it is read is refused at the end of the pass, whatever
 * its format, when its size and its rows stay what they were.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipelines/prepare/idx_file.h"
#include "pipelines/prepare/lines.h"
#include "pipelines/prepare/seen.h"
#include "pipelines/prepare/table.h"
#include "pipelines/prepare/text_files.h"
#include "proto/durable.h"
#include "proto/options.h"
#include "tests/test.h"

static struct err e;

/* Overwrite the file's last byte in place, as no clock that ticks slowly can hide. */
static void overwrite(const char *path)
{
    struct stat st;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000}};
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &st) == 0 && pwrite(fd, "9", 1, st.st_size - 1) == 1);
    CHECK(futimens(fd, times) == 0);
    close(fd);
}

static void expect_changed(int result, const char *path)
{
    char sentence[256];
    snprintf(sentence, sizeof sentence, "%s changed while it was read; start again", path);
    CHECK_EQ(result, -1);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, sentence);
}

TEST(seen_notices_size_content_and_what_is_gone)
{
    struct stat st;
    CHECK_OK(durable_write("x", "123", 3, &e), e);
    CHECK(stat("x", &st) == 0);
    struct seen s = seen_of(&st);
    CHECK_OK(seen_check(&s, "x", &e), e);
    overwrite("x");
    expect_changed(seen_check(&s, "x", &e), "x");
    s.modified_ns = 1000 * 1000000000ll; /* a writer that sets the time back */
    expect_changed(seen_check(&s, "x", &e), "x");
    CHECK(stat("x", &st) == 0);
    s = seen_of(&st);
    CHECK_OK(seen_check(&s, "x", &e), e);
    CHECK(unlink("x") == 0);
    expect_changed(seen_check(&s, "x", &e), "x");
}

/* Two whole passes; then one in which `path` changes behind the first row. */
static void table_change(struct table_source *s, const char *path)
{
    double values[4];
    const char *label;
    int more = 0;
    for (int i = 0; i < 2; i++) {
        CHECK_OK(s->begin(s, NULL, &e), e);
        for (int row = 0; row < 3; row++)
            CHECK_EQ(s->next(s, values, &label, &e), 1);
        CHECK_OK(s->next(s, values, &label, &e), e);
    }
    CHECK_OK(s->begin(s, NULL, &e), e);
    CHECK_EQ(s->next(s, values, &label, &e), 1);
    overwrite(path);
    while ((more = s->next(s, values, &label, &e)) > 0)
        continue;
    expect_changed(more, path);
    s->close(s);
}

static const char pipeline[] = "data: {file: d.h5, prepare: csv, source: t.csv}\n"
                               "model: {layers: [{type: linear, out: 3}]}\n"
                               "tasks: [{name: A}]\n";

TEST(seen_csv_changes_between_its_rows)
{
    static const char rows[] = "1,2,0\n3,4,1\n5,6,0\n7";
    static struct options o;
    struct table_source *s;
    CHECK_OK(durable_write("p.yaml", pipeline, sizeof pipeline - 1, &e), e);
    CHECK_OK(durable_write("t.csv", rows, sizeof rows - 2, &e), e);
    CHECK_OK(options_read(&o, "p.yaml", NULL, 0, &e), e);
    CHECK_OK(table_csv_open(&s, &o, &e), e);
    table_change(s, "t.csv");
    options_free(&o);
}

static void npy_write(const char *path, const char *header, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    CHECK(f);
    fprintf(f, "\x93NUMPY%c%c%c%c%s", 1, 0, (int)strlen(header), 0, header);
    for (size_t i = 0; i < bytes; i++)
        fputc((int)i & 1, f);
    CHECK(fclose(f) == 0);
}

TEST(seen_npy_changes_between_its_rows)
{
    static const char source[] = "data.source=.";
    const char *set[] = {source};
    static struct options o;
    struct table_source *s;
    CHECK_OK(durable_write("p.yaml", pipeline, sizeof pipeline - 1, &e), e);
    npy_write("features.npy", "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 2), }", 6);
    npy_write("targets.npy", "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", 3);
    CHECK_OK(options_read(&o, "p.yaml", set, 1, &e), e);
    CHECK_OK(table_npy_open(&s, &o, &e), e);
    table_change(s, "./features.npy");
    CHECK_OK(table_npy_open(&s, &o, &e), e);
    table_change(s, "./targets.npy");
    options_free(&o);
}

TEST(seen_lines_change)
{
    struct lines l;
    char *line;
    CHECK_OK(durable_write("x.txt", "one\ntwo\n", 8, &e), e);
    CHECK_OK(lines_open(&l, "x.txt", NULL, &e), e);
    CHECK_EQ(lines_next(&l, &line, &e), 1);
    overwrite("x.txt");
    CHECK_EQ(lines_next(&l, &line, &e), 1);
    expect_changed(lines_next(&l, &line, &e), "x.txt");
    lines_close(&l);
}

static int bytes_count(void *self, const void *data, uint64_t bytes, struct err *error)
{
    (void)data, (void)error;
    *(uint64_t *)self += bytes;
    return 0;
}

TEST(seen_documents_change_between_the_passes)
{
    struct text_files f;
    uint64_t bytes = 0;
    CHECK_OK(durable_write("x.txt", "one\n", 4, &e), e);
    CHECK_OK(text_files_open(&f, "x.txt", &e), e);
    CHECK_OK(text_file_read(&f.file[0], bytes_count, &bytes, &e), e);
    CHECK_EQ(bytes, 4);
    overwrite("x.txt");
    expect_changed(text_file_read(&f.file[0], bytes_count, &bytes, &e), "x.txt");
    text_files_close(&f);
}

TEST(seen_idx_changes_after_it_was_found)
{
    static const char labels[] = "\0\0\x08\x01\0\0\0\x02\1\2";
    struct idx_file f = {.path = "labels"};
    struct stat st;
    char label[2];
    CHECK_OK(durable_write("labels", labels, sizeof labels - 1, &e), e);
    CHECK(stat("labels", &st) == 0);
    f.seen = seen_of(&st);
    CHECK_OK(digest_open(&f.digest, &e), e);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(idx_file_open(&f, IDX_LABELS, &e), e);
        CHECK_OK(idx_file_read(&f, label, 2, &e), e);
        if (i == 0)
            CHECK_OK(idx_file_end(&f, &e), e);
        else
            expect_changed(idx_file_end(&f, &e), "labels");
        idx_file_close(&f);
        f.bytes_read = 0;
        overwrite("labels");
    }
    char hex[65];
    digest_close(&f.digest, hex);
}
