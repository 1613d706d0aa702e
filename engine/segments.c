/* segments.c - activation checkpointing: where the layer list is cut into segments.
 *
 * What is between two segments is kept; the rest of a segment has one place for all, and backward
 * computes it again from what is before the segment (Chen et al., "Training Deep Nets with
 * Sublinear Memory Cost", arXiv 1604.06174). With equal layers about the root of their number is
 * best. Here layers differ by orders of magnitude in what they leave, so the cut is searched for:
 * for a number of limits on a segment's rest, the borders of least width, and of those the cut
 * whose lane, as layout_lane has it, is smallest. A layer that recomputes by itself is a segment of
 * its own, which is not run again.
 *
 * Where slices go in parts (stepper.h) that saves more and costs less, and the list is cut only if
 * somebody asks for it.
 */
#include <string.h>

#include "engine/stepper.h"

/* Limits tried, from all of the activations downwards. */
enum { LIMITS = 64 };
static const double LIMIT_RATIO = 0.9;

/* Floats of a slice, before the layers are cut. */
struct cutting {
    const struct model *m;
    uint32_t
        frozen; /* layers that backward does not reach: never recomputed, a segment of their own */
    uint64_t before[MODEL_LAYERS_MAX + 1];  /* sum of what the layers before this one leave */
    uint64_t border[MODEL_LAYERS_MAX + 1];  /* width of what is before this layer */
    uint32_t written[MODEL_LAYERS_MAX + 1]; /* the layer that it comes from */
    double work[MODEL_LAYERS_MAX + 1];      /* of the layers before this one, about */
};

enum layer_keep layer_keep_of(const struct layer_instance *l, const struct step_config *c)
{
    if (!l->type->recomputes || !c->with_optimizer)
        return KEEP_ALL;
    if (c->checkpointing && (c->slice_parts <= 1 || c->segments_max))
        return KEEP_LITTLE;
    if (!c->half)
        return KEEP_ALL;
    int multiplies = c->device && c->device->multiplies_half && c->device->multiplies_half();
    return multiplies && l->type->narrows && l->type->narrows(l) ? KEEP_NARROW : KEEP_HALF;
}

static void cutting_make(struct cutting *g, const struct layout *y, const struct model *m,
                         const struct step_config *c)
{
    *g = (struct cutting){.m = m, .frozen = y->frozen ? y->first_trained : 0};
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const struct layer_instance *l = &m->layers[i];
        uint32_t before = i ? y->route[i - 1].out : 0, newest = i ? g->written[i] : 0;
        int has_own = y->route[i].out != before;
        uint64_t rows = rows_most(c, l->graphs);
        uint64_t floats = size_times(rows_most(c, l->graphs_out), l->outputs);
        uint64_t leaves = has_own && i >= g->frozen ? floats : 0;
        if (l->type->saved_floats && !l->type->recomputes && i >= g->frozen)
            leaves = size_plus(leaves, l->type->saved_floats(l, rows, KEEP_ALL));
        g->before[i + 1] = size_plus(g->before[i], leaves);
        g->written[i + 1] = has_own ? i : newest;
        double work = (double)rows * (double)l->steps * (double)l->count + (double)floats;
        g->work[i + 1] = g->work[i] + (l->type->same ? 0 : work);
        g->border[i + 1] = y->route[i].out ? floats : 0;
    }
}

/* May layers first .. end - 1 be one segment? */
static int segment_allowed(const struct cutting *g, uint32_t first, uint32_t end, double limit)
{
    if (first < g->frozen)
        return first == 0 && end == g->frozen;
    uint64_t rest = g->before[end] - g->before[first];
    if (end < g->m->layer_count && g->written[end] >= first)
        rest -= g->border[end] < rest ? g->border[end] : rest;
    for (uint32_t i = first; i < end; i++)
        if (g->m->layers[i].type->recomputes && end - first > 1)
            return 0;
    return end - first == 1 || (double)rest <= limit;
}

