/* layer.h - what a layer type is: its keys, its shapes, its tensors, and its mathematics on one
 * slice of rows.
 *
 * One file in engine/layers/ a type; engine/layer.c lists them. The stepper owns all memory and
 * tells a layer where to read and write; a layer keeps nothing of its own between calls. Widths are
 * values a row. A row is a matrix [steps, values]; where it is one vector, steps is 1.
 *
 * Where the data's rows are graphs, the layers up to a pool see a row a node, steps being 1: what
 * works on each vector by itself needs to know nothing of graphs. Which rows are of one graph
 * stands in pass.samples, its edges in pass.adjacency.
 */
#ifndef ENGINE_LAYER_H
#define ENGINE_LAYER_H

#include <stdint.h>

#include "engine/model.h"
#include "engine/ops.h"

enum {
    LAYER_KEYS_MAX = 4,
    LAYER_TENSORS_MAX = 64,
    LAYER_BUFFERS_MAX = 2,
    LAYER_CARRIED_MAX = 16,
    LAYER_WIDTH_MAX = 1 << 24
};

/* One key of a layer's line. The accepted numbers are low .. high, without high itself if
 * below_high; or the words, whose places are the values. */
struct layer_key {
    const char *name; /* NULL ends the list */
    int whole, required, below_high;
    double low, high, normal; /* normal: where it is not given */
    const char *const *words; /* NULL: a number; else NULL ends it */
};

struct quantised;  /* engine/quantised.h */
struct loss_slice; /* engine/loss.h */

/* What a layer can have in common with those beside it, where operations cost a launch: backward
 * does that of an activation behind it; and numbers in 16 bits come and go as such. */
enum layer_chain { CHAIN_NONE, CHAIN_ACTIVATION, CHAIN_HALVES };

/* What a layer may be given. */
enum layer_rows {
    ROWS_ANY,
    ROWS_NO_GRAPHS, /* vectors and sequences */
    ROWS_GRAPHS,    /* the nodes of graphs */
    ROWS_TOKENS,    /* the data's rows, which are vectors: whole numbers below token_count */
};

struct layer_instance {
    const struct layer_type *type;
    uint32_t place;                      /* in the list, from 0 */
    uint64_t steps, values;              /* a row as the layer sees it: [steps, values] */
    uint64_t steps_out, values_out;      /* as it leaves it */
    uint64_t inputs, outputs;            /* values a row: the products of those */
    int graphs, graphs_out;              /* a row is a node: as it sees it, as it leaves it */
    uint64_t edge_values;                /* graphs: features of an edge */
    int edges_used;                      /* set by infer: it reads edge_sums */
    uint64_t token_count;                /* set by infer, ROWS_TOKENS: see there */
    double keys[LAYER_KEYS_MAX];         /* of type->keys, in their order */
    uint64_t first, count;               /* its parameters' range in the flat vector */
    uint32_t tensor_first, tensor_count; /* in the model's tensors */
    uint64_t buffer_first;               /* its module buffers' range in theirs */
    uint32_t buffer_count;               /* tensors of those */
    uint64_t carried_first;              /* since model_carry: its values in the model's, a row */
    uint32_t carried_count;              /* tensors of those; 0: it carries nothing */
    uint32_t partner, depth;             /* residual_begin and _end: the other's place, nesting */
};

/* What a layer that `recomputes` leaves in pass.saved: all that backward and the squares read, or
 * little (activation checkpointing), from which backward computes the rest again, to the same bits;
 * or all, but in 16 bits where only backward reads it; or all in 16 bits, which products read, too.
 */
enum layer_keep { KEEP_ALL, KEEP_LITTLE, KEEP_HALF, KEEP_NARROW };

/* Of a micro-batch, per channel: mean and 1 / sqrt(variance + eps) of x, means of dy and of dy n, n
 * being x normalised. Where they come from module buffers d and dn are 0. */
struct statistics {
    double *mean, *scale, *d, *dn;
    double *variance; /* unbiased */
};

