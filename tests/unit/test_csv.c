/* test_csv.c - cutting CSV into fields, numbers and classes, `prepare csv` and `prepare check`. */
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipelines/prepare/csv.h"
#include "pipelines/prepare/hashes.h"
#include "pipelines/prepare/labels.h"
#include "pipelines/prepare/prepare.h"
#include "proto/h5file.h"
#include "proto/order.h"
#include "tests/test.h"

static struct err e;

static void file_write(const char *path, const char *text, size_t bytes)
{
    test_file_forget(path);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(text, 1, bytes, f) == bytes && fclose(f) == 0);
}

/* The whole file as "a|b/c|d/", or the sentence. */
static const char *rows_of_bytes(const char *text, size_t bytes, char delimiter)
{
    static char joined[4096];
    struct csv c;
    int more;
    size_t used = 0;
    file_write("x.csv", text, bytes);
    CHECK_OK(csv_open(&c, "x.csv", delimiter, &e), e);
    while ((more = csv_row(&c, &e)) > 0) {
        for (uint32_t i = 0; i < c.field_count; i++)
            used += (size_t)snprintf(joined + used, sizeof joined - used, "%s%s", i ? "|" : "",
                                     csv_field(&c, i));
        used += (size_t)snprintf(joined + used, sizeof joined - used, "/");
    }
    joined[used] = 0;
    csv_close(&c);
    csv_close(&c);
    return more < 0 ? e.text : joined;
}

static const char *rows_of(const char *text)
{
    return rows_of_bytes(text, strlen(text), ',');
}

TEST(csv_rows_are_cut_as_rfc_4180_says)
{
    CHECK_STR(rows_of(""), "");
    CHECK_STR(rows_of("a,b\n1,2\n"), "a|b/1|2/");
    CHECK_STR(rows_of("a,b\r\n1,2\r\n"), "a|b/1|2/");
    CHECK_STR(rows_of("a,b\r1,2"), "a|b/1|2/");
    CHECK_STR(rows_of("\xef\xbb\xbf"
                      "a,b\n"),
              "a|b/");
    CHECK_STR(rows_of("\n\na,b\n\r\n\n1,2\n\n"), "a|b/1|2/");
    CHECK_STR(rows_of("\"a,\"\"b\nc\",\"\"\n,\n"), "a,\"b\nc|/|/");
    CHECK_STR(rows_of("\"\"\n"), "/");
    CHECK_STR(rows_of_bytes("a;b,c\n", 6, ';'), "a|b,c/");
}

TEST(csv_what_is_refused_names_line_and_column)
{
    CHECK_STR(rows_of("a,b\n1,\"x\ny\n"),
              "x.csv: line 2, column 2: a quoted field begins and does not end");
    CHECK_STR(rows_of("a,b\n\"x\ny\"z,1\n"),
              "x.csv: line 3, column 1 has text behind a closing quote");
    CHECK_HAS(rows_of("a,b\n\n5,5\"\n"), "x.csv: line 3, column 2 has a quote inside");
    CHECK_HAS(rows_of_bytes("a\0,\0", 4, ','), "line 1, column 1 holds a zero byte; is it UTF-16?");
}

TEST(csv_limits)
{
    char *text = malloc(CSV_ROW_BYTES_MAX + 16);
    memset(text, 'x', CSV_ROW_BYTES_MAX + 16);
    text[0] = '1';
    CHECK_HAS(rows_of_bytes(text, CSV_ROW_BYTES_MAX, ','), "line 1 has more than 4194304 bytes");
    memset(text, ',', CSV_FIELDS_MAX);
    CHECK_HAS(rows_of_bytes(text, CSV_FIELDS_MAX, ','), "line 1 has more than 65536 columns");
    struct csv c;
    file_write("most.csv", text, CSV_FIELDS_MAX - 1);
    CHECK_OK(csv_open(&c, "most.csv", ',', &e), e);
    CHECK_EQ(csv_row(&c, &e), 1);
    CHECK_EQ(c.field_count, CSV_FIELDS_MAX);
    csv_close(&c);
    memset(text, 'x', CSV_ROW_BYTES_MAX);
    file_write("long.csv", text, CSV_ROW_BYTES_MAX - 1);
    CHECK_OK(csv_open(&c, "long.csv", ',', &e), e);
    CHECK_EQ(csv_row(&c, &e), 1);
    CHECK_EQ(strlen(csv_field(&c, 0)), CSV_ROW_BYTES_MAX - 1);
    csv_close(&c);
    free(text);
}

