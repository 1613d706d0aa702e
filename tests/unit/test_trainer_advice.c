/* test_trainer_advice.c - what a run that does not fit is told: the options that it names make it
 * fit, none of them is more than that takes, and what comes later in the order is not named before.
 */
#include <unistd.h>

#include "tests/test.h"
#include "tests/unit/cuda_fixture.h"
#include "tests/unit/trainer_fixture.h"
#include "trainerd/advice.h"

enum { SETS_MAX = 24, SET_BYTES = 128 };

struct sets { /* of --set */
    char text[SETS_MAX][SET_BYTES];
    int count;
};

/* A run of these options: of layers that keep much of a slice, with a penalty, on the CPU. */
struct trial {
    struct options o;
    struct model m;
    struct plan p;
    struct plan_bases bases;
    int goes_on;
    struct err e; /* of a refusal */
};

static struct trial trial; /* large */

static void set_add(struct sets *s, const char *format, const char *key, uint64_t value)
{
    CHECK(s->count < SETS_MAX);
    snprintf(s->text[s->count++], SET_BYTES, format, key, (unsigned long long)value);
}

static void sets_join(struct sets *s, const struct sets *more)
{
    for (int i = 0; i < more->count; i++)
        snprintf(s->text[s->count++], SET_BYTES, "%s", more->text[i]);
}

static const char pipeline[] =
    "name: advice\ndata: {file: x.h5}\n"
    "training: {batch_size: 4096, dynamic_batch_size: false, threads: 4}\n"
    "arena: {limit_mb: 16}\n"
    "loader: {num_workers: 4, use_chunk_loader: gpu}\n"
    "model:\n  layers:\n"
    "    - {type: linear, out: 512}\n    - {type: layernorm}\n    - {type: relu}\n"
    "    - {type: linear, out: 512}\n    - {type: layernorm}\n    - {type: relu}\n"
    "    - {type: linear, out: 512}\n    - {type: layernorm}\n    - {type: relu}\n"
    "    - {type: linear, out: 512}\n    - {type: layernorm}\n    - {type: relu}\n"
    "    - {type: linear, out: 512}\n    - {type: layernorm}\n    - {type: relu}\n"
    "    - {type: linear, out: 512}\n    - {type: layernorm}\n    - {type: relu}\n"
    "    - {type: linear, out: 512}\n    - {type: layernorm}\n    - {type: relu}\n"
    "    - {type: linear, out: 512}\n    - {type: layernorm}\n    - {type: relu}\n"
    "    - {type: linear, out: 10}\n"
    "tasks:\n  - {name: A}\n  - {name: B, from: A, ewc: [A]}\n";

/* 1: it fits; 0: it is refused, and trial.e says so. */
static int fits(const struct sets *s)
{
    const char *set[SETS_MAX];
    struct megabatch_size sizes[2];
    uint64_t micro_rows;
    struct err e;
    const struct split_shape *images = &trainer_fixture_images;
    struct advice_run r = {&trial.o, &trial.m, &trial.bases, images, images, NULL, trial.goes_on};
    for (int i = 0; i < s->count; i++)
        set[i] = s->text[i];
    CHECK_OK(options_read(&trial.o, "p.yaml", set, s->count, &e), e);
    CHECK_OK(setup_options_check(&trial.o, &e), e);
    CHECK_OK(setup_model(&trial.m, &trial.o, &(struct model_input){.values = 784}, &e), e);
    CHECK_OK(plan_make(&trial.p, &trial.o, &trial.m, &trial.bases, images, images, NULL,
                       &micro_rows, sizes, &e),
             e);
    int result = advice_check(&r, &trial.p, &trial.e);
    CHECK(result == 0 || trial.e.code == EXIT_CODE_PERMANENT);
    model_close(&trial.m);
    options_free(&trial.o);
    return result == 0;
}

static uint64_t needed(const char *stage)
{
    return plan_mib(plan_total(&trial.p, stage));
}

static void trial_open(const struct device *d)
{
    if (access("p.yaml", F_OK) < 0)
        test_file_write("p.yaml", pipeline);
    trial.bases = trainer_fixture_bases;
    trial.bases.device = d;
}

/* The settings that a sentence names behind `word`, and the MiB that it says they need. */
static struct sets named(const char *sentence, const char *word, uint64_t *mib)
{
    struct sets s = {0};
    char list[768];
    const char *begin = strstr(sentence, word), *end = strstr(sentence, " it needs ");
    CHECK(begin && end && begin < end);
    begin += strlen(word);
    snprintf(list, sizeof list, "%.*s", (int)(end - begin), begin);
    for (char *and = strstr(list, " and "); and; and = NULL)
        memcpy(and, ",    ", 5);
    for (char *at = list, *part; (part = strsep(&at, ","));)
        snprintf(s.text[s.count++], SET_BYTES, "%s", part + strspn(part, " "));
    *mib = strtoull(end + strlen(" it needs "), NULL, 10);
    return s;
}

/* Without one of them it does not fit: nothing is named that is not needed. The steps that a
 * batch_size makes go with it. */
static void each_is_needed(const struct sets *base, const struct sets *advice)
{
    for (int i = 0; i < advice->count; i++) {
        struct sets less = *base;
        for (int k = 0; k < advice->count; k++)
            if (k != i && (k != i + 1 || !strstr(advice->text[i], "training.batch_size")))
                snprintf(less.text[less.count++], SET_BYTES, "%s", advice->text[k]);
        if (!strstr(advice->text[i], "accumulation"))
            CHECK_EQ(fits(&less), 0);
    }
}

