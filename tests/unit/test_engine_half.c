/* test_engine_half.c - numbers of 16 bits, the loss scale's state machine, and training with both:
 * the same bits for every number of threads, skipped steps that leave everything, less memory.
 * PyTorch comparisons are in tests/reference. */
#include <float.h>
#include <math.h>

#include "engine/ops.h"
#include "engine/stepper.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

static const struct backend *const cpu = &backend_cpu;

static float widen(enum half kind, uint16_t bits)
{
    return kind == HALF_F16 ? scalar_half(bits) : scalar_brain(bits);
}

/* The nearest number of the kind by a search through all of them; ties to the even one. */
static float nearest(enum half kind, float x)
{
    int low = 0, high = kind == HALF_F16 ? 0x7c00 : 0x7f80; /* +0 and infinity, in order */
    float size = fabsf(x);
    /* the next power of two stands for infinity: from half way to it on */
    float infinite = kind == HALF_F16 ? 65536.0f : INFINITY;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (widen(kind, (uint16_t)middle) <= size)
            low = middle;
        else
            high = middle;
    }
    double below = (double)widen(kind, (uint16_t)low);
    double above = high == 0x7c00 && kind == HALF_F16    ? (double)infinite
                   : high == 0x7f80 && kind == HALF_BF16 ? 0x1p128
                                                         : (double)widen(kind, (uint16_t)high);
    double half_way = (below + above) / 2;
    int up = (double)size > half_way || ((double)size == half_way && low % 2);
    return copysignf(widen(kind, (uint16_t)(up ? high : low)), x);
}

/* Numbers around those of the kind: themselves, half way to the next, and beside both. */
static uint64_t candidates(enum half kind, float *x)
{
    uint64_t count = 0;
    for (int bits = 0; bits < (kind == HALF_F16 ? 0x7c00 : 0x7f80);
         bits += kind == HALF_F16 ? 1 : 3) {
        float here = widen(kind, (uint16_t)bits), next = widen(kind, (uint16_t)(bits + 1));
        float middle = isfinite(next) ? here + (next - here) / 2 : here * (1 + 0x1p-11f);
        const float values[] = {here, nextafterf(here, INFINITY), middle, nextafterf(middle, 0),
                                nextafterf(middle, INFINITY)};
        for (int i = 0; i < 5; i++)
            if (isfinite(values[i]))
                x[count++] = bits % 2 ? -values[i] : values[i];
    }
    for (float f = 65504; f < 66000; f += 0.5f)
        x[count++] = f;
    x[count++] = FLT_MAX;
    x[count++] = -INFINITY;
    return count;
}

TEST(halves_are_the_nearest_numbers)
{
    enum { MOST = 5 * 0x8000 + 2000 };
    static float x[MOST], y[MOST], z[MOST];
    static uint16_t h[MOST];
    for (enum half kind = HALF_F16; kind < HALF_COUNT; kind++) {
        uint64_t count = candidates(kind, x);
        CHECK(count <= MOST);
        memcpy(y, x, sizeof x);
        memcpy(z, x, sizeof x);
        op_store_half(cpu, kind, y, h, count);
        op_round_half(cpu, kind, matrix_of(z, 1, count));
        for (uint64_t i = 0; i < count; i++) {
            float wanted = nearest(kind, x[i]);
            uint16_t scalar = kind == HALF_F16 ? scalar_to_half(x[i]) : scalar_to_brain(x[i]);
            if (y[i] != wanted || z[i] != wanted || scalar != h[i])
                test_fail(__FILE__, __LINE__, "kind %d: %a became %a (%04x, alone %04x), not %a",
                          (int)kind, (double)x[i], (double)y[i], h[i], scalar, (double)wanted);
        }
        memset(z, 0, sizeof z);
        op_load_half(cpu, kind, h, z, count);
        CHECK(memcmp(y, z, count * sizeof *y) == 0);
        op_add_half(cpu, kind, h, z, count);
        for (uint64_t i = 0; i < count; i++)
            CHECK(z[i] == 2 * y[i]);
        x[0] = NAN;
        op_store_half(cpu, kind, x, h, 1);
        CHECK(isnan(x[0]) && isnan(widen(kind, h[0])));
    }
}

