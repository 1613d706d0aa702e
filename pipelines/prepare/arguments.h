/* arguments.h - the command line of `prepare csv`, `npy` and `check`: a pipeline file, --set texts,
 * and for the first two an output file and the task that it is for.
 */
#ifndef PIPELINES_PREPARE_ARGUMENTS_H
#define PIPELINES_PREPARE_ARGUMENTS_H

#include "proto/err.h"
#include "proto/options.h"

struct arguments {
    const char *config, *out, *task;
    const char *set[OPTION_SETS_MAX];
    int set_count, rebuild, help;
};

/* with_out: --out FILE is required, --task NAME and --rebuild are accepted; else none of them is
 * known. */
int arguments_parse(struct arguments *a, int argc, char **argv, int with_out, struct err *e);

#endif