TEST(csv_numbers)
{
    double v = 0;
    CHECK(csv_number("12", &v) == CSV_NUMBER && v == 12);
    CHECK(csv_number(" -3.5e-2\t", &v) == CSV_NUMBER && v == -3.5e-2);
    CHECK(csv_number("+.5", &v) == CSV_NUMBER && v == 0.5);
    CHECK(csv_number("1e-400", &v) == CSV_NUMBER && v == 0);
    static const char *const missing[] = {"", "  ", "NA", "nan", "NaN"};
    static const char *const infinite[] = {"inf", "-Infinity", "1e39", "1e999", "-4e38"};
    static const char *const none[] = {"0x10",   "1,5",   "1 2", "e",  "-",
                                       "nan(1)", "infix", "1f",  "--1"};
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++)
        CHECK_EQ(csv_number(missing[i], &v), CSV_MISSING);
    for (size_t i = 0; i < sizeof infinite / sizeof infinite[0]; i++)
        CHECK_EQ(csv_number(infinite[i], &v), CSV_INFINITE);
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        CHECK_EQ(csv_number(none[i], &v), CSV_NO_NUMBER);
}

TEST(csv_numbers_are_those_of_strtod)
{
    static const char *const formats[] = {"%llu",  "%.6f", "%.9g", "%.17g",
                                          "%.0f.", "%.3e", "%.22f"};
    for (int i = 0; i < 200000; i++) {
        char text[64];
        double v = 0, wanted;
        uint64_t bits = test_random();
        double x = (double)(int64_t)bits / (double)(1ull << bits % 64) * (bits & 64 ? 1e-9 : 1);
        const char *format = formats[bits / 128 % 7];
        if (format[1] == 'l')
            snprintf(text, sizeof text, "%llu", (unsigned long long)bits >> bits % 64);
        else
            snprintf(text, sizeof text, format, x);
        wanted = strtod(text, NULL);
        if (csv_number(text, &v) != CSV_NUMBER || memcmp(&v, &wanted, sizeof v) != 0)
            test_fail(__FILE__, __LINE__, "%s became %.17g, not %.17g", text, v, wanted);
    }
    double v, zero = -0.0;
    CHECK(csv_number("-0", &v) == CSV_NUMBER && memcmp(&v, &zero, sizeof v) == 0);
    CHECK(csv_number("-", &v) == CSV_NO_NUMBER && csv_number("-.", &v) == CSV_NO_NUMBER);
    CHECK(csv_number("1.2.3", &v) == CSV_NO_NUMBER && csv_number(".", &v) == CSV_NO_NUMBER);
}

static const char *classes_of(const char *const *texts, struct labels *l)
{
    CHECK_OK(labels_open(l, &e), e);
    for (; *texts; texts++)
        if (labels_add(l, *texts, &e) < 0)
            return e.text;
    return labels_number(l, &e) < 0 ? e.text : "";
}

