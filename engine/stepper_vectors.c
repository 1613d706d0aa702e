/* stepper_vectors.c - the host and a device apart: the flat vectors, the batch and the protected
 * tasks there and back. On the CPU there is one memory, and nothing moves.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/optimizer.h"
#include "engine/stepper.h"

static uint64_t moments_bytes(const struct stepper *s)
{
    int moments = s->config.with_optimizer ? optimizer_moments(s->config.optimizer) : 0;
    return (uint64_t)moments * s->layout.trained * sizeof(float);
}

static uint64_t carried_set_bytes(const struct stepper *s)
{
    return carried_floats(s->model, &s->config) * sizeof(float);
}

/* Each of them by that function of the device's. */
static void vectors_copy(struct stepper *s, void (*copy)(void *, const void *, uint64_t))
{
    copy(s->mirror.parameters, s->parameters, s->model->parameter_count * sizeof *s->parameters);
    if (s->mirror.moments)
        copy(s->mirror.moments, s->moment_m, moments_bytes(s));
    if (s->module_buffers)
        copy(s->mirror.module_buffers, s->module_buffers,
             s->model->buffer_values * sizeof *s->module_buffers);
    if (s->mirror.carried)
        copy(s->mirror.carried, s->carried.set[CARRIED_NOW], carried_set_bytes(s));
}

void stepper_fetch_begin(struct stepper *s)
{
    if (!s->device->apart || !s->mirror_locked || s->fetch != FETCH_NONE)
        return;
    s->device->compute_mark(DEVICE_MARK_FETCH);
    s->device->compute_await(DEVICE_MARK_FETCH);
    vectors_copy(s, s->device->copy_out);
    s->device->copy_mark(DEVICE_MARK_FETCH);
    s->fetch = FETCH_BEGUN;
}

void stepper_fetch_wait(struct stepper *s)
{
    if (s->fetch != FETCH_BEGUN)
        return;
    s->device->copy_wait(DEVICE_MARK_FETCH);
    s->fetch = FETCH_DONE;
}

void fetch_drop(struct stepper *s)
{
    stepper_fetch_wait(s);
    s->fetch = FETCH_NONE;
}

int stepper_fetch(struct stepper *s, struct err *e)
{
    if (!s->device->apart)
        return 0;
    stepper_fetch_wait(s);
    if (s->fetch != FETCH_DONE)
        vectors_copy(s, s->device->download);
    return s->device->failure(e);
}

void stepper_send(struct stepper *s)
{
    if (!s->device->apart)
        return;
    fetch_drop(s);
    s->device->upload(s->parameters, s->mirror.parameters,
                      s->model->parameter_count * sizeof *s->parameters);
    s->weights_current = 0;
    if (s->mirror.moments)
        s->device->upload(s->moment_m, s->mirror.moments, moments_bytes(s));
    if (s->module_buffers)
        s->device->upload(s->module_buffers, s->mirror.module_buffers,
                          s->model->buffer_values * sizeof *s->module_buffers);
    if (s->mirror.carried)
        s->device->upload(s->carried.set[CARRIED_NOW], s->mirror.carried, carried_set_bytes(s));
    s->device->wait();
}

float *stepper_parameters(struct stepper *s)
{
    return s->device->apart ? s->mirror.parameters : s->parameters;
}

float *stepper_module_buffers(struct stepper *s)
{
    return s->device->apart ? s->mirror.module_buffers : s->module_buffers;
}

float *stepper_moment_m(struct stepper *s)
{
    return s->device->apart ? s->mirror.moments : s->moment_m;
}

float *stepper_moment_v(struct stepper *s)
{
    if (!s->device->apart || !s->moment_v)
        return s->moment_v;
    return s->mirror.moments + s->layout.trained;
}

void stepper_moments_clear(struct stepper *s)
{
    if (!s->moment_m)
        return;
    fetch_drop(s);
    s->device->clear(s->moment_m, moments_bytes(s));
    if (s->device->apart)
        memset(s->mirror.moments, 0, moments_bytes(s));
}

float *stepper_carried(struct stepper *s)
{
    return s->device->apart ? s->mirror.carried : s->carried.set[CARRIED_NOW];
}

void stepper_carried_clear(struct stepper *s)
{
    if (!s->carried.set[CARRIED_NOW])
        return;
    fetch_drop(s);
    s->device->clear(s->carried.set[CARRIED_NOW], carried_set_bytes(s));
    s->device->clear(s->carried.set[CARRIED_NEXT],
                     carried_set_bytes(s)); /* a batch may be smaller */
    if (s->device->apart)
        memset(s->mirror.carried, 0, carried_set_bytes(s));
}

float *stepper_gradient(struct stepper *s)
{
    uint64_t bytes = s->layout.trained * sizeof(float);
    if (!s->device->apart)
        return s->gradient;
    if (!s->mirror.gradient)
        s->mirror.gradient = malloc(bytes);
    if (s->mirror.gradient)
        s->device->download(s->mirror.gradient, s->gradient, bytes);
    return s->mirror.gradient;
}

