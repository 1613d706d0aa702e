/* stepper.h - inside of the stepper: its memory, and what its files share. step.h is the face for
 * others.
 *
 *   stepper.c  sizes, plan, open, close
 *   layout_lane.c  where a slice's buffers lie
 *   slice.c    one slice forward and backward, waves of slices
 *   gather.c   rows into the batch
 *   step.c     the optimizer step
 *   ahead.c    steps that are asked for before the one before is known
 *   statistics.c  what crosses slices: batchnorm, phase by phase
 *   segments.c activation checkpointing: where the layer list is cut
 *   parts.c    the same: into how many parts slices are
 *   fisher.c   per-sample squared gradients
 *   optimizer.c  the update of a block
 *   quantised.c  weights in 8 bits
 *   fault.c    where a bad number came from
 *   penalty.c  the EWC terms of a block
 *   graphs.c   rows that are graphs into the batch
 *   targets.c  their targets, and what those weigh
 *   carried.c  states that go on from batch to batch
 *
 * A lane is the memory of one slice in flight: activations, gradients at activations, and the
 * slice's gradient. There are as many lanes as threads; wave w runs slices w * lanes .. w * lanes +
 * lanes - 1, slice k in lane k mod lanes. Which thread works in a lane does not matter. Where a
 * layer has statistics, training has a lane for every slice of the batch (but gradients for as many
 * as there are threads).
 *
 * Where layout.parts is more than 1, activation checkpointing cuts each slice into so many parts of
 * its rows. All that is called a slice here is then such a part, config.slice_rows its rows, but
 * for two things: a lane takes the parts of a slice one after the other, and they share its
 * gradient, to which each adds.
 */
#ifndef ENGINE_STEPPER_H
#define ENGINE_STEPPER_H

#include "engine/counts.h"
#include "engine/device.h"
#include "engine/layer.h"
#include "engine/loss.h"
#include "engine/memory.h"
#include "engine/quantised.h"
#include "engine/step.h"
#include "engine/threads.h"

/* Parameters of a block of the sweeps: sums are kept a block, so that their order is fixed. 16 KiB
 * of float32: a block stays in the first-level cache from the sum of slices to the norm. */
enum { SWEEP_BLOCK = 4096 };

enum kind {
    KIND_PARAMETERS,
    KIND_WEIGHTS,
    KIND_GRADIENT,
    KIND_MOMENTS,
    KIND_SLICE_GRADIENTS,
    KIND_ACTIVATIONS,
    KIND_BATCH,
    KIND_STATISTICS,
    KIND_PARTS,
    KIND_SUMS,
    KIND_SQUARES,
    KIND_CARRIED,
    KIND_ARRIVAL,
    KIND_STAGE, /* from here on: in the host's memory, where the device has its own */
    KIND_MIRROR,
    KIND_COUNT
};

/* A layer's buffers: 0 is the batch's input, 1.. are the lane's. in == out: in place. */
struct route {
    uint32_t in, out;
};

/* All sizes, from the model and the configuration alone; counts of floats unless they say
 * otherwise. */