TEST(csv_labels_become_class_numbers)
{
    struct labels l;
    CHECK_STR(classes_of((const char *const[]){"dog", "cat", "dog", "ant", NULL}, &l), "");
    CHECK(l.mapped && l.count == 3 && l.classes == 3);
    CHECK(labels_class(&l, "ant") == 0 && labels_class(&l, "cat") == 1 &&
          labels_class(&l, "dog") == 2 && labels_class(&l, "cow") == -1);
    labels_close(&l);
    CHECK_STR(classes_of((const char *const[]){"10", "2", "0", NULL}, &l), "");
    CHECK(!l.mapped && l.classes == 11 && labels_class(&l, "2") == 2);
    labels_close(&l);
    CHECK_STR(classes_of((const char *const[]){"10", "-1", "9", NULL}, &l), "");
    CHECK(l.mapped && labels_class(&l, "-1") == 0 && labels_class(&l, "9") == 1 &&
          labels_class(&l, "10") == 2);
    labels_close(&l);
    CHECK_STR(classes_of((const char *const[]){"1.0", "0.0", NULL}, &l), "");
    CHECK(l.mapped && labels_class(&l, "1.0") == 1);
    labels_close(&l);
    CHECK_HAS(classes_of((const char *const[]){"1", "2.5", NULL}, &l), "the target is 2.5");
    labels_close(&l);
    CHECK_HAS(classes_of((const char *const[]){"1", "0", "2", "+1", NULL}, &l),
              "the target is +1 in some row and 1 in another, which is the same number; expected");
    labels_close(&l);
    CHECK_HAS(classes_of((const char *const[]){"0.0", "-0", NULL}, &l), "the same number");
    labels_close(&l);
    CHECK_STR(classes_of((const char *const[]){"0", "0.0", "none", NULL}, &l), ""); /* texts */
    CHECK_EQ(l.classes, 3);
    labels_close(&l);
    CHECK_STR(classes_of((const char *const[]){"9007199254740992", "9007199254740993", NULL}, &l),
              "");
    CHECK_EQ(l.classes, 2);
    labels_close(&l);
    CHECK_HAS(classes_of((const char *const[]){"a\nb", NULL}, &l), "control character");
    labels_close(&l);
}

TEST(csv_labels_are_limited)
{
    struct labels l;
    char text[300];
    CHECK_OK(labels_open(&l, &e), e);
    for (int i = 0; i < LABELS_MAX; i++) {
        snprintf(text, sizeof text, "%d", i);
        CHECK_OK(labels_add(&l, text, &e), e);
    }
    CHECK_EQ(labels_add(&l, "65536", &e), -1);
    CHECK_HAS(e.text, "more than 65536 different values");
    memset(text, 'x', sizeof text);
    text[256] = 0;
    CHECK_EQ(labels_add(&l, text, &e), -1);
    CHECK_HAS(e.text, "256 bytes");
    CHECK_OK(labels_number(&l, &e), e);
    CHECK(!l.mapped && l.classes == LABELS_MAX && labels_class(&l, "65535") == 65535);
    labels_close(&l);
}

/* ---- the commands --------------------------------------------------------------------------- */

static char said[8192];

static int command_run(int (*command)(int, char **), const char *const *arguments)
{
    char *argv[16] = {"prepare"};
    int argc = 1, saved[2] = {dup(1), dup(2)};
    for (; *arguments; arguments++)
        argv[argc++] = (char *)(uintptr_t)*arguments;
    int file = open("said", O_RDWR | O_CREAT | O_TRUNC, 0600);
    fflush(NULL);
    CHECK(file >= 0 && dup2(file, 1) >= 0 && dup2(file, 2) >= 0);
    int code = command(argc, argv);
    fflush(NULL);
    dup2(saved[0], 1);
    dup2(saved[1], 2);
    ssize_t got = pread(file, said, sizeof said - 1, 0);
    said[got > 0 ? got : 0] = 0;
    close(file);
    close(saved[0]);
    close(saved[1]);
    return code;
}

/* `prepare csv` of this text with up to three options. */
static int csv_made(const char *text, const char *a, const char *b, const char *c)
{
    static const char pipeline[] = "data: {file: d.h5, prepare: csv, source: t.csv}\n"
                                   "model: {layers: [{type: linear, out: 3}]}\n"
                                   "tasks: [{name: A}]\n";
    const char *arguments[12] = {"--config", "p.yaml", "--out", "d.h5"};
    const char *set[] = {a, b, c};
    for (int i = 0, n = 4; i < 3 && set[i]; i++) {
        arguments[n++] = "--set";
        arguments[n++] = set[i];
    }
    file_write("p.yaml", pipeline, sizeof pipeline - 1);
    if (text)
        file_write("t.csv", text, strlen(text));
    return command_run(prepare_csv, arguments);
}

