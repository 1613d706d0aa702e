/* step.h - one optimizer step, in the order of the mathematics: gather, forward and backward,
 * update.
 *
 * The unit of arithmetic is the slice (slice_rows rows). The threads of the pool each take whole
 * slices through forward and backward, each slice's gradient goes into the thread's own buffer, and
 * the buffers are added to the batch's gradient in slice order: the result does not depend on the
 * number of threads, nor on how many slices are resident. Nothing here allocates after
 * stepper_open.
 *
 *   g   = sum over slices of d(mean loss over the batch)/d(theta); where targets weigh (loss.h) of
 *         d(sum of their losses)/d(theta), then by the sum of the weights of the whole batch
 *   g  += lambda * (F + damping) * (theta - theta*)            EWC, FORMULAS "EWC", half = 1/2
 *   n   = ||g||; g *= min(1, max_norm / (n + 1e-6))            torch clip_grad_norm_
 *   the update: AdamW or SGD (engine/optimizer.h)
 *
 * The first layers of the model may be a backbone: with a learning rate of its own, or frozen. What
 * is frozen takes no part in any of these: no gradient, no penalty, no moments, no backward.
 */
#ifndef ENGINE_STEP_H
#define ENGINE_STEP_H

#include <stdint.h>

#include "engine/grad_scaler.h"
#include "engine/importance.h"
#include "engine/labels.h"
#include "engine/model.h"
#include "engine/ops.h"
#include "engine/plan.h"
#include "proto/err.h"

/* How rows become the model's input: the gather, same for every backend. */
struct gather_config {
    char feature_type[8], target_type[8]; /* "u8" .. "f64", as messages.def's field_info */
    uint64_t features, targets;           /* values a row */
    double scale;
    /* out[j] = in[permutation[j]], all of the model's inputs; NULL: as it is. Borrowed */
    const uint32_t *permutation;
    uint64_t column; /* input that the first value becomes: rows may come in several parts */
    char end_type[8], edge_type[8]; /* graphs: of the ends of edges, of their features */
    uint64_t edge_features;         /* graphs: values an edge; 0: none are stored */
    int on_device; /* rows are addresses on the stepper's device, which is apart; no graphs */
    char weight_type[8];
    uint64_t weights; /* values a row, as step_config has them */
    /* where each row's weights are, from 0 on and not all of them 0, as `targets` of stepper_gather
     * has the targets, with which they come; NULL: nothing has. Borrowed */
    const void *const *weight_rows;
    /* Of a model_carry: where a whole number of begin_type a row is, not 0 where the row begins at
     * 0 and does not go on from the one before it. They come with the first part of the features;
     * NULL: none begins. Borrowed */
    char begin_type[8];
    const void *const *begin_rows;
};

/* A row that is a graph, where it is stored: borrowed. Edge k goes from node sources[k] to node
 * targets[k], whole numbers counted from 0 in the graph. */
struct graph_row {
    const void *nodes, *sources, *targets, *edges; /* features of nodes and edges */
    uint64_t node_count, edge_count;
};

enum optimizer_kind { OPTIMIZER_ADAMW, OPTIMIZER_SGD_MOMENTUM, OPTIMIZER_SGD };

struct device; /* engine/device.h */