struct layout {
    uint64_t bytes[KIND_COUNT];
    uint64_t slices_max, lanes;
    uint64_t part_rows;        /* with checkpointing or without it: see struct layer_pass; or 0 */
    uint64_t parts;            /* of a slice, see above; slices_max counts them */
    uint64_t gradient_lanes;   /* lanes, or where a layer has statistics as many as work at once */
    uint64_t parameters;       /* padded to whole cache lines */
    uint64_t frozen, backbone; /* the first parameters of the flat vector, not padded */
    uint64_t trained;          /* the rest behind the frozen ones, padded to whole cache lines */
    uint64_t lane_inputs;      /* of the batch's input in a slice, padded */
    uint64_t lane_activations; /* activations and gradients at them, one lane */
    uint64_t tile;             /* largest tile of squares */
    uint64_t squares;          /* scratch of a thread for them: three tiles, what is packed */
    uint64_t blocks;           /* of the sweeps */
    uint64_t slice_gradients;  /* buffers of `parameters` floats */
    uint32_t buffers;          /* of a lane, numbered from 1 */
    uint32_t forward_buffers;  /* the first ones of them: only frozen layers read those */
    uint32_t first_trained;    /* first layer with parameters that are not frozen */
    uint32_t statistics_count; /* layers with statistics, in their order */
    uint32_t statistics_layer[MODEL_LAYERS_MAX];
    uint64_t channels_max; /* of those */
    enum half half;        /* what activations are kept in */
    uint64_t work_at;      /* with half: float32 of an odd buffer in forward, and of the one that
                              backward reads */
    uint64_t work_even_at[MODEL_LAYERS_MAX]; /* by segment: of an even buffer in forward */
    uint64_t scratch_at;                     /* in the lane: of the layer at work */
    uint32_t segments; /* of the layer list, one after the other; 1: nothing is recomputed */
    uint32_t segment_first[MODEL_LAYERS_MAX + 1]; /* layer; the last number is the layers' count */
    uint32_t again_end[MODEL_LAYERS_MAX]; /* by segment: backward runs its layers before this one
                                             forward again, as the rest is still there */
    struct route route[MODEL_LAYERS_MAX];
    uint64_t activation_at[MODEL_LAYERS_MAX + 1]; /* in the lane, by buffer */
    char unread[MODEL_LAYERS_MAX +
                1]; /* by buffer: nobody reads it but the layer behind it, forward */
    uint64_t delta_at[MODEL_LAYERS_MAX + 1];
    uint64_t delta_floats[2]; /* in training: of the places of odd and even ones, [b % 2] */
    uint64_t saved_at[MODEL_LAYERS_MAX]; /* by layer: what its forward keeps */
    uint64_t skip_at[MODEL_LAYERS_MAX];  /* residual pairs: the gradient that passes by */
};

/* A sweep's block: on a device apart everything, whose operations are a launch each. */
struct stepper;
static inline uint64_t sweep_block(const struct stepper *s);

/* The edges of the batch's graphs as A of layers/gcn.c or as its transposed. */
struct adjacency {
    uint32_t *begin;  /* [nodes + 1] */
    uint32_t *column; /* [nodes + edges], node of the slice */
    float *value;
};

/* The batch's graphs, where rows are graphs. Node n of graph g is row node_ptr[g] + n of the
 * stepper's inputs. */
enum { GRAPH_DEGREES = 16 };
struct graph_batch {
    uint64_t rows;                 /* graphs gathered */
    uint64_t nodes_done;           /* of the batch's micro-batches that are accumulated */
    uint64_t *node_ptr, *edge_ptr; /* [batch_rows_max + 1] */
    uint32_t *sources, *targets;   /* [edges], nodes of the graph */
    uint32_t *degree;              /* [nodes], own loop and edges that end there */
    struct adjacency in, out;      /* A and its transposed */
    float *edge_sums;              /* [nodes, edge_inputs]: M of layers/gcn.c */
    float *edge_rows;              /* [threads, edge_inputs], scratch */
    float coefficients[GRAPH_DEGREES][GRAPH_DEGREES]; /* of two nodes' degrees, from 1 on */
};

/* What a device apart tells of a batch, in one download: sums, and for each piece of it that was
 * gathered there the first rows whose features, targets and weights cannot be used, or its
 * rows. */
enum { GATHER_PIECES_MAX = STEP_PIECES_MAX };
struct batch_results {
    double norm2, penalty, loss, weight;
    uint64_t bad[GATHER_PIECES_MAX][STEP_BADS]; /* the last: of begins, all of which are good */
    struct step_verdict verdict;                /* of steps that are asked for (ahead.c) */
};

/* Rows `at` .. at + count - 1 of the batch, gathered at once on the device. */
struct gather_piece {
    struct gather_config config;
    uint64_t before, at, count; /* rows of the batch before its micro-batch; places there */
    int targets;
};

/* What the operations of a micro-batch depend on, and their recording (recording.c). */
enum { RECORDINGS_MAX = 32 };
struct recording_key {
    uint64_t rows, done, batch_rows, terms;
    uint64_t nodes; /* of graphs: computed */
    double scale;
};
struct recording {
    struct recording_key key;
    uint64_t used; /* clock of its last use; 0: never */
    struct device_graph *graph;
};