static uint64_t read_set(const char *name, enum h5type type, void *data, uint64_t bytes_max)
{
    struct h5reader *r;
    struct h5array a;
    CHECK_OK(h5reader_open(&r, "d.h5", &e), e);
    CHECK_OK(h5reader_array(r, name, &a, &e), e);
    CHECK(a.type == type && a.bytes <= bytes_max);
    CHECK_OK(h5reader_read(r, &a, data, &e), e);
    h5reader_close(&r);
    return a.dims[0];
}

TEST(csv_split_last_keeps_order_and_small_integers)
{
    uint8_t x[64], y[64];
    CHECK_EQ(csv_made("a,b,t\n1,2,u\n3,255,v\n5,6,u\n7,8,w\n9,10,v\n", "prepare.split=last",
                      "prepare.validation_fraction=0.4", NULL),
             EXIT_CODE_DONE);
    CHECK_HAS(said, "5 rows of 2 features (u8), 3 to train and 2 to evaluate, 3 classes");
    CHECK_HAS(said, "classes 0 = u, 1 = v, 2 = w");
    CHECK_EQ(read_set("train/features", H5TYPE_U8, x, sizeof x), 3);
    CHECK(memcmp(x, (uint8_t[]){1, 2, 3, 255, 5, 6}, 6) == 0);
    CHECK_EQ(read_set("validation/features", H5TYPE_U8, x, sizeof x), 2);
    CHECK(memcmp(x, (uint8_t[]){7, 8, 9, 10}, 4) == 0);
    CHECK_EQ(read_set("validation/targets", H5TYPE_U8, y, sizeof y), 2);
    CHECK(y[0] == 2 && y[1] == 1);
}

TEST(csv_types_follow_the_values)
{
    unsigned char x[64];
    CHECK_EQ(csv_made("1,-2,0\n3,4,1\n", "prepare.split=last", NULL, NULL), EXIT_CODE_DONE);
    read_set("train/features", H5TYPE_I8, x, sizeof x);
    CHECK(memcmp(x, (int8_t[]){1, -2}, 2) == 0);
    CHECK_EQ(csv_made("1,256,0\n3,4,1\n", NULL, NULL, NULL), EXIT_CODE_DONE);
    read_set("train/features", H5TYPE_U16, x, sizeof x);
    CHECK_EQ(csv_made("-1,256,0\n3,4,1\n", NULL, NULL, NULL), EXIT_CODE_DONE);
    read_set("train/features", H5TYPE_I16, x, sizeof x);
    CHECK_EQ(csv_made("-1,65535,0\n3,4,1\n", NULL, NULL, NULL), EXIT_CODE_DONE);
    read_set("train/features", H5TYPE_F32, x, sizeof x);
    CHECK_EQ(csv_made("0.5,1,300\n3,4,1\n", NULL, NULL, NULL), EXIT_CODE_DONE);
    read_set("train/targets", H5TYPE_U16, x, sizeof x);
}

