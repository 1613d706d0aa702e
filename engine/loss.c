/* loss.c - the list of losses and the metrics. A new loss is a file in engine/layers/ and a line
 * here. */
#include "engine/loss.h"

#include <string.h>

extern const struct loss_type loss_softmax_cross_entropy, loss_mean_squared_error, loss_l1,
    loss_huber, loss_cosine, loss_binary_cross_entropy;

const struct loss_type *const loss_types[] = {&loss_softmax_cross_entropy,
                                              &loss_mean_squared_error,
                                              &loss_l1,
                                              &loss_huber,
                                              &loss_cosine,
                                              &loss_binary_cross_entropy,
                                              NULL};

const struct metric_type metric_loss = {"loss", NULL, 0};

const struct loss_type *loss_type_named(const char *name)
{
    for (int i = 0; loss_types[i]; i++)
        if (strcmp(loss_types[i]->name, name) == 0)
            return loss_types[i];
    return NULL;
}

const struct metric_type *loss_metric_named(const struct loss_type *l, const char *name)
{
    if (strcmp(name, "auto") == 0)
        return l->metrics[0];
    for (int i = 0; l->metrics[i]; i++)
        if (strcmp(l->metrics[i]->name, name) == 0)
            return l->metrics[i];
    return strcmp(name, metric_loss.name) == 0 ? &metric_loss : NULL;
}