/* Parts of the batch's region. */
enum { ROW_PLACES = 4 };
struct batch_arrays {
    float *inputs;     /* [batch_rows_max, inputs], or [batch_nodes_max, inputs] */
    uint32_t *classes; /* [batch_rows_max, target_steps], where the loss takes classes */
    float *values;     /* [batch_rows_max, outputs], where it takes values */
    float *begins; /* [batch_rows_max]: not 0 where a row goes on from nothing; NULL: none carries
                      a state */
    struct graph_batch graphs; /* empty where rows are no graphs */
    double *losses, *metrics;  /* [batch_rows_max, target_steps] */
    /* Where targets weigh: what each does, [batch_rows_max, outputs or target_steps]; what a row's
     * were given together, where that is one number; what a class there would weigh if classes
     * did not, where they do and labels may be the model's (without an optimizer; else NULL); sums
     * of a row, or of its steps; and model.target_weights. */
    float *weights, *row_given, *class_given, *of_targets;
    double *row_weights;
    double *target_sums, *target_squares, *target_counts; /* [outputs], of the evaluation, where
                                                             there are values */
    struct class_counts *counts; /* [outputs], of the evaluation, where there are classes */
    uint64_t *step;              /* of training: what keys dropout */
    const void **rows;           /* [ROW_PLACES, batch_rows_max], places of rows on the device: of
                                    features, of targets, of weights, of begins */
    uint32_t *permutation;       /* [inputs], for rows on the device */
};

/* Copies of what a device apart has, for those who read and write it: checkpoints. */
struct device_vectors {
    float *parameters, *moments, *module_buffers, *carried;
    float *gradient; /* the last batch's, for tests: NULL until asked for */
    float *tile;     /* of squares */
};

/* A protected task as a device apart has it: the host's term and its copies. */
enum { SENT_TERMS_MAX = 64 };
struct sent_term {
    struct ewc_term from, to;
    void *theta_star, *fisher;    /* device memory */
    struct importance importance; /* tensors of it */
};

/* Of the batches evaluated since stepper_evaluate_begin. */
struct evaluation_sums {
    double loss, metric;
    double weight, counted; /* where targets weigh: what the losses do; what the metric counts */
    uint64_t rows;
};

/* Steps that may be asked for before the first of them is taken (ahead.c): so many places for what
 * is sent from the host and comes back there. */
enum { STEPS_AHEAD = 2 };

/* The training batch in work. */
struct batch_state {
    uint64_t rows, done;          /* of all its micro-batches; of those accumulated */
    uint64_t step, micro_batches; /* the key of dropout; those accumulated */
    double scale;                 /* of the loss */
    uint64_t resident;            /* rows of the last micro-batch */
    int unsent;                   /* a term could not be sent, for this reason: */
    struct err why;
    const struct ewc_term *terms;
    int term_count;
};

/* What layers carry (carried.c): of training as the last update left it, and as the batch in work
 * will; of other passes, without an optimizer in 8 bits besides. Each [values][carried_rows]. */
enum carried_set { CARRIED_NOW, CARRIED_NEXT, CARRIED_PASS, CARRIED_PASS_INT8, CARRIED_SETS };

struct carried_state {
    float *set[CARRIED_SETS];   /* NULL: there is none */
    uint64_t streams;           /* of the pass */
    uint64_t row[CARRIED_SETS]; /* of a pass: the stream that comes next */
};

struct stepper {
    const struct model *model;
    const struct device *device;
    const struct backend *backend;
    const struct loss_type *loss;
    const struct metric_type *metric;
    struct step_config given, config; /* as it was asked for; with the slices that there are */
    struct layout layout;
    struct region region[KIND_COUNT];
    struct pool *pool;