TEST(csv_random_split_takes_each_row_once)
{
    static char text[64 << 10];
    static float x[3000];
    size_t used = (size_t)sprintf(text, "row;t\n");
    int seen[3000] = {0};
    for (int i = 0; i < 3000; i++)
        used += (size_t)sprintf(text + used, "%d.5;%d\n", i, i % 3);
    CHECK_EQ(csv_made(text, "prepare.delimiter=;", "prepare.target=t", NULL), EXIT_CODE_DONE);
    uint64_t rows = read_set("validation/features", H5TYPE_F32, x, sizeof x);
    CHECK_EQ(rows, 300);
    int in_order = 0;
    for (uint64_t i = 0; i < rows; i++) {
        seen[(int)x[i]]++;
        in_order += (int)x[i] >= 2700;
    }
    CHECK(in_order > 5 && in_order < 100);
    CHECK_EQ(read_set("train/features", H5TYPE_F32, x, sizeof x), 2700);
    for (int i = 0; i < 2700; i++)
        seen[(int)x[i]]++;
    for (int i = 0; i < 3000; i++)
        CHECK_EQ(seen[i], 1);
    /* More rows than one chunk of features: the targets still belong to them. */
    static uint8_t y[3000];
    CHECK_EQ(read_set("train/targets", H5TYPE_U8, y, sizeof y), 2700);
    for (int i = 0; i < 2700; i++)
        CHECK_EQ(y[i], (int)x[i] % 3);
}

TEST(csv_normalise_uses_the_training_rows_only)
{
    double mean[2], deviation[2];
    float x[8];
    CHECK_EQ(csv_made("1,7,0\n3,7,1\n1000,9,1\n", "prepare.split=last",
                      "prepare.normalise=standard", NULL),
             EXIT_CODE_DONE);
    read_set("normalise/mean", H5TYPE_F64, mean, sizeof mean);
    read_set("normalise/standard_deviation", H5TYPE_F64, deviation, sizeof deviation);
    CHECK(mean[0] == 2 && mean[1] == 7 && deviation[0] == 1 && deviation[1] == 1);
    read_set("train/features", H5TYPE_F32, x, sizeof x);
    CHECK(x[0] == -1 && x[1] == 0 && x[2] == 1 && x[3] == 0);
    read_set("validation/features", H5TYPE_F32, x, sizeof x);
    CHECK(x[0] == 998 && x[1] == 2);
    CHECK_EQ(csv_made("1e-3,7,0\n3e-3,7,1\n3e37,9,1\n", "prepare.split=last",
                      "prepare.normalise=standard", NULL),
             EXIT_CODE_PERMANENT);
    CHECK_HAS(said, "t.csv: line 3: feature 0 is more than a float32 holds when it is normalised");
    read_set("normalise/mean", H5TYPE_F64, mean, sizeof mean);
    CHECK(mean[0] == 2); /* the old file */
}

TEST(csv_values_are_kept_as_floats)
{
    float x[8], y[8];
    CHECK_EQ(csv_made("low,a,high,b\n0.5,1,-1e3,2\n1.5,3,7,4\n2,5,0.1,6\n", "prepare.task=values",
                      "prepare.target=high, low", "prepare.split=last"),
             EXIT_CODE_DONE);
    CHECK_HAS(said, "3 rows of 2 features (u8), 2 to train and 1 to evaluate, 2 target values");
    CHECK_EQ(read_set("train/targets", H5TYPE_F32, y, sizeof y), 2);
    CHECK(y[0] == -1e3f && y[1] == 0.5f && y[2] == 7 && y[3] == 1.5f);
    read_set("validation/targets", H5TYPE_F32, y, sizeof y);
    CHECK(y[0] == 0.1f && y[1] == 2);
    read_set("train/features", H5TYPE_U8, x, sizeof x);
    CHECK(memcmp(x, (uint8_t[]){1, 2, 3, 4}, 4) == 0);
    struct h5reader *r;
    char names[64];
    CHECK_OK(h5reader_open(&r, "d.h5", &e), e);
    CHECK_OK(h5reader_text(r, "", "columns", names, sizeof names, &e), e);
    CHECK_STR(names, "a\nb");
    CHECK_OK(h5reader_text(r, "", "target_columns", names, sizeof names, &e), e);
    CHECK_STR(names, "high\nlow");
    h5reader_close(&r);
    CHECK_EQ(csv_made("1,2\n3,4\n", "prepare.task=values", "prepare.target=-1", NULL),
             EXIT_CODE_DONE);
    CHECK_EQ(read_set("train/targets", H5TYPE_F32, y, sizeof y), 1);
    CHECK_EQ(csv_made("a,\"b,c\"\n1,2.5\n3,4\n", "prepare.task=values", "prepare.target=b,c", NULL),
             EXIT_CODE_DONE); /* one name with a comma in it */
}

