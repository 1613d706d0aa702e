/* graphs.h - the graph layout being written, graph after graph, in memory that does not grow.
 *
 * In each of train/ (where there are graphs to train) and validation/:
 *   node_features  u8  [sum n, Fn]     edge_index  u16 [2, sum e]  sources, targets; 0 to n - 1
 *   edge_features  u8  [sum e, Fe]     node_ptr, edge_ptr  u64 [N + 1]
 *   targets        f32 [N, K]          source_row  u64 [N]  the record or row it was made of
 */
#ifndef PIPELINES_PREPARE_GRAPHS_H
#define PIPELINES_PREPARE_GRAPHS_H

#include "proto/h5file.h"

struct graph_shape {
    uint32_t node_features, edge_features, targets; /* columns; targets: 0: there is no such set */
    int no_train;                                   /* all graphs are of validation */
};

struct graph_row {
    uint32_t nodes, edges;
    const uint8_t *node_features, *edge_features;
    const uint16_t *from, *to; /* [edges] each */
    const float *targets;      /* where the shape has some */
    uint64_t source_row;
};

struct graphs;
int graphs_open(struct graphs **g_p, const char *out, const struct graph_shape *shape,
                struct err *e);
int graphs_add(struct graphs *g, int validation, const struct graph_row *row, struct err *e);

/* Graphs, nodes and edges so far. */
struct graph_counts {
    uint64_t graphs, nodes, edges;
};
struct graph_counts graphs_counts(const struct graphs *g, int validation);

/* For attributes of the root; borrowed. */
struct h5writer *graphs_writer(struct graphs *g);

/* Write what is held and commit it (place_commit) as `out`, as graphs_open has it. *g_p is NULL
 * afterwards. */
int graphs_commit(struct graphs **g_p, const char *out, struct err *e);
void graphs_abandon(struct graphs **g_p); /* harmless on NULL */

#endif
