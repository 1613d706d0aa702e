/* lstm_memory.c - see lstm_memory.h. */
#include "engine/layers/lstm_memory.h"

#include "engine/memory.h"

enum { DEVICE_BLOCKS = 8 };

/* Rows of a part are brought together from so many vectors at a time, at least one step. */
enum { PART_VECTORS = 128 };

int lstm_x_is_own(const struct layer_instance *l, uint64_t layer)
{
    return layer == 0 || l->keys[KEY_DROPOUT] > 0;
}

/* About as many blocks as a block has steps: what is kept between them and what is computed again
 * inside them add up to the least. Whether it is kept or not, the arithmetic goes block by block,
 * so that both ways give the same bits. */
static uint64_t steps_root(const struct layer_instance *l)
{
    uint64_t k = 1;
    while (k * k < l->steps)
        k++;
    return k;
}

static uint64_t blocks_root(const struct layer_instance *l)
{
    return (l->steps + steps_root(l) - 1) / steps_root(l);
}

/* Steps of a block. A device apart reads the weights anew for each block: it has few, or one where
 * none needs a place in the scratch. */
static uint64_t block_steps(const struct layer_instance *l, enum layer_keep keep, int apart)
{
    if (!apart || keep == KEEP_LITTLE)
        return steps_root(l);
    return keep == KEEP_ALL ? l->steps : (l->steps + DEVICE_BLOCKS - 1) / DEVICE_BLOCKS;
}

int lstm_is_apart(const struct layer_pass *p)
{
    return p->backend != &backend_cpu;
}

static uint64_t pass_block_steps(const struct layer_instance *l, const struct layer_pass *p)
{
    return block_steps(l, p->keep, lstm_is_apart(p));
}

uint64_t lstm_blocks(const struct layer_instance *l, const struct layer_pass *p)
{
    return (l->steps + pass_block_steps(l, p) - 1) / pass_block_steps(l, p);
}

uint64_t lstm_saved(const struct layer_instance *l, uint64_t rows, enum layer_keep keep)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t floats = 0, out = s.directions * s.hidden; /* a row's */
    if (keep == KEEP_NARROW)
        return lstm_narrow_saved(l, rows);
    for (uint64_t i = 0; i < s.layers; i++) {
        uint64_t own = lstm_x_is_own(l, i) ? lstm_in(l, i) : 0;
        uint64_t inside = keep == KEEP_HALF ? 5 * out / 2 + 5 * out % 2 : 5 * out; /* gates, c */
        floats += keep == KEEP_LITTLE ? s.steps * out + (blocks_root(l) - 1) * out
                                      : s.steps * (own + out + inside); /* x, h */
        floats += l->carried_count ? out : 0;
    }
    return size_times(rows, floats);
}

/* Values of x and h of a step that are as many in any of the layers. */
static uint64_t widest(const struct layer_instance *l)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t out = s.directions * s.hidden;
    return out > l->values ? out : l->values;
}

uint64_t lstm_scratch_width(const struct layer_instance *l)
{
    return l->first ? widest(l) : lstm_shape_of(l).directions * lstm_shape_of(l).hidden;
}

/* A step of a block: gates, c, and x where it is not kept. */
static uint64_t block_width(const struct layer_instance *l, enum layer_keep keep)
{
    return 5 * lstm_shape_of(l).hidden + (keep == KEEP_LITTLE ? widest(l) : 0);
}

/* Gates, x and h of a vector. */
static uint64_t part_width(const struct layer_instance *l)
{
    struct lstm_shape s = lstm_shape_of(l);
    return 4 * s.hidden + widest(l) + s.directions * s.hidden;
}

uint64_t lstm_part_steps(const struct layer_instance *l, uint64_t rows)
{
    uint64_t steps = PART_VECTORS / rows ? PART_VECTORS / rows : 1, most = steps_root(l);
    return steps < most ? steps : most;
}

uint64_t lstm_scratch(const struct layer_instance *l, uint64_t rows, enum layer_keep keep,
                      int apart)
{
    uint64_t floats = l->steps * 2 * lstm_scratch_width(l) + 2 * lstm_shape_of(l).hidden, part = 0;
    uint64_t vectors = rows > PART_VECTORS ? rows : PART_VECTORS; /* of any number of rows */
    if (keep == KEEP_NARROW)
        return lstm_narrow_scratch(l, rows);
    if (keep == KEEP_ALL && !apart && !l->carried_count && rows > 1)
        part = size_times(vectors < rows * steps_root(l) ? vectors : rows * steps_root(l),
                          part_width(l));
    if (keep != KEEP_ALL)
        floats += block_steps(l, keep, apart) * block_width(l, keep) + lstm_shape_of(l).hidden;
    if (apart)
        floats += 4 * lstm_shape_of(l).hidden;
    return size_plus(size_times(rows, floats), part);
}

