/* check_graphs.c - see check_graphs.h. The layout is described in docs/DATA.md. */
#include "pipelines/prepare/check_graphs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/cuts.h"
#include "pipelines/prepare/look.h"

enum { BLOCK_EDGES = 256 << 10 };

struct graphs {
    struct h5reader *reader;
    const char *group;
    struct cuts nodes, edges;
    struct err *wrong;
};

int check_graphs_has(struct h5reader *r, const char *group)
{
    char path[H5FILE_NAME_MAX + 1];
    return h5reader_has(r, check_path(group, "node_features", path));
}

/* 1: the data set is there, with `rows` rows (items of `of`); 0: it is not; -1. */
static int set_describe(struct graphs *g, const char *name, uint64_t rows, const char *of,
                        struct h5array *a, struct err *e)
{
    char path[H5FILE_NAME_MAX + 1];
    if (!h5reader_has(g->reader, check_path(g->group, name, path)))
        return 0;
    if (h5reader_foreign(g->reader, path, a, e) < 0)
        return -1;
    if (a->rank >= 1 && a->dims[0] == rows)
        return 1;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s has %" PRIu64 " rows; expected %" PRIu64 ", one for each of the %s", path,
                   a->rank ? a->dims[0] : 0, rows, of);
}

/* Look at one data set, if it is there and not empty, and print it. */
static int set_look(struct graphs *g, const char *name, uint64_t rows, const char *of,
                    struct err *e)
{
    char path[H5FILE_NAME_MAX + 1];
    struct h5array a;
    struct look l = {0};
    int there = set_describe(g, name, rows, of, &a, e);
    if (there <= 0)
        return there;
    check_path(g->group, name, path);
    if (a.bytes == 0) { /* no molecule has a bond */
        printf("  %s: empty\n", path);
        return 0;
    }
    int result = look_open(&l, g->reader, path, e) < 0 || look_all(&l, g->reader, e) < 0 ? -1 : 0;
    if (result == 0) {
        look_print_shape(&l);
        look_print_range(&l);
        look_print_constant(&l);
        if (l.infinite + l.nan && !g->wrong->code)
            err_set(g->wrong, EXIT_CODE_PERMANENT,
                    "%s has values that are no finite float32, first in row %" PRIu64, path,
                    l.first_bad);
    }
    look_close(&l);
    return result;
}

/* Do the ends of a block of edges stay in their graph? *graph: that of the edge before. */
static int block_judge(const struct graphs *g, const struct h5array *a, const unsigned char *block,
                       uint64_t first, uint64_t edges, uint64_t *graph, struct err *e)
{
    uint32_t step = h5type_bytes(a->type);
    for (uint64_t i = 0; i < edges; i++) {
        while (first + i >= g->edges.at[*graph + 1])
            ++*graph;
        uint64_t nodes = g->nodes.at[*graph + 1] - g->nodes.at[*graph];
        for (int end = 0; end < 2; end++) {
            uint64_t node = 0; /* a negative one is seen as one that is too large */
            memcpy(&node, block + ((uint64_t)end * edges + i) * step, step);
            if (node >= nodes)
                return err_set(e, EXIT_CODE_PERMANENT,
                               "%s: the %s of edge %" PRIu64 " is node %" PRIu64
                               ", and its graph, %" PRIu64 ", has %" PRIu64
                               " (counted from 0 in each graph)",
                               a->name, end ? "target" : "source", first + i, node, *graph, nodes);
        }
    }
    return 0;
}

static int ends_look(struct graphs *g, const struct h5array *a, struct err *e)
{
    unsigned char *block = malloc(2 * BLOCK_EDGES * sizeof(uint64_t));
    uint64_t all = a->dims[1], graph = 0;
    int result = block ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot check %s", a->name);
    for (uint64_t first = 0, edges; result == 0 && first < all; first += edges) {
        edges = all - first < BLOCK_EDGES ? all - first : BLOCK_EDGES;
        result = h5reader_columns(g->reader, a, first, edges, block, e) < 0 ||
                         block_judge(g, a, block, first, edges, &graph, e) < 0
                     ? -1
                     : 0;
    }
    free(block);
    if (result == 0)
        printf("  %s: %s [2, %" PRIu64 "], all within their graph\n", a->name, h5type_name(a->type),
               all);
    return result;
}

/* Nodes, edges and the pointers that cut them; edge_index is described in *ends. */
static int structure_read(struct graphs *g, struct h5array *ends, struct err *e)
{
    char path[H5FILE_NAME_MAX + 1];
    struct h5array nodes;
    if (h5reader_foreign(g->reader, check_path(g->group, "node_features", path), &nodes, e) < 0 ||
        h5reader_foreign(g->reader, check_path(g->group, "edge_index", path), ends, e) < 0)
        return -1;
    if (nodes.rank != 2 || nodes.bytes == 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %d dimensions and %" PRIu64 " bytes; expected [nodes, F] values",
                       nodes.name, nodes.rank, nodes.bytes);
    if (ends->rank != 2 || ends->dims[0] != 2 || h5type_name(ends->type)[0] == 'f')
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has type %s and %d dimensions; expected whole numbers [2, edges]",
                       ends->name, h5type_name(ends->type), ends->rank);
    if (cuts_open(&g->nodes, g->reader, check_path(g->group, "node_ptr", path), nodes.dims[0],
                  nodes.name, e) < 0 ||
        cuts_open(&g->edges, g->reader, check_path(g->group, "edge_ptr", path), ends->dims[1],
                  ends->name, e) < 0)
        return -1;
    if (g->nodes.rows == g->edges.rows)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s cuts %" PRIu64 " graphs and %s %" PRIu64 "; expected as many",
                   g->nodes.array.name, g->nodes.rows, g->edges.array.name, g->edges.rows);
}

/* What training needs besides. */
static void training_judge(struct graphs *g)
{
    char path[H5FILE_NAME_MAX + 1];
    uint64_t graph = 0;
    while (graph < g->nodes.rows && g->nodes.at[graph + 1] > g->nodes.at[graph])
        graph++;
    if (!g->wrong->code && graph < g->nodes.rows)
        err_set(g->wrong, EXIT_CODE_PERMANENT,
                "%s: graph %" PRIu64 " has no nodes; a graph that is trained on has at least one",
                g->nodes.array.name, graph);
    if (!g->wrong->code && !h5reader_has(g->reader, check_path(g->group, "targets", path)))
        err_set(g->wrong, EXIT_CODE_PERMANENT,
                "no data set %s; it holds what the model is to learn of each graph", path);
}

int check_graphs(struct h5reader *r, const char *group, struct err *wrong, struct err *e)
{
    struct graphs g = {.reader = r, .group = group, .wrong = wrong};
    struct h5array ends, targets;
    int result = structure_read(&g, &ends, e);
    if (result == 0) {
        cuts_print(&g.nodes, "graphs", "nodes");
        cuts_print(&g.edges, "graphs", "edges");
        result = ends_look(&g, &ends, e) < 0 ||
                         set_look(&g, "node_features", g.nodes.at[g.nodes.rows], "nodes", e) < 0 ||
                         set_look(&g, "edge_features", g.edges.at[g.edges.rows], "edges", e) < 0 ||
                         set_describe(&g, "targets", g.nodes.rows, "graphs", &targets, e) < 0
                     ? -1
                     : 0;
        training_judge(&g);
    }
    cuts_close(&g.nodes);
    cuts_close(&g.edges);
    return result;
}
