/* parts.c - activation checkpointing: into how many parts of its rows a slice is cut, which go
 * through the layers and back one after the other in the memory of one (stepper.h). As many as are
 * asked for, but fewer where they would cost more time than they should.
 */
#include "engine/stepper.h"

/* Vectors of a part at least: with fewer, products take longer than they need to. Where they are
 * rows that a layer sees once, behind a pool, that counts as time: each part reads all of such a
 * layer's weights, which takes as long as products with VECTORS_READ more vectors (measured: heads
 * of 0.9 million parameters on parts of 8 and 16 rows), and all of that at most TIME_MORE. Products
 * of single steps want STEP_ROWS rows (measured: 1.06 times the time with 16 of 64, 1.27 with 8).
 */
enum { PART_VECTORS = 128, VECTORS_READ = 10, STEP_ROWS = 16 };
static const double TIME_MORE = 0.15;

/* Do the layers allow slices to be cut? Where one goes step by step its gradient is that of the
 * parts even if they are not: so nothing but the slice may decide about them, and all that backward
 * left of it is there at its end. */
static int parts_allowed(const struct model *m, const struct step_config *c)
{
    int stepwise = 0;
    if (!c->with_optimizer)
        return 0;
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const struct layer_instance *l = &m->layers[i];
        if (l->type->statistics || l->carried_count || (l->count && !l->type->adds))
            return 0;
        stepwise |= l->type->stepwise != NULL;
    }
    return !stepwise || (!m->graphs && !c->half);
}

/* Is it worth it to cut slices into so many parts? */
static int parts_pay(const struct model *m, const struct step_config *c, uint64_t parts)
{
    double whole = 0, reads = 0;
    uint64_t steps = 1, rows_part = c->slice_rows / parts;
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const struct layer_instance *l = &m->layers[i];
        double rows =
            l->graphs ? (double)c->slice_nodes_max * (double)c->slice_parts : (double)c->slice_rows;
        whole += (double)l->count * (rows * (double)l->steps + VECTORS_READ);
        reads += (double)l->count * VECTORS_READ;
        if (l->type->stepwise && rows_part < STEP_ROWS)
            return 0;
        if (l->type->stepwise) /* from a cache: the step before has just read them */
            reads += (double)(l->type->stepwise(l) * l->steps * VECTORS_READ) / 4;
        steps = l->steps > steps ? l->steps : steps;
    }
    int few = !m->graphs && steps * rows_part < PART_VECTORS;
    return c->slice_rows % parts == 0 && !few && (double)(parts - 1) * reads <= TIME_MORE * whole;
}

/* Of those that c names as many as pay, or a half, a quarter ... of them. */
static uint64_t parts_choose(const struct model *m, const struct step_config *c)
{
    uint64_t parts = c->checkpointing && parts_allowed(m, c) ? c->slice_parts : 1;
    while (parts > 1 && (c->slice_parts % parts || !parts_pay(m, c, parts)))
        parts /= 2;
    return parts;
}

uint64_t part_rows_of(const struct model *m, const struct step_config *c)
{
    struct step_config cut = *c;
    int stepwise = 0;
    for (uint32_t i = 0; i < m->layer_count; i++)
        stepwise |= m->layers[i].type->stepwise != NULL;
    cut.checkpointing = 1;
    cut.slice_parts = step_slice_parts(1, c->slice_rows);
    uint64_t parts = stepwise && !config_is_apart(c) ? parts_choose(m, &cut) : 1;
    return parts > 1 ? c->slice_rows / parts : 0;
}

/* On a device apart a slice is the whole micro-batch: its operations use all of the device. Else
 * slices are the parts, where there are any. */
struct step_config config_on(const struct model *m, const struct step_config *c)
{
    struct step_config on = *c;
    on.slice_parts = c->slice_parts ? c->slice_parts : 1;
    if (config_is_apart(c)) {
        on.slice_rows = c->batch_rows_max;
        on.slice_nodes_max = c->batch_nodes_max;
        on.slice_parts = 1;
        return on;
    }
    uint64_t parts = parts_choose(m, &on);
    uint64_t nodes = size_times(on.slice_parts / parts, c->slice_nodes_max);
    on.slice_nodes_max = nodes < c->batch_nodes_max ? nodes : c->batch_nodes_max;
    on.slice_rows /= parts;
    on.slice_parts = parts;
    return on;
}
