/* bases.h - what each process takes of memory before it has any work. */
#ifndef PIPELINES_PREPARE_BASES_H
#define PIPELINES_PREPARE_BASES_H

#include "proto/err.h"

/* Measures it (the stages' --base, from the directory of this program) and writes RUN/bases
 * durably. */
int bases_write(const char *run, struct err *e);

#endif