    float
        *weights; /* the parameters as products read them; the parameters themselves without half */
    uint16_t *weights_half; /* those in 16 bits, where layers chain so and the device is fast at
                               that (weights_narrow); else NULL */
    struct grad_scaler scaler;
    float *parameters, *gradient, *moment_m, *moment_v;
    /* The batch where it is computed, and where the host reads and writes it: the same memory on
     * the CPU; else `host` is a stage, from which batch_send sends what was gathered. */
    struct batch_arrays at, host;
    struct device_vectors mirror; /* host copies of the flat vectors; empty on the CPU */
    int mirror_locked;            /* page-locked */
    enum { FETCH_NONE, FETCH_BEGUN, FETCH_DONE } fetch; /* of it, since the last update */
    struct sent_term sent[SENT_TERMS_MAX];
    int sent_count;
    uint64_t terms_version; /* another one where terms, lambda or damping are */
    struct recording recordings[RECORDINGS_MAX];
    uint64_t recording_clock;
    int records_nothing;                /* the device cannot */
    struct batch_results *results;      /* the device's */
    struct batch_results *results_host; /* where they come to, page-locked */
    struct step_told *told; /* [STEPS_AHEAD], what a step that was asked for tells, too */
    struct gather_piece pieces[GATHER_PIECES_MAX];
    uint64_t
        places_sent[STEPS_AHEAD]; /* the first ones of host.rows, which may not be written yet */
    int ahead;                    /* which of those the batch in work has */
    uint64_t asked_rows[STEPS_AHEAD]; /* of steps that were asked for and not taken; 0: none */
    uint64_t *stage_step;             /* [STEPS_AHEAD], of which host.step is one */
    const void **stage_rows, **device_rows; /* [STEPS_AHEAD, ROW_PLACES, batch_rows_max], of which
                                               host.rows and at.rows are one each */
    uint64_t permuted;         /* features of the permutation that was sent; 0: none was */
    int bad_number;            /* see stepper_bad_number */
    uint32_t piece_count;      /* of the batch in work, gathered on the device */
    uint32_t pieces_forgotten; /* it had more of them, which were looked at */
    uint64_t sent_rows;        /* of the batch that was sent; 0: none since rows were gathered */
    double *block_norm2, *block_penalty; /* [blocks] */
    int weights_current;                 /* on a device apart: see weights_round */
    double *loss_sum;                    /* of the batch's rows done, in their order */
    double *weight_sum;                  /* of the same and the micro-batch at work, behind it */
    int weighted;                        /* targets weigh */
    int sums_clear; /* on a device apart: penalty and those two are 0 there already */
    struct evaluation_sums sums;
    struct batch_state batch;
    struct carried_state carried;
    struct step_fault fault;                        /* of that batch; rows 0: none */
    struct statistics statistics[MODEL_LAYERS_MAX]; /* [statistics_count] */
    struct statistics_part part_alone;              /* what parts is where a batch is one slice */
    struct statistics_part *parts;                  /* [slices_max] */
    float *module_buffers;        /* as the model has them, after the last update */
    float *module_buffers_next;   /* after the micro-batches since */
    uint64_t renewed, renew_step; /* batches since stepper_renew_begin; what keys their dropout */
    float *tiles;                 /* [threads, squares]: see layout */
    float *input_squares;         /* [lanes, slice_rows, inputs] */
    struct quantised quantised;   /* since stepper_quantise */
    int int8;                     /* evaluations use it */
};

/* Numbers of the gradient. */
static inline uint64_t gradient_count(const struct stepper *s)
{
    return s->model->parameter_count - s->layout.frozen;
}

static inline uint64_t sweep_block(const struct stepper *s)
{
    return s->device->apart ? s->model->parameter_count : SWEEP_BLOCK;
}

/* As pool_run; what asks a device apart for operations has one thread, as their order is one. */
static inline void stepper_run(const struct stepper *s, pool_task *task, void *argument,
                               uint64_t items)
{
    if (!s->device->apart)
        pool_run(s->pool, task, argument, items);
    for (uint64_t i = 0; s->device->apart && i < items; i++)
        task(argument, i, 0);
}

/* The batch's `rows` rows, gathered on the host, to where they are computed. */
void batch_send(struct stepper *s, uint64_t rows);
/* Waits for a device apart, while config.meanwhile does what it wants to; or for a mark there. */
void stepper_wait(struct stepper *s);
void stepper_wait_for(struct stepper *s, int mark);
/* Waits for the device's results. -1: it failed, or a row that was gathered there cannot be used,
 * which becomes s->fault; *e says what. */
int results_fetch(struct stepper *s, struct batch_results *r, struct err *e);
/* The first row of the pieces that cannot be used: -1, its sentence and s->fault. */
int pieces_check(struct stepper *s, const struct batch_results *r, struct err *e);

/* After the sweeps, of `rows` rows: what the sums say. */
void step_result_fill(const struct stepper *s, uint64_t rows, const double *sums,
                      struct step_result *r);
/* The update sweep. */
void update_run(struct stepper *s, const struct optimizer_config *a, uint64_t t, double norm,
                const struct step_verdict *late);