/* A slice's: mean of x and sum of squares about it, before forward; sums of dy and dy n, before
 * backward. */
struct statistics_part {
    double *first, *second;
};

/* One slice of a batch on its way through one layer. */
struct layer_pass {
    const struct backend *backend;
    uint64_t rows,
        row_first; /* of the slice, and its place in the batch; nodes where it is graphs */
    struct segments samples;   /* the steps of the slice's rows, or the nodes of its graphs */
    struct sparse adjacency;   /* graphs: A of layers/gcn.c, [rows, rows], */
    struct sparse transposed;  /* and its transposed */
    struct matrix edge_sums;   /* graphs whose edges have features: M there, [rows, edge_values] */
    uint64_t seed, step;       /* key randomness */
    const uint64_t *step_late; /* where the device reads the step; NULL: it is `step` */
    int training;              /* 0: evaluation and Fisher, dropout off */
    const float *parameters;   /* this layer's range */
    const float *weights;      /* the same as products read them: rounded to `half` */
    enum half half;            /* what is kept between layers; inside it is all float32 */
    /* Forward rounds its output to `half` by itself, after it the activation `then`
     * (ACTIVATION_COUNT: none), and leaves it in 16 bits at `kept`, too, unless that is NULL. */
    int finishes;
    enum activation then;
    uint16_t *kept;
    /* Of a type that takes_loss, the model's last layer: the loss of its outputs, which forward
     * then makes with them (loss_type.linear); NULL: that is done behind it. */
    const struct loss_slice *loss;
    void (*loss_linear)(const struct loss_slice *s, struct matrix x, struct matrix w,
                        const float *bias, uint16_t *kept);
    /* Of a type that finishes_back, or chains: its input in 16 bits (NULL: input has it, else that
     * is room for it); 1 + the activation that left it, whose backward is then part of this one, or
     * 0; whether it rounds d_input to `half` by itself. */
    const uint16_t *input_half;
    int before, d_input_rounds;
    float *gradient; /* the same range of the slice's gradient; backward writes all of it, */
    int adds;        /* or adds to it: the rows before these of the slice have been there */
    /* Of a type with stepwise: rows of a part. Its gradient is that of part after part, so that
     * they may come together or each as a slice (pass.adds); 0: that of all rows. */
    uint64_t part_rows;
    float *input, *output; /* [rows, inputs], [rows, outputs]; the same memory where in_place */
    /* Of a type that `rounds`, with half: where its output is kept too, NULL: it is not; and of
     * input and output the one that its backward reads. */
    uint16_t *output_half;
    const uint16_t *kept_half;
    /* Of a layer that chains: with `halves` (CHAIN_HALVES) operands of products are of 16 bits, the
     * weights at weights_half, the input at input_half unless that is NULL. Forward, output_unread:
     * only what is kept is wanted. Backward, `chained`: gradients that are in 16 bits are at
     * d_input_half, d_output_half, and behind the latter, where no gradient in 16 bits of that
     * place comes, there is as much room at behind_half; d_output is that at the output of the
     * activation `behind` (ACTIVATION_COUNT: of this layer), whose backward reads behind_kept;
     * d_input is to be that of the activation `before`, as above; turn: its place in the chain. */
    int chained, halves, output_unread;
    struct convolution_turn turn;
    const uint16_t *weights_half;
    uint16_t *d_input_half, *d_output_half, *behind_half;
    enum activation behind;
    struct mixed behind_kept;
    float *d_input, *d_output; /* d_input NULL: nobody needs it; the same memory where in_place */
    enum layer_keep keep;      /* KEEP_ALL where the layer does not recompute */
    float *saved;              /* what forward keeps for backward and the squares */
    float *scratch;            /* of one call */
    /* Of a layer with statistics, per channel: those over the micro-batch's rows, or in evaluation
     * and for the Fisher information those its module buffers tell; and of a slice, what
     * part_forward and part_backward write. */
    const struct statistics *statistics;
    const struct statistics_part *part;
    const float *skip;                 /* residual_end: the output of its residual_begin, or */
    const uint16_t *skip_half;         /* that in 16 bits; the other is NULL */
    float *d_skip;                     /* the gradient there, from residual_end to residual_begin */
    const struct quantised *quantised; /* engine/quantised.h; NULL: the weights are float32 */
    uint64_t lane;                     /* of its scratch */
    float *squares_input; /* what squares_begin makes of the input; may be the input itself */
    /* Of a layer that carries a state: its tensors one behind the other, [carried_rows, values]
     * each, of which the slice's rows begin at carried_row: as they were before the batch (NULL:
     * 0), and as forward leaves them (NULL: nobody asks; may be the same memory where there is no
     * backward). A row whose `begins` is not 0 begins at 0 all the same. */
    const float *carried;
    float *carried_next;
    uint64_t carried_rows, carried_row;
    const float *begins; /* [rows] */
};

