/* test_checkpoint.c - the state of training survives the file, and a damaged file is never taken
 * for it. */
#include "proto/checkpoint_map.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/checkpoint_private.h"
#include "proto/durable.h"
#include "tests/test.h"

/* libhdf5 1.10 does not free all of a file that it refuses to open. */
__attribute__((weak)) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

enum { VALUES = 3 * 5 + 3 };

struct state {
    float parameters[VALUES], m[VALUES], v[VALUES];
    struct checkpoint_tensor tensors[4];
    struct checkpoint_meta meta;
};

static const char model[] = "inputs=5 loss=softmax_cross_entropy\nlinear out=3\n";

static void tensor_set(struct checkpoint_tensor *t, const char *name, int rank, uint64_t rows,
                       uint64_t columns, struct state *s, int at)
{
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rank = rank;
    t->dims[0] = rows;
    t->dims[1] = columns;
    t->parameter = s->parameters + at;
    t->m = s->m + at;
    t->v = s->v + at;
}

/* A state whose numbers follow from `step`. */
static struct state *state_new(uint64_t step)
{
    struct state *s = calloc(1, sizeof *s);
    for (int i = 0; i < VALUES; i++) {
        s->parameters[i] = (float)i + (float)step;
        s->m[i] = -(float)i;
        s->v[i] = (float)i / 3;
    }
    tensor_set(&s->tensors[0], "0.weight", 2, 3, 5, s, 0);
    tensor_set(&s->tensors[1], "0.bias", 1, 3, 0, s, 15);
    s->meta = (struct checkpoint_meta){.seed = UINT64_MAX,
                                       .task = 1,
                                       .task_name = "B",
                                       .epoch = 2,
                                       .position = 4096,
                                       .step = step,
                                       .task_step = 7,
                                       .slice_rows = 64,
                                       .micro_batch_rows = 128,
                                       .threads = 2,
                                       .epoch_loss_sum = 0.1,
                                       .best_value = NAN,
                                       .metric = "accuracy",
                                       .plateau_best = INFINITY,
                                       .plateau_scale = 0.1,
                                       .plateau_bad = 3,
                                       .plateau_cooldown = 1,
                                       .stop_best = -INFINITY,
                                       .stop_bad = 4,
                                       .average_count = 2,
                                       .average_sha256 = "f1",
                                       .steps_skipped = 900,
                                       .restores = 1,
                                       .restore_scale = 0.5,
                                       .bad_steps = 2,
                                       .epoch_rows_bad = 128,
                                       .fingerprint = "abc",
                                       .cpu = "AMD",
                                       .epoch_rows_timed = 4096,
                                       .epoch_seconds = 1.5,
                                       .epoch_wait_seconds = 0.25,
                                       .result_count = 2};
    s->meta.results[0] =
        (struct checkpoint_result){"A", "A", "accuracy", 0.87299999999999999, NAN, "f00"};
    s->meta.results[1] = (struct checkpoint_result){"A", "B", "accuracy", 1.0 / 3, 1e-300, ""};
    return s;
}

static uint64_t state_write(const char *path, struct state *s, char digest[65])
{
    struct err e;
    uint64_t bytes = 0;
    CHECK_OK(checkpoint_write(path, &s->meta, model, s->tensors, 2, digest, &bytes, &e), e);
    return bytes;
}

static void byte_flip(const char *path, size_t at)
{
    struct err e;
    char *data;
    size_t bytes;
    CHECK_OK(durable_read(path, 1 << 24, &data, &bytes, &e), e);
    data[at] ^= 0x10;
    CHECK_OK(durable_write(path, data, bytes, &e), e);
    free(data);
}

/* Offset in the file of data set `name`. */
static size_t offset_of(const char *path, const char *name)
{
    struct err e;
    struct h5reader *r;
    struct h5array a;
    CHECK_OK(h5reader_open(&r, path, &e), e);
    CHECK_OK(h5reader_array(r, name, &a, &e), e);
    h5reader_close(&r);
    return a.file_offset;
}

