/* labels.h - the targets at which the Fisher information takes the loss's gradient.
 *
 *   true      the data's: the empirical Fisher information
 *   sampled   drawn from the model's own likelihood, once a sample
 *   all       every class weighted by its probability: exact, a backward pass for each class
 *   gaussian  the same of a regression: exact, a backward pass for each output
 *
 * The likelihood is the loss's (loss.h). The gradient is that of a row's loss: where that is a mean
 * over K outputs of binary cross-entropy, or over the steps of a sequence, so is the gradient.
 * Classes that weigh (model.target_weights) do so where they are the label.
 */
#ifndef ENGINE_LABELS_H
#define ENGINE_LABELS_H

#include <stdint.h>

#include "proto/err.h"

enum fisher_labels { FISHER_TRUE, FISHER_SAMPLED, FISHER_ALL, FISHER_GAUSSIAN, FISHER_LABELS };

struct model;

const char *fisher_labels_name(enum fisher_labels labels);
enum fisher_labels fisher_labels_of(const char *name); /* FISHER_LABELS: none is named so */

/* Can the model's loss take them? -1 and a permanent *e that says which it can. */
int fisher_labels_check(const struct model *m, enum fisher_labels labels, struct err *e);

/* Backward passes a forward pass. */
uint64_t fisher_labels_passes(const struct model *m, enum fisher_labels labels);

#endif
