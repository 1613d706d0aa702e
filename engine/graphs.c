/* graphs.c - rows that are graphs into the batch: their nodes one behind the other, and their edges
 * as two sparse matrices, A of layers/gcn.c by targets and its transposed by sources.
 *
 * Where a graph's nodes and edges go follows from the graphs before it, so that the pool's threads
 * can take graphs in any order: a row of A has its own loop first and then the edges in the file's
 * order. A stored self loop is the own one: its entry stays, with the value 0, so that the number
 * of entries is known beforehand. Stored bytes may be another process's: they are read once, and
 * what they say is looked at before it is used.
 *
 * On a device apart the layers of training compute a few nodes more than there are, so that most
 * micro-batches have one of a few shapes and their operations can be recorded (recording.c): nodes
 * of no graph, without features, loop and edges. What is behind them adds zeros to every gradient.
 */
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "engine/stepper.h"

/* Graphs of one item of the pool; rows of them that are converted together. */
enum { ITEM_GRAPHS = 4, ITEM_ROWS = 64 };

struct graph_work {
    struct stepper *s;
    const struct gather_config *config;
    enum element node_type, end_type, edge_type;
    uint64_t at, count;
    const struct graph_row *graphs;
    const void *const *targets;
    _Atomic uint64_t bad_row; /* smallest so far; count: none */
};

/* A graph of the batch: where it begins there. */
struct graph {
    const struct graph_row *row;
    uint64_t node, edge, first; /* its first node and edge; the slice's first node */
};

void graphs_bytes(const struct model *m, const struct step_config *c, uint64_t bytes[GRAPH_PARTS])
{
    uint64_t nodes = c->batch_nodes_max, edges = c->batch_edges_max, word = sizeof(uint32_t);
    uint64_t entries = size_times(size_plus(nodes, edges), word);
    uint64_t begin = size_times(size_plus(nodes, 1), word);
    bytes[GRAPH_NODE_PTR] = size_times(c->batch_rows_max + 1, sizeof(uint64_t));
    bytes[GRAPH_EDGE_PTR] = bytes[GRAPH_NODE_PTR];
    bytes[GRAPH_SOURCES] = bytes[GRAPH_TARGETS] = size_times(edges, word);
    bytes[GRAPH_DEGREE] = size_times(nodes, word);
    bytes[GRAPH_IN_BEGIN] = bytes[GRAPH_OUT_BEGIN] = begin;
    bytes[GRAPH_IN_COLUMN] = bytes[GRAPH_OUT_COLUMN] = entries;
    bytes[GRAPH_IN_VALUE] = bytes[GRAPH_OUT_VALUE] = entries;
    uint64_t edge_bytes = m->edges_used ? m->edge_inputs * sizeof(float) : 0;
    bytes[GRAPH_EDGE_SUMS] = size_times(nodes, edge_bytes);
    bytes[GRAPH_EDGE_ROWS] = size_times((uint64_t)c->threads, edge_bytes);
}

void graphs_place(struct graph_batch *g, char *region, const uint64_t places[GRAPH_PARTS])
{
    g->node_ptr = (uint64_t *)(region + places[GRAPH_NODE_PTR]);
    g->edge_ptr = (uint64_t *)(region + places[GRAPH_EDGE_PTR]);
    g->sources = (uint32_t *)(region + places[GRAPH_SOURCES]);
    g->targets = (uint32_t *)(region + places[GRAPH_TARGETS]);
    g->degree = (uint32_t *)(region + places[GRAPH_DEGREE]);
    g->in = (struct adjacency){(uint32_t *)(region + places[GRAPH_IN_BEGIN]),
                               (uint32_t *)(region + places[GRAPH_IN_COLUMN]),
                               (float *)(region + places[GRAPH_IN_VALUE])};
    g->out = (struct adjacency){(uint32_t *)(region + places[GRAPH_OUT_BEGIN]),
                                (uint32_t *)(region + places[GRAPH_OUT_COLUMN]),
                                (float *)(region + places[GRAPH_OUT_VALUE])};
    g->edge_sums = (float *)(region + places[GRAPH_EDGE_SUMS]);
    g->edge_rows = (float *)(region + places[GRAPH_EDGE_ROWS]);
}

