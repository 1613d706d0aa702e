/* cuda_models.c - see cuda_models.h. */
#include "tests/unit/cuda_models.h"

#include <math.h>

#include "tests/test.h"
#include "tests/unit/cuda_fixture.h"

static const char *const dense[] = {"linear out=33", "relu", "dropout p=0.25",
                                    "linear out=20", "gelu", "linear out=5"};
static const char *const normed[] = {"linear out=17", "batchnorm", "tanh",
                                     "linear out=9",  "layernorm", "linear out=5"};
static const char *const residual[] = {"linear out=16", "residual_begin", "linear out=16",
                                       "silu",          "residual_end",   "linear out=5"};
static const char *const recurrent[] = {"sequence steps=6",
                                        "lstm out=8 layers=2 bidirectional=true dropout=0.25",
                                        "pool kind=last", "linear out=5"};
static const char *const carried[] = {"sequence steps=6", "lstm out=8 layers=2 dropout=0.25",
                                      "pool kind=last", "linear out=5"};
static const char *const graphs[] = {"gcn out=9 residual=true edges=true",
                                     "relu",
                                     "gcn out=10",
                                     "batchnorm",
                                     "sigmoid",
                                     "pool kind=mean_sum",
                                     "linear out=5"};
static const char *const graphs_drawn[] = {"gcn out=9 residual=true edges=true",
                                           "relu",
                                           "dropout p=0.25",
                                           "gcn out=12",
                                           "layernorm",
                                           "linear out=7",
                                           "pool kind=max",
                                           "linear out=5"};
/* Those that chain: with 16 bits or without, behind an activation, of which a derivative that is
 * taken twice shows, or another one of them. */
static const char *const chained[] = {"gcn out=16", "sigmoid",        "gcn out=24",
                                      "gcn out=8",  "sigmoid",        "gcn out=10",
                                      "relu",       "pool kind=mean", "linear out=5"};
/* So many that all of what takes turns is used again. */
static const char *const chained_long[] = {
    "gcn out=32", "relu",      "gcn out=32", "relu",           "gcn out=16",  "gcn out=24",
    "relu",       "gcn out=8", "relu",       "pool kind=mean", "linear out=5"};
static const char *const tokens[] = {"embedding count=11 out=6", "lstm out=7", "linear out=5"};

/* With half all of their numbers are narrow, in several lanes. */
static const char *const narrow[] = {"sequence steps=4", "lstm out=8 layers=3", "pool kind=mean",
                                     "linear out=5"};
static const char *const narrow_behind[] = {
    "sequence steps=2", "linear out=11", "lstm out=16 layers=2", "pool kind=last", "linear out=5"};

#define LIST(lines) .layers = lines, .count = sizeof lines / sizeof *lines