TEST(checkpoint_round_trip)
{
    struct err e;
    struct state *s = state_new(12), *back = state_new(0);
    struct stat st;
    char digest[65], text[256], hex[65];
    uint64_t bytes = state_write("c.h5", s, digest);
    CHECK(stat("c.h5", &st) == 0 && (uint64_t)st.st_size == bytes && strlen(digest) == 64);
    memset(back->m, 0, sizeof back->m);
    memset(back->v, 0, sizeof back->v);
    CHECK_OK(checkpoint_read("c.h5", &back->meta, back->tensors, 2, 1, &e), e);
    CHECK(memcmp(back->parameters, s->parameters, sizeof s->parameters) == 0);
    CHECK(memcmp(back->m, s->m, sizeof s->m) == 0 && memcmp(back->v, s->v, sizeof s->v) == 0);
    CHECK(isnan(back->meta.results[0].loss));
    s->meta.results[0].loss = back->meta.results[0].loss = 0;
    CHECK(memcmp(&back->meta, &s->meta, sizeof s->meta) == 0);
    CHECK_OK(checkpoint_parameters_digest(s->tensors, 2, hex, &e), e);
    CHECK_STR(hex, s->meta.parameters_sha256);
    CHECK_OK(checkpoint_read_meta("c.h5", &back->meta, text, sizeof text, &e), e);
    CHECK_STR(text, model);
    CHECK(checkpoint_read_meta("c.h5", &back->meta, text, sizeof model - 1, &e) < 0);
    CHECK_HAS(e.text, "at most");
    free(s);
    free(back);
}

/* A state with two module buffers behind its parameters. */
static struct state *state_with_buffers(uint64_t step, float *numbers)
{
    struct state *s = state_new(step);
    for (int i = 0; i < 2; i++) {
        struct checkpoint_tensor *t = &s->tensors[2 + i];
        snprintf(t->name, sizeof t->name, "%s", i ? "1.running_var" : "1.running_mean");
        t->rank = 1;
        t->dims[0] = 3;
        t->parameter = numbers + 3 * i;
        t->kind = CHECKPOINT_BUFFER;
    }
    s->meta.moment_steps = 77;
    s->meta.batches_tracked = 1ull << 40;
    return s;
}

TEST(checkpoint_with_module_buffers)
{
    struct err e;
    float numbers[6] = {1, 2, 3, 4, 5, 6}, read[6] = {0};
    struct state *s = state_with_buffers(12, numbers), *back = state_with_buffers(0, read);
    struct state *plain = state_new(12);
    char digest[65], other[65], path[256];
    uint64_t bytes;
    CHECK(mkdir("d", 0700) == 0);
    CHECK_OK(checkpoint_write("d/step-0000000012-0.h5", &s->meta, model, s->tensors, 4, digest,
                              &bytes, &e),
             e);
    for (int want_moments = 0; want_moments < 2; want_moments++) {
        memset(read, 0, sizeof read);
        CHECK_OK(checkpoint_read("d/step-0000000012-0.h5", &back->meta, back->tensors, 4,
                                 want_moments, &e),
                 e);
        CHECK(memcmp(numbers, read, sizeof read) == 0);
        CHECK_EQ(back->meta.batches_tracked, 1ull << 40);
    }
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), 1);
    state_write("plain.h5", plain, other);
    CHECK_STR(plain->meta.parameters_sha256, s->meta.parameters_sha256); /* the parameters alone */
    CHECK(strcmp(digest, other) != 0 && s->meta.buffers_sha256[0] &&
          !plain->meta.buffers_sha256[0]);
    /* parameters alone are to be had of both; buffers of a file without them are not */
    CHECK_OK(checkpoint_read(path, &back->meta, back->tensors, 2, 0, &e), e);
    CHECK(checkpoint_read("plain.h5", &back->meta, back->tensors, 4, 0, &e) < 0);
    CHECK_HAS(e.text, "has no buffers");
    CHECK(checkpoint_read(path, &back->meta, back->tensors, 2, 1, &e) < 0);
    CHECK_HAS(e.text, "of another model");
    byte_flip(path, offset_of(path, "buffers/1.running_var"));
    CHECK_OK(checkpoint_read(path, &back->meta, back->tensors, 2, 0, &e), e);
    CHECK(checkpoint_read(path, &back->meta, back->tensors, 4, 0, &e) < 0);
    CHECK_HAS(e.text, "its module buffers have digest");
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), -1);
    free(s);
    free(back);
    free(plain);
}