/* y = x with the update; late: unless that verdict, which is still to come, refuses the step. */
void step_commit(const struct stepper *s, const struct step_verdict *late, const float *x, float *y,
                 uint64_t count);
/* The host's part of the batch's region for the batch in work: what is sent from there. */
void ahead_place(struct stepper *s);

/* What was fetched ahead is not what the device has any more. */
void fetch_drop(struct stepper *s);

/* The step that keys dropout, where a device apart reads it. */
void step_send(struct stepper *s, uint64_t step);

/* Before the host writes to the batch's arrays. */
void batch_claim(struct stepper *s);
/* `bytes` of the device's at `at`, a part of the batch's region, into their host counterpart, where
 * they are when it was waited for the device. */
void batch_fetch(const struct stepper *s, const void *at, uint64_t bytes);
/* The targets of rows that were gathered there, likewise. */
void targets_fetch(const struct stepper *s, uint64_t rows);

/* The batch's terms where the device reads them; sent once. -1 (temporary): no room. */
int terms_send(struct stepper *s, struct err *e);
void terms_close(struct stepper *s);

void micro_batch_compute(struct stepper *s, uint64_t rows);
/* micro_batch_compute by its recording: 1; 0: there is none yet, and nothing was done. */
int recording_run(struct stepper *s, uint64_t rows);
void recordings_close(struct stepper *s);

/* What the slices of a batch go through. */
enum slice_work { SLICE_TRAIN, SLICE_EVALUATE, SLICE_FISHER, SLICE_RENEW };

struct batch_work {
    struct stepper *s;
    enum slice_work work;
    uint64_t rows;       /* resident */
    uint64_t wave_first; /* slice of the wave's lane 0 */
    uint32_t phase;      /* layers with statistics that all slices are behind */
    float *outputs; /* [rows, outputs] where an evaluation keeps them; NULL: nobody wants them */
    const struct fisher_sums *fisher; /* SLICE_FISHER */
    uint64_t pass;                    /* of fisher_labels_passes, from 0 */
    int backward_only;                /* what forward left is still there */
};

static inline uint64_t batch_slices(const struct stepper *s, uint64_t rows)
{
    return (rows + s->config.slice_rows - 1) / s->config.slice_rows;
}

/* Slices whose gradients are added, of so many that are worked on. */
static inline uint64_t slice_sums(const struct stepper *s, uint64_t slices)
{
    return (slices + s->layout.parts - 1) / s->layout.parts;
}

static inline uint64_t slice_rows(const struct stepper *s, uint64_t rows, uint64_t slice)
{
    uint64_t left = rows - slice * s->config.slice_rows;
    return left < s->config.slice_rows ? left : s->config.slice_rows;
}

/* Buffers and places in a lane for the segments that y has. */
void layout_lane(struct layout *y, const struct model *m, const struct step_config *c);

/* The configuration that slices are worked on with: with checkpointing config.slice_rows is a
 * part's, where parts pay (parts.c); on a device apart all rows are one slice. */
struct step_config config_on(const struct model *m, const struct step_config *c);

/* Rows of a part, where the order of sums follows the parts whether slices are cut or not; 0: it
 * does not. */
uint64_t part_rows_of(const struct model *m, const struct step_config *c);

static inline int config_is_apart(const struct step_config *c)
{
    return c->device && c->device->apart;
}

/* Segments for c, of those that were tried the ones that make the lane smallest; and its layout. */
void segments_choose(struct layout *y, const struct model *m, const struct step_config *c);

/* The same with one cut, before that layer; for tests. */
void segments_cut(struct layout *y, const struct model *m, const struct step_config *c,
                  uint32_t before);

/* Do activations have 16 bits, and of which kind? */
static inline enum half layout_half(const struct step_config *c)
{
    return c->with_optimizer ? c->half : HALF_NONE;
}

/* Bytes of all sets of what the model carries; a set's floats. */
uint64_t carried_bytes(const struct model *m, const struct step_config *c);
uint64_t carried_floats(const struct model *m, const struct step_config *c);
void carried_place(struct stepper *s);
/* The begins of rows as batch_arrays has them: of `rows` rows, from number `first` on of those the
 * gather was given, at `at`; and of rows on the device, there, whose places are sent. */