struct step_config {
    uint64_t batch_rows_max, slice_rows; /* resident at once: of a micro-batch */
    int threads;                         /* including the caller's; at least 1 */
    int with_optimizer; /* 0: evaluation and Fisher only, no gradient, no moments */
    uint64_t seed;      /* keys dropout */
    uint64_t weights;   /* values a row that say what its targets weigh: 0 (all alike), 1, or one
                           for each of them (model_row_targets) */
    const char *metric; /* of evaluations, one that goes with the loss (engine/loss.h); NULL: its
                           usual one */
    /* Activation checkpointing, to the same bits: where the layers allow it a slice goes through
     * them in parts of its rows, one after the other in the memory of one: slice_parts of them
     * (step_slice_parts; 0: 1), or a half, a quarter ... where more cost too much time (parts.c).
     * And the layer list is cut into segments, at most so many (0: one where there are parts, else
     * as many as take the least memory); what is between them is kept, the rest computed again in
     * backward. Only with_optimizer; the others keep nothing or all */
    int checkpointing;
    uint64_t segments_max, slice_parts;
    /* Mixed precision: what lies between two layers, and the gradients there, are rounded to 16
     * bits, and the former are kept in them; products read weights rounded to 16 bits and add up in
     * float32; weights, their gradients, moments, losses and all inside of a layer stay float32.
     * Only with_optimizer. HALF_F16 has a loss scale. */
    enum half half;
    struct grad_scaler_config scaler;
    int accumulates; /* a training batch may be several micro-batches */
    /* Of a model_carry: rows of a training batch at most, all micro-batches of it, and of the
     * streams of other passes; 0: states begin at 0 in every row */
    uint64_t carried_rows;
    enum optimizer_kind optimizer;
    uint32_t backbone_layers; /* the first ones of the model; 0: there is no backbone */
    int freeze_backbone;      /* some parameter behind it must be left */
    /* where rows are graphs, the most there will be: nodes and edges of a batch, nodes of
     * slice_rows / slice_parts rows */
    uint64_t batch_nodes_max, batch_edges_max, slice_nodes_max;
    const struct device *device; /* open, borrowed; NULL: the CPU */
    /* Called again and again while the host waits for a device apart, until it says 0: nothing is
     * to be done meanwhile. It leaves the stepper alone. NULL: nobody has anything to do. */
    int (*meanwhile)(void *self);
    void *self;
};

/* Into how many parts activation checkpointing may cut slices of so many rows: 8, or as many as
 * leave SLICE_PART_ROWS in each, which products need to be fast. */
enum { SLICE_PARTS_MAX = 8, SLICE_PART_ROWS = 8 };
static inline uint64_t step_slice_parts(int checkpointing, uint64_t slice_rows)
{
    uint64_t parts = checkpointing ? SLICE_PARTS_MAX : 1;
    while (parts > 1 && (slice_rows % parts || slice_rows / parts < SLICE_PART_ROWS))
        parts /= 2;
    return parts;
}

struct optimizer_config {
    double learning_rate, weight_decay, beta1, beta2, eps;
    double max_grad_norm; /* 0: no clip */
    double backbone_rate; /* learning rate of the backbone, where there is one */
    double loss_max;      /* a batch's loss above it counts as not finite; 0: none does */
    double momentum;      /* of OPTIMIZER_SGD_MOMENTUM */
    int nesterov;
};

/* One protected task; all is borrowed. Of the Fisher information and of theta* each is given in one
 * of two ways. */
struct ewc_term {
    const float *fisher;     /* [parameter_count]; NULL: importance */
    const float *theta_star; /* [parameter_count]; NULL: theta_stars */
    double lambda;
    const struct importance *importance; /* of the same model (engine/importance.h) */
    const float *const *theta_stars;     /* [tensor_count]: each of the model's tensors */
    double damping;                      /* added to every F */
    uint64_t version; /* another one where other numbers lie at the same addresses: a device apart
                         is sent them once for each */
};

struct step_result {
    double loss; /* mean over the batch, summed in row order in double; 0 where nothing counts */
    double loss_sum; /* sum over the rows; where targets weigh: that mean times the rows */
    double penalty; /* lambda/2 sum (F + damping) (theta - theta*)^2 before the update, all terms */
    double gradient_norm; /* before clipping, penalty included */
    double loss_scale;    /* the batch's; 0: it had none */
    uint64_t skipped;     /* a scaled gradient is not finite: nothing was updated */
    uint64_t empty;       /* no target of the batch counts: there is no loss to speak of */
    uint64_t refused;     /* stepper_update said -1 because of a bad number (stepper_bad_number) */
};

struct stepper; /* arenas, pool, buffers */
struct pool;