TEST(checkpoint_of_parameters_alone)
{
    struct err e;
    struct state *s = state_new(12), *back = state_new(0);
    char digest[65], path[256];
    for (int i = 0; i < 2; i++)
        s->tensors[i].m = s->tensors[i].v = NULL;
    CHECK(mkdir("d", 0700) == 0);
    state_write("d/step-0000000012-0.h5", s, digest);
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), 1);
    CHECK_OK(checkpoint_read(path, &back->meta, back->tensors, 2, 0, &e), e);
    CHECK(memcmp(back->parameters, s->parameters, sizeof s->parameters) == 0);
    CHECK(checkpoint_read(path, &back->meta, back->tensors, 2, 1, &e) < 0);
    CHECK_HAS(e.text, "has no moments/m");
    free(s);
    free(back);
}

/* A frozen tensor has no moments, SGD's others have no v. */
TEST(checkpoint_with_moments_of_some_tensors)
{
    struct err e;
    struct state *s = state_new(12), *back = state_new(0);
    char digest[65];
    for (int i = 0; i < 2; i++)
        s->tensors[i].v = back->tensors[i].v = NULL;
    s->tensors[0].m = back->tensors[0].m = NULL;
    state_write("c.h5", s, digest);
    memset(back->m, 0, sizeof back->m);
    CHECK_OK(checkpoint_read("c.h5", &back->meta, back->tensors, 2, 1, &e), e);
    CHECK(memcmp(back->parameters, s->parameters, sizeof s->parameters) == 0);
    CHECK(back->m[14] == 0 && memcmp(back->m + 15, s->m + 15, 3 * sizeof(float)) == 0);
    back->tensors[0].m = back->m;
    CHECK(checkpoint_read("c.h5", &back->meta, back->tensors, 2, 1, &e) < 0);
    CHECK_HAS(e.text, "moments/m/0.bias is not what the model has there");
    back->tensors[0].m = back->tensors[1].m = NULL;
    CHECK(checkpoint_read("c.h5", &back->meta, back->tensors, 2, 1, &e) < 0);
    CHECK_HAS(e.text, "another model");
    free(s);
    free(back);
}

TEST(checkpoint_without_and_with_the_most_results)
{
    struct err e;
    struct state *s = state_new(1), *back = state_new(0);
    char digest[65];
    for (uint32_t count = 0; count <= CHECKPOINT_RESULTS_MAX; count += CHECKPOINT_RESULTS_MAX) {
        s->meta.result_count = count;
        for (uint32_t i = 0; i < count; i++) {
            struct checkpoint_result *r = &s->meta.results[i];
            memset(r->task, 'a', sizeof r->task - 1);
            memset(r->after, 'b', sizeof r->after - 1);
            memset(r->metric, 'c', sizeof r->metric - 1);
            memset(r->weights_sha256, 'd', sizeof r->weights_sha256 - 1);
            r->value = -1.7976931348623157e308;
            r->loss = -2.2250738585072014e-308 / (i + 1);
        }
        state_write("c.h5", s, digest);
        CHECK_OK(checkpoint_read("c.h5", &back->meta, back->tensors, 2, 1, &e), e);
        CHECK_EQ(back->meta.result_count, count);
        CHECK(memcmp(back->meta.results, s->meta.results, count * sizeof s->meta.results[0]) == 0);
    }
    free(s);
    free(back);
}

TEST(checkpoint_of_another_model_is_refused)
{
    struct err e;
    struct state *s = state_new(1);
    char digest[65];
    state_write("c.h5", s, digest);
    CHECK(checkpoint_read("c.h5", &s->meta, s->tensors, 1, 0, &e) < 0);
    CHECK_HAS(e.text, "of another model");
    s->tensors[0].dims[0] = 5;
    s->tensors[0].dims[1] = 3;
    CHECK(checkpoint_read("c.h5", &s->meta, s->tensors, 2, 0, &e) < 0);
    CHECK_HAS(e.text, "parameters/0.weight");
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    free(s);
}

TEST(checkpoint_digest_covers_arrays_attributes_and_results)
{
    struct state *s = state_new(3);
    char first[65], other[65];
    state_write("c.h5", s, first);
    state_write("c.h5", s, other);
    CHECK_STR(first, other);
    s->meta.epoch_seconds++; /* of another run of the same training */
    s->meta.epoch_rows_timed++;
    state_write("c.h5", s, other);
    CHECK_STR(first, other);
    float *numbers[3] = {s->parameters + 17, s->m, s->v + 3};
    for (int i = 0; i < 3; i++) {
        float before = *numbers[i];
        *numbers[i] = nextafterf(before, 1e30f);
        state_write("c.h5", s, other);
        CHECK(strcmp(first, other) != 0);
        *numbers[i] = before;
    }
    s->meta.results[1].value = nextafter(s->meta.results[1].value, 1);
    state_write("c.h5", s, other);
    CHECK(strcmp(first, other) != 0);
    state_write("c.h5", s, first);
    s->meta.position++;
    state_write("c.h5", s, other);
    CHECK(strcmp(first, other) != 0);
    free(s);
}

