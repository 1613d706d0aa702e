/* carried.c - states that layers carry from batch to batch (data.stateful): where they are.
 *
 * A state is of a row's place in the batch of an optimizer step, whose rows all slices and
 * micro-batches of it divide among them: so threads, slices and micro-batches change no bit of it.
 * Training has two sets: forward reads what the last update left, as often as a segment is computed
 * again, and writes the next one, which the update makes count. A batch that is begun anew, or
 * whose update is refused, finds what it found before. Other passes have a set of their own, and
 * nothing of backward reads it: they go on in place. A row that begins (batch_arrays.begins) reads
 * 0 whatever stands there: the set itself is left, so that the batch can be begun anew. For the
 * Fisher information every row begins at 0: it is a sum over rows in any order.
 */
#include <float.h>

#include "engine/stepper.h"

uint64_t carried_floats(const struct model *m, const struct step_config *c)
{
    return size_times(c->carried_rows, m->carried_values);
}

static int set_exists(const struct step_config *c, int set)
{
    return c->with_optimizer ? set != CARRIED_PASS_INT8 : set >= CARRIED_PASS;
}

uint64_t carried_bytes(const struct model *m, const struct step_config *c)
{
    uint64_t sets = 0;
    for (int i = 0; i < CARRIED_SETS; i++)
        sets += (uint64_t)set_exists(c, i);
    return size_times(sets * sizeof(float), carried_floats(m, c));
}

void carried_place(struct stepper *s)
{
    float *at = s->region[KIND_CARRIED].at;
    for (int i = 0; at && i < CARRIED_SETS; i++) {
        if (!set_exists(&s->config, i))
            continue;
        s->carried.set[i] = at;
        at += carried_floats(s->model, &s->config);
    }
}

static enum carried_set pass_set(const struct stepper *s)
{
    return s->int8 && !s->config.with_optimizer ? CARRIED_PASS_INT8 : CARRIED_PASS;
}

void carried_pass(const struct batch_work *b, uint64_t slice, const struct layer_instance *l,
                  struct layer_pass *p)
{
    const struct stepper *s = b->s;
    const struct carried_state *c = &s->carried;
    uint64_t tensors = l->carried_first * s->config.carried_rows;
    int training = b->work == SLICE_TRAIN;
    enum carried_set from = training ? CARRIED_NOW : pass_set(s);
    if (b->work == SLICE_FISHER || !c->set[from])
        return;
    p->carried = c->set[from] + tensors;
    p->carried_next = c->set[training ? CARRIED_NEXT : from] + tensors;
    p->carried_rows = s->config.carried_rows;
    p->begins = s->at.begins + slice * s->config.slice_rows;
    p->carried_row = training ? p->row_first : c->row[from] + slice * s->config.slice_rows;
    ensure(p->carried_row + p->rows <= p->carried_rows);
}

static void begins_read(const struct backend *backend, const struct gather_config *c,
                        const void *const *rows, struct matrix begins, uint64_t *bad)
{
    if (c->begin_rows)
        op_gather_values(backend, element_named(c->begin_type), rows, -FLT_MAX, FLT_MAX, 0, begins,
                         bad);
    else
        op_zero(backend, begins.at, begins.rows);
}

void begins_gather(struct stepper *s, const struct gather_config *c, uint64_t first, uint64_t at,
                   uint64_t rows)
{
    uint64_t bad; /* none is */
    if (s->host.begins)
        begins_read(&backend_cpu, c, c->begin_rows ? c->begin_rows + first : NULL,
                    matrix_of(s->host.begins + at, rows, 1), &bad);
}

void begins_gather_there(struct stepper *s, const struct gather_config *c, uint64_t at,
                         uint64_t rows, uint64_t *bad)
{
    if (s->at.begins)
        begins_read(s->backend, c, s->at.rows + 3 * s->config.batch_rows_max + at,
                    matrix_of(s->at.begins + at, rows, 1), bad);
}

void carried_commit(struct stepper *s, const struct step_verdict *late)
{
    if (s->carried.set[CARRIED_NOW])
        step_commit(s, late, s->carried.set[CARRIED_NEXT], s->carried.set[CARRIED_NOW],
                    carried_floats(s->model, &s->config));
}

void carried_pass_begin(struct stepper *s)
{
    struct carried_state *c = &s->carried;
    c->streams = s->config.carried_rows;
    for (int i = CARRIED_PASS; i < CARRIED_SETS; i++) {
        c->row[i] = 0;
        if (c->set[i])
            s->device->clear(c->set[i], carried_floats(s->model, &s->config) * sizeof(float));
    }
}

void stepper_pass_streams(struct stepper *s, uint64_t streams)
{
    ensure(streams <= s->config.carried_rows);
    s->carried.streams = streams;
}

void stepper_pass_move(struct stepper *s, uint64_t from, uint64_t to)
{
    const struct model *m = s->model;
    uint64_t streams = s->config.carried_rows;
    ensure(from < streams && to < streams);
    for (int i = CARRIED_PASS; i < CARRIED_SETS && from != to; i++)
        for (uint32_t k = 0; s->carried.set[i] && k < m->carried_count; k++) {
            float *at = s->carried.set[i] + m->carried[k].first * streams;
            uint64_t values = m->carried[k].count;
            op_copy(s->backend, at + from * values, at + to * values, values);
        }
}

void carried_pass_advance(struct stepper *s, uint64_t rows)
{
    uint64_t *row = &s->carried.row[pass_set(s)];
    if (!s->carried.streams)
        return;
    ensure(*row + rows <= s->carried.streams);
    *row = (*row + rows) % s->carried.streams;
}