TEST(rounding_leaves_what_is_beside_the_matrix)
{
    float x[] = {1.0001f, 2.0001f, 3.0001f, 4.0001f, 5.0001f, 6.0001f};
    op_round_half(cpu, HALF_F16, matrix_columns(matrix_of(x, 2, 3), 1, 2));
    CHECK(x[0] == 1.0001f && x[3] == 4.0001f && x[1] == 2 && x[2] == 3 && x[4] == 5 && x[5] == 6);
}

/* FORMULAS "GradScaler": 2^16, halved by a step that is not finite, doubled after `interval`
 * others, but never to infinity. */
TEST(the_loss_scale_follows_its_states)
{
    const struct grad_scaler_config c = {65536, 3};
    struct grad_scaler g;
    static const int skipped[] = {1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0};
    static const float scale[] = {32768, 16384, 16384, 16384, 32768, 32768,
                                  32768, 16384, 16384, 16384, 32768};
    static const int tracker[] = {0, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0};
    grad_scaler_begin(&g, &c);
    CHECK(g.scale == 65536 && g.tracker == 0 && grad_scaler_inverse(&g) == 0x1p-16f);
    for (size_t i = 0; i < sizeof skipped / sizeof *skipped; i++) {
        grad_scaler_update(&g, &c, skipped[i]);
        CHECK(g.scale == scale[i]);
        CHECK_EQ(g.tracker, tracker[i]);
    }
    g.scale = 0x1p127f;
    for (int i = 0; i < 3; i++)
        grad_scaler_update(&g, &c, 0);
    CHECK(g.scale == 0x1p127f && g.tracker == 0);
    g = (struct grad_scaler){1024, 7}; /* counted with a longer interval */
    grad_scaler_update(&g, &c, 0);
    CHECK(g.scale == 2048 && g.tracker == 0);
}

static const char *const lines[] = {"linear out=31",  "relu",          "dropout p=0.2",
                                    "residual_begin", "linear out=31", "tanh",
                                    "residual_end",   "layernorm",     "linear out=5"};
static const char *const recurrent[] = {"sequence steps=6",
                                        "lstm out=7 layers=2 bidirectional=true", "batchnorm",
                                        "pool kind=mean", "linear out=5"};

TEST(half_precision_gives_the_same_bits_for_every_number_of_threads)
{
    for (int model = 0; model < 2; model++)
        for (enum half kind = HALF_F16; kind < HALF_COUNT; kind++) {
            struct fixture_config c = {.layers = model ? recurrent : lines,
                                       .count = model ? 5 : 9,
                                       .inputs = model ? 12 : 13,
                                       .slice = 8,
                                       .half = kind};
            float *kept = NULL;
            for (c.threads = 1; c.threads <= 5; c.threads += 2) {
                struct fixture f;
                fixture_open(&f, &c);
                uint64_t bytes = f.m.parameter_count * sizeof *kept;
                for (uint64_t step = 0; step < 5; step++)
                    fixture_train(&f, step % 2 ? 19 : FIXTURE_ROWS, step, step + 1, &fixture_adamw,
                                  NULL, 0);
                if (!kept)
                    memcpy(kept = malloc(bytes), stepper_parameters(f.s), bytes);
                CHECK(memcmp(kept, stepper_parameters(f.s), bytes) == 0);
                fixture_close(&f);
            }
            free(kept);
        }
}

/* About the gradient of float32: as far off as 11 or 8 digits let it be, and not the same. */
TEST(half_precision_is_near_float32)
{
    static const double bar[HALF_COUNT] = {[HALF_F16] = 2e-3, [HALF_BF16] = 2e-2};
    for (int model = 0; model < 2; model++) {
        struct fixture_config c = {
            .layers = model ? recurrent : lines, .count = model ? 5 : 9, .inputs = model ? 12 : 13};
        float *exact = NULL;
        for (c.half = HALF_NONE; c.half < HALF_COUNT; c.half++) {
            struct fixture f;
            double off = 0, all = 0;
            fixture_open(&f, &c);
            struct step_result r = fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_still, NULL, 0);
            CHECK(!r.skipped && r.loss_scale == (c.half == HALF_F16 ? 65536 : 0));
            uint64_t count = f.m.parameter_count;
            if (!exact)
                memcpy(exact = malloc(count * sizeof *exact), stepper_gradient(f.s),
                       count * sizeof *exact);
            for (uint64_t i = 0; i < count; i++) {
                double g = (double)exact[i], d = (double)stepper_gradient(f.s)[i] - g;
                off += d * d;
                all += g * g;
            }
            CHECK(c.half == HALF_NONE || (off > 0 && sqrt(off / all) < bar[c.half]));
            fixture_close(&f);
        }
        free(exact);
    }
}

