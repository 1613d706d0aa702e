/* labels.c - see labels.h: which labels go with which loss. */
#include "engine/labels.h"

#include <inttypes.h>
#include <string.h>

#include "engine/loss.h"
#include "engine/model.h"

static const char *const names[FISHER_LABELS] = {[FISHER_TRUE] = "true",
                                                 [FISHER_SAMPLED] = "sampled",
                                                 [FISHER_ALL] = "all",
                                                 [FISHER_GAUSSIAN] = "gaussian"};

const char *fisher_labels_name(enum fisher_labels labels)
{
    return names[labels];
}

enum fisher_labels fisher_labels_of(const char *name)
{
    int labels = 0;
    while (labels < FISHER_LABELS && strcmp(name, names[labels]) != 0)
        labels++;
    return (enum fisher_labels)labels;
}

int fisher_labels_check(const struct model *m, enum fisher_labels labels, struct err *e)
{
    const struct loss_type *loss = loss_type_named(m->loss);
    if (labels == FISHER_TRUE || (labels == FISHER_SAMPLED && loss->draw))
        return 0;
    if (!loss->draw)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "fisher_labels is %s, but the loss %s is no likelihood that labels could be "
                       "drawn from; accepted: true",
                       names[labels], loss->name);
    if (labels != loss->exact)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "fisher_labels is %s, which the loss %s has not; accepted: true, sampled, %s",
            names[labels], loss->name, names[loss->exact]);
    if (m->target_steps > 1)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "fisher_labels is %s, but a row has a class at each of %" PRIu64
                       " steps; accepted: true, sampled",
                       names[labels], m->target_steps);
    return 0;
}

uint64_t fisher_labels_passes(const struct model *m, enum fisher_labels labels)
{
    return labels == FISHER_ALL || labels == FISHER_GAUSSIAN ? m->outputs : 1;
}