/* Up to the next multiple of 1/32 of the largest batch, or, of a batch that is small beside it, of
 * less than an eighth of its own: other tasks' graphs may be much larger. All rows with the same
 * graphs' sizes have the same number, whatever they were taken for before: it decides in which
 * order a device adds up. */
uint64_t graphs_nodes(const struct stepper *s, uint64_t nodes)
{
    enum { SHAPES = 32, UNIT = 8, SHARE = 16 };
    uint64_t most = s->config.slice_nodes_max, unit = UNIT;
    if (!s->device->apart || s->layout.statistics_count)
        return nodes;
    uint64_t coarse = size_padded((most - 1) / SHAPES + 1, UNIT);
    while (unit < coarse && unit * SHARE < nodes)
        unit *= 2;
    uint64_t padded = size_padded(nodes, unit < coarse ? unit : coarse);
    return padded < most ? padded : most;
}

/* Their rows of the two matrices have no entries. */
void graphs_pad(struct stepper *s, uint64_t rows)
{
    struct graph_batch *b = &s->host.graphs;
    uint64_t nodes = b->node_ptr[rows], end = graphs_nodes(s, nodes), width = s->model->inputs;
    uint32_t entries = (uint32_t)(nodes + b->edge_ptr[rows]);
    memset(s->host.inputs + nodes * width, 0, (end - nodes) * width * sizeof *s->host.inputs);
    for (uint64_t n = nodes; n < end; n++)
        b->in.begin[n + 1] = b->out.begin[n + 1] = entries;
    width = s->model->edges_used ? s->model->edge_inputs : 0;
    memset(b->edge_sums + nodes * width, 0, (end - nodes) * width * sizeof *b->edge_sums);
}

static struct graph graph_at(const struct graph_work *w, uint64_t row)
{
    const struct graph_batch *g = &w->s->host.graphs;
    uint64_t at = w->at + row, slice_rows = w->s->config.slice_rows;
    return (struct graph){&w->graphs[row], g->node_ptr[at], g->edge_ptr[at],
                          g->node_ptr[at / slice_rows * slice_rows]};
}

/* `rows` points to `count` rows of row_bytes each from `at` on. */
static void rows_point(const void **rows, const void *at, uint64_t row_bytes, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        rows[i] = (const char *)at + i * row_bytes;
}

/* The nodes' features: the first node that has one that is not finite, or how many there are. */
static uint64_t nodes_gather(const struct graph_work *w, const struct graph *g)
{
    const void *rows[ITEM_ROWS];
    uint64_t width = w->s->model->inputs, row_bytes = width * element_bytes(w->node_type), bad = 0;
    uint64_t left = g->row->node_count, first = 0;
    for (uint64_t count; left > 0; left -= count, first += count) {
        count = left < ITEM_ROWS ? left : ITEM_ROWS;
        rows_point(rows, (const char *)g->row->nodes + first * row_bytes, row_bytes, count);
        op_gather_features(&backend_cpu, w->node_type, rows, w->config->permutation,
                           w->config->scale,
                           matrix_of(w->s->host.inputs + (g->node + first) * width, count, width),
                           w->s->layout.half, &bad);
        if (bad < count)
            return first + bad;
    }
    return first;
}

