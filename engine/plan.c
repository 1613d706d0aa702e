/* plan.c - see plan.h. */
#include "engine/plan.h"

#include <string.h>

#include "engine/memory.h"
#include "proto/err.h"

static const double MIB = 1024 * 1024;

void plan_add(struct plan *p, const char *stage, const char *what, uint64_t bytes)
{
    plan_add_in(p, PLAN_ALWAYS, stage, what, bytes);
}

void plan_add_in(struct plan *p, int phases, const char *stage, const char *what, uint64_t bytes)
{
    ensure(p->count < PLAN_ROWS_MAX);
    struct plan_row *row = &p->rows[p->count++];
    snprintf(row->stage, sizeof row->stage, "%s", stage);
    snprintf(row->what, sizeof row->what, "%s", what);
    row->bytes = bytes;
    row->phases = phases;
}

static int is_of(const struct plan_row *row, const char *stage)
{
    return stage ? strcmp(row->stage, stage) == 0 : strcmp(row->stage, PLAN_DEVICE) != 0;
}

static uint64_t phase_total(const struct plan *p, const char *stage, int phase)
{
    uint64_t total = 0;
    for (int i = 0; i < p->count; i++)
        if (p->rows[i].phases & phase && is_of(&p->rows[i], stage))
            total = size_plus(total, p->rows[i].bytes);
    return total;
}

uint64_t plan_total(const struct plan *p, const char *stage)
{
    uint64_t most = 0;
    for (int phase = 1; phase & PLAN_ALWAYS; phase <<= 1) {
        uint64_t total = phase_total(p, stage, phase);
        most = total > most ? total : most;
    }
    return most;
}

static void rows_without_phases_drop(struct plan *p)
{
    int kept = 0;
    for (int i = 0; i < p->count; i++)
        if (p->rows[i].phases)
            p->rows[kept++] = p->rows[i];
    p->count = kept;
}

/* A row of that phase: one that is there for others already, or its own. */
static void row_merge(struct plan *p, const struct plan_row *row, int phase)
{
    for (int i = 0; i < p->count; i++) {
        struct plan_row *same = &p->rows[i];
        if (strcmp(same->stage, row->stage) == 0 && strcmp(same->what, row->what) == 0 &&
            same->bytes == row->bytes) {
            same->phases |= phase;
            return;
        }
    }
    plan_add_in(p, phase, row->stage, row->what, row->bytes);
}

void plan_most(struct plan *p, const struct plan *other)
{
    const char *const stages[] = {NULL, PLAN_DEVICE};
    for (int s = 0; s < 2; s++)
        for (int phase = 1; phase & PLAN_ALWAYS; phase <<= 1) {
            if (phase_total(other, stages[s], phase) <= phase_total(p, stages[s], phase))
                continue;
            for (int i = 0; i < p->count; i++)
                if (is_of(&p->rows[i], stages[s]))
                    p->rows[i].phases &= ~phase;
            for (int i = 0; i < other->count; i++)
                if (is_of(&other->rows[i], stages[s]) && other->rows[i].phases & phase)
                    row_merge(p, &other->rows[i], phase);
            rows_without_phases_drop(p);
        }
}

static int stage_is_new(const struct plan *p, int row)
{
    for (int i = 0; i < row; i++)
        if (strcmp(p->rows[i].stage, p->rows[row].stage) == 0)
            return 0;
    return 1;
}

static void stage_print(const struct plan *p, const char *stage, FILE *out)
{
    for (int i = 0; i < p->count; i++)
        if (strcmp(p->rows[i].stage, stage) == 0)
            fprintf(out, "%-12s %-48s %10.2f\n", stage, p->rows[i].what,
                    (double)p->rows[i].bytes / MIB);
    fprintf(out, "%-12s %-48s %10.2f\n", stage, "most at a time",
            (double)plan_total(p, stage) / MIB);
}

void plan_print(const struct plan *p, FILE *out)
{
    fprintf(out, "%-12s %-48s %10s\n", "stage", "what", "MiB");
    for (int i = 0; i < p->count; i++)
        if (stage_is_new(p, i))
            stage_print(p, p->rows[i].stage, out);
    fprintf(out, "%-12s %-48s %10.2f\n", "all", "most at a time",
            (double)plan_total(p, NULL) / MIB);
}
