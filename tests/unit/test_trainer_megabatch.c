/* test_trainer_megabatch.c - how the rows of a split are kept: all of them, windows or the arena
 * alone, in the host's memory or the device's; and how many of them make a chunk. */
#include "engine/memory.h"
#include "tests/test.h"
#include "tests/unit/cuda_fixture.h"
#include "tests/unit/trainer_fixture.h"
#include "trainerd/megabatch.h"
#include "trainerd/trainer.h"

static struct options options; /* large; each case is a process of its own */
static uint64_t micro_rows;

/* The figures that users of chunk loading know: 360 steps of 167 float32 features (or 1104 of 128)
 * and 36 targets a sample, 51,779 samples. */
TEST(samples_of_a_chunk)
{
    uint64_t market = 360 * 167 * 4 + 36 * 4, frames = 1104 * 128 * 4 + 36 * 4, gib = 1 << 30;
    CHECK_EQ(megabatch_samples(12 * gib, market, 1 << 20, 128), 53547);
    CHECK_EQ(megabatch_samples(12 * gib, frames, 1 << 20, 128), 22789);
    CHECK_EQ(megabatch_samples(12 * gib, market, 51779, 128), 51779);
    CHECK_EQ(megabatch_samples(1000, market, 51779, 128), 128);
    CHECK_EQ(megabatch_samples(1000, market, 50, 128), 50);
}

TEST(size_of_a_megabatch)
{
    struct megabatch_size size = megabatch_size_make(10, 1000, 4, 10 * 1024);
    CHECK_EQ(size.kind, MEGABATCH_WHOLE);
    CHECK_EQ(size.span_bytes, 1024);
    CHECK_EQ(size.bytes, 12288);
    size = megabatch_size_make(10, 1000, 4, 10 * 1024 - 1);
    CHECK_EQ(size.kind, MEGABATCH_WINDOWS);
    CHECK_EQ(size.spans, 8);
    CHECK_EQ(megabatch_size_make(10, 1000, 4, 4 * 1024 - 1).kind, MEGABATCH_ARENA);
}

TEST(plan_decides_how_rows_are_kept)
{
    struct split_shape train = {
        .rows = 60000, .spans = 40, .span_rows = 1536, .span_bytes_max = 1 << 20};
    struct split_shape validation = {
        .rows = 10000, .spans = 7, .span_rows = 1536, .span_bytes_max = 1 << 20};
    struct model m = {0};
    struct plan p = {0};
    struct megabatch_size sizes[2];
    struct err e = {0};
    static const struct {
        double chunk_gb;
        uint64_t limit_mb;
        enum megabatch_kind train, validation;
    } cases[] = {
        {0, 4096, MEGABATCH_WHOLE, MEGABATCH_WHOLE}, /* auto: all fits 3 GiB */
        {0, 200, MEGABATCH_WHOLE, MEGABATCH_WHOLE},
        {0, 125, MEGABATCH_WHOLE, MEGABATCH_ARENA},
        {0, 110, MEGABATCH_ARENA, MEGABATCH_ARENA},
        {40.0 / 1024, 4096, MEGABATCH_WHOLE, MEGABATCH_ARENA},
        {39.0 / 1024, 4096, MEGABATCH_WINDOWS, MEGABATCH_ARENA},
    };
    trainer_fixture_options(&options);
    options.loader_use_chunk_loader = "true";
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        p.count = 0;
        options.loader_chunk_size_gb = cases[i].chunk_gb;
        options.host_limit_mb = cases[i].limit_mb;
        CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &train, &validation, NULL,
                           &micro_rows, sizes, &e),
                 e);
        CHECK_EQ(sizes[0].kind, cases[i].train);
        CHECK_EQ(sizes[1].kind, cases[i].validation);
        CHECK_OK(plan_check(&p, &options, NULL, &e), e);
    }
    p.count = 0;
    options.loader_chunk_size_gb = 3.0 / 1024;
    CHECK_EQ(plan_make(&p, &options, &m, &trainer_fixture_bases, &train, &validation, NULL,
                       &micro_rows, sizes, &e),
             -1);
    CHECK_HAS(e.text, "a window of 4 spans needs 0.004");
    static char *const without[] = {"false", "gpu"}; /* there is none */
    options.loader_chunk_size_gb = 0;
    for (int i = 0; i < 2; i++) {
        p.count = 0;
        options.loader_use_chunk_loader = without[i];
        CHECK_OK(plan_make(&p, &options, &m, &trainer_fixture_bases, &train, &validation, NULL,
                           &micro_rows, sizes, &e),
                 e);
        CHECK_EQ(sizes[0].kind, MEGABATCH_ARENA);
    }
    model_close(&m);
}