/* ---- the batch ---- */

/* What of it goes to the device. */
struct batch_parts {
    struct device_parcel at[DEVICE_PARCELS_MAX];
    int count;
};

/* `by` the same place behind the inputs' as in the batch's region, in that of arrivals, where there
 * is one: rows that are graphs. */
static void part_add(const struct stepper *s, struct batch_parts *parts, void *at, const void *host,
                     uint64_t bytes)
{
    char *arrivals = s->region[KIND_ARRIVAL].at;
    uint64_t place = (uint64_t)((char *)at - (char *)s->at.inputs);
    if (!bytes)
        return;
    ensure(!arrivals || place + bytes <= s->region[KIND_ARRIVAL].bytes);
    ensure(parts->count < DEVICE_PARCELS_MAX);
    parts->at[parts->count++] =
        (struct device_parcel){at, arrivals ? arrivals + place : NULL, host, bytes};
}

static void adjacency_add(const struct stepper *s, struct batch_parts *parts,
                          const struct adjacency *at, const struct adjacency *host, uint64_t nodes,
                          uint64_t entries)
{
    part_add(s, parts, at->begin, host->begin, (nodes + 1) * sizeof *at->begin);
    part_add(s, parts, at->column, host->column, entries * sizeof *at->column);
    part_add(s, parts, at->value, host->value, entries * sizeof *at->value);
}

static void graphs_add(const struct stepper *s, struct batch_parts *parts, uint64_t rows)
{
    const struct graph_batch *at = &s->at.graphs, *host = &s->host.graphs;
    uint64_t nodes = graphs_nodes(s, host->node_ptr[rows]);
    uint64_t entries = host->node_ptr[rows] + host->edge_ptr[rows];
    part_add(s, parts, at->node_ptr, host->node_ptr, (rows + 1) * sizeof *at->node_ptr);
    adjacency_add(s, parts, &at->in, &host->in, nodes, entries);
    adjacency_add(s, parts, &at->out, &host->out, nodes, entries);
    if (s->model->edges_used)
        part_add(s, parts, at->edge_sums, host->edge_sums,
                 nodes * s->model->edge_inputs * sizeof *at->edge_sums);
}

static void targets_add(const struct stepper *s, struct batch_parts *parts, uint64_t rows)
{
    const struct model *m = s->model;
    uint64_t weights_bytes = rows * model_row_targets(m) * sizeof *s->at.weights;
    if (s->at.values)
        part_add(s, parts, s->at.values, s->host.values, rows * m->outputs * sizeof *s->at.values);
    else
        part_add(s, parts, s->at.classes, s->host.classes,
                 rows * m->target_steps * sizeof *s->at.classes);
    if (s->weighted)
        part_add(s, parts, s->at.weights, s->host.weights, weights_bytes);
    if (s->at.class_given)
        part_add(s, parts, s->at.class_given, s->host.class_given, weights_bytes);
    if (s->at.begins)
        part_add(s, parts, s->at.begins, s->host.begins, rows * sizeof *s->at.begins);
}

void batch_send(struct stepper *s, uint64_t rows)
{
    const struct model *m = s->model;
    struct batch_parts parts = {.count = 0};
    if (!s->device->apart || s->sent_rows || s->piece_count)
        return;
    if (m->graphs)
        graphs_pad(s, rows);
    uint64_t input_rows = m->graphs ? graphs_nodes(s, s->host.graphs.node_ptr[rows]) : rows;
    part_add(s, &parts, s->at.inputs, s->host.inputs,
             input_rows * m->inputs * sizeof *s->at.inputs);
    targets_add(s, &parts, rows);
    if (m->graphs)
        graphs_add(s, &parts, rows);
    if (s->region[KIND_ARRIVAL].at)
        s->device->deliver(parts.at, parts.count);
    for (int i = 0; !s->region[KIND_ARRIVAL].at && i < parts.count; i++)
        s->device->upload(parts.at[i].to, parts.at[i].from, parts.at[i].bytes);
    s->device->compute_mark(DEVICE_MARK_SENT);
    s->sent_rows = rows;
}

void step_send(struct stepper *s, uint64_t step)
{
    if (!s->device->apart || !model_draws(s->model))
        return;
    *s->host.step = step;
    s->device->upload(s->at.step, s->host.step, sizeof step);
}

void batch_claim(struct stepper *s)
{
    if (s->sent_rows)
        s->device->compute_wait(DEVICE_MARK_SENT); /* it may still be on its way */
    s->sent_rows = 0;
}

void batch_fetch(const struct stepper *s, const void *at, uint64_t bytes)
{
    uint64_t place = (uint64_t)((const char *)at - (const char *)s->region[KIND_BATCH].at);
    if (s->device->apart)
        s->device->download_later((char *)s->region[KIND_STAGE].at + place, at, bytes);
}

void targets_fetch(const struct stepper *s, uint64_t rows)
{
    if (s->at.values)
        batch_fetch(s, s->at.values, rows * s->model->outputs * sizeof *s->at.values);
    else
        batch_fetch(s, s->at.classes, rows * s->model->target_steps * sizeof *s->at.classes);
    if (s->weighted)
        batch_fetch(s, s->at.weights, rows * model_row_targets(s->model) * sizeof *s->at.weights);
}

