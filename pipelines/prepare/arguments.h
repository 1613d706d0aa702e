/* arguments.h - the command line of `prepare csv`, `check`, `like` and others: a pipeline file,
 * --set texts, for some the task that is meant, and for those that make one an output file.
 */
#ifndef PIPELINES_PREPARE_ARGUMENTS_H
#define PIPELINES_PREPARE_ARGUMENTS_H

#include "proto/err.h"
#include "proto/options.h"

struct arguments {
    const char *config, *out, *task, *rows;
    const char *set[OPTION_SETS_MAX];
    int set_count, rebuild, help;
};

enum arguments_kind {
    ARGUMENTS_PLAIN,
    ARGUMENTS_TASK, /* --task NAME and --rows FILE are accepted */
    ARGUMENTS_OUT   /* --task NAME and --rebuild are, and --out FILE is required */
};

int arguments_parse(struct arguments *a, int argc, char **argv, enum arguments_kind kind,
                    struct err *e);

#endif
