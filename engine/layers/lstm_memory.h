/* lstm_memory.h - where an LSTM's arrays lie: what a slice keeps of each layer, the blocks that its
 * steps are taken in, and the scratch (lstm_memory.c). What lstm.c and lstm_gradient.c share. */
#ifndef ENGINE_LAYERS_LSTM_MEMORY_H
#define ENGINE_LAYERS_LSTM_MEMORY_H

#include "engine/layers/lstm.h"

/* Where a slice's arrays of one layer are; of one direction: gates, c. Under KEEP_LITTLE there are
 * no gates, x is that of the layer below or none, and c is the one before each block but the first
 * [blocks - 1, rows, hidden]. Under KEEP_HALF gates and c are the ones in 16 bits. */
struct lstm_place {
    float *x;        /* [steps, rows, in] */
    float *h;        /* [steps, rows, directions hidden]; where it is carried, a step before them */
    float *gates[2]; /* [steps, rows, 4 hidden] */
    float *c[2];     /* [steps, rows, hidden] */
    uint16_t *gates_half[2], *c_half[2];
};

/* Steps that are worked on together: the k-th .. of those a direction takes. */
struct lstm_block {
    uint64_t number, k, steps;
    uint64_t first; /* the least of its steps, where the arrays begin */
    float *x, *gates, *c;
    const float *c_before;         /* c [rows, hidden] after the step before the k-th */
    float *c_after;                /* where that after the last one goes, if anywhere */
    uint16_t *gates_half, *c_half; /* under KEEP_HALF where it is kept */
};

/* Is x of a layer another array than h of the layer below it? */
int lstm_x_is_own(const struct layer_instance *l, uint64_t layer);
/* On a device apart? */
int lstm_is_apart(const struct layer_pass *p);
/* Blocks that a direction's steps are taken in. */
uint64_t lstm_blocks(const struct layer_instance *l, const struct layer_pass *p);
/* Of a layer, in the pass's `saved`. */
struct lstm_place lstm_place_of(const struct layer_instance *l, const struct layer_pass *p,
                                uint64_t layer);
/* Block `number` of a direction, which is kept or has its place in the scratch. */
struct lstm_block lstm_block_of(const struct layer_instance *l, const struct layer_pass *p,
                                const struct lstm_place *at, uint64_t layer, uint64_t direction,
                                uint64_t number);
/* c after the step before the k-th, a step of the block. */
const float *lstm_c_before(const struct layer_instance *l, const struct layer_pass *p,
                           const struct lstm_block *b, uint64_t direction, uint64_t k);

/* The rows of step t in a [steps, rows, width] array. */
struct matrix lstm_step_of(const struct layer_pass *p, const float *at, uint64_t width, uint64_t t);
/* Those of one direction in an array of both. */
struct matrix lstm_step_of_direction(const struct layer_instance *l, const struct layer_pass *p,
                                     const float *at, uint64_t direction, uint64_t t);
/* The k-th step that a direction takes. */
uint64_t lstm_step_number(uint64_t steps, uint64_t direction, uint64_t k);

/* ---- sizes and scratch ---- */

/* layer_type's saved_floats. */
uint64_t lstm_saved(const struct layer_instance *l, uint64_t rows, enum layer_keep keep);
/* layer_type's scratch_floats: the gradients at the outputs and the inputs of a layer, [steps,
 * rows, lstm_scratch_width] each, then the one at c, and c before the first step, [rows, hidden]
 * each; unless all is kept a block and the c before it; apart the sums over the steps of the
 * gradients of gates; else, where all is kept, a part's vectors. */
uint64_t lstm_scratch(const struct layer_instance *l, uint64_t rows, enum layer_keep keep,
                      int apart);
/* Values a row of those gradients. Nobody asks for the one at the model's input, which the first
 * layer with parameters has. */
uint64_t lstm_scratch_width(const struct layer_instance *l);
/* Steps of a part of so many rows that are brought together at a time, of a block. */
uint64_t lstm_part_steps(const struct layer_instance *l, uint64_t rows);

/* Places in the scratch: of the gradient at c. */
float *lstm_scratch_dc(const struct layer_instance *l, const struct layer_pass *p);
/* c before the first step. */
float *lstm_scratch_begin(const struct layer_instance *l, const struct layer_pass *p);
/* c before a block, where it is not kept as float32. */
float *lstm_scratch_before(const struct layer_instance *l, const struct layer_pass *p);
/* Of the gradients of gates over the steps, on a device apart. */
float *lstm_scratch_sums(const struct layer_instance *l, const struct layer_pass *p);
/* Where a part's vectors are brought together. */
float *lstm_scratch_part(const struct layer_instance *l, const struct layer_pass *p);

/* ---- the gradients of parameters (lstm_gradient.c) ---- */

/* Of `steps` steps from `first` on those that have an h before them: *d is the gradient at their
 * sums, whose array begins at gates, *before the h of the steps before them; no rows where there is
 * none. */
void lstm_recurrence_of(const struct layer_instance *l, const struct layer_pass *p,
                        const float *gates, const float *h, uint64_t direction, uint64_t first,
                        uint64_t steps, struct matrix *d, struct matrix *before);
/* The block's part of the gradient of this direction of the layer; backward begins with the last
 * block, which writes what the others add to, but where there were rows before these. */
void lstm_gradient_add(const struct layer_instance *l, const struct layer_pass *p,
                       const struct lstm_place *at, uint64_t layer, uint64_t direction,
                       const struct lstm_block *b);
/* Are the rows more than one part, whose gradients are added one after the other? */
int lstm_is_parted(const struct layer_pass *p);
/* When all blocks have gone back, which leaves the gates. */
void lstm_parts_gradient(const struct layer_instance *l, const struct layer_pass *p,
                         const struct lstm_place *at, uint64_t layer, uint64_t direction);

#endif