float *lstm_scratch_dc(const struct layer_instance *l, const struct layer_pass *p)
{
    return p->scratch + l->steps * p->rows * 2 * lstm_scratch_width(l);
}

float *lstm_scratch_begin(const struct layer_instance *l, const struct layer_pass *p)
{
    return lstm_scratch_dc(l, p) + p->rows * lstm_shape_of(l).hidden;
}

float *lstm_scratch_before(const struct layer_instance *l, const struct layer_pass *p)
{
    return lstm_scratch_begin(l, p) +
           p->rows * (lstm_shape_of(l).hidden + pass_block_steps(l, p) * block_width(l, p->keep));
}

float *lstm_scratch_sums(const struct layer_instance *l, const struct layer_pass *p)
{
    float *behind = p->keep == KEEP_ALL ? lstm_scratch_begin(l, p) : lstm_scratch_before(l, p);
    return behind + p->rows * lstm_shape_of(l).hidden;
}

float *lstm_scratch_part(const struct layer_instance *l, const struct layer_pass *p)
{
    return lstm_scratch_begin(l, p) + p->rows * lstm_shape_of(l).hidden;
}

struct lstm_place lstm_place_of(const struct layer_instance *l, const struct layer_pass *p,
                                uint64_t layer)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t cells = s.steps * p->rows, borders = (blocks_root(l) - 1) * p->rows * s.hidden;
    uint64_t inside = cells * 5 * s.hidden; /* gates, c */
    int little = p->keep == KEEP_LITTLE;
    struct lstm_place at = {0};
    float *next = p->saved, *below = NULL;
    for (uint64_t i = 0; i <= layer; i++) {
        int own = lstm_x_is_own(l, i);
        at.x = !own ? below : little ? NULL : next;
        next += own && !little ? cells * lstm_in(l, i) : 0;
        next += l->carried_count ? p->rows * s.hidden : 0;
        at.h = below = next;
        next += cells * s.directions * s.hidden;
        for (uint64_t d = 0; d < s.directions; d++) {
            at.gates[d] = next;
            at.c[d] = next + (little ? 0 : cells * 4 * s.hidden);
            at.gates_half[d] = (uint16_t *)next;
            at.c_half[d] = at.gates_half[d] + cells * 4 * s.hidden;
            next += little ? borders : p->keep == KEEP_HALF ? inside / 2 + inside % 2 : inside;
        }
    }
    return at;
}

struct matrix lstm_step_of(const struct layer_pass *p, const float *at, uint64_t width, uint64_t t)
{
    return matrix_of(at + t * p->rows * width, p->rows, width);
}

struct matrix lstm_step_of_direction(const struct layer_instance *l, const struct layer_pass *p,
                                     const float *at, uint64_t direction, uint64_t t)
{
    struct lstm_shape s = lstm_shape_of(l);
    return matrix_columns(lstm_step_of(p, at, s.directions * s.hidden, t), direction * s.hidden,
                          s.hidden);
}

uint64_t lstm_step_number(uint64_t steps, uint64_t direction, uint64_t k)
{
    return direction ? steps - 1 - k : k;
}

struct lstm_block lstm_block_of(const struct layer_instance *l, const struct layer_pass *p,
                                const struct lstm_place *at, uint64_t layer, uint64_t direction,
                                uint64_t number)
{
    struct lstm_shape s = lstm_shape_of(l);
    uint64_t most = pass_block_steps(l, p), step = p->rows * s.hidden, k = number * most;
    struct lstm_block b = {
        .number = number, .k = k, .steps = s.steps - k < most ? s.steps - k : most};
    float *block = lstm_scratch_begin(l, p) + step, *c = at->c[direction];
    b.first = direction ? s.steps - k - b.steps : k;
    b.x = at->x ? at->x + b.first * p->rows * lstm_in(l, layer) : block + 5 * most * step;
    if (p->keep != KEEP_ALL) {
        b.gates = block;
        b.c = block + 4 * most * step;
        b.c_before =
            p->keep == KEEP_HALF ? lstm_scratch_before(l, p) : c + (number - (number > 0)) * step;
    } else {
        b.gates = at->gates[direction] + b.first * 4 * step;
        b.c = c + b.first * step;
        b.c_before = c + lstm_step_number(s.steps, direction, k - (k > 0)) * step;
    }
    if (number == 0)
        b.c_before = lstm_scratch_begin(l, p);
    if (p->keep == KEEP_HALF) {
        b.gates_half = at->gates_half[direction] + b.first * 4 * step;
        b.c_half = at->c_half[direction] + b.first * step;
    }
    return b;
}

const float *lstm_c_before(const struct layer_instance *l, const struct layer_pass *p,
                           const struct lstm_block *b, uint64_t direction, uint64_t k)
{
    if (k == b->k)
        return b->c_before;
    return b->c + (lstm_step_number(l->steps, direction, k - 1) - b->first) * p->rows *
                      lstm_shape_of(l).hidden;
}