/* What its threads take of their stacks, at most: products pack their factors there. */
uint64_t stepper_stacks_bytes(const struct model *m, const struct step_config *c);

/* Rows of the plan for this configuration, exactly what stepper_open allocates. */
void stepper_plan(const struct model *m, const struct step_config *c, const char *stage,
                  struct plan *p);

int stepper_open(struct stepper **s_p, const struct model *m, const struct step_config *c,
                 struct err *e);
void stepper_close(struct stepper **s_p);

/* Parameters of layers that are frozen: the first ones of the flat vector. */
uint64_t step_frozen(const struct model *m, const struct step_config *c);

/* Another size of micro-batches: batch_rows_max rows, in slices of slice_rows; accumulates as in
 * step_config. Parameters, moments, module buffers and what the batch in work has accumulated stay;
 * rows gathered and an evaluation's sums are lost. Where slice_rows is another one, so are the
 * bits; else they are the same. -1 (temporary) when there is no room: all is as it was, but for the
 * rows. -2 if even that has no room any more: the stepper can only be closed. */
int stepper_resize(struct stepper *s, uint64_t batch_rows_max, uint64_t slice_rows, int accumulates,
                   struct err *e);

/* The flat vectors below are the host's. On a device apart they are copies: stepper_fetch makes
 * them what the device has, before they are read; stepper_send makes the device have what they are,
 * after they were written. On the CPU both do nothing. */
int stepper_fetch(struct stepper *s, struct err *e); /* -1: the device failed; they are not it */
void stepper_send(struct stepper *s);
/* Where those of a device apart are page-locked: begins to fetch them, beside what is computed, for
 * a stepper_fetch before the next batch of training. They are not to be touched before that or
 * stepper_fetch_wait. */
void stepper_fetch_begin(struct stepper *s);
void stepper_fetch_wait(struct stepper *s);

/* The flat vectors, owned by the stepper. Parameters are all there are; moments and gradient those
 * of the parameters from step_frozen on. A moment that the optimizer does not keep (AdamW keeps m
 * and v, SGD with momentum m) is NULL. */
float *stepper_parameters(struct stepper *s);
float *stepper_moment_m(struct stepper *s);
float *stepper_moment_v(struct stepper *s);
/* PyTorch's buffers of modules, as the model has them (buffer_values numbers, initialised); NULL
 * where there are none. A training step changes them. */
float *stepper_module_buffers(struct stepper *s);
void stepper_moments_clear(struct stepper *s);
/* What the model's layers carry, as the last update left it: of tensor k of the model's `carried`
 * [carried_rows, values] from carried_rows * its `first` on. NULL: nothing. An update, a skipped
 * step too, makes it what its batch left; a refused one does not. */
float *stepper_carried(struct stepper *s);
void stepper_carried_clear(struct stepper *s); /* the next batch's rows begin */
float *stepper_gradient(struct stepper *s);    /* the last batch's, for tests */

/* Copy `count` rows into the batch's places `at` .. at + count - 1, converting, scaling, permuting,
 * in the pool's threads. targets[i] points to one integer class of target_type, or, where the loss
 * takes values, to one number an output of any type; targets NULL: they came with another part of
 * the features. -1 (permanent) and *bad_row the index i when a feature is not finite, a class is
 * not 0 .. outputs-1 or a value not one the loss takes, or a weight is negative or not finite; *e
 * says which. Where rows are on the device
 * that is said by stepper_update, stepper_evaluate or stepper_fisher, and stepper_fault has the
 * row.
 */
int stepper_gather(struct stepper *s, const struct gather_config *g, uint64_t at, uint64_t count,
                   const void *const *features, const void *const *targets, uint64_t *bad_row,
                   struct err *e);

/* The same for a model of graphs: the rows come one after the other, so `at` is 0 or the number
 * gathered since it was. A graph has at least one node, and its edges end at its nodes. targets
 * NULL: there are none. */
int stepper_gather_graphs(struct stepper *s, const struct gather_config *g, uint64_t at,
                          uint64_t count, const struct graph_row *graphs,
                          const void *const *targets, uint64_t *bad_row, struct err *e);

