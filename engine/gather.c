/* gather.c - rows of the stored types into the batch, over the pool; bad values are found here, by
 * row. */
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/stepper.h"

/* Rows of one item: some tens of microseconds of work. */
enum { GATHER_ROWS = 32 };

struct gather_work {
    struct stepper *s;
    const struct gather_config *config;
    enum element feature_type;
    uint64_t at, count;
    const void *const *features, *const *targets;
    _Atomic uint64_t bad_row; /* smallest so far; count: none */
};

static void bad_row_note(struct gather_work *g, uint64_t row)
{
    uint64_t best = atomic_load(&g->bad_row);
    while (row < best && !atomic_compare_exchange_weak(&g->bad_row, &best, row))
        ;
}

static void gather_item(void *argument, uint64_t item, int thread)
{
    struct gather_work *g = argument;
    struct stepper *s = g->s;
    uint64_t first = item * GATHER_ROWS, width = s->model->inputs, bad;
    uint64_t rows = g->count - first < GATHER_ROWS ? g->count - first : GATHER_ROWS;
    struct matrix x = {s->host.inputs + (g->at + first) * width + g->config->column, rows,
                       g->config->features, width};
    (void)thread;
    if (s->model->token_count)
        op_gather_values(&backend_cpu, g->feature_type, g->features + first, 0,
                         (double)(s->model->token_count - 1), 0, x, &bad);
    else
        op_gather_features(&backend_cpu, g->feature_type, g->features + first,
                           g->config->permutation, g->config->scale, x, s->layout.half, &bad);
    if (bad < rows)
        bad_row_note(g, first + bad);
    if (!g->config->column)
        begins_gather(s, g->config, first, g->at + first, rows);
    if (!g->targets)
        return;
    targets_gather(s, g->config, first, g->at + first, rows, g->targets, &bad);
    if (bad < rows)
        bad_row_note(g, first + bad);
}

static int config_check(struct gather_work *g, struct err *e)
{
    const struct gather_config *c = g->config;
    g->feature_type = element_named(c->feature_type);
    if (g->feature_type == ELEMENT_COUNT)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot gather features of type '%.8s'; accepted: u8, i8, u16, i16, u32, i32, "
            "u64, i64, f16, f32, f64",
            c->feature_type);
    if (g->targets && targets_config_check(g->s, c, e) < 0)
        return -1;
    ensure(!c->begin_rows || element_is_whole(element_named(c->begin_type)));
    if (g->s->model->token_count &&
        (!element_is_whole(g->feature_type) || c->scale != 1 || c->permutation))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot gather tokens of type '%.8s', scaled by %g%s; accepted: integers as "
                       "they are stored",
                       c->feature_type, c->scale, c->permutation ? ", permuted" : "");
    uint64_t inputs = g->s->model->inputs;
    int whole = !c->column && c->features == inputs;
    if (c->column > inputs || c->features > inputs - c->column || (!whole && c->permutation))
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot gather rows of %" PRIu64 " features into a model of %" PRIu64 " inputs%s",
            c->column + c->features, inputs, c->permutation ? " permuted: they come in parts" : "");
    return 0;
}

/* The row's first token that is none. */
static int token_tell(const struct gather_work *g, uint64_t row, struct err *e)
{
    const float *x = g->s->host.inputs + (g->at + row) * g->s->model->inputs;
    uint64_t j = g->config->column, count = g->s->model->token_count;
    while (j + 1 < g->config->column + g->config->features && x[j] >= 0 && x[j] < (float)count)
        j++;
    return err_set(e, EXIT_CODE_PERMANENT, "its token %" PRIu64 " is %.0f; accepted: 0 to %" PRIu64,
                   j, (double)x[j], count - 1);
}