TEST(csv_bad_values_have_a_sentence)
{
    static const struct {
        const char *text, *target, *has;
    } cases[] = {
        {"a,b\n1,x\n2,3\n", "b", "t.csv: line 2, column 2 (b): \"x\" is no number"},
        {"a,b\n1,\n2,3\n", "b", "t.csv: line 2, column 2 (b): the target has no value"},
        {"a,b\n1,1e39\n2,3\n", "b", "t.csv: line 2, column 2 (b): \"1e39\" is larger"},
        {"a,b\n1,2\n2,3\n", "b,c", "has no column \"c\" (prepare.target) among its 2"},
        {"a,b\n1,2\n2,3\n", "b,b", "names column 1 of t.csv twice"},
        {"a,b\n1,2\n2,3\n", "b,-1", "names column 1 of t.csv twice"},
        {"a,b\n1,2\n2,3\n", "a,b", "names all 2 columns of t.csv"},
    };
    char target[64];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(target, sizeof target, "prepare.target=%s", cases[i].target);
        CHECK_EQ(csv_made(cases[i].text, target, "prepare.task=values", NULL), EXIT_CODE_PERMANENT);
        CHECK_HAS(said, cases[i].has);
        CHECK(access("d.h5", F_OK) != 0);
    }
    CHECK_EQ(csv_made("a,b,c\n1,2,0\n2,3,1\n", "prepare.target=b,c", NULL, NULL),
             EXIT_CODE_PERMANENT);
    CHECK_HAS(said, "prepare.target is \"b,c\", which is no column of t.csv; several targets are");
}

TEST(csv_missing_values)
{
    CHECK_EQ(csv_made("a,t\n1,u\n,v\n", NULL, NULL, NULL), EXIT_CODE_PERMANENT);
    CHECK_STR(said, "prepare csv: t.csv: line 3, column 1 (a): \"\" is no value; prepare.missing: "
                    "drop leaves such rows out\n");
    CHECK(access("d.h5", F_OK) != 0);
    CHECK_EQ(csv_made("a,t\n1,u\n,v\nNA,w\n2,\n3,v\n", "prepare.missing=drop", NULL, NULL),
             EXIT_CODE_DONE);
    CHECK_HAS(said, "2 rows of 1 features");
    CHECK_HAS(said, "3 rows with missing values were dropped");
}

TEST(csv_header_is_found_or_given)
{
    CHECK_EQ(csv_made("1,2,0\n3,4,1\n", "prepare.header=auto", NULL, NULL), EXIT_CODE_DONE);
    CHECK_HAS(said, "2 rows of 2");
    CHECK_EQ(csv_made("1,2,0\n3,4,1\n5,6,0\n", "prepare.header=yes", NULL, NULL), EXIT_CODE_DONE);
    CHECK_HAS(said, "2 rows of 2");
    CHECK_EQ(csv_made("a,2,0\n3,4,1\n5,6,0\n", "prepare.header=no", NULL, NULL),
             EXIT_CODE_PERMANENT);
    CHECK_HAS(said, "line 1, column 1: \"a\" is no number");
    CHECK_EQ(csv_made("t,a\nu,1\nv,2\n", "prepare.target=0", NULL, NULL), EXIT_CODE_DONE);
    CHECK_HAS(said, "2 rows of 1");
}