/* One optimizer step over a batch of `rows` rows, of which a micro-batch at a time is resident:
 *
 *   stepper_batch(s, 256, step, terms, n);
 *   four times: stepper_gather(s, ...); stepper_accumulate(s, 64);
 *   stepper_update(s, t, a, &result, e);
 *
 * `step` keys dropout (counter of the run), `t` is AdamW's (from 1), terms are borrowed until
 * the update. The micro-batches come in the order of the batch's rows; where all but the last are
 * whole slices the bits are those of the batch taken at once. A batch that is begun anew forgets
 * what was accumulated. -1 (permanent) when the loss or the gradient's norm is not finite: nothing
 * was updated. With a loss scale the norm's case is a skipped step, which is no error until the
 * scale has fallen to 0. */
void stepper_batch(struct stepper *s, uint64_t rows, uint64_t step, const struct ewc_term *terms,
                   int term_count);
void stepper_accumulate(struct stepper *s, uint64_t rows);
int stepper_update(struct stepper *s, uint64_t t, const struct optimizer_config *a,
                   struct step_result *result, struct err *e);

/* On a device apart: the update of a batch that is complete, and then the next batch may be begun
 * while the device still computes this one, of which at most one more may be waited for then.
 * stepper_asks: can the batch that is complete be asked for so? Else it is stepper_update's. */
int stepper_asks(const struct stepper *s);
void stepper_update_ask(struct stepper *s, uint64_t t, const struct optimizer_config *a);
/* The oldest step asked for: 1, *result is its own; 0, it is refused: nothing was updated, the
 * steps asked for behind it and the batch in work are forgotten, and stepper_update of the same
 * batch says why; -1: the device failed. */
int stepper_update_take(struct stepper *s, struct step_result *result, struct err *e);
int stepper_asked(const struct stepper *s); /* steps that are still to be taken */

/* The loss scale of HALF_F16: scale and tracker are state of the training, to be kept with the
 * moments; the stepper changes them in stepper_update. NULL where there is none. */
struct grad_scaler *stepper_scaler(struct stepper *s);

/* Where the bad number of the step that stepper_update refused came up first. */
struct step_fault {
    int layer;          /* place in the model; -1: in none: the loss, or the penalty */
    int backward;       /* in the gradient of the layer's parameters; else in its output */
    uint64_t row, rows; /* of the batch, the first of them and how many; rows 0: it is the loss's
                           size alone */
};
const struct step_fault *stepper_fault(const struct stepper *s);

/* Did the last stepper_update or stepper_evaluate fail because of numbers that are not finite or
 * too large, and not because rows or the device failed? */
int stepper_bad_number(const struct stepper *s);

/* Before rows come: a device apart makes steps of `rows` rows of zeros, so that what it makes at
 * first calls is made (kernels are loaded, the step is recorded), which takes tens of milliseconds.
 * All vectors are as they were. On the CPU, and where rows are graphs or carry states, nothing. */
void stepper_warm(struct stepper *s, uint64_t rows);

/* The three at once, for `rows` rows that are all gathered. */
int stepper_train(struct stepper *s, uint64_t rows, uint64_t step, uint64_t t,
                  const struct optimizer_config *a, const struct ewc_term *terms, int term_count,
                  struct step_result *result, struct err *e);

/* Of the pass that was just begun, of evaluation or renewal: its rows go round so many streams, at
 * most carried_rows (as many where this is not called), a row of each in turn, and no batch reaches
 * over the last one's. Their states begin at 0 and are the pass's own. */
void stepper_pass_streams(struct stepper *s, uint64_t streams);
/* The state of one stream becomes another's as well. stepper_pass_streams may be called again where
 * all streams have had a row: for the next ones fewer of them, or more, go on. */
void stepper_pass_move(struct stepper *s, uint64_t from, uint64_t to);