/* The sentence for the first bad row: its target if that is wrong, else its first bad feature. */
static int bad_row_tell(const struct gather_work *g, uint64_t row, struct err *e)
{
    struct stepper *s = g->s;
    const float *x = s->host.inputs + (g->at + row) * s->model->inputs;
    uint64_t bad = 1, j = g->config->column;
    if (g->targets)
        targets_gather(s, g->config, row, g->at + row, 1, g->targets, &bad);
    if (bad == 0)
        return target_tell(s, g->config, row, g->at + row, g->targets, e);
    while (j + 1 < g->config->column + g->config->features && isfinite(x[j]))
        j++;
    if (s->model->token_count)
        return token_tell(g, row, e);
    uint64_t stored = g->config->permutation ? g->config->permutation[j] : j;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "its feature %" PRIu64 " times the scale %g is %g%s; accepted: finite numbers",
                   stored, g->config->scale, (double)x[j], s->layout.half ? " in 16 bits" : "");
}

/* ---- rows on the device ---- */

/* A permutation to where the device reads it, where it has another one. */
static void permutation_send(struct stepper *s, const struct gather_config *c)
{
    uint64_t bytes = c->features * sizeof *c->permutation;
    if (s->permuted == c->features && memcmp(s->host.permutation, c->permutation, bytes) == 0)
        return;
    stepper_wait(s);
    s->permuted = c->features;
    memcpy(s->host.permutation, c->permutation, bytes);
    s->device->upload(s->at.permutation, s->host.permutation, bytes);
}

/* The places of the rows to where the device reads them. Those of a batch's next piece lie behind
 * the ones on their way. Of its first piece all lists go together: nobody reads what lies between
 * them. */
static void places_send(struct stepper *s, const struct gather_work *g)
{
    const struct gather_config *c = g->config;
    const void *const *const lists[ROW_PLACES] = {
        g->features, g->targets, g->targets && s->config.weights ? c->weight_rows : NULL,
        s->host.begins && !c->column ? c->begin_rows : NULL};
    uint64_t most = s->config.batch_rows_max, *sent = &s->places_sent[s->ahead], end = 0;
    if (c->permutation)
        permutation_send(s, c);
    if (g->at < *sent)
        stepper_wait(s);
    *sent = g->at + g->count;
    for (uint64_t i = 0; i < ROW_PLACES; i++) {
        const void **from = s->host.rows + i * most + g->at;
        if (!lists[i])
            continue;
        memcpy(from, lists[i], g->count * sizeof *from);
        end = i * most + g->count;
        if (g->at)
            s->device->send(s->at.rows + i * most + g->at, from, g->count * sizeof *from);
    }
    if (!g->at)
        s->device->send(s->at.rows, s->host.rows, end * sizeof(void *));
}

static void gather_there(struct stepper *s, const struct gather_work *g, uint64_t *bad)
{
    const struct gather_config *c = g->config;
    uint64_t width = s->model->inputs;
    struct matrix x = {s->at.inputs + g->at * width + c->column, g->count, c->features, width};
    const void *const *features = s->at.rows + g->at;
    if (s->model->token_count)
        op_gather_values(s->backend, g->feature_type, features, 0,
                         (double)(s->model->token_count - 1), 0, x, &bad[0]);
    else
        op_gather_features(s->backend, g->feature_type, features,
                           c->permutation ? s->at.permutation : NULL, c->scale, x, s->layout.half,
                           &bad[0]);
    if (!c->column)
        begins_gather_there(s, c, g->at, g->count, &bad[3]);
    if (g->targets)
        targets_gather_there(s, c, g->at, g->count, &bad[1], &bad[2]);
}

static int gather_on_device(struct stepper *s, struct gather_work *g, struct err *e)
{
    struct batch_results r;
    ensure(s->device->apart);
    if (!g->at && !g->config->column && !s->batch.done) /* of another batch */
        s->piece_count = s->pieces_forgotten = 0;
    if (s->piece_count == GATHER_PIECES_MAX) { /* what is there is looked at; then there is room */
        if (results_fetch(s, &r, e) < 0)
            return -1;
        s->piece_count = 0;
        s->pieces_forgotten = 1;
    }
    uint32_t number = s->piece_count++;
    s->pieces[number] =
        (struct gather_piece){*g->config, s->batch.done, g->at, g->count, g->targets != NULL};
    places_send(s, g);
    gather_there(s, g, s->results->bad[number]);
    return 0;
}