/* A micro-batch that the limit has room for is taken, one that it has not is refused as if the
 * device had no memory left, and all is as it was. */
static void device_limit_check(const struct model *m, const struct device *d)
{
    struct stepper *s;
    struct step_config c;
    struct device_memory before, after;
    struct err e;
    CHECK_OK(shapes_step_config(&c, &options, d, &trainer_fixture_images, &trainer_fixture_images,
                                64, &e),
             e);
    device_limit_set(device_limit_of(d, options.device_limit_mb));
    CHECK_OK(stepper_open(&s, m, &c, &e), e);
    d->memory(&before);
    uint64_t rows = (options.device_limit_mb << 20) / (784 * sizeof(float)); /* the input alone */
    CHECK_EQ(stepper_resize(s, rows, rows, 1, &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "that the limit leaves for it");
    d->memory(&after);
    CHECK_EQ(before.used_bytes, after.used_bytes);
    device_limit_set(UINT64_MAX);
    CHECK_OK(stepper_resize(s, rows, rows, 1, &e), e);
    stepper_close(&s);
}

/* The emulated device has 1 GiB. */
TEST(plan_keeps_rows_on_the_device)
{
    struct split_shape shape = {
        .rows = 60000, .spans = 40, .span_rows = 1536, .span_bytes_max = 1 << 20};
    struct plan_bases on_device = trainer_fixture_bases;
    struct model m = {0};
    struct plan p = {0};
    struct megabatch_size sizes[2];
    struct err e = {0};
    trainer_fixture_options(&options);
    options.loader_use_chunk_loader = "gpu";
    options.host_limit_mb = 4096;
    on_device.device = cuda_fixture_device();
    CHECK_OK(setup_model(&m, &options, &(struct model_input){.values = 784}, &e), e);
    CHECK_OK(plan_make(&p, &options, &m, &on_device, &shape, &shape, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_OK(plan_check(&p, &options, on_device.device, &e), e);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(sizes[i].kind, MEGABATCH_WHOLE);
        CHECK(sizes[i].device == on_device.device);
    }
    uint64_t whole = plan_total(&p, PLAN_DEVICE), host = plan_total(&p, "trainerd");
    CHECK(whole > (2 * 40) << 20 && host < (24 + 40) << 20);

    options.device_limit_mb = whole / (1 << 20) - 41; /* windows of 4 MiB, and the rest */
    p.count = 0;
    CHECK_OK(plan_make(&p, &options, &m, &on_device, &shape, &shape, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_OK(plan_check(&p, &options, on_device.device, &e), e);
    CHECK_EQ(sizes[0].kind, MEGABATCH_WINDOWS);
    CHECK_EQ(sizes[0].spans % 4, 0);
    device_limit_check(&m, on_device.device);

    options.device_limit_mb = 4;
    p.count = 0;
    CHECK_OK(plan_make(&p, &options, &m, &on_device, &shape, &shape, NULL, &micro_rows, sizes, &e),
             e);
    CHECK_EQ(sizes[0].kind, MEGABATCH_ARENA);
    CHECK_EQ(plan_check(&p, &options, on_device.device, &e), -1);
    CHECK_HAS(e.text, " and memory.device_limit_mb, of 1024 MiB, is 4 MiB; raise it");
    options.device_limit_mb = 1024; /* finetune.sh's: all there is */
    p.count = 0;
    plan_add(&p, PLAN_DEVICE, "too much", (uint64_t)2 << 30);
    CHECK_EQ(plan_check(&p, &options, on_device.device, &e), -1);
    CHECK_HAS(e.text, " and that of the GPU is 1024 MiB");
    CHECK(!strstr(e.text, "raise it"));
    options.device_limit_mb = 0;
    model_close(&m);
}
