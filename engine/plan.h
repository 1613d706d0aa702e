/* plan.h - how much memory, and for what, before any of it is allocated. */
#ifndef ENGINE_PLAN_H
#define ENGINE_PLAN_H

#include <stdint.h>
#include <stdio.h>

enum { PLAN_ROWS_MAX = 64 };

struct plan_row {
    char stage[16], what[64];
    uint64_t bytes;
};

struct plan {
    struct plan_row rows[PLAN_ROWS_MAX];
    int count;
};

void plan_add(struct plan *p, const char *stage, const char *what, uint64_t bytes);
uint64_t plan_total(const struct plan *p, const char *stage); /* NULL: all stages */
void plan_print(const struct plan *p, FILE *out); /* a table in MiB with totals a stage */

#endif
