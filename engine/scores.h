/* scores.h - how good outputs are: the loss, all metrics that go with it, and macro F1 where there
 * are classes; and probabilities of outputs.
 *
 * Sums are taken over the rows in their order, batch by batch, as an evaluation's are: of the same
 * batches the loss and the metric have the same bits. F1 is
 * counts.h's; for binary_cross_entropy over the outputs, the class being a logit above 0 and a
 * target above 1/2.
 */
#ifndef ENGINE_SCORES_H
#define ENGINE_SCORES_H

#include "engine/step.h"

enum { SCORES_MAX = 8 };

struct score {
    const char *name; /* "loss", "accuracy", "f1_macro", ... */
    double value;
};

struct scores; /* sums so far */

/* For batches of up to rows_max rows. Borrows the model. */
int scores_open(struct scores **s_p, const struct model *m, uint64_t rows_max, struct err *e);
void scores_close(struct scores **s_p); /* harmless on NULL */

/* outputs[rows, m->outputs] against the targets of the rows gathered in the stepper. */
void scores_add(struct scores *s, struct stepper *of, const float *outputs, uint64_t rows);

/* Has any row added a target that weighs anything? */
int scores_counted(const struct scores *s);

/* Of all rows added (at least one), the loss first. Returns how many. */
uint32_t scores_read(const struct scores *s, struct score list[SCORES_MAX]);

/* The class that `count` outputs say: the first largest. */
uint32_t scores_class(const float *outputs, uint64_t count);

/* Does the model's loss make probabilities of outputs? */
int scores_has_probabilities(const struct model *m);
/* Of one row, or one step of it where the loss takes a class for each: softmax, or a sigmoid each;
 * p may be z. */
void scores_probabilities(const struct model *m, const float *z, float *p);

#endif