/* One end of each edge: the first edge whose end is no node of the graph, or how many there are. */
static uint64_t ends_gather(const struct graph_work *w, const struct graph *g, const void *stored,
                            uint32_t *ends)
{
    uint64_t bytes = element_bytes(w->end_type), count = g->row->edge_count, edge = 0, good = 1;
    if (count) /* all of them as one row */
        op_gather_classes(&backend_cpu, w->end_type, &stored, 1, count, g->row->node_count, 0,
                          ends + g->edge, &good);
    if (good)
        return count;
    for (; edge < count; edge++) {
        const void *one = (const char *)stored + edge * bytes;
        op_gather_classes(&backend_cpu, w->end_type, &one, 1, 1, g->row->node_count, 0,
                          ends + g->edge + edge, &good);
        if (!good)
            break;
    }
    return edge;
}

static void degrees_count(struct graph_batch *b, const struct graph *g)
{
    uint32_t *degree = b->degree + g->node;
    for (uint64_t n = 0; n < g->row->node_count; n++)
        degree[n] = 1;
    for (uint64_t k = g->edge; k < g->edge + g->row->edge_count; k++)
        degree[b->targets[k]] += b->sources[k] != b->targets[k];
}

static float coefficient_of(uint32_t u, uint32_t v)
{
    return (float)(1 / sqrt((double)u * (double)v));
}

void graph_coefficients_fill(struct stepper *s)
{
    for (uint32_t u = 1; u < GRAPH_DEGREES; u++)
        for (uint32_t v = 1; v < GRAPH_DEGREES; v++)
            s->host.graphs.coefficients[u][v] = coefficient_of(u, v);
}

/* A[v, u] of layers/gcn.c, u and v nodes of the graph. */
static float coefficient(const struct graph_batch *b, const struct graph *g, uint32_t u, uint32_t v)
{
    uint32_t of_u = b->degree[g->node + u], of_v = b->degree[g->node + v];
    return of_u < GRAPH_DEGREES && of_v < GRAPH_DEGREES ? b->coefficients[of_u][of_v]
                                                        : coefficient_of(of_u, of_v);
}

/* The graph's rows of a matrix: row r has the loop and the edges whose end in `row_ends` is r, at
 * the column that is their other end. */
static void adjacency_make(const struct graph_batch *b, const struct graph *g,
                           const uint32_t *row_ends, const uint32_t *column_ends,
                           struct adjacency *a)
{
    uint32_t nodes = (uint32_t)g->row->node_count, loop = (uint32_t)(g->node - g->first);
    uint32_t *next = a->begin + g->node + 1, at = (uint32_t)(g->node + g->edge);
    uint64_t end = g->edge + g->row->edge_count;
    for (uint32_t r = 0; r < nodes; r++)
        next[r] = 1;
    for (uint64_t k = g->edge; k < end; k++)
        next[row_ends[k]]++;
    for (uint32_t r = 0; r < nodes; r++) { /* from a row's entries to the place of its next one */
        uint32_t entries = next[r];
        a->column[at] = loop + r;
        a->value[at] = coefficient(b, g, r, r);
        next[r] = at + 1;
        at += entries;
    }
    for (uint64_t k = g->edge; k < end; k++) {
        uint32_t r = row_ends[k], c = column_ends[k], place = next[r]++;
        a->column[place] = loop + c;
        a->value[place] = r == c ? 0 : coefficient(b, g, r, c);
    }
}

/* Adds the edges' features to M: the first edge with one that is not finite, or how many there are.
 */
static uint64_t edges_sum(const struct graph_work *w, const struct graph *g, int thread)
{
    const struct graph_batch *b = &w->s->host.graphs;
    uint64_t width = w->s->model->edge_inputs, row_bytes = width * element_bytes(w->edge_type);
    float *sums = b->edge_sums + g->node * width, *row = b->edge_rows + (uint64_t)thread * width;
    memset(sums, 0, g->row->node_count * width * sizeof *sums);
    for (uint64_t k = 0; k < g->row->edge_count; k++) {
        const void *stored = (const char *)g->row->edges + k * row_bytes;
        uint32_t u = b->sources[g->edge + k], v = b->targets[g->edge + k];
        uint64_t bad;
        op_gather_features(&backend_cpu, w->edge_type, &stored, NULL, w->config->scale,
                           matrix_of(row, 1, width), HALF_NONE, &bad);
        if (bad == 0)
            return k;
        float a = coefficient(b, g, u, v);
        for (uint64_t c = 0; c < width; c++)
            sums[v * width + c] += a * row[c];
    }
    return g->row->edge_count;
}