void stepper_wait_for(struct stepper *s, int mark)
{
    const struct step_config *c = &s->config;
    while (c->meanwhile && c->meanwhile(c->self) && !s->device->compute_done(mark))
        ;
    s->device->compute_wait(mark);
}

void stepper_wait(struct stepper *s)
{
    s->device->compute_mark(DEVICE_MARK_STEPPER);
    stepper_wait_for(s, DEVICE_MARK_STEPPER);
    memset(s->places_sent, 0, sizeof s->places_sent);
}

int results_fetch(struct stepper *s, struct batch_results *r, struct err *e)
{
    s->device->download_later(s->results_host, s->results, sizeof *r);
    stepper_wait(s);
    *r = *s->results_host;
    return s->device->failure(e) < 0 ? -1 : pieces_check(s, r, e);
}

/* ---- the protected tasks ---- */

static void *moved(const void *from, const struct importance *f, char *to)
{
    return from ? to + ((const char *)from - (const char *)f->region.at) : NULL;
}

static int importance_send(struct stepper *s, struct sent_term *t, const struct importance *f,
                           struct err *e)
{
    t->importance = *f;
    t->importance.tensors = malloc(f->count * sizeof *f->tensors);
    if (!t->importance.tensors)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot list the Fisher information's tensors");
    if (device_reserve(s->device, f->region.bytes, "Fisher information", &t->fisher, e) < 0)
        return -1;
    char *to = t->fisher;
    s->device->upload(to, f->region.at, f->region.bytes);
    for (uint32_t i = 0; i < f->count; i++) {
        struct importance_tensor *of = &t->importance.tensors[i];
        *of = f->tensors[i];
        of->exact = moved(of->exact, f, to);
        of->values = moved(of->values, f, to);
        of->codes = moved(of->codes, f, to);
        of->row = moved(of->row, f, to);
        of->column = moved(of->column, f, to);
        of->level = moved(of->level, f, to);
        of->outlier = moved(of->outlier, f, to);
        of->outlier_first = moved(of->outlier_first, f, to);
    }
    t->to.importance = &t->importance;
    return 0;
}

static int term_send(struct stepper *s, struct sent_term *t, const struct ewc_term *from,
                     struct err *e)
{
    const struct model *m = s->model;
    uint64_t bytes = m->parameter_count * sizeof(float);
    *t = (struct sent_term){.from = *from, .to = *from};
    if (device_reserve(s->device, bytes, "parameters of a protected task", &t->theta_star, e) < 0)
        return -1;
    if (from->theta_star)
        s->device->upload(t->theta_star, from->theta_star, bytes);
    for (uint32_t i = 0; !from->theta_star && i < m->tensor_count; i++)
        s->device->upload((float *)t->theta_star + m->tensors[i].first, from->theta_stars[i],
                          m->tensors[i].count * sizeof(float));
    t->to.theta_star = t->theta_star;
    if (from->importance && importance_send(s, t, from->importance, e) < 0)
        return -1;
    if (from->fisher) {
        if (device_reserve(s->device, bytes, "Fisher information", &t->fisher, e) < 0)
            return -1;
        s->device->upload(t->fisher, from->fisher, bytes);
        t->to.fisher = t->fisher;
    }
    s->device->wait();
    return 0;
}

void terms_close(struct stepper *s)
{
    for (int i = 0; i < s->sent_count; i++) {
        s->device->release(s->sent[i].theta_star);
        s->device->release(s->sent[i].fisher);
        free(s->sent[i].importance.tensors);
    }
    s->sent_count = 0;
}

/* The same numbers with another strength need not be sent again. */
static int terms_are_sent(const struct stepper *s)
{
    if (s->sent_count != s->batch.term_count)
        return 0;
    for (int i = 0; i < s->sent_count; i++) {
        const struct ewc_term *is = &s->batch.terms[i], *was = &s->sent[i].from;
        if (is->fisher != was->fisher || is->theta_star != was->theta_star ||
            is->importance != was->importance || is->theta_stars != was->theta_stars ||
            is->version != was->version)
            return 0;
    }
    return 1;
}

int terms_send(struct stepper *s, struct err *e)
{
    ensure(s->batch.term_count <= SENT_TERMS_MAX);
    if (!terms_are_sent(s)) {
        terms_close(s);
        s->terms_version++;
        for (int i = 0; i < s->batch.term_count; i++) {
            s->sent_count++;
            if (term_send(s, &s->sent[i], &s->batch.terms[i], e) < 0)
                return terms_close(s), -1;
        }
    }
    for (int i = 0; i < s->sent_count; i++) {
        struct ewc_term *to = &s->sent[i].to;
        const struct ewc_term *is = &s->batch.terms[i];
        s->terms_version += to->lambda != is->lambda || to->damping != is->damping;
        to->lambda = is->lambda;
        to->damping = is->damping;
    }
    return 0;
}
