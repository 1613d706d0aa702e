/* metric.c - see metric.h. */
#include "proto/metric.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct metric {
    const char *name;
    int smaller_is_better, share;
};

static const struct metric metrics[] = {
    {"accuracy", .share = 1},
    {"f1_macro"},
    {"r2"},
    {"r2_zero"},
    {"cosine"},
    {"mae", .smaller_is_better = 1},
    {"loss", .smaller_is_better = 1},
};

static struct metric metric_named(const char *name)
{
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++)
        if (strcmp(metrics[i].name, name) == 0)
            return metrics[i];
    return (struct metric){name};
}

int metric_better(const char *metric, double value, double than)
{
    if (isnan(value) || isnan(than))
        return !isnan(value);
    return metric_named(metric).smaller_is_better ? value < than : value > than;
}

const char *metric_format(char text[METRIC_TEXT_MAX], const char *metric, double value)
{
    if (isnan(value))
        snprintf(text, METRIC_TEXT_MAX, "-");
    else if (metric_named(metric).share)
        snprintf(text, METRIC_TEXT_MAX, "%.2f %%", 100 * value);
    else
        snprintf(text, METRIC_TEXT_MAX, "%.4g", value);
    return text;
}