void begins_gather(struct stepper *s, const struct gather_config *c, uint64_t first, uint64_t at,
                   uint64_t rows);
void begins_gather_there(struct stepper *s, const struct gather_config *c, uint64_t at,
                         uint64_t rows, uint64_t *bad);
/* What layer `l` gets for the slice. */
void carried_pass(const struct batch_work *b, uint64_t slice, const struct layer_instance *l,
                  struct layer_pass *p);
void carried_commit(struct stepper *s,
                    const struct step_verdict *late);        /* the batch's states count */
void carried_pass_begin(struct stepper *s);                  /* of evaluation or renewal */
void carried_pass_advance(struct stepper *s, uint64_t rows); /* its next rows have gone forward */

/* With half: weights are the present parameters, rounded. On a device apart the update leaves them
 * so, and there is something to do only after stepper_send. */
void weights_round(struct stepper *s);
/* weights_half = the weights, if there are to be some. */
void weights_narrow(struct stepper *s);

/* What the layer keeps in training with c. */
enum layer_keep layer_keep_of(const struct layer_instance *l, const struct step_config *c);

/* The segment that a layer is in. */
static inline uint32_t layer_segment(const struct layout *y, uint32_t layer)
{
    uint32_t k = 0;
    while (y->segment_first[k + 1] <= layer)
        k++;
    return k;
}

/* Neither it nor a layer before it is trained. */
static inline int layer_is_frozen(const struct layout *y, uint32_t layer)
{
    return y->frozen && layer < y->first_trained;
}

/* Runs up to `lanes` slices, of all parts, from b->wave_first on; returns how many. */
uint64_t wave_run(struct batch_work *b);

/* One slice, of all parts from `slice` on, through all of it, in its lane, by the caller. */
void slice_run_alone(struct batch_work *b, uint64_t slice);

/* The first row of the resident micro-batch with a bad loss becomes s->fault, unless there is one.
 */
void fault_of_losses(struct stepper *s, uint64_t rows);
/* The batch's gradient is bad, its losses are not: it becomes s->fault. */
void fault_of_gradient(struct stepper *s);

/* A sum of squares is not finite, or a loss. bad: place and 1 of the last layer with such sums, 0:
 * none has. -1 and the sentence; it becomes s->fault. */
int fault_of_fisher(struct batch_work *b, uint32_t bad, struct err *e);

/* Layers first .. end - 1 of a slice; backwards what was not kept is computed again. */
void slice_forward(const struct batch_work *b, uint64_t slice, uint32_t first, uint32_t end);
void slice_backward(const struct batch_work *b, uint64_t slice, uint32_t first, uint32_t end);

/* Losses of the slice's rows, and unless evaluating the gradient at the outputs: of the batch's
 * mean when training, of each sample's own loss for the Fisher information. */
void slice_loss(const struct batch_work *b, uint64_t slice);

/* Before the layer's backward: its segment's activations. */
void slice_again(const struct batch_work *b, uint64_t slice, uint32_t layer);

/* With statistics, training: all slices forward, layer group by layer group; then back, where
 * add(argument, first slice, slices, first layer, end) is called for every wave of slices whose
 * gradients of those layers are in their lanes. */
void statistics_forward(struct batch_work *b);
typedef void statistics_add(void *argument, uint64_t first, uint64_t count, uint32_t layer_first,
                            uint32_t layer_end);
void statistics_backward(struct batch_work *b, statistics_add *add, void *argument);
/* The running statistics take in those of the micro-batch: momentum as the layer has it, or if
 * `batches` the cumulative mean over so many. */
void statistics_take(struct stepper *s, uint64_t batches);
/* What the micro-batches of a batch made of them counts with the update, or not at all. */
void statistics_commit(struct stepper *s, const struct step_verdict *late);
void statistics_restore(struct stepper *s);
/* Without training: statistics are the running ones. */
void statistics_use(struct stepper *s);

/* What layer number `layer` gets for the slice, and on the way back. */
struct layer_pass slice_pass_backward(const struct batch_work *b, uint64_t slice, uint32_t layer);
struct layer_pass slice_pass(const struct batch_work *b, uint64_t slice, uint32_t layer);

/* The lane's buffers; buffer 0 is the input of the slice that is in the lane. With half
 * lane_activation is forward's float32 as that layer has it, and what is kept is at lane_half. */