TEST(csv_bad_tables_have_a_sentence)
{
    static const struct {
        const char *text, *set, *has;
    } cases[] = {
        {"", NULL, "t.csv holds no row"},
        {"a,t\n", NULL, "t.csv has 0 usable rows; at least 2"},
        {"a,t\n1,u\n", NULL, "t.csv has 1 usable rows; at least 2"},
        {"a,b,t\n1,2,u\n1,v\n", NULL, "t.csv: line 3 has 2 columns; expected 3 as in line 1"},
        {"a,t\n1,u\n2,v,3\n", NULL, "t.csv: line 3 has 3 columns; expected 2 as in line 1"},
        {"a,t\n1,u\ninf,v\n", NULL, "t.csv: line 3, column 1 (a): \"inf\" is larger than"},
        {"a,t\n1,u\nnan,v\n", NULL, "t.csv: line 3, column 1 (a): \"nan\" is no value"},
        {"a,t\n1,u\none,v\n", NULL, "t.csv: line 3, column 1 (a): \"one\" is no number"},
        {"a,t\n1,1.5\n2,2.5\n", NULL, "t.csv: the target is 1.5"},
        {"a;t\n1;u\n2;v\n", NULL, "line 1 has 1 column; features and a target are needed (is prep"},
        {"a,t\n1,u\n2,v\n", "prepare.target=b",
         "has no column \"b\" (prepare.target) among its 2;"},
        {"a,t\n1,u\n2,v\n", "prepare.target=2", "has no column \"2\""},
        {"a,a\n1,u\n2,v\n", "prepare.target=a", "has more than one column \"a\""},
        {"a,t\n1,u\n2,v\n", "prepare.delimiter=ab", "prepare.delimiter is \"ab\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_EQ(csv_made(cases[i].text, cases[i].set, NULL, NULL), EXIT_CODE_PERMANENT);
        CHECK_HAS(said, cases[i].has);
        CHECK(strchr(said, '\n') == said + strlen(said) - 1); /* one sentence */
        CHECK(access("d.h5", F_OK) != 0);
    }
}

static int is_made_anew(const char *set)
{
    struct stat before, after;
    CHECK(stat("d.h5", &before) == 0);
    CHECK_EQ(csv_made(NULL, set, NULL, NULL), EXIT_CODE_DONE);
    CHECK(stat("d.h5", &after) == 0);
    CHECK((before.st_ino == after.st_ino) == (strstr(said, "up to date") != NULL));
    return before.st_ino != after.st_ino;
}

static void fingerprint_read(char hex[65])
{
    struct h5reader *r;
    CHECK_OK(h5reader_open(&r, "d.h5", &e), e);
    CHECK_OK(h5reader_text(r, "", "fingerprint", hex, 65, &e), e);
    h5reader_close(&r);
}

TEST(csv_cache_follows_source_and_options)
{
    char first[65], other[65];
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    CHECK_EQ(csv_made("a,t\n1,u\n2,v\n3,u\n", NULL, NULL, NULL), EXIT_CODE_DONE);
    fingerprint_read(first);
    CHECK(!is_made_anew(NULL));
    CHECK(utimensat(AT_FDCWD, "t.csv", times, 0) == 0);
    CHECK(is_made_anew(NULL)); /* touched: read again, and the same */
    fingerprint_read(other);
    CHECK_STR(other, first);
    CHECK(is_made_anew("prepare.split_seed=2"));
    CHECK(!is_made_anew("prepare.split_seed=2"));
    fingerprint_read(other);
    CHECK(strcmp(other, first) != 0);
    CHECK(is_made_anew(NULL));
    file_write("t.csv", "a,t\n1,u\n2,v\n4,u\n", 16);
    CHECK(is_made_anew(NULL));
    fingerprint_read(other);
    CHECK(strcmp(other, first) != 0);
}

static void twin_write(const char *path, const char *text)
{
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    file_write(path, text, strlen(text));
    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
}

TEST(csv_cache_is_of_one_source_though_another_has_its_size_and_time)
{
    CHECK(mkdir("a", 0700) == 0 && mkdir("b", 0700) == 0 && symlink("a", "now") == 0);
    twin_write("a/t.csv", "a,t\n1,u\n2,v\n3,u\n");
    twin_write("b/t.csv", "a,t\n9,u\n2,v\n3,u\n");
    CHECK_EQ(csv_made(NULL, "data.source=a/t.csv", NULL, NULL), EXIT_CODE_DONE);
    CHECK(!is_made_anew("data.source=a/../a/t.csv"));
    CHECK(is_made_anew("data.source=b/t.csv"));
    CHECK(is_made_anew("data.source=now/t.csv"));
    CHECK(!is_made_anew("data.source=a/t.csv"));
    CHECK(unlink("now") == 0 && symlink("b", "now") == 0);
    CHECK(is_made_anew("data.source=now/t.csv"));
}

TEST(csv_never_replaces_a_file_of_others)
{
    struct stat st;
    file_write("d.h5", "precious", 8);
    CHECK_EQ(csv_made("a,t\n1,u\n2,v\n", NULL, NULL, NULL), EXIT_CODE_PERMANENT);
    CHECK_HAS(said, "d.h5 is there and was not made by prepare");
    CHECK(stat("d.h5", &st) == 0 && st.st_size == 8);
}

TEST(check_hashes_are_bounded_and_find_their_share)
{
    struct hashes h;
    CHECK_OK(hashes_open(&h, 1000, &e), e);
    for (int i = 0; i < 5000; i++) /* the same few, again and again: all kept */
        hashes_add(&h, (uint64_t)(i % 7) * 0x9e3779b97f4a7c15ull);
    hashes_seal(&h);
    CHECK(h.count == 7 && h.mask == 0 && hashes_has(&h, 0x9e3779b97f4a7c15ull) &&
          !hashes_has(&h, 5));
    hashes_close(&h);
    CHECK_OK(hashes_open(&h, 1000, &e), e);
    for (uint64_t i = 0; i < 50000; i++) {
        hashes_add(&h, order_key(1, i));
        CHECK(h.count <= 1000);
    }
    hashes_seal(&h);
    CHECK(h.mask == 63 || h.mask == 127);
    uint64_t compared = 0, found = 0;
    for (uint64_t i = 25000; i < 75000; i++) /* half of them were added */
        if (hashes_comparable(&h, order_key(1, i))) {
            compared++;
            CHECK_EQ(hashes_has(&h, order_key(1, i)), i < 50000);
            found += i < 50000;
        }
    CHECK(found * 10 > compared * 4 && found * 10 < compared * 6 && compared > 300);
    hashes_close(&h);
    hashes_close(&h);
}

TEST(check_prints_what_is_there)
{
    static const char *const arguments[] = {"--config", "p.yaml", NULL};
    static const char *const narrow[] = {"--config", "p.yaml", "--set", "data.train=other", NULL};
    CHECK_EQ(csv_made("1,5,0\n2,5,1\n3,5,2\n2,5,1\n", "prepare.split=last", NULL, NULL),
             EXIT_CODE_DONE);
    CHECK_EQ(command_run(prepare_check, arguments), EXIT_CODE_DONE);
    CHECK_HAS(said, "train/features: u8 [3, 2], values 1 to 5, NaN 0, infinite 0\n"
                    "    constant features: 1 (column 1)\n");
    CHECK_HAS(said, "train/targets: u8 [3], values 0 to 2, 3 classes\n"
                    "    rows a class: 0: 1, 1: 1, 2: 1\n");
    CHECK_HAS(said, "equal rows: 1 of 3 training rows stand in validation as well");
    CHECK_EQ(command_run(prepare_check, narrow), EXIT_CODE_PERMANENT);
    CHECK_HAS(said, "d.h5 has no data set other/features");
    CHECK_EQ(csv_made("1,5,0\n2,5,1\n3,5,3\n2,5,1\n", "prepare.split=last", NULL, NULL),
             EXIT_CODE_DONE);
    CHECK_EQ(command_run(prepare_check, arguments), EXIT_CODE_PERMANENT);
    CHECK_HAS(said, "train/targets has classes up to 3 and the model 3 outputs; its last layer "
                    "needs out: 4");
}