/* A scale beyond float16's largest number: infinite gradients, until it is small enough. */
TEST(a_step_that_overflows_is_skipped)
{
    struct fixture f;
    struct step_result r;
    int skipped = 0;
    fixture_open(&f, &(struct fixture_config){
                         .layers = lines, .count = 9, .half = HALF_F16, .loss_scale = 0x1p30});
    uint64_t bytes = f.m.parameter_count * sizeof(float);
    float *before = malloc(bytes), *zeroes = calloc(1, bytes);
    memcpy(before, stepper_parameters(f.s), bytes);
    for (;;) {
        double scale = (double)stepper_scaler(f.s)->scale;
        r = fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_adamw, NULL, 0);
        CHECK(r.loss_scale == scale && isfinite(r.loss));
        if (!r.skipped)
            break;
        CHECK((double)stepper_scaler(f.s)->scale == scale / 2 && !isfinite(r.gradient_norm));
        CHECK(memcmp(before, stepper_parameters(f.s), bytes) == 0);
        CHECK(memcmp(zeroes, stepper_moment_m(f.s), bytes) == 0);
        skipped++;
    }
    CHECK(skipped > 8 && skipped < 20);
    CHECK(memcmp(before, stepper_parameters(f.s), bytes) != 0 && isfinite(r.gradient_norm));
    CHECK_EQ(stepper_scaler(f.s)->tracker, 1);
    free(before);
    free(zeroes);
    fixture_close(&f);
}

/* A loss above loss_max with a finite gradient leaves the scale as it was; a loss that is not
 * finite has a gradient that is not, which halves it. */
TEST(a_refused_step_is_no_good_one_for_the_scale)
{
    struct fixture f;
    struct step_result r;
    struct err e;
    struct optimizer_config picky = fixture_adamw;
    picky.loss_max = 1e-6;
    fixture_open(&f, &(struct fixture_config){.layers = lines, .count = 9, .half = HALF_F16});
    const struct grad_scaler *scaler = stepper_scaler(f.s);
    fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_adamw, NULL, 0);
    CHECK(scaler->tracker == 1 && scaler->scale == 65536);
    CHECK(stepper_train(f.s, FIXTURE_ROWS, 1, 2, &picky, NULL, 0, &r, &e) < 0);
    CHECK(r.refused && isfinite(r.gradient_norm));
    CHECK(scaler->tracker == 1 && scaler->scale == 65536);
    stepper_parameters(f.s)[0] = NAN;
    CHECK(stepper_train(f.s, FIXTURE_ROWS, 1, 2, &fixture_adamw, NULL, 0, &r, &e) < 0);
    CHECK(r.refused && !isfinite(r.loss) && !isfinite(r.gradient_norm));
    CHECK(scaler->tracker == 0 && scaler->scale == 32768);
    fixture_close(&f);
}

/* A weight so large that no scale helps: not for ever. */
TEST(a_loss_scale_of_0_is_the_end)
{
    static const char *const two[] = {"linear out=9", "linear out=5"};
    struct fixture f;
    struct step_result r;
    struct err e;
    int steps = 0;
    fixture_open(&f,
                 &(struct fixture_config){
                     .layers = two, .count = 2, .half = HALF_F16, .loss = "mean_squared_error"});
    for (uint64_t i = 0; i < f.m.tensors[0].count; i++)
        stepper_parameters(f.s)[i] = 0;
    for (uint64_t i = f.m.tensors[2].first; i < f.m.tensors[2].first + f.m.tensors[2].count; i++)
        stepper_parameters(f.s)[i] = i % 2 ? 1e9f : -1e9f; /* infinite in float16 */
    for (uint64_t i = f.m.tensors[1].first; i < f.m.tensors[1].first + f.m.tensors[1].count; i++)
        stepper_parameters(f.s)[i] = 0;
    while (stepper_train(f.s, FIXTURE_ROWS, 0, 1, &fixture_adamw, NULL, 0, &r, &e) == 0 &&
           steps++ < 1000)
        ;
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "cannot take the step: ");
    fixture_close(&f);
}

