/* arguments.h - the command line of `prepare csv`, `npy` and `check`: a pipeline file, --set texts,
 * and for the first two an output file.
 */
#ifndef PIPELINES_PREPARE_ARGUMENTS_H
#define PIPELINES_PREPARE_ARGUMENTS_H

#include "proto/err.h"
#include "proto/options.h"

struct arguments {
    const char *config, *out;
    const char *set[OPTION_SETS_MAX];
    int set_count, rebuild, help;
};

/* with_out: --out FILE is required and --rebuild accepted, else neither is known. */
int arguments_parse(struct arguments *a, int argc, char **argv, int with_out, struct err *e);

#endif