/* The number behind its `=` becomes another one. */
static void number_change(char *text, uint64_t times, uint64_t parts, uint64_t more)
{
    char *at = strchr(text, '=') + 1;
    uint64_t number = strtoull(at, NULL, 10) * times / parts + more;
    snprintf(at, (size_t)(text + SET_BYTES - at), "%llu", (unsigned long long)number);
}

/* With the last one that is named a notch less small it does not fit either. */
static void last_is_first(const struct sets *base, const struct sets *advice)
{
    struct sets all = *base;
    sets_join(&all, advice);
    char *last = all.text[all.count - 1];
    if (strstr(last, "accumulation")) {
        number_change(last, 1, 2, 0);
        number_change(all.text[all.count - 2], 2, 1, 0);
    } else if (strstr(last, "arena"))
        number_change(last, 1, 1, 1);
    else if (!strstr(last, "=true"))
        number_change(last, 2, 1, 0);
    else
        return; /* each_is_needed */
    CHECK_EQ(fits(&all), 0);
}

/* What the sentence of trial.e names makes the run fit, with as much as it says. */
static struct sets advice_check_it(const struct sets *base, const char *stage, uint64_t limit_mib)
{
    uint64_t mib;
    struct sets advice = named(trial.e.text, "; with ", &mib), all = *base;
    sets_join(&all, &advice);
    CHECK_EQ(fits(&all), 1);
    CHECK_EQ(needed(stage), mib);
    CHECK(mib <= limit_mib);
    each_is_needed(base, &advice);
    if (!stage)
        last_is_first(base, &advice);
    return advice;
}

static const char *const order[] = {"arena.limit_mb",      "loader.num_workers",
                                    "training.batch_size", "training.use_gradient_checkpointing",
                                    "training.threads",    "training.slice_rows",
                                    "block_size",          "training.use_amp"};

/* Place in the order of the last option that is named. */
static int place(const struct sets *advice)
{
    int found = -1;
    for (int i = 0; i < (int)(sizeof order / sizeof *order); i++)
        found = strstr(advice->text[advice->count - 1], order[i]) ? i : found;
    if (strstr(advice->text[advice->count - 1], "accumulation"))
        return 2;
    CHECK(found >= 0);
    return found;
}

/* Less and less memory: each advice is true, and they come in the order, up to what no option can
 * do; with exactly what is then said to be the least it can be done. */
TEST(advice_makes_a_run_fit)
{
    struct sets none = {0};
    int last = 0, seen = 0, told = 1;
    uint64_t least = 0;
    trial_open(NULL);
    CHECK_EQ(fits(&none), 1);
    for (uint64_t limit = needed(NULL) - 1; told; limit--) {
        struct sets base = {0};
        set_add(&base, "%s=%llu", "memory.host_limit_mb", limit);
        CHECK_EQ(fits(&base), 0);
        CHECK_HAS(trial.e.text, "; raise it; ");
        told = !strstr(trial.e.text, "; even with ");
        if (!told) {
            named(trial.e.text, "; even with ", &least);
            CHECK_EQ(least, limit + 1);
            CHECK_HAS(trial.e.text, "; make the model smaller");
            break;
        }
        int same = !strstr(trial.e.text, "another result: ");
        struct sets advice = advice_check_it(&base, NULL, limit);
        int now = place(&advice);
        CHECK(now >= last);
        CHECK_EQ(same, now < 6); /* block_size, use_amp */
        last = now;
        seen |= 1 << now;
    }
    CHECK((seen & 0x2c) == 0x2c); /* batch_size, checkpointing, slice_rows */
}

/* On a GPU a chunk of a given size goes first, then batch_size, by halves and thirds that make the
 * same step. */
TEST(advice_for_a_device)
{
    static const struct {
        const char *given[3], *told;
    } cases[] = {
        {{"loader.chunk_size_gb=0.5", "training.batch_size=128"},
         "; with loader.chunk_size_gb=auto it"},
        {{"training.batch_size=6144", "training.gradient_accumulation_steps=2"},
         "; with training.batch_size=4096 and training.gradient_accumulation_steps=3 it"},
        {{"training.batch_size=8192"},
         "; with training.batch_size=4096 and training.gradient_accumulation_steps=2 it"},
    };
    trial_open(cuda_fixture_device());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sets base = {0};
        for (int k = 0; cases[i].given[k]; k++)
            snprintf(base.text[base.count++], SET_BYTES, "%s", cases[i].given[k]);
        set_add(&base, "%s=%llu", "memory.device_limit_mb", 1024);
        CHECK_EQ(fits(&base), 1);
        uint64_t limit = needed(PLAN_DEVICE) - 20;
        set_add(&base, "%s=%llu", "memory.device_limit_mb", limit);
        CHECK_EQ(fits(&base), 0);
        CHECK_HAS(trial.e.text, "MiB of device memory (");
        CHECK_HAS(trial.e.text, cases[i].told);
        advice_check_it(&base, PLAN_DEVICE, limit);
    }
}

/* A run that is resumed is told nothing that would be refused then. */
TEST(advice_for_a_run_that_goes_on)
{
    struct sets none = {0};
    trial_open(NULL);
    CHECK_EQ(fits(&none), 1);
    for (trial.goes_on = 0; trial.goes_on < 2; trial.goes_on++) {
        struct sets base = {0};
        set_add(&base, "%s=%llu", "memory.host_limit_mb", 100);
        CHECK_EQ(fits(&base), 0);
        CHECK_HAS(trial.e.text, "even with ");
        CHECK_HAS(trial.e.text, "training.use_gradient_checkpointing=true");
        CHECK_EQ(strstr(trial.e.text, "training.slice_rows=") == NULL, trial.goes_on);
        CHECK_EQ(strstr(trial.e.text, "block_size=") == NULL, trial.goes_on);
    }
}