TEST(an_input_beyond_float16_names_its_row)
{
    struct fixture f;
    struct err e;
    uint64_t bad;
    for (enum half kind = HALF_F16; kind < HALF_COUNT; kind++) {
        fixture_open(&f, &(struct fixture_config){.layers = lines, .count = 9, .half = kind});
        f.features[41][3] = 70000;
        int result = stepper_gather(f.s, &f.gather, 0, FIXTURE_ROWS, f.feature_rows, f.target_rows,
                                    &bad, &e);
        CHECK(result == (kind == HALF_F16 ? -1 : 0));
        if (kind == HALF_F16) {
            CHECK_EQ(bad, 41);
            CHECK_HAS(e.text, "its feature 3 times the scale 1 is inf in 16 bits");
        }
        fixture_close(&f);
    }
}

static uint64_t activations(const char *const *of, uint32_t count, uint64_t inputs, enum half half,
                            int with_optimizer)
{
    struct step_config c = {.batch_rows_max = 64,
                            .slice_rows = 64,
                            .threads = 1,
                            .with_optimizer = with_optimizer,
                            .half = half};
    struct model m;
    struct stepper *s;
    struct plan p = {.count = 0};
    struct err e;
    uint64_t bytes = 0;
    CHECK_OK(model_open(&m, of, count, inputs, "mean_squared_error", &e), e);
    CHECK_OK(stepper_open(&s, &m, &c, &e), e);
    stepper_plan(&m, &c, "trainerd", &p);
    for (int k = 0; k < KIND_COUNT; k++)
        bytes += s->region[k].bytes;
    CHECK_EQ(bytes, plan_total(&p, NULL));
    CHECK((stepper_scaler(s) != NULL) == (with_optimizer && half == HALF_F16));
    bytes = s->region[KIND_ACTIVATIONS].bytes;
    stepper_close(&s);
    model_close(&m);
    return bytes;
}

TEST(half_precision_takes_less_memory)
{
    static const char *deep[40];
    static const char *const lstm[] = {"sequence steps=100", "lstm out=32 layers=2",
                                       "pool kind=last", "linear out=1"};
    for (int i = 0; i < 40; i++)
        deep[i] = i % 2 ? "gelu" : "linear out=64";
    uint64_t unit = 64 * 64 * 4;
    CHECK_EQ(activations(deep, 40, 64, HALF_NONE, 1), 42 * unit); /* 40, two gradients */
    /* and one at work, of 39, as nobody reads the last one backward */
    CHECK_EQ(activations(deep, 40, 64, HALF_BF16, 1), (39 + 6) * unit / 2);
    CHECK(activations(lstm, 4, 800, HALF_F16, 1) < activations(lstm, 4, 800, HALF_NONE, 1) * 4 / 5);
    CHECK_EQ(activations(deep, 40, 64, HALF_F16, 0), activations(deep, 40, 64, HALF_NONE, 0));
}

/* A sum beyond float16's largest number: finite in float32, and still that layer's fault. */
TEST(an_output_beyond_float16_is_its_layers_fault)
{
    static const char *const four[] = {"linear out=9", "tanh", "linear out=7", "linear out=5"};
    for (enum half kind = HALF_NONE; kind < HALF_COUNT; kind++) {
        struct fixture f;
        struct step_result r;
        struct err e;
        fixture_open(&f, &(struct fixture_config){.layers = four, .count = 4, .half = kind});
        stepper_parameters(f.s)[f.m.tensors[3].first] = 70000; /* a bias of layer 2 */
        int result = stepper_train(f.s, FIXTURE_ROWS, 0, 1, &fixture_still, NULL, 0, &r, &e);
        CHECK(result == (kind == HALF_F16 ? -1 : 0));
        if (kind == HALF_F16) {
            CHECK_HAS(e.text, "loss is ");
            CHECK_EQ(stepper_fault(f.s)->layer, 2);
            CHECK_EQ(stepper_fault(f.s)->row, 0);
        }
        fixture_close(&f);
    }
}
