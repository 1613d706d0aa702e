/* predict_private.h - shared by predict.c, predict_known.c and predict_sequences.c only. */
#ifndef TRAINERD_PREDICT_PRIVATE_H
#define TRAINERD_PREDICT_PRIVATE_H

#include "engine/scores.h"
#include "trainerd/predictions.h"
#include "trainerd/selection.h"
#include "trainerd/sequences.h"
#include "trainerd/trainer.h"
#include "trainerd/weights.h"

struct predictor {
    struct selection selection;
    const char *work, *out, *data_as;
    const char *like;  /* file that knows the names of classes and targets, or NULL */
    const char *times; /* file of the rows' moments, one int64 each; NULL: they have none */
    const char *data;  /* what the rows were made of; NULL: they are as they were given */
    int int8;
    char path[4096]; /* of the weights */
    struct options of_run, options;
    struct weights weights;
    struct trainer t; /* of it: options, model, stepper, batch, the validation feed */
    int feed_open, has_targets;
    float *outputs;             /* [batch_rows, outputs] */
    struct sequences sequences; /* where states go on */
    float *block;  /* [batch_rows + its rows, outputs] that are not yet written, the block's last */
    uint64_t held; /* rows of it that are done */
    uint64_t written;                     /* rows before those */
    struct scores *scores, *float_scores; /* of what is written; int8: and of the float weights */
    struct int8_size size;
    struct predictions *predictions;
    struct predictions_known known;
    char *class_names, *target_names; /* what it points to */
    int times_fd;                     /* -1: there is none */
    int64_t *moments;                 /* [batch_rows], of the rows that are added */
    double shown_s;
};

/* Until the feed has something to do. */
int predict_wait(struct feed *f, struct err *e);

/* p->outputs of the batch gathered, by one arithmetic or the other, and into scores. */
int predict_score(struct predictor *p, struct scores *scores, uint64_t rows, int int8,
                  struct err *e);

void predict_progress(struct predictor *p, uint64_t done); /* rows */

/* Fill p->known from p->like and p->times; the rows are open, and come batch_rows at a time. */
int known_open(struct predictor *p, uint64_t batch_rows, struct err *e);
/* Outputs of rows `first` to first + rows - 1 into the file, with what is known of them. */
int known_add(struct predictor *p, const float *outputs, uint64_t first, uint64_t rows,
              struct err *e);
void known_close(struct predictor *p); /* harmless twice */

/* All rows of a model that carries a state, which open makes ready for. A block has at least as
 * many rows as a batch. */
int predict_sequences_open(struct predictor *p, uint64_t batch_rows, struct err *e);
int predict_sequences(struct predictor *p, struct err *e);

#endif
