/* engine_fixture.c - see engine_fixture.h. */
#include "tests/unit/engine_fixture.h"

#include <math.h>

#include "engine/loss.h"
#include "tests/test.h"

enum { ROWS = FIXTURE_ROWS, CLASSES = 5 };

const struct optimizer_config fixture_adamw = {1e-3, 1e-2, 0.9, 0.999, 1e-8, 0};
const struct optimizer_config fixture_still = {0, 0, 0.9, 0.999, 1e-8, 0};

static double random_next(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (double)(*state >> 11) * 0x1p-52 - 1;
}

void fixture_fill(struct fixture *f)
{
    uint64_t state = 12345; /* the same numbers for every stepper that is compared */
    for (int r = 0; r < ROWS; r++) {
        for (uint64_t j = 0; j < f->m.inputs; j++)
            f->features[r][j] = (float)random_next(&state);
        f->classes[r] = (uint8_t)(state >> 60) % CLASSES;
        for (uint64_t k = 0; k < f->m.outputs; k++)
            f->values[r][k] = (float)(0.5 + 0.5 * random_next(&state));
        f->feature_rows[r] = f->features[r];
        f->target_rows[r] =
            f->gather.target_type[0] == 'f' ? (void *)f->values[r] : (void *)&f->classes[r];
    }
}

void fixture_gather(struct fixture *f, uint64_t rows)
{
    uint64_t bad;
    struct err e;
    CHECK_OK(stepper_gather(f->s, &f->gather, 0, rows, f->feature_rows, f->target_rows, &bad, &e),
             e);
}

void fixture_open(struct fixture *f, const struct fixture_config *c)
{
    struct step_config config = {.batch_rows_max = ROWS,
                                 .slice_rows = c->slice ? c->slice : 16,
                                 .threads = c->threads ? c->threads : 2,
                                 .with_optimizer = !c->evaluate_only,
                                 .seed = 3,
                                 .metric = c->metric,
                                 .half = c->half,
                                 .scaler = {c->loss_scale > 0 ? c->loss_scale : 65536, 3},
                                 .checkpointing = c->checkpointing,
                                 .segments_max = c->segments_max,
                                 .accumulates = c->accumulates,
                                 .optimizer = c->optimizer,
                                 .backbone_layers = c->frozen_layers,
                                 .freeze_backbone = c->frozen_layers > 0};
    uint64_t inputs = c->inputs ? c->inputs : FIXTURE_INPUTS;
    struct err e;
    CHECK_OK(model_open(&f->m, c->layers, c->count, inputs,
                        c->loss ? c->loss : "softmax_cross_entropy", &e),
             e);
    CHECK(inputs <= FIXTURE_INPUTS_MAX && f->m.outputs <= FIXTURE_OUTPUTS_MAX);
    CHECK_OK(stepper_open(&f->s, &f->m, &config, &e), e);
    model_initialise(&f->m, 12, stepper_parameters(f->s));
    int values = loss_type_named(f->m.loss)->values;
    f->gather = (struct gather_config){.feature_type = "f32",
                                       .features = inputs,
                                       .targets = values ? f->m.outputs : 1,
                                       .scale = 1};
    strcpy(f->gather.target_type, values ? "f32" : "u8");
    fixture_fill(f);
    fixture_gather(f, ROWS);
}

void fixture_close(struct fixture *f)
{
    stepper_close(&f->s);
    stepper_close(&f->s);
    model_close(&f->m);
}

struct step_result fixture_train(struct fixture *f, uint64_t rows, uint64_t step, uint64_t t,
                                 const struct optimizer_config *a, const struct ewc_term *terms,
                                 int n)
{
    struct step_result r;
    struct err e;
    CHECK_OK(stepper_train(f->s, rows, step, t, a, terms, n, &r, &e), e);
    return r;
}

struct evaluation_result fixture_evaluate(struct fixture *f, uint64_t rows)
{
    struct err e;
    stepper_evaluate_begin(f->s);
    CHECK_OK(stepper_evaluate(f->s, rows, &e), e);
    return stepper_evaluate_end(f->s);
}

/* d(loss + penalty)/d(theta_i) by central differences, with a learning rate of 0 so that nothing
 * moves. */
static double difference(struct fixture *f, uint64_t i, const struct ewc_term *terms, int n)
{
    const float h = 1.0f / 8192;
    float *p = stepper_parameters(f->s), before = p[i];
    p[i] = before + h;
    struct step_result up = fixture_train(f, ROWS, 0, 1, &fixture_still, terms, n);
    double width = (double)p[i];
    p[i] = before - h;
    struct step_result down = fixture_train(f, ROWS, 0, 1, &fixture_still, terms, n);
    width -= (double)p[i];
    p[i] = before;
    return (up.loss + up.penalty - down.loss - down.penalty) / width;
}