static void map_refused(const char *path, struct state *s, const char *words)
{
    struct checkpoint_map map;
    struct err e;
    CHECK(checkpoint_map_open(&map, path, &s->meta, s->tensors, 2, &e) < 0);
    CHECK(map.at == NULL && map.parameters == NULL);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, words);
}

TEST(checkpoint_mapped)
{
    struct checkpoint_map map;
    struct err e;
    struct state *s = state_new(12), *other = state_new(0);
    char digest[65];
    state_write("c.h5", s, digest);
    size_t weight = offset_of("c.h5", "parameters/0.weight"), bias = weight + 64;
    CHECK_EQ(bias, offset_of("c.h5", "parameters/0.bias"));
    CHECK_OK(checkpoint_map_open(&map, "c.h5", &other->meta, other->tensors, 2, &e), e);
    CHECK_STR(other->meta.parameters_sha256, s->meta.parameters_sha256);
    CHECK((uintptr_t)map.parameters[0] % 64 == 0 && (uintptr_t)map.parameters[1] % 64 == 0);
    CHECK(unlink("c.h5") == 0); /* what is mapped stays */
    CHECK(memcmp(map.parameters[0], s->parameters, 15 * sizeof(float)) == 0);
    CHECK(memcmp(map.parameters[1], s->parameters + 15, 3 * sizeof(float)) == 0);
    checkpoint_map_close(&map);
    checkpoint_map_close(&map);
    map_refused("c.h5", other, "No such file");
    state_write("c.h5", s, digest);
    other->tensors[0].dims[0] = 5;
    other->tensors[0].dims[1] = 3;
    map_refused("c.h5", other, "its parameters/0.weight is not what the model has there");
    byte_flip("c.h5", bias + 11);
    map_refused("c.h5", s, "is damaged: its parameters have digest");
    CHECK(truncate("c.h5", (off_t)bias) == 0);
    map_refused("c.h5", s, "c.h5");
    CHECK_OK(durable_write("text.h5", "no HDF5", 7, &e), e);
    map_refused("text.h5", s, "text.h5");
    free(s);
    free(other);
}

TEST(checkpoint_newest_passes_over_damage)
{
    struct err e;
    struct state *s;
    char digest[65], path[256];
    CHECK_EQ(checkpoint_newest("none", path, sizeof path, &e), 0);
    CHECK(mkdir("d", 0700) == 0);
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), 0);
    const char *names[] = {"d/step-0000000009-2.h5", "d/step-0000000010-1.h5",
                           "d/step-0000000010-2.h5", "d/step-10000000000-0.h5"};
    for (int i = 0; i < 4; i++) {
        s = state_new((uint64_t)i);
        state_write(names[i], s, digest);
        free(s);
    }
    CHECK_OK(durable_write("d/step-0000000011-1.h5.tmp-1", "", 0, &e), e);
    CHECK_OK(durable_write("d/step--5-0.h5", "", 0, &e), e);
    CHECK_OK(durable_write("d/task-A.h5.tmp", "", 0, &e), e);
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), 1);
    CHECK_STR(path, names[3]);
    byte_flip(names[3], offset_of(names[3], "moments/v/0.bias") + 1);
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), 1);
    CHECK_STR(path, names[2]);
    byte_flip(names[2], offset_of(names[2], "results") + 40);
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), 1);
    CHECK_STR(path, names[1]);
    CHECK(truncate(names[1], 3000) == 0);
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), 1);
    CHECK_STR(path, names[0]);
    CHECK(truncate(names[0], 0) == 0);
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "none of the 4 checkpoints in d can be read (");
    CHECK_HAS(e.text, "step-10000000000-0.h5");
    CHECK(checkpoint_newest("d", path, 5, &e) < 0);
}

