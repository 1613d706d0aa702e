/* plan.h - how much memory, and for what, before any of it is allocated. */
#ifndef ENGINE_PLAN_H
#define ENGINE_PLAN_H

#include <stdint.h>
#include <stdio.h>

enum { PLAN_ROWS_MAX = 96 };

/* The stage whose rows are a device's memory: totals of all stages leave it out. */
#define PLAN_DEVICE "device"

/* When memory is held. Rows that are all kept arrive once through an arena that is then given back,
 * so not everything is there at the same time. */
enum plan_phase {
    PLAN_TRAINING_ARRIVES = 1,
    PLAN_VALIDATION_ARRIVES = 2,
    PLAN_ALL_ARRIVED = 4,
    PLAN_ESTIMATING = 8, /* as before, but what is given back for the time of an estimate */
    PLAN_ALWAYS = 15,
};

struct plan_row {
    char stage[16], what[64];
    uint64_t bytes;
    int phases; /* a sum of enum plan_phase */
};

struct plan {
    struct plan_row rows[PLAN_ROWS_MAX];
    int count;
    uint64_t beside_regions; /* held all the time that is no region (engine/memory.h) of trainerd;
                                where tasks differ the least of them; trainerd/plan.c sets it */
};

void plan_add(struct plan *p, const char *stage, const char *what,
              uint64_t bytes); /* always held */
void plan_add_in(struct plan *p, int phases, const char *stage, const char *what, uint64_t bytes);
/* The sum of its rows in the phase in which it is largest; stage NULL: of all stages together. */
uint64_t plan_total(const struct plan *p, const char *stage);
/* Both are plans of the same stages at different times. *p becomes, phase by phase, and the
 * device's rows apart from all others, the one that takes more then: totals of *p are those of
 * both. Of a row that differs between them *p may have two, each for its phases. */
void plan_most(struct plan *p, const struct plan *other);
void plan_print(const struct plan *p, FILE *out); /* a table in MiB with totals a stage */

#endif
