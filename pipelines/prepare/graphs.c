/* graphs.c - see graphs.h. Each data set has one buffer of a chunk, stored when it is full. */
#include "pipelines/prepare/graphs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/piece.h"
#include "pipelines/prepare/place.h"

enum {
    CHUNK_BYTES = 256 << 10, /* about: the chunk's rows are a power of two */
    CHUNK_ROWS_MAX = 8192,
};

enum set {
    SET_NODE_FEATURES,
    SET_EDGE_INDEX,
    SET_EDGE_FEATURES,
    SET_NODE_PTR,
    SET_EDGE_PTR,
    SET_TARGETS,
    SET_SOURCE_ROW,
    SETS,
};

static const char *const set_names[SETS] = {
    "node_features", "edge_index", "edge_features", "node_ptr", "edge_ptr", "targets", "source_row",
};

struct graphs {
    struct h5writer *writer;
    struct piece piece[2][SETS];
    struct graph_counts counts[2];
    struct graph_shape shape;
};

/* Of train and then of validation; others are neither begun nor written. */
static int set_is_there(const struct graphs *g, int i)
{
    return (g->shape.targets || i % SETS != SET_TARGETS) && (!g->shape.no_train || i >= SETS);
}

static uint64_t chunk_rows_choose(uint64_t row_bytes)
{
    uint64_t rows = CHUNK_ROWS_MAX;
    while (rows > 1 && rows * row_bytes > CHUNK_BYTES)
        rows /= 2;
    return rows;
}

static int set_begin(struct graphs *g, int validation, enum set set, enum h5type type, int rank,
                     uint64_t columns, struct err *e)
{
    char name[64];
    int axis = set == SET_EDGE_INDEX; /* [2, sum e] grows along its second dimension */
    uint64_t dims[2] = {axis ? columns : 0, axis ? 0 : columns};
    snprintf(name, sizeof name, "%s/%s", validation ? "validation" : "train", set_names[set]);
    return piece_begin_growing(&g->piece[validation][set], g->writer, name, type, rank, dims, axis,
                               chunk_rows_choose(columns * h5type_bytes(type)), e);
}

static int rows_add(struct graphs *g, int validation, enum set set, const void *rows,
                    uint64_t count, struct err *e)
{
    return piece_add(&g->piece[validation][set], rows, count, e);
}

/* The buffer holds all sources of a chunk, then all targets; a short last piece closes the gap. */
static int edges_add(struct graphs *g, int validation, const struct graph_row *row, struct err *e)
{
    struct piece *p = &g->piece[validation][SET_EDGE_INDEX];
    uint16_t *sources = (uint16_t *)p->data, *targets = sources + p->chunk_rows;
    for (uint32_t i = 0; i < row->edges; i++) {
        sources[p->held] = row->from[i];
        targets[p->held] = row->to[i];
        if (++p->held == p->chunk_rows && piece_flush(p, e) < 0)
            return -1;
    }
    return 0;
}

static int edges_end(struct graphs *g, int validation, struct err *e)
{
    struct piece *p = &g->piece[validation][SET_EDGE_INDEX];
    uint16_t *sources = (uint16_t *)p->data;
    memmove(sources + p->held, sources + p->chunk_rows, p->held * sizeof *sources);
    return piece_flush(p, e);
}

int graphs_open(struct graphs **g_p, const char *out, const struct graph_shape *shape,
                struct err *e)
{
    const struct {
        enum h5type type;
        int rank;
        uint64_t columns;
    } sets[SETS] = {
        [SET_NODE_FEATURES] = {H5TYPE_U8, 2, shape->node_features},
        [SET_EDGE_INDEX] = {H5TYPE_U16, 2, 2},
        [SET_EDGE_FEATURES] = {H5TYPE_U8, 2, shape->edge_features},
        [SET_NODE_PTR] = {H5TYPE_U64, 1, 1},
        [SET_EDGE_PTR] = {H5TYPE_U64, 1, 1},
        [SET_TARGETS] = {H5TYPE_F32, 2, shape->targets},
        [SET_SOURCE_ROW] = {H5TYPE_U64, 1, 1},
    };
    const uint64_t start = 0;
    struct graphs *g = *g_p = calloc(1, sizeof *g);
    int result = g ? place_begin(&g->writer, out, e)
                   : err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", out);
    if (g)
        g->shape = *shape;
    for (int i = 0; result == 0 && i < 2 * SETS; i++)
        result = !set_is_there(g, i)
                     ? 0
                     : set_begin(g, i / SETS, (enum set)(i % SETS), sets[i % SETS].type,
                                 sets[i % SETS].rank, sets[i % SETS].columns, e);
    for (int v = shape->no_train; result == 0 && v < 2; v++)
        if (rows_add(g, v, SET_NODE_PTR, &start, 1, e) < 0 ||
            rows_add(g, v, SET_EDGE_PTR, &start, 1, e) < 0)
            result = -1;
    if (result < 0)
        graphs_abandon(g_p);
    return result;
}

int graphs_add(struct graphs *g, int validation, const struct graph_row *row, struct err *e)
{
    struct graph_counts *c = &g->counts[validation];
    c->graphs++;
    c->nodes += row->nodes;
    c->edges += row->edges;
    return rows_add(g, validation, SET_NODE_FEATURES, row->node_features, row->nodes, e) < 0 ||
                   edges_add(g, validation, row, e) < 0 ||
                   rows_add(g, validation, SET_EDGE_FEATURES, row->edge_features, row->edges, e) <
                       0 ||
                   rows_add(g, validation, SET_NODE_PTR, &c->nodes, 1, e) < 0 ||
                   rows_add(g, validation, SET_EDGE_PTR, &c->edges, 1, e) < 0 ||
                   (g->shape.targets &&
                    rows_add(g, validation, SET_TARGETS, row->targets, 1, e) < 0) ||
                   rows_add(g, validation, SET_SOURCE_ROW, &row->source_row, 1, e) < 0
               ? -1
               : 0;
}

struct graph_counts graphs_counts(const struct graphs *g, int validation)
{
    return g->counts[validation];
}

struct h5writer *graphs_writer(struct graphs *g)
{
    return g->writer;
}

int graphs_commit(struct graphs **g_p, const char *out, struct err *e)
{
    struct graphs *g = *g_p;
    int result = 0;
    for (int i = 0; result == 0 && i < 2 * SETS; i++) {
        int validation = i / SETS, set = i % SETS;
        if (!set_is_there(g, i))
            continue;
        result = set == SET_EDGE_INDEX ? edges_end(g, validation, e)
                                       : piece_flush(&g->piece[validation][set], e);
    }
    if (result == 0)
        result = place_commit(&g->writer, out, e);
    graphs_abandon(g_p);
    return result;
}

void graphs_abandon(struct graphs **g_p)
{
    struct graphs *g = *g_p;
    if (!g)
        return;
    h5writer_abandon(&g->writer);
    for (int i = 0; i < 2 * SETS; i++)
        piece_close(&g->piece[i / SETS][i % SETS]);
    free(g);
    *g_p = NULL;
}
