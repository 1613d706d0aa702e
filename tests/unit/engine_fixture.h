/* engine_fixture.h - a small model with made-up rows in a stepper, and the two checks that every
 * layer and loss must pass: gradients by finite differences, and per-sample squares against rows
 * taken one by one.
 */
#ifndef TESTS_UNIT_ENGINE_FIXTURE_H
#define TESTS_UNIT_ENGINE_FIXTURE_H

#include "engine/model.h"
#include "engine/step.h"

enum { FIXTURE_ROWS = 50, FIXTURE_INPUTS = 13, FIXTURE_OUTPUTS_MAX = 64, FIXTURE_INPUTS_MAX = 128 };
enum {
    FIXTURE_STEPS_MAX = 16,
    FIXTURE_NODES_MAX = 6,
    FIXTURE_EDGES_MAX = 9,
    FIXTURE_EDGE_VALUES_MAX = 3
};

/* Up to 6 nodes, whose features are the row's; edges either way, some of them twice or to the node
 * itself. */
struct fixture_graph {
    uint16_t sources[FIXTURE_EDGES_MAX], targets[FIXTURE_EDGES_MAX];
    float edges[FIXTURE_EDGES_MAX][FIXTURE_EDGE_VALUES_MAX];
};

struct fixture {
    struct model m;
    struct stepper *s;
    struct gather_config gather;
    float features[FIXTURE_ROWS][FIXTURE_INPUTS_MAX];  /* a row's first ones are used */
    uint8_t classes[FIXTURE_ROWS][FIXTURE_STEPS_MAX];  /* 0 .. 4, one for each step left */
    uint16_t tokens[FIXTURE_ROWS][FIXTURE_INPUTS_MAX]; /* a token model's inputs */
    float values[FIXTURE_ROWS][FIXTURE_OUTPUTS_MAX];   /* 0 to 1 */
    const void *feature_rows[FIXTURE_ROWS], *target_rows[FIXTURE_ROWS];
    uint16_t begins[FIXTURE_ROWS];
    const void *begin_rows[FIXTURE_ROWS]; /* of them */
    struct fixture_graph graphs[FIXTURE_ROWS];
    struct graph_row graph_rows[FIXTURE_ROWS]; /* of them, where the model's rows are graphs */
};

/* What a fixture is made of; 0 or NULL: the usual one. */
struct fixture_config {
    const char *const *layers;
    uint32_t count;
    const char *loss;  /* softmax_cross_entropy */
    uint64_t inputs;   /* FIXTURE_INPUTS */
    int threads;       /* 2 */
    uint64_t slice;    /* 16 */
    int evaluate_only; /* no optimizer */
    const char *metric;
    int graphs;           /* inputs is a node's: at most FIXTURE_INPUTS_MAX / FIXTURE_NODES_MAX */
    uint64_t edge_values; /* 0: edges have no features */
    enum half half;
    double loss_scale; /* HALF_F16: the first; 65536 */
    int checkpointing;
    uint64_t segments_max;
    int accumulates; /* batches of several micro-batches */
    enum optimizer_kind optimizer;
    uint32_t frozen_layers;
    int carries;                 /* states, from batch to batch (model_carry) */
    const struct device *device; /* NULL: the CPU */
    int (*meanwhile)(void *self);
    void *self;
};

/* The same numbers each time; all rows are gathered. */
void fixture_open(struct fixture *f, const struct fixture_config *c);
void fixture_close(struct fixture *f);
void fixture_fill(struct fixture *f); /* features and targets as they were */
void fixture_gather(struct fixture *f, uint64_t rows);
/* Rows first .. first + count - 1 become the whole batch. */
void fixture_gather_rows(struct fixture *f, uint64_t first, uint64_t count);

/* Where states are carried: every third row begins, others each step; gather tells it of the rows
 * from `first` on. */
void fixture_begins(struct fixture *f, uint64_t step, uint64_t first);

struct step_result fixture_train(struct fixture *f, uint64_t rows, uint64_t step, uint64_t t,
                                 const struct optimizer_config *a, const struct ewc_term *terms,
                                 int n);
struct evaluation_result fixture_evaluate(struct fixture *f, uint64_t rows);

/* Four steps over all rows; the weights then have the bits of *kept, which the first call (NULL)
 * makes of them and the caller frees. */
void fixture_check_bits(struct fixture *f, float **kept);

extern const struct optimizer_config fixture_adamw, fixture_still; /* still: nothing moves */

/* The gradient of loss and penalty, by central differences; theta_star, if not NULL, is set to
 * stand beside the weights first. */
void fixture_check_gradient(const struct fixture_config *c, const struct ewc_term *terms, int n,
                            float *theta_star);

/* stepper_fisher against one-row gradients, for several numbers of threads and sizes of blocks,
 * all of which give the same bits. */
void fixture_check_squares(const struct fixture_config *c);

#endif