/* The end of a task, the best epoch, where a bad number goes back to: each is a state. */
TEST(checkpoint_newest_takes_what_another_name_keeps)
{
    static const char *const names[] = {"d/best-A.h5", "d/task-A.h5", "d/restore.h5",
                                        "d/task-B-.h5"};
    struct err e;
    char digest[65], path[256];
    CHECK(mkdir("d", 0700) == 0);
    for (int i = 0; i < 4; i++) {
        struct state *s = state_new((uint64_t)(i < 3 ? 20 + 10 * i : 5));
        state_write(names[i], s, digest);
        free(s);
    }
    CHECK_OK(durable_write("d/step-0000000050-1.h5", "", 0, &e), e);
    for (int i = 2; i >= 0; i--) {
        CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), 1);
        CHECK_STR(path, names[i]);
        CHECK(truncate(names[i], 100) == 0);
    }
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), 1);
    CHECK_STR(path, names[3]);
    CHECK(unlink("d/step-0000000050-1.h5") == 0 && truncate(names[3], 0) == 0);
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), -1);
    CHECK_HAS(e.text, "none of the 4 checkpoints");
}

/* What state_write(from, s) wrote, as programs of that version did. */
static void version_write(const char *path, const char *from, struct state *s, uint64_t version,
                          const char *digest)
{
    struct err e;
    struct h5writer *w;
    struct h5reader *r;
    struct h5array a;
    char results[256];
    const struct checkpoint_field *f;
    CHECK_OK(h5reader_open(&r, from, &e), e);
    CHECK_OK(h5writer_open(&w, path, &e), e);
    s->meta.version = version;
    for (size_t i = 0; (f = checkpoint_field_next(&i, version));) {
        const void *at = (const char *)&s->meta + f->offset;
        if (f->kind == CHECKPOINT_FIELD_TEXT)
            CHECK_OK(h5writer_text(w, "", f->name, at, &e), e);
        else if (f->kind == CHECKPOINT_FIELD_U64)
            CHECK_OK(h5writer_u64(w, "", f->name, *(const uint64_t *)at, &e), e);
        else
            CHECK_OK(h5writer_f64(w, "", f->name, *(const double *)at, &e), e);
    }
    CHECK_OK(h5writer_text(w, "", "model", model, &e), e);
    CHECK_OK(h5writer_text(w, "", "digest", digest, &e), e);
    CHECK_OK(h5reader_array(r, "results", &a, &e), e);
    CHECK(a.bytes <= sizeof results);
    CHECK_OK(h5reader_read(r, &a, results, &e), e);
    CHECK_OK(h5writer_array(w, "results", a.type, a.rank, a.dims, results, &e), e);
    CHECK_OK(h5writer_copy(w, "parameters", r, &e), e);
    CHECK_OK(h5writer_copy(w, "moments", r, &e), e);
    h5reader_close(&r);
    CHECK_OK(h5writer_commit(&w, &e), e);
}

static void newer_fields_clear(struct checkpoint_meta *m, uint64_t version)
{
    if (version < 5)
        m->bad_steps = m->epoch_rows_bad = 0;
    m->epoch_rows_timed = 0;
    m->epoch_seconds = m->epoch_wait_seconds = 0;
}

/* The fields that it has not are 0 then; the digest is the one that a program of that version gave.
 */
static void version_check(uint64_t version, const char *digest_then)
{
    struct err e;
    struct state *s = state_new(12), *back = state_new(0);
    char digest[65], path[256];
    state_write("c.h5", s, digest);
    version_write("d/step-0000000012-1.h5", "c.h5", s, version, digest_then);
    struct h5reader *r;
    uint64_t value;
    CHECK_OK(h5reader_open(&r, "d/step-0000000012-1.h5", &e), e);
    CHECK((h5reader_u64(r, "", "bad_steps", &value, &e) < 0) == (version < 5));
    CHECK(h5reader_u64(r, "", "epoch_rows_timed", &value, &e) < 0);
    h5reader_close(&r);
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), 1);
    CHECK_STR(path, "d/step-0000000012-1.h5");
    CHECK_OK(checkpoint_read(path, &back->meta, back->tensors, 2, 1, &e), e);
    CHECK(memcmp(back->m, s->m, sizeof s->m) == 0);
    newer_fields_clear(&s->meta, version);
    s->meta.results[0].loss = back->meta.results[0].loss = 0; /* NaN */
    CHECK(memcmp(&back->meta, &s->meta, sizeof s->meta) == 0);
    back->meta.bad_steps = 3;
    state_write("c.h5", back, digest);
    CHECK_OK(checkpoint_read("c.h5", &back->meta, back->tensors, 2, 1, &e), e);
    CHECK(back->meta.version == 6 && back->meta.bad_steps == 3);
    byte_flip(path, offset_of(path, "moments/v/0.bias"));
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), -1);
    free(s);
    free(back);
}