/* A piece of a layer's parameters: whole rows of one of its tensors. */
struct tile {
    uint32_t tensor;          /* of the layer, from 0 */
    uint64_t row_first, rows; /* of the tensor; a vector is one row */
    uint64_t columns;         /* of a row */
    uint64_t first, count;    /* range in the layer's parameters; count 0: there is no such tile */
};

/* Scratch for a tile of squares, a thread's own. */
struct tile_work {
    float *squares; /* [tile->count] */
    struct squares_work products;
};

struct layer_type {
    const char *name, *purpose;
    struct layer_key keys[LAYER_KEYS_MAX + 1];
    int in_place;     /* forward may overwrite its input and backward its d_output */
    int same;         /* the output is the input itself: forward does nothing */
    int needs_output; /* backward reads the output, so the next layer must not overwrite it */
    /* Backward reads neither input nor output, and d_input has numbers of d_output, and 0, alone:
     * such a layer. NULL: none. */
    int (*copies)(const struct layer_instance *l);
    int finishes;      /* forward can do, in the same operation, what pass.finishes says */
    int takes_loss;    /* forward, where it finishes, can do what pass.loss says */
    int finishes_back; /* backward can do what pass.input_half and what follows it say */
    int activates;     /* 1 + its enum activation; 0: it is none */
    int quantises;     /* its matrices are used through layer_product alone */
    int rounds;        /* with half it rounds its output and d_input itself, and reads kept_half */
    int draws;         /* in training it reads pass.step, or where step_late points */
    int residual;      /* +1: residual_begin, -1: residual_end */
    enum layer_rows takes;
    int recomputes;                                 /* it knows KEEP_LITTLE and KEEP_HALF, */
    int (*narrows)(const struct layer_instance *l); /* and KEEP_NARROW, such a layer; NULL: none */
    enum layer_chain (*chains)(const struct layer_instance *l); /* NULL: it does not */
    int adds; /* backward knows pass.adds, and leaves the bits that it would of all rows at once */
    /* Parameters that each step of a row reads anew, behind the one before it. Its gradient is
     * summed over a slice's parts, as pass.part_rows says. NULL: none. */
    uint64_t (*stepwise)(const struct layer_instance *l);
    int (*forgets_input)(const struct layer_instance *l); /* backward reads neither input nor
                                                             output; NULL: it does */
    int spends;     /* backward or squares_begin leave less than they found: another backward needs
                       forward again */
    int statistics; /* forward and backward read pass.statistics, over all rows and steps, a channel
                       a value; the module buffers are running_mean and running_var */
    double eps;     /* added to their variance */