/* Of a row that is not to be had any more. */
static int row_unusable(const struct stepper *s, struct err *e)
{
    return err_set(e, EXIT_CODE_PERMANENT,
                   "it has a feature that is not finite, or a target that the loss does not take%s",
                   s->config.weights ? ", or a weight that is negative or not finite" : "");
}

/* A row of a piece, brought to the host and gathered there, to say what is wrong with it. */
static int piece_row_tell(struct stepper *s, const struct gather_piece *p, uint64_t row,
                          struct err *e)
{
    struct gather_config config = p->config;
    struct gather_work g = {.s = s, .config = &config, .at = p->at + row, .count = 1};
    uint64_t most = s->config.batch_rows_max, bytes[3] = {0}, all = 0;
    const void *at[3];
    if (config_check(&g, e) < 0)
        return -1;
    bytes[0] = config.features * element_bytes(g.feature_type);
    if (p->targets)
        bytes[1] = config.targets * element_bytes(element_named(config.target_type));
    if (p->targets && s->config.weights)
        bytes[2] = config.weights * element_bytes(element_named(config.weight_type));
    char *copy = malloc(bytes[0] + bytes[1] + bytes[2]);
    if (!copy)
        return row_unusable(s, e);
    for (int i = 0; i < 3; all += bytes[i++]) {
        at[i] = copy + all;
        if (bytes[i])
            s->device->download(copy + all, s->host.rows[(uint64_t)i * most + g.at], bytes[i]);
    }
    g.features = &at[0];
    g.targets = p->targets ? &at[1] : NULL;
    config.weight_rows = &at[2];
    atomic_store(&g.bad_row, 1);
    gather_item(&g, 0, 0);
    if (atomic_load(&g.bad_row) == 0)
        bad_row_tell(&g, 0, e);
    else
        row_unusable(s, e); /* its place has another one since: a window moved on */
    free(copy);
    return -1;
}

int pieces_check(struct stepper *s, const struct batch_results *r, struct err *e)
{
    for (uint32_t i = 0; i < s->piece_count; i++) {
        const struct gather_piece *p = &s->pieces[i];
        uint64_t row = r->bad[i][0] < p->count ? r->bad[i][0] : p->count;
        if (p->targets && r->bad[i][1] < row)
            row = r->bad[i][1];
        if (p->targets && s->config.weights && r->bad[i][2] < row)
            row = r->bad[i][2];
        if (row == p->count)
            continue;
        s->fault = (struct step_fault){-1, 0, p->before + p->at + row, 1};
        /* of the micro-batches before the last one the places are gone */
        if (p->before == s->pieces[s->piece_count - 1].before)
            return piece_row_tell(s, p, row, e);
        return row_unusable(s, e);
    }
    return 0;
}

int stepper_gather(struct stepper *s, const struct gather_config *c, uint64_t at, uint64_t count,
                   const void *const *features, const void *const *targets, uint64_t *bad_row,
                   struct err *e)
{
    struct gather_work g = {.s = s,
                            .config = c,
                            .at = at,
                            .count = count,
                            .features = features,
                            .targets = targets,
                            .bad_row = count};
    ensure(!s->model->graphs);
    ensure(at <= s->config.batch_rows_max && count <= s->config.batch_rows_max - at);
    *bad_row = 0;
    if (config_check(&g, e) < 0)
        return -1;
    if (c->on_device) {
        int done = gather_on_device(s, &g, e);
        if (done < 0 && s->fault.rows) /* it may be a row of an earlier piece */
            *bad_row = s->fault.row - (s->batch.done + at);
        return done;
    }
    batch_claim(s);
    s->piece_count = s->pieces_forgotten = 0;
    pool_run(s->pool, gather_item, &g, (count + GATHER_ROWS - 1) / GATHER_ROWS);
    *bad_row = atomic_load(&g.bad_row);
    return *bad_row == count ? 0 : bad_row_tell(&g, *bad_row, e);
}