/* Work of running the segment again, up to the layer that writes what is behind it. */
static double segment_work(const struct cutting *g, uint32_t first, uint32_t end)
{
    uint32_t again = g->written[end] > first ? g->written[end] : first;
    if (end == g->m->layer_count || end <= g->frozen)
        return 0;
    return g->work[again] - g->work[first];
}

/* The best cut of the layers before one. */
struct cut {
    uint64_t borders; /* width of what is kept between segments; UINT64_MAX: there is no cut */
    double work;      /* done again */
    uint32_t from, segments;
};

static int cut_better(const struct cut *a, const struct cut *b)
{
    if (a->borders != b->borders)
        return a->borders < b->borders;
    if (a->work != b->work)
        return a->work < b->work;
    return a->segments < b->segments;
}

/* Into y: the segments with a rest of at most `limit` and the least borders, and of those the ones
 * with the least work, which is returned. */
static double cut_make(struct layout *y, const struct cutting *g, double limit)
{
    uint32_t count = g->m->layer_count;
    struct cut best[MODEL_LAYERS_MAX + 1] = {{0}};
    for (uint32_t end = 1; end <= count; end++) {
        best[end].borders = UINT64_MAX;
        for (uint32_t first = end; first-- > 0;) {
            if (best[first].borders == UINT64_MAX || !segment_allowed(g, first, end, limit))
                continue;
            struct cut c = {size_plus(best[first].borders, g->border[first]),
                            best[first].work + segment_work(g, first, end), first,
                            best[first].segments + 1};
            if (cut_better(&c, &best[end]))
                best[end] = c;
        }
    }
    y->segments = best[count].segments;
    y->segment_first[y->segments] = count;
    for (uint32_t k = y->segments; k > 0; k--)
        y->segment_first[k - 1] = best[y->segment_first[k]].from;
    return best[count].work;
}

/* Layers that only write what stays, and keep nothing else, need not run again. */
static void again_make(struct layout *y, const struct model *m)
{
    for (uint32_t k = 0; k < y->segments; k++) {
        uint32_t first = y->segment_first[k], end = y->segment_first[k + 1], border;
        y->again_end[k] = end;
        border = y->route[end - 1].out;
        while (y->again_end[k] > first && y->route[y->again_end[k] - 1].out == border &&
               (!m->layers[y->again_end[k] - 1].type->saved_floats ||
                m->layers[y->again_end[k] - 1].type->recomputes))
            y->again_end[k]--;
    }
}

void segments_cut(struct layout *y, const struct model *m, const struct step_config *c,
                  uint32_t before)
{
    y->segments = 2;
    y->segment_first[0] = 0;
    y->segment_first[1] = before;
    y->segment_first[2] = m->layer_count;
    layout_lane(y, m, c);
    again_make(y, m);
}

static void whole_make(struct layout *y, const struct model *m, const struct step_config *c)
{
    y->segments = 1;
    y->segment_first[0] = 0;
    y->segment_first[1] = m->layer_count;
    layout_lane(y, m, c);
}

void segments_choose(struct layout *y, const struct model *m, const struct step_config *c)
{
    struct cutting g;
    struct layout tried = *y;
    whole_make(y, m, c);
    if (!c->checkpointing || !c->with_optimizer || (y->parts > 1 && !c->segments_max))
        return;
    cutting_make(&g, y, m, c);
    double limit = (double)g.before[m->layer_count], least = 0;
    for (int i = 0; i < LIMITS; i++, limit *= LIMIT_RATIO) {
        double work = cut_make(&tried, &g, limit);
        layout_lane(&tried, m, c);
        int fits = !c->segments_max || tried.segments <= c->segments_max;
        int smaller = tried.lane_activations < y->lane_activations ||
                      (tried.lane_activations == y->lane_activations && work < least);
        if (i == 0 || (fits && smaller)) {
            *y = tried;
            least = work;
        }
    }
    again_make(y, m);
}
