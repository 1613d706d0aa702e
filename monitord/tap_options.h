/* tap_options.h - what the command line of tap asks for. */
#ifndef MONITORD_TAP_OPTIONS_H
#define MONITORD_TAP_OPTIONS_H

#include <stdint.h>
#include <stdio.h>

#include "proto/err.h"

enum { TAP_TOPICS_MAX = 64 };

struct tap {
    const char *run;
    const char *topics[TAP_TOPICS_MAX];
    int topic_count;
    uint64_t count; /* 0: for ever */
    int progress;
    uint64_t until_pid;              /* 0: none */
    const char *stage, *verb, *text; /* text: of a mark */
    int help, reference;
};

void tap_help_print(FILE *out);

/* Fill *t (zeroed) from the arguments, whose texts it borrows. 0, or -1 and *e (permanent). */
int tap_options_parse(struct tap *t, int argc, char **argv, struct err *e);

#endif