/* 0, or -1 where the graph cannot be used; then what it had to say of its place in the batch is
 * undefined. */
static int graph_gather(const struct graph_work *w, uint64_t row, int thread)
{
    struct graph_batch *b = &w->s->host.graphs;
    struct graph g = graph_at(w, row);
    const struct graph_row *r = g.row;
    if (r->node_count == 0 || nodes_gather(w, &g) < r->node_count ||
        ends_gather(w, &g, r->sources, b->sources) < r->edge_count ||
        ends_gather(w, &g, r->targets, b->targets) < r->edge_count)
        return -1;
    degrees_count(b, &g);
    adjacency_make(b, &g, b->targets, b->sources, &b->in);
    adjacency_make(b, &g, b->sources, b->targets, &b->out);
    return w->s->model->edges_used && edges_sum(w, &g, thread) < r->edge_count ? -1 : 0;
}

static void bad_row_note(struct graph_work *w, uint64_t row)
{
    uint64_t best = atomic_load(&w->bad_row);
    while (row < best && !atomic_compare_exchange_weak(&w->bad_row, &best, row))
        ;
}

static void graphs_item(void *argument, uint64_t item, int thread)
{
    struct graph_work *w = argument;
    uint64_t end = (item + 1) * ITEM_GRAPHS < w->count ? (item + 1) * ITEM_GRAPHS : w->count, bad;
    for (uint64_t row = item * ITEM_GRAPHS; row < end; row++) {
        bad = 1;
        if (w->targets)
            targets_gather(w->s, w->config, row, w->at + row, 1, w->targets, &bad);
        if (graph_gather(w, row, thread) < 0 || bad == 0)
            bad_row_note(w, row);
    }
}

static int ends_tell(const struct graph_work *w, const struct graph *g, const void *stored,
                     const char *which, uint64_t edge, struct err *e)
{
    uint64_t bytes = element_bytes(w->end_type), value = 0;
    memcpy(&value, (const char *)stored + edge * bytes, bytes);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "the %s of its edge %" PRIu64 " is node %" PRIu64
                   "; it has the nodes 0 to %" PRIu64,
                   which, edge, value, g->row->node_count - 1);
}

static int features_tell(const char *of, uint64_t number, struct err *e)
{
    return err_set(e, EXIT_CODE_PERMANENT,
                   "a feature of its %s %" PRIu64 " times data.scale is not a finite number", of,
                   number);
}

/* The sentence for the first bad row. */
static int bad_row_tell(const struct graph_work *w, uint64_t row, struct err *e)
{
    struct graph g = graph_at(w, row);
    const struct graph_row *r = g.row;
    struct graph_batch *b = &w->s->host.graphs;
    uint64_t bad = 1;
    if (r->node_count == 0)
        return err_set(e, EXIT_CODE_PERMANENT, "its graph has no nodes; at least one is needed");
    if (w->targets)
        targets_gather(w->s, w->config, row, w->at + row, 1, w->targets, &bad);
    if (bad == 0)
        return target_tell(w->s, w->config, row, w->at + row, w->targets, e);
    if ((bad = nodes_gather(w, &g)) < r->node_count)
        return features_tell("node", bad, e);
    if ((bad = ends_gather(w, &g, r->sources, b->sources)) < r->edge_count)
        return ends_tell(w, &g, r->sources, "source", bad, e);
    if ((bad = ends_gather(w, &g, r->targets, b->targets)) < r->edge_count)
        return ends_tell(w, &g, r->targets, "target", bad, e);
    return features_tell("edge", edges_sum(w, &g, 0), e);
}

