/* predict_sequences.c - `trainerd --predict` where states go on from row to row: block after block
 * in the order of the file, of each the first rows of all sequences, then the second ones, and so
 * on. Outputs are put back into the file's order and written in whole batches.
 */
#include <stdlib.h>
#include <string.h>

#include "trainerd/predict_private.h"

enum { BLOCK_ROWS = 4096, BLOCK_BYTES = 16 << 20 }; /* of sequences, and of their outputs */

int predict_sequences_open(struct predictor *p, uint64_t batch_rows, struct err *e)
{
    uint64_t row_bytes = p->t.model.outputs * sizeof *p->block, rows = BLOCK_BYTES / row_bytes;
    rows = rows < BLOCK_ROWS ? rows : BLOCK_ROWS;
    rows = rows < batch_rows ? batch_rows : rows;
    p->block = calloc(batch_rows + rows, row_bytes);
    if (!p->block)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the outputs of a block");
    return sequences_open(&p->sequences, batch_rows, rows, e);
}

/* Rows from `position` on, as many as have come and make a block. */
static int block_find(struct predictor *p, uint64_t position, struct err *e)
{
    struct trainer *t = &p->t;
    struct sequences *q = &p->sequences;
    uint64_t left = t->validation.info.order.rows - position, count = 0;
    while (!count) {
        megabatch_seek(&t->validation_rows, 0, position, 0);
        count = megabatch_rows(&t->validation_rows, 0, position,
                               left < q->rows_max ? left : q->rows_max, q->rows);
        if (!count && predict_wait(&t->validation, e) < 0)
            return -1;
    }
    sequences_cut(q, &t->validation.info.begins, count);
    stepper_pass_move(t->stepper, q->from, q->to);
    return 0;
}

/* The k-th row of each of the block's first `count` sequences. */
static int round_predict(struct predictor *p, uint64_t position, uint64_t k, uint64_t count,
                         struct err *e)
{
    struct trainer *t = &p->t;
    const struct sequences *q = &p->sequences;
    uint64_t bad = 0, outputs = t->model.outputs;
    for (uint64_t i = 0; i < count; i++)
        t->batch.rows[i] = q->rows[q->all[i].first + k];
    if (batch_gather_found(t, &t->validation_rows, &t->gather_validation, count, &bad, e) < 0)
        return batch_row_error(&t->validation, 0, position + q->all[bad].first + k, e);
    stepper_pass_streams(t->stepper, count);
    if ((p->int8 && p->has_targets && predict_score(p, p->float_scores, count, 0, e) < 0) ||
        predict_score(p, p->scores, count, p->int8, e) < 0)
        return -1;
    for (uint64_t i = 0; i < count; i++)
        memcpy(p->block + (p->held + q->all[i].first + k) * outputs, p->outputs + i * outputs,
               outputs * sizeof *p->outputs);
    return 0;
}

/* What is done, in whole batches, but at the end of the file. */
static int block_write(struct predictor *p, int last, struct err *e)
{
    uint64_t outputs = p->t.model.outputs, most = p->sequences.streams, done = 0, rows;
    for (; p->held - done >= most || (last && p->held > done); done += rows) {
        rows = p->held - done < most ? p->held - done : most;
        if (known_add(p, p->block + done * outputs, p->written, rows, e) < 0)
            return -1;
        p->written += rows;
    }
    p->held -= done;
    memmove(p->block, p->block + done * outputs, p->held * outputs * sizeof *p->block);
    return 0;
}

int predict_sequences(struct predictor *p, struct err *e)
{
    const struct sequences *q = &p->sequences;
    uint64_t all = p->t.validation.info.order.rows, count;
    for (uint64_t at = 0; at < all; at += q->block_rows) {
        if (block_find(p, at, e) < 0)
            return -1;
        for (uint64_t k = 0; (count = sequences_with(q, k)) > 0; k++)
            if (round_predict(p, at, k, count, e) < 0)
                return -1;
        p->held += q->block_rows;
        if (block_write(p, at + q->block_rows == all, e) < 0)
            return -1;
        predict_progress(p, at + q->block_rows);
    }
    return 0;
}