float *lane_activation(const struct stepper *s, uint64_t slice, uint32_t layer, uint32_t buffer);
float *lane_delta(const struct stepper *s, uint64_t slice, uint32_t buffer);
/* Where the gradient of the slice with that number, all its parts, goes: the batch's own for its
 * first slice, else the lane's. */
float *slice_gradient(const struct stepper *s, uint64_t number);

/* Most rows that a layer sees of a slice, or leaves: nodes where they are of graphs. */
uint64_t rows_most(const struct step_config *c, int graphs);

/* Where the parts of struct graph_batch lie in the batch's region: bytes[] of each; and pointers to
 * them from places[]. Those from GRAPH_SENT on, which say how the others are made, have a place in
 * the host's memory alone. */
enum graph_part {
    GRAPH_NODE_PTR,
    GRAPH_IN_BEGIN,
    GRAPH_IN_COLUMN,
    GRAPH_IN_VALUE,
    GRAPH_OUT_BEGIN,
    GRAPH_OUT_COLUMN,
    GRAPH_OUT_VALUE,
    GRAPH_EDGE_SUMS,
    GRAPH_SENT,
    GRAPH_EDGE_PTR = GRAPH_SENT,
    GRAPH_SOURCES,
    GRAPH_TARGETS,
    GRAPH_DEGREE,
    GRAPH_EDGE_ROWS,
    GRAPH_PARTS
};
void graphs_bytes(const struct model *m, const struct step_config *c, uint64_t bytes[GRAPH_PARTS]);
void graph_coefficients_fill(struct stepper *s); /* where the batch lies is known */
void graphs_place(struct graph_batch *g, char *region, const uint64_t places[GRAPH_PARTS]);
/* Nodes that the layers of a training micro-batch compute which has so many. */
uint64_t graphs_nodes(const struct stepper *s, uint64_t nodes);
/* The host's part of those that it does not have. */
void graphs_pad(struct stepper *s, uint64_t rows);

/* Do targets of this model and configuration weigh? */
int weighs(const struct model *m, const struct step_config *c);

/* Do the gather's targets and weights go with the model and the stepper? -1 (permanent) if not. */
int targets_config_check(const struct stepper *s, const struct gather_config *c, struct err *e);

/* Targets of `rows` rows, from number `first` on of those the gather was given, and what they
 * weigh, into the batch's places from `at` on; *bad is the first that the loss does not take, or
 * rows. */
void targets_gather(struct stepper *s, const struct gather_config *c, uint64_t first, uint64_t at,
                    uint64_t rows, const void *const *targets, uint64_t *bad);
/* The sentence for one that it does not take, or for its weights; the row is at `at`. */
int target_tell(struct stepper *s, const struct gather_config *c, uint64_t first, uint64_t at,
                const void *const *targets, struct err *e);
/* The same of rows on the device, where they are: *bad and *bad_weight. */
void targets_gather_there(struct stepper *s, const struct gather_config *c, uint64_t at,
                          uint64_t rows, uint64_t *bad, uint64_t *bad_weight);

/* The model's own labels of a slice, which begins at `row`, weigh what their classes do: into
 * s->at.weights what those drawn do, or, as they are all taken, what is expected. */
void labels_weigh(const struct stepper *s, const struct loss_slice *l, uint64_t row,
                  enum fisher_labels labels);

/* What the targets of a slice weigh that begins at that row of the batch, as b has them. */
struct weighting targets_weights(const struct stepper *s, const struct batch_arrays *b,
                                 uint64_t row, enum weight_use use);
/* `sum` and what the `rows` rows gathered weigh, added in their order: of their losses, or of
 * what a metric counts. */
double evaluation_weights(struct stepper *s, double sum, uint64_t rows, enum weight_use use,
                          int whole_rows);

/* `sum` and the numbers of rows and their steps, added in their order: over target_steps it is the
 * sum of the rows' means. */
double rows_sum(double sum, const double *numbers, uint64_t count);

/* A metric about the targets' mean or about 0: 1 - mean / spread, from sums, squares and counts of
 * the targets [outputs]. */
double metric_of_spread(const struct metric_type *m, double mean, const double *sums,
                        const double *squares, const double *counts, uint64_t outputs);

#endif
