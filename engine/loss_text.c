/* loss_text.c - see loss_text.h. */
#include "engine/loss_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/layer_text.h"
#include "engine/loss.h"

#define WEIGHT_MAX 1e30

static int name_unknown(const char *name, struct err *e)
{
    char accepted[256] = "";
    for (int i = 0; loss_types[i]; i++) {
        size_t used = strlen(accepted);
        snprintf(accepted + used, sizeof accepted - used, "%s%s", i ? ", " : "",
                 loss_types[i]->name);
    }
    return err_set(e, EXIT_CODE_PERMANENT,
                   "cannot open the model: unknown loss '%.64s'; accepted: %s", name, accepted);
}

/* "1,4,0.5" up to a blank or the end. Returns what is behind it, NULL where it is no such list. */
static const char *numbers_read(const char *text, double *numbers, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        char *end;
        numbers[i] = strtod(text, &end);
        int last = i + 1 == count;
        if (end == text || (last ? *end && *end != ' ' : *end != ',') ||
            !(numbers[i] >= 0 && numbers[i] <= WEIGHT_MAX))
            return NULL;
        text = end + !last;
    }
    return text;
}

/* *rest is behind "weights="; moved behind the list. */
static int weights_parse(struct model *m, const char **rest, struct err *e)
{
    uint64_t count = 1;
    double sum = 0;
    for (const char *at = *rest; *at && *at != ' '; at++)
        count += *at == ',';
    free(m->target_weights);
    m->target_weight_count = 0;
    m->target_weights = calloc(count, sizeof *m->target_weights);
    if (!m->target_weights)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot hold the weights of the targets");
    const char *end = numbers_read(*rest, m->target_weights, count);
    for (uint64_t i = 0; end && i < count; i++)
        sum += m->target_weights[i];
    if (!end || !(sum > 0))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot open the model: the weights of its targets are '%.64s'; accepted: "
                       "numbers from 0 to %g, separated by commas, not all of them 0",
                       *rest, WEIGHT_MAX);
    m->target_weight_count = count;
    *rest = end;
    return 0;
}

/* The key at *rest, moved behind it. -1: none that goes with the loss. */
static int key_parse(struct model *m, const struct loss_type *type, const char **rest,
                     struct err *e)
{
    static const char weights[] = " weights=", missing[] = " missing";
    int end = 0;
    if (strncmp(*rest, weights, sizeof weights - 1) == 0) {
        *rest += sizeof weights - 1;
        return weights_parse(m, rest, e);
    }
    if (type->has_delta && sscanf(*rest, " delta=%lf%n", &m->loss_delta, &end) == 1 &&
        isfinite(m->loss_delta) && m->loss_delta > 0) {
        *rest += end;
        return 0;
    }
    end = sizeof missing - 1;
    if (strncmp(*rest, missing, (size_t)end) == 0 && ((*rest)[end] == ' ' || !(*rest)[end])) {
        m->targets_missing = 1;
        *rest += end;
        return 0;
    }
    return err_set(e, EXIT_CODE_PERMANENT,
                   "cannot open the model: loss %s is followed by '%.64s'; accepted: %smissing, "
                   "weights=NUMBER,NUMBER...",
                   m->loss, *rest, type->has_delta ? "delta=NUMBER above 0, " : "");
}

int loss_parse(struct model *m, const char *text, struct err *e)
{
    char name[sizeof m->loss] = "";
    int used = 0;
    sscanf(text, "%31s%n", name, &used);
    const struct loss_type *type = loss_type_named(name);
    if (!type)
        return name_unknown(text, e);
    memcpy(m->loss, name, sizeof name);
    m->loss_delta = 1;
    for (const char *rest = text + used; *rest;)
        if (key_parse(m, type, &rest, e) < 0)
            return -1;
    return 0;
}

int loss_format(const struct model *m, char text[LOSS_TEXT_MAX], struct err *e)
{
    char number[32];
    size_t used = (size_t)snprintf(text, LOSS_TEXT_MAX, "%s", m->loss);
    if (loss_type_named(m->loss)->has_delta) {
        value_format(m->loss_delta, number, sizeof number);
        used += (size_t)snprintf(text + used, LOSS_TEXT_MAX - used, " delta=%s", number);
    }
    if (m->targets_missing)
        used += (size_t)snprintf(text + used, LOSS_TEXT_MAX - used, " missing");
    for (uint64_t i = 0; i < m->target_weight_count && used < LOSS_TEXT_MAX; i++) {
        value_format(m->target_weights[i], number, sizeof number);
        used += (size_t)snprintf(text + used, LOSS_TEXT_MAX - used, "%s%s",
                                 i ? "," : " weights=", number);
    }
    if (used < LOSS_TEXT_MAX)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "cannot write the model as text: the weights of its %llu targets take more than "
                   "%d bytes",
                   (unsigned long long)m->target_weight_count, LOSS_TEXT_MAX - 1);
}

int loss_weights_check(const struct model *m, struct err *e)
{
    uint64_t wanted = m->outputs / m->target_steps;
    if (!m->target_weight_count || m->target_weight_count == wanted)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "cannot open the model: its targets have %llu weights; the loss %s takes %llu, "
                   "one %s",
                   (unsigned long long)m->target_weight_count, m->loss, (unsigned long long)wanted,
                   loss_type_named(m->loss)->values ? "an output" : "a class");
}