/* The running statistics of batchnorm anew, as torch.optim.swa_utils.update_bn: the plain mean over
 * the batches of one pass, in training mode (dropout is on, keyed by `step`). begin, then renew
 * once a batch. -1 (permanent) when a statistic is not finite, or the batch has one value a
 * channel. */
void stepper_renew_begin(struct stepper *s);
int stepper_renew(struct stepper *s, uint64_t rows, uint64_t step, struct err *e);

/* Means over the rows of the batches evaluated; of no target that counts they are NaN. */
struct evaluation_result {
    double loss, metric;
    uint64_t rows;
};

/* Forward only, dropout off: stepper_evaluate once for each batch of a pass. -1 (permanent) when a
 * loss is not finite. */
void stepper_evaluate_begin(struct stepper *s);
int stepper_evaluate(struct stepper *s, uint64_t rows, struct err *e);
struct evaluation_result stepper_evaluate_end(const struct stepper *s);

/* As stepper_evaluate, and the rows' outputs into outputs[rows, model outputs]. Rows gathered
 * without targets: what it adds to the pass's result means nothing. */
int stepper_predict(struct stepper *s, uint64_t rows, float *outputs, struct err *e);

/* Put the weights of products, as they are now, into 8 bits besides (engine/quantised.h), and have
 * evaluations compute with those while `on`. Weights that change afterwards need it again. The
 * bytes are those of the weights concerned before, and with their scales now. -1 (temporary): no
 * memory. */
struct int8_size {
    uint64_t float_bytes, bytes;
};
int stepper_quantise(struct stepper *s, struct int8_size *size, struct err *e);
void stepper_int8(struct stepper *s, int on);

/* Which squares stepper_fisher sums, and where. */
struct fisher_sums {
    uint64_t first, count; /* parameters, a range of the flat vector */
    float *at;             /* [count], added to */
    double *weight; /* NULL, or what the rows weigh together times target_steps is added, in their
                       order; where targets do not weigh a row is 1 */
    int factored;   /* `at` is that of engine/factors.h instead, of all parameters */
    enum fisher_labels labels;
    uint64_t key, position; /* FISHER_SAMPLED: draws are a function of the key and a row's place
                               among the samples; that of the batch's first row */
    /* NULL, or called once at[first] .. at[first + count - 1] are not needed for a while, which is
     * after about `resident` of them */
    void (*release)(void *argument, uint64_t first, uint64_t count);
    void *argument;
    uint64_t resident;
};

/* Exact per-sample squared gradients of the loss at those labels (dropout off), summed over the
 * `rows` rows gathered; where targets weigh a square weighs as much as its own. Not divided by
 * the number of samples or what they weigh. Only on a stepper opened without
 * optimizer, which keeps what this needs, and for labels that fisher_labels_check accepts; where
 * they are drawn they take the place of the rows' targets. FORMULAS "Exact per-sample Fisher" 1:
 * for a linear layer (delta^2)^T (x^2), delta the gradient of one sample's own loss. Same slices,
 * same order: independent of the number of threads. -1 (permanent) where a sum is not finite, with
 * the first layer and samples that are not; the sums are not usable then. */
int stepper_fisher(struct stepper *s, uint64_t rows, const struct fisher_sums *f, struct err *e);

/* Its threads, for other work between two calls. */
struct pool *stepper_pool(struct stepper *s);

/* Rows of a batch for it when a training batch has c->batch_rows_max: whole slices, at least one a
 * thread, but no more than the `samples` there are. The sums are the same for every such batch. */
uint64_t stepper_fisher_rows(const struct step_config *c, uint64_t samples);

/* What the CPU is ("AuthenticAMD 26/2 avx512"), and, for a checkpoint, what its bits depend on and
 * in parentheses what it is ("x86-64 fma 1 (AuthenticAMD 26/2 avx512)"; the number is a version).
 * Bits are those of every CPU whose arithmetic is the same, parentheses aside. */
void engine_cpu_name(char *text, size_t bytes);
void engine_cpu_arithmetic(char *text, size_t bytes);
int engine_cpu_same(const char *one, const char *other);

#endif