TEST(checkpoint_of_an_older_version_is_read_and_written_anew)
{
    CHECK(mkdir("d", 0700) == 0);
    version_check(4, "0fbd52cee21d98b8fa5eaaf2ce758b5c26f4bce48974af3e8c0434f4e0d5b7d2");
    version_check(5, "b9d57d52f7598fced3c2b5963fd763979568ab9eeed922516216ea271a59d27d");
}

/* Passed over, the run would begin again and its files be replaced. */
TEST(checkpoint_of_another_version_ends_the_search)
{
    static const uint64_t versions[] = {3, 99};
    struct err e;
    struct state *s = state_new(12);
    char digest[65], path[256];
    CHECK(mkdir("d", 0700) == 0);
    state_write("d/step-0000000011-1.h5", s, digest);
    for (int i = 0; i < 2; i++) {
        version_write("d/step-0000000012-1.h5", "d/step-0000000011-1.h5", s, versions[i], digest);
        CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), -1);
        CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
        CHECK_HAS(e.text, i ? "is of version 99, this program reads versions 4 to 6; go on with"
                            : "is of version 3, ");
        CHECK(access("d/step-0000000012-1.h5", F_OK) == 0);
    }
    CHECK(unlink("d/step-0000000012-1.h5") == 0);
    CHECK_EQ(checkpoint_newest("d", path, sizeof path, &e), 1);
    free(s);
}

/* Whatever byte changes: the file is refused, or what is read is what was written. */
TEST_LIMIT(checkpoint_flipped_anywhere_is_never_another_state, 60)
{
    struct err e;
    struct state *s = state_new(5), *back = state_new(0);
    char digest[65], *whole;
    size_t bytes;
    int refused = 0;
    state_write("c.h5", s, digest);
    CHECK_OK(durable_read("c.h5", 1 << 24, &whole, &bytes, &e), e);
    s->meta.results[0].loss = 0;
    for (size_t at = 0; at < bytes; at += 1 + test_random() % TEST_ROUNDS(7, 21)) {
        char before = whole[at];
        whole[at] ^= (char)(1 << test_random() % 8);
        test_file_forget("f.h5");
        FILE *f = fopen("f.h5", "w");
        CHECK(f && fwrite(whole, 1, bytes, f) == bytes && fclose(f) == 0);
        whole[at] = before;
        if (checkpoint_read("f.h5", &back->meta, back->tensors, 2, 1, &e) < 0) {
            refused++;
            continue;
        }
        back->meta.results[0].loss = 0;
        CHECK(memcmp(back->parameters, s->parameters, sizeof s->parameters) == 0);
        CHECK(memcmp(&back->meta, &s->meta, sizeof s->meta) == 0);
    }
    CHECK(refused > 100);
    free(whole);
    free(s);
    free(back);
}

TEST(checkpoint_on_a_full_disk_leaves_the_old_one)
{
    struct err e;
    struct state *s = state_new(5), *later = state_new(6), *back = state_new(0);
    char digest[65];
    uint64_t bytes;
    int failed = 0;
    CHECK(mkdir("d", 0700) == 0);
    state_write("d/c.h5", s, digest);
    for (int n = 1;; n++) {
        char hook[64];
        snprintf(hook, sizeof hook, "write:%d:ENOSPC", n);
        CHECK_OK(durable_fail_after(hook, &e), e);
        int result =
            checkpoint_write("d/c.h5", &later->meta, model, later->tensors, 2, digest, &bytes, &e);
        CHECK_OK(durable_fail_after("", NULL), e);
        if (result == 0)
            break;
        failed++;
        CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
        CHECK_HAS(e.text, "No space left on device");
        CHECK(rename("d/c.h5", "c.h5") == 0 && rmdir("d") == 0); /* nothing else was in it */
        CHECK_OK(checkpoint_read("c.h5", &back->meta, back->tensors, 2, 1, &e), e);
        CHECK_EQ(back->meta.step, 5);
        CHECK(mkdir("d", 0700) == 0 && rename("c.h5", "d/c.h5") == 0);
    }
    CHECK(failed > 3);
    CHECK_OK(checkpoint_read("d/c.h5", &back->meta, back->tensors, 2, 1, &e), e);
    CHECK_EQ(back->meta.step, 6);
    free(s);
    free(later);
    free(back);
}