const struct fixture_config cuda_models[CUDA_MODELS] = {
    [CUDA_MODEL_DENSE] = {LIST(dense)},
    [CUDA_MODEL_DENSE_SQUARED_ERROR] = {LIST(dense), .loss = "mean_squared_error",
                                        .optimizer = OPTIMIZER_SGD_MOMENTUM},
    [CUDA_MODEL_DENSE_COSINE] = {LIST(dense), .loss = "cosine", .optimizer = OPTIMIZER_SGD},
    [CUDA_MODEL_DENSE_HUBER] = {LIST(dense), .loss = "huber delta=0.4", .frozen_layers = 3},
    [CUDA_MODEL_DENSE_BINARY] = {LIST(dense), .loss = "binary_cross_entropy", .checkpointing = 1},
    /* in front of batchnorm a bias has no gradient but rounding */
    [CUDA_MODEL_NORMED] = {LIST(normed), .optimizer = OPTIMIZER_SGD},
    [CUDA_MODEL_NORMED_L1] = {LIST(normed), .loss = "l1", .optimizer = OPTIMIZER_SGD_MOMENTUM},
    [CUDA_MODEL_RESIDUAL] = {LIST(residual)},
    [CUDA_MODEL_RECURRENT] = {LIST(recurrent), .inputs = 24},
    [CUDA_MODEL_RECURRENT_CHECKPOINTING] = {LIST(recurrent), .inputs = 24, .checkpointing = 1},
    [CUDA_MODEL_GRAPHS] = {LIST(graphs), .graphs = 1, .inputs = 9, .edge_values = 3,
                           .optimizer = OPTIMIZER_SGD},
    [CUDA_MODEL_GRAPHS_DRAWN] = {LIST(graphs_drawn), .graphs = 1, .inputs = 9, .edge_values = 3},
    [CUDA_MODEL_CHAINED] = {LIST(chained), .graphs = 1, .inputs = 16, .optimizer = OPTIMIZER_SGD},
    [CUDA_MODEL_CHAINED_LONG] = {LIST(chained_long), .graphs = 1, .inputs = 16,
                                 .optimizer = OPTIMIZER_SGD},
    [CUDA_MODEL_CARRIED_CHECKPOINTING] = {LIST(carried), .inputs = 24, .carries = 1,
                                          .checkpointing = 1},
    [CUDA_MODEL_CARRIED] = {LIST(carried), .inputs = 24, .carries = 1},
    [CUDA_MODEL_WEIGHED_ERROR] = {LIST(dense),
                                  .loss = "mean_squared_error missing weights=1,0.5,2,0,3"},
    [CUDA_MODEL_WEIGHED] = {LIST(dense),
                            .loss = "softmax_cross_entropy missing weights=1,0.5,2,0,3"},
    [CUDA_MODEL_NARROW] = {LIST(narrow), .inputs = 12},
    [CUDA_MODEL_NARROW_BEHIND] = {LIST(narrow_behind), .inputs = 16},
    [CUDA_MODEL_TOKENS] = {LIST(tokens), .inputs = 6},
};

double vectors_distance(const float *a, const float *b, uint64_t count)
{
    double off = 0, all = 0;
    for (uint64_t i = 0; i < count; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return sqrt(off / (all > 0 ? all : 1));
}

void number_near(double got, double wanted, double bar, const char *what, int model)
{
    if (!(fabs(got - wanted) <= bar * (fabs(wanted) + 1e-3)))
        test_fail(__FILE__, __LINE__, "model %d: %s is %.9g instead of %.9g", model, what, got,
                  wanted);
}

void vectors_near(struct fixture *on, struct fixture *cpu, double bar, int model)
{
    struct err e;
    uint64_t count = on->m.parameter_count;
    CHECK_OK(stepper_fetch(on->s, &e), e);
    double off = vectors_distance(stepper_parameters(on->s), stepper_parameters(cpu->s), count);
    if (!(off <= bar))
        test_fail(__FILE__, __LINE__, "model %d: parameters are off by %g", model, off);
    const float *buffers = stepper_module_buffers(on->s);
    if (buffers)
        CHECK(vectors_distance(buffers, stepper_module_buffers(cpu->s), on->m.buffer_values) <=
              bar);
}

static double norm(const float *x, uint64_t count)
{
    double sum = 0;
    for (uint64_t i = 0; i < count; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

void gradients_near(struct fixture *on, struct fixture *cpu, double bar, int model)
{
    const float *a = stepper_gradient(on->s), *b = stepper_gradient(cpu->s);
    double rounding = 1e-3 * bar * norm(b, cpu->m.parameter_count);
    for (uint32_t i = 0; i < cpu->m.tensor_count; i++) {
        const struct tensor_info *t = &cpu->m.tensors[i];
        double off = 0, all = norm(b + t->first, t->count);
        for (uint64_t k = t->first; k < t->first + t->count; k++)
            off += ((double)a[k] - (double)b[k]) * ((double)a[k] - (double)b[k]);
        if (!(sqrt(off) <= bar * all + rounding))
            test_fail(__FILE__, __LINE__, "model %d: the gradient of %s is off by %g of %g", model,
                      t->name, sqrt(off), all);
    }
}

void pair_open(struct fixture *on, struct fixture *cpu, struct fixture_config c)
{
    c.slice = FIXTURE_ROWS;
    c.threads = 1;
    fixture_open(cpu, &c);
    c.device = cuda_fixture_device();
    fixture_open(on, &c);
}
