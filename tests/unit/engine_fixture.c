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

/* Whole numbers below n. */
static uint16_t random_below(uint64_t *state, uint64_t n)
{
    random_next(state);
    return (uint16_t)((*state >> 33) % n);
}

static void graphs_fill(struct fixture *f)
{
    uint64_t state = 99;
    for (int r = 0; r < ROWS; r++) {
        struct fixture_graph *g = &f->graphs[r];
        struct graph_row *row = &f->graph_rows[r];
        *row = (struct graph_row){f->features[r],
                                  g->sources,
                                  g->targets,
                                  g->edges,
                                  1 + random_below(&state, FIXTURE_NODES_MAX),
                                  random_below(&state, FIXTURE_EDGES_MAX + 1)};
        float *edges = g->edges[0]; /* one behind the other, as wide as the model's */
        for (uint64_t k = 0; k < row->edge_count; k++) {
            g->sources[k] = random_below(&state, row->node_count);
            g->targets[k] = random_below(&state, row->node_count);
            for (uint64_t c = 0; c < f->m.edge_inputs; c++)
                *edges++ = (float)random_next(&state);
        }
    }
}

void fixture_fill(struct fixture *f)
{
    uint64_t state = 12345; /* the same numbers for every stepper that is compared */
    for (int r = 0; r < ROWS; r++) {
        for (uint64_t j = 0; j < f->m.inputs * (f->m.graphs ? FIXTURE_NODES_MAX : 1); j++)
            f->features[r][j] = (float)random_next(&state);
        for (uint64_t k = 0; k < f->m.target_steps; k++) {
            f->classes[r][k] = (uint8_t)(state >> 60) % CLASSES;
            state = k + 1 < f->m.target_steps ? state * 0x9e3779b97f4a7c15ull + 1 : state;
        }
        for (uint64_t j = 0; f->m.token_count && j < f->m.inputs; j++)
            f->tokens[r][j] = random_below(&state, f->m.token_count);
        for (uint64_t k = 0; k < f->m.outputs; k++)
            f->values[r][k] = (float)(0.5 + 0.5 * random_next(&state));
        f->feature_rows[r] = f->m.token_count ? (void *)f->tokens[r] : (void *)f->features[r];
        f->target_rows[r] =
            f->gather.target_type[0] == 'f' ? (void *)f->values[r] : (void *)f->classes[r];
    }
    graphs_fill(f);
}

void fixture_gather_rows(struct fixture *f, uint64_t first, uint64_t count)
{
    uint64_t bad;
    struct err e;
    if (f->m.graphs)
        CHECK_OK(stepper_gather_graphs(f->s, &f->gather, 0, count, f->graph_rows + first,
                                       f->target_rows + first, &bad, &e),
                 e);
    else
        CHECK_OK(stepper_gather(f->s, &f->gather, 0, count, f->feature_rows + first,
                                f->target_rows + first, &bad, &e),
                 e);
}

void fixture_gather(struct fixture *f, uint64_t rows)
{
    fixture_gather_rows(f, 0, rows);
}

void fixture_begins(struct fixture *f, uint64_t step, uint64_t first)
{
    for (uint64_t r = 0; r < ROWS; r++) {
        f->begins[r] = (r + step) % 3 ? 0 : (uint16_t)(1 + r);
        f->begin_rows[r] = &f->begins[r];
    }
    snprintf(f->gather.begin_type, sizeof f->gather.begin_type, "u16");
    f->gather.begin_rows = f->begin_rows + first;
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
                                 .freeze_backbone = c->frozen_layers > 0,
                                 .carried_rows = c->carries ? ROWS : 0,
                                 .device = c->device,
                                 .meanwhile = c->meanwhile,
                                 .self = c->self};
    config.slice_parts = step_slice_parts(c->checkpointing, config.slice_rows);
    uint64_t inputs = c->inputs ? c->inputs : FIXTURE_INPUTS;
    struct model_input input = {inputs, c->graphs, c->edge_values};
    struct err e;
    if (c->graphs) {
        uint64_t slice = config.slice_rows < ROWS ? config.slice_rows : ROWS;
        config.batch_nodes_max = ROWS * FIXTURE_NODES_MAX;
        config.batch_edges_max = ROWS * FIXTURE_EDGES_MAX;
        config.slice_nodes_max = slice * FIXTURE_NODES_MAX; /* of a part, too */
    }
    CHECK_OK(model_open_input(&f->m, c->layers, c->count, &input,
                              c->loss ? c->loss : "softmax_cross_entropy", &e),
             e);
    CHECK(inputs * (c->graphs ? FIXTURE_NODES_MAX : 1) <= FIXTURE_INPUTS_MAX);
    CHECK(f->m.outputs <= FIXTURE_OUTPUTS_MAX && c->edge_values <= FIXTURE_EDGE_VALUES_MAX);
    CHECK(f->m.target_steps <= FIXTURE_STEPS_MAX);
    if (c->carries)
        CHECK_OK(model_carry(&f->m, &e), e);
    CHECK_OK(stepper_open(&f->s, &f->m, &config, &e), e);
    model_initialise(&f->m, 12, stepper_parameters(f->s));
    stepper_send(f->s);
    int values = loss_type_named(f->m.loss)->values;
    f->gather = (struct gather_config){.feature_type = "f32",
                                       .features = inputs,
                                       .targets = values ? f->m.outputs : f->m.target_steps,
                                       .scale = 1,
                                       .end_type = "u16",
                                       .edge_type = "f32",
                                       .edge_features = c->edge_values};
    strcpy(f->gather.target_type, values ? "f32" : "u8");
    if (f->m.token_count)
        strcpy(f->gather.feature_type, "u16");
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

void fixture_check_bits(struct fixture *f, float **kept)
{
    uint64_t bytes = f->m.parameter_count * sizeof(float);
    for (uint64_t step = 0; step < 4; step++)
        fixture_train(f, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
    if (!*kept)
        memcpy(*kept = malloc(bytes), stepper_parameters(f->s), bytes);
    CHECK(memcmp(*kept, stepper_parameters(f->s), bytes) == 0);
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
    c.threads = 1;
    fixture_open(&f, &c);
    double *sums = calloc(f.m.parameter_count, sizeof *sums);
    for (int r = 0; r < ROWS; r++) {
        fixture_gather_rows(&f, (uint64_t)r, 1);
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
                CHECK_OK(stepper_fisher(
                             f.s, ROWS,
                             &(struct fisher_sums){.first = at,
                                                   .count = total - at < block ? total - at : block,
                                                   .at = sums + at},
                             &e),
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