void fixture_check_gradient(const struct fixture_config *c, const struct ewc_term *terms, int n,
                            float *theta_star)
{
    struct fixture f;
    fixture_open(&f, c);
    uint64_t count = f.m.parameter_count;
    for (uint64_t i = 0; theta_star && i < count; i++)
        theta_star[i] = stepper_parameters(f.s)[i] + 0.1f * (float)(i % 3) - 0.1f;
    struct step_result r = fixture_train(&f, ROWS, 0, 1, &fixture_still, terms, n);
    float *g = malloc(count * sizeof *g);
    double norm2 = 0, off2 = 0;
    memcpy(g, stepper_gradient(f.s), count * sizeof *g);
    for (uint64_t i = 0; i < count; i++)
        norm2 += (double)g[i] * (double)g[i];
    CHECK(fabs(r.gradient_norm - sqrt(norm2)) < 1e-9 + 1e-6 * r.gradient_norm);
    /* with the fixture's numbers no relu changes sides within a difference */
    for (uint64_t i = 0; i < count; i++) {
        double off = difference(&f, i, terms, n) - (double)g[i];
        off2 += off * off;
    }
    if (!(norm2 > 0) || off2 > 1e-6 * norm2)
        test_fail(__FILE__, __LINE__, "%s ... with loss %s: off by %g of the norm %g", c->layers[0],
                  f.m.loss, sqrt(off2 / norm2), sqrt(norm2));
    free(g);
    fixture_close(&f);
}

/* The sum of squares of one-row gradients, each from the stepper's own training pass. */
static double *squares_by_single_rows(const struct fixture_config *of)
{
    struct fixture f;
    struct fixture_config c = *of;
    struct err e;
    uint64_t bad;
    c.threads = 1;
    fixture_open(&f, &c);
    double *sums = calloc(f.m.parameter_count, sizeof *sums);
    for (int r = 0; r < ROWS; r++) {
        CHECK_OK(
            stepper_gather(f.s, &f.gather, 0, 1, f.feature_rows + r, f.target_rows + r, &bad, &e),
            e);
        fixture_train(&f, 1, 0, 1, &fixture_still, NULL, 0);
        for (uint64_t i = 0; i < f.m.parameter_count; i++)
            sums[i] += (double)stepper_gradient(f.s)[i] * (double)stepper_gradient(f.s)[i];
    }
    fixture_close(&f);
    return sums;
}

static void squares_near(const struct fixture *f, const float *sums, const double *wanted)
{
    for (uint32_t t = 0; t < f->m.tensor_count; t++) {
        const struct tensor_info *info = &f->m.tensors[t];
        double largest = 0;
        for (uint64_t i = info->first; i < info->first + info->count; i++)
            largest = fmax(largest, wanted[i]);
        for (uint64_t i = info->first; i < info->first + info->count; i++)
            if (!(fabs((double)sums[i] - wanted[i]) <= 1e-5 * wanted[i] + 1e-6 * largest))
                test_fail(__FILE__, __LINE__, "%s [%d]: %g instead of %g", info->name,
                          (int)(i - info->first), (double)sums[i], wanted[i]);
        CHECK(largest > 0 || strstr(info->name, "weight_hh")); /* one step: no recurrence */
    }
}

void fixture_check_squares(const struct fixture_config *of)
{
    struct fixture_config c = *of;
    double *wanted = squares_by_single_rows(of);
    float *first = NULL;
    struct err e;
    c.evaluate_only = 1;
    for (c.threads = 1; c.threads <= 3; c.threads++)
        for (uint64_t block = 1000; block > 10; block /= 3) {
            struct fixture f;
            fixture_open(&f, &c);
            uint64_t total = f.m.parameter_count;
            float *sums = calloc(total, sizeof *sums);
            for (uint64_t at = 0; at < total; at += block)
                CHECK_OK(stepper_fisher(f.s, ROWS, at, total - at < block ? total - at : block,
                                        sums + at, &e),
                         e);
            if (!first)
                memcpy(first = malloc(total * sizeof *first), sums, total * sizeof *first);
            CHECK(memcmp(first, sums, total * sizeof *first) == 0);
            squares_near(&f, sums, wanted);
            free(sums);
            fixture_close(&f);
        }
    free(first);
    free(wanted);
}