static int config_check(struct graph_work *w, struct err *e)
{
    const struct gather_config *c = w->config;
    const struct model *m = w->s->model;
    w->node_type = element_named(c->feature_type);
    w->end_type = element_named(c->end_type);
    w->edge_type = element_named(c->edge_features ? c->edge_type : "f32");
    if (w->targets && targets_config_check(w->s, c, e) < 0)
        return -1;
    if (w->node_type == ELEMENT_COUNT || w->edge_type == ELEMENT_COUNT ||
        !element_is_whole(w->end_type))
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot gather graphs with nodes of type '%.7s', ends of edges of type "
            "'%.7s' and edges of type '%.7s'; accepted: u8, i8, u16, i16, u32, i32, u64, "
            "i64, and of features f16, f32, f64",
            c->feature_type, c->end_type, c->edge_type);
    if (c->column || c->features != m->inputs || c->edge_features != m->edge_inputs)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot gather graphs of %" PRIu64 " features a node and %" PRIu64
                       " an edge into a model of %" PRIu64 " and %" PRIu64,
                       c->column + c->features, c->edge_features, m->inputs, m->edge_inputs);
    return 0;
}

/* Where each graph's nodes and edges go. -1 when there are more of them than was reserved. */
static int places_find(struct graph_work *w, struct err *e)
{
    struct graph_batch *b = &w->s->host.graphs;
    const struct step_config *c = &w->s->config;
    if (w->at == 0) {
        b->node_ptr[0] = b->edge_ptr[0] = 0;
        b->in.begin[0] = b->out.begin[0] = 0;
    }
    b->rows = w->at;
    for (uint64_t i = 0; i < w->count; i++) {
        const struct graph_row *r = &w->graphs[i];
        uint64_t nodes = b->node_ptr[w->at + i], edges = b->edge_ptr[w->at + i];
        uint64_t slice = b->node_ptr[(w->at + i) / c->slice_rows * c->slice_rows];
        if (r->node_count > c->batch_nodes_max - nodes ||
            r->edge_count > c->batch_edges_max - edges ||
            r->node_count > c->slice_nodes_max - (nodes - slice))
            return err_set(e, EXIT_CODE_PERMANENT,
                           "with its %" PRIu64 " nodes and %" PRIu64
                           " edges the batch has more than the loader said (%" PRIu64
                           " and %" PRIu64 "; %" PRIu64 " nodes a slice): the data changed",
                           r->node_count, r->edge_count, c->batch_nodes_max, c->batch_edges_max,
                           c->slice_nodes_max);
        b->node_ptr[w->at + i + 1] = nodes + r->node_count;
        b->edge_ptr[w->at + i + 1] = edges + r->edge_count;
        b->rows++;
    }
    return 0;
}

int stepper_gather_graphs(struct stepper *s, const struct gather_config *c, uint64_t at,
                          uint64_t count, const struct graph_row *graphs,
                          const void *const *targets, uint64_t *bad_row, struct err *e)
{
    struct graph_work w = {.s = s,
                           .config = c,
                           .at = at,
                           .count = count,
                           .graphs = graphs,
                           .targets = targets,
                           .bad_row = count};
    ensure(s->model->graphs && (at == 0 || at == s->host.graphs.rows));
    ensure(at <= s->config.batch_rows_max && count <= s->config.batch_rows_max - at);
    *bad_row = 0;
    if (config_check(&w, e) < 0)
        return -1;
    batch_claim(s);
    s->piece_count = 0;
    if (places_find(&w, e) < 0) {
        *bad_row = s->host.graphs.rows - at;
        return -1;
    }
    pool_run(s->pool, graphs_item, &w, (count + ITEM_GRAPHS - 1) / ITEM_GRAPHS);
    *bad_row = atomic_load(&w.bad_row);
    return *bad_row == count ? 0 : bad_row_tell(&w, *bad_row, e);
}
