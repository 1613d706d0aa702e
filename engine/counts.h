/* counts.h - right, predicted and actual rows of each class, and their macro F1: shared by
 * evaluations (evaluate.c) and scores.c. */
#ifndef ENGINE_COUNTS_H
#define ENGINE_COUNTS_H

#include <math.h>
#include <stdint.h>

struct class_counts { /* of one class, or one output */
    uint64_t right, predicted, actual;
};

/* One row's prediction for its target, both classes of `counts`. */
static inline void counts_add(struct class_counts *counts, uint32_t predicted, uint32_t actual)
{
    counts[predicted].predicted++;
    counts[actual].actual++;
    counts[actual].right += predicted == actual;
}

/* The mean of 2 right / (predicted + actual) over the classes that occur in either. NaN: none do.
 * As scikit-learn's f1_score(average="macro"). */
static inline double counts_f1_macro(const struct class_counts *counts, uint64_t classes)
{
    double sum = 0;
    uint64_t occurring = 0;
    for (uint64_t k = 0; k < classes; k++) {
        const struct class_counts *c = &counts[k];
        if (!c->predicted && !c->actual)
            continue;
        sum += 2 * (double)c->right / (double)(c->predicted + c->actual);
        occurring++;
    }
    return occurring ? sum / (double)occurring : NAN;
}

#endif
