/* continual.h - what a run of several tasks, one after the other, kept of each: the matrix of
 * results and the figures that follow from it.
 *
 * R[i][j] is the metric on the data of task j when task i has ended, T the number of tasks, b[j]
 * the same for the weights that the run began with. Signs are such that more is better, for metrics
 * of which less is (loss, mae) too; figures in the metric's unit. Comparisons are no tasks here:
 * they make the second matrix, "without EWC".
 *
 *   average            mean over j of R[T][j]
 *   backward transfer  mean over j < T of R[T][j] - R[j][j]         (Lopez-Paz and Ranzato 2017)
 *   forward transfer   mean over j > 1 of R[j-1][j] - b[j]          (the same)
 *   forgetting         mean over j < T of max over j <= l < T of R[l][j], less R[T][j]
 *                                                                   (Chaudhry et al. 2018)
 */
#ifndef MONITORD_CONTINUAL_H
#define MONITORD_CONTINUAL_H

#include <stdint.h>
#include <stdio.h>

#include "monitord/history.h"
#include "monitord/json.h"
#include "proto/checkpoint.h"
#include "proto/options.h"

/* Of one way through the tasks; NaN: not known. */
struct continual_results {
    double result[OPTION_TASKS_MAX][OPTION_TASKS_MAX]; /* [after][task]: R */
    double loss[OPTION_TASKS_MAX][OPTION_TASKS_MAX];   /* the mean loss, likewise */
    double average, forgetting, backward_transfer, forward_transfer;
};

struct continual {
    uint32_t count; /* of tasks; 0: the run has one only, or they do not go on from each other */
    int compared;   /* there is a whole way without EWC */
    char metric[32], names[OPTION_TASKS_MAX][64];
    double fresh[OPTION_TASKS_MAX];
    struct continual_results own, without_ewc;
    double seconds[OPTION_TASKS_MAX]; /* of training, of the task with EWC */
    int drawn;                        /* continual_draw's pictures are there */
};

/* The four figures from r->result and fresh[count], count at least 1. Pure. */
void continual_figures(struct continual_results *r, const char *metric, const double *fresh,
                       uint32_t count);

/* All but `drawn`. Pure. */
void continual_make(struct continual *c, const struct options *o,
                    const struct checkpoint_meta *meta, const struct history *h);

/* continual_write.c: nothing, or "continual": null, where count is 0 */
void continual_print_json(const struct continual *c, struct json *j);
void continual_print_markdown(const struct continual *c, FILE *out);
void continual_print_table(const struct continual *c, FILE *out); /* for a terminal */

/* continual_plot.c: report/results.png, the matrices as heat maps, and report/sequence.png, each
 * task's metric after each task. Where count is under 3 there is nothing to see: 0 and no pictures.
 * 1: both were drawn; -1 and *e. */
int continual_draw(const struct continual *c, struct err *e);

#endif