    /* From steps, values and keys: steps_out, values_out, tensor_count and tensors[] (name's last
     * part, rank, dims), then buffer_count and the module buffers behind them; graphs_out is graphs
     * unless it is set. -1 and *e where that cannot be. */
    int (*infer)(struct layer_instance *l, struct tensor_info *tensors, struct err *e);
    /* Of model_carry: carried_count and tensors[], as infer's, of rank 1: values a row. -1 and *e
     * where it cannot; NULL: it has no state. */
    int (*carry)(struct layer_instance *l, struct tensor_info *tensors, struct err *e);
    /* Fresh weights into the layer's range. NULL where there are none. */
    void (*initialise)(const struct layer_instance *l, uint64_t seed, float *parameters);
    /* Floats of pass.saved and pass.scratch for slices of up to `rows` rows (nodes of graphs),
     * UINT64_MAX where they do not fit; apart: on a device apart. NULL: none. */
    uint64_t (*saved_floats)(const struct layer_instance *l, uint64_t rows, enum layer_keep keep);
    uint64_t (*scratch_floats)(const struct layer_instance *l, uint64_t rows, enum layer_keep keep,
                               int apart);

    void (*forward)(const struct layer_instance *l, const struct layer_pass *p);
    void (*backward)(const struct layer_instance *l, const struct layer_pass *p);
    /* With statistics: a slice's part of them, before any slice goes forward (backward).
     * part_backward writes the gradient. */
    void (*part_forward)(const struct layer_instance *l, const struct layer_pass *p);
    void (*part_backward)(const struct layer_instance *l, const struct layer_pass *p);
    double (*momentum)(const struct layer_instance *l); /* of the running statistics */

    /* Per-sample squared gradients, after backward. squares_begin turns a slice's input (into
     * squares_input) and d_output into what tile_squares reads; NULL: nothing. tile_squares: sum
     * over the slice's samples of the squared gradient of the tile's parameters, added to
     * sums[tile->count]. NULL where there are no parameters. */
    void (*squares_begin)(const struct layer_instance *l, const struct layer_pass *p);
    /* After squares_begin, of a tensor with two dimensions: a sample's gradient of it is d_n^T x_n.
     * first.rows 0: it is 0. NULL: it has no such form. */
    void (*operands)(const struct layer_instance *l, const struct layer_pass *p, uint32_t tensor,
                     struct samples *d, struct samples *x);
    void (*tile_squares)(const struct layer_instance *l, const struct layer_pass *p,
                         const struct tile *tile, const struct tile_work *w, float *sums);
};

extern const struct layer_type *const layer_types[]; /* NULL ends the list */

/* NULL for a name that is not in the list. */
const struct layer_type *layer_type_named(const char *name);

/* y = x w^T + beta y with weights w [out, in] of the layer at p->weights, in 8 bits where the
 * pass is quantised: what forward of a layer type that `quantises` calls. */
void layer_product(const struct layer_instance *l, const struct layer_pass *p, struct matrix x,
                   struct matrix w, float beta, struct matrix y);

/* An infer for layers that change nothing of the shape. */
int layer_infer_same(struct layer_instance *l, struct tensor_info *tensors, struct err *e);

/* An initialise: U(-bound, bound) for all of the layer's parameters, keyed by (seed, tensor,
 * index). counts[tensor_count]: values of each tensor. */
void layer_initialise_uniform(const struct layer_instance *l, const uint64_t *counts, double bound,
                              uint64_t seed, float *parameters);

/* An initialise: weight 1, bias 0, a value of a row each. */
void layer_initialise_scale(const struct layer_instance *l, uint64_t seed, float *parameters);

/* A tile_squares for such a layer, whose squares_begin left dy n in squares_input. */
void layer_tile_squares_scale(const struct layer_instance *l, const struct layer_pass *p,
                              const struct tile *tile, const struct tile_work *w, float *sums);

static inline int layer_copies(const struct layer_instance *l)
{
    return l->type->copies && l->type->copies(l);
}

/* Tile number `tile` of layer `l` of `m`: a partition that depends on the layer alone. */
struct tile layer_tile(const struct model *m, const struct layer_instance *l, uint64_t tile);
uint64_t layer_tiles(const struct model *m, const struct layer_instance *l);

/* Values of its largest tile: what the stepper reserves. */
uint64_t layer_tile_floats_max(const struct model *m, const struct layer_instance *l);

#endif
