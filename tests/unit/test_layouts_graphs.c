/* test_layouts_graphs.c - graphs: what a reader process delivers is what libhdf5 gives, the largest
 * batch is that of a walk by hand, and what cannot be is refused.
 */
#include "proto/order.h"
#include "tests/test.h"
#include "tests/unit/layout_fixture.h"
#include "tests/unit/reader_compare.h"

struct graphs {
    uint64_t count, nodes_max, edges_max; /* of a graph */
    hid_t index_type, node_type, edge_type;
    enum filters filters;
    hsize_t node_chunk, edge_chunk, edge_planes; /* 0: contiguous */
    int edge_features, targets, pointer_chunk;
    uint64_t *nodes, *edges; /* count + 1 each; set by graphs_make */
    int64_t *index;
};

static void pointers_make(struct graphs *g)
{
    g->nodes = calloc(g->count + 1, sizeof *g->nodes);
    g->edges = calloc(g->count + 1, sizeof *g->edges);
    for (uint64_t i = 0; i < g->count; i++) {
        uint64_t nodes = test_random() % (g->nodes_max + 1);
        uint64_t edges = nodes ? test_random() % (g->edges_max + 1) : 0;
        g->nodes[i + 1] = g->nodes[i] + nodes;
        g->edges[i + 1] = g->edges[i] + edges;
    }
    uint64_t all = g->edges[g->count];
    g->index = calloc(2 * all + 1, sizeof *g->index);
    for (uint64_t i = 0; i < g->count; i++)
        for (uint64_t j = g->edges[i]; j < g->edges[i + 1]; j++)
            for (int end = 0; end < 2; end++)
                g->index[(uint64_t)end * all + j] =
                    (int64_t)(test_random() % (g->nodes[i + 1] - g->nodes[i]));
}

static void graphs_write(const char *path, const struct graphs *g)
{
    uint64_t nodes = g->nodes[g->count], edges = g->edges[g->count];
    hsize_t pointer_chunk = g->pointer_chunk ? 1 + g->count / 2 : 0;
    struct set_config sets[] = {
        {"node_features", g->node_type, 2, {nodes, 3}, {g->node_chunk, 3}, g->filters, 1ull << 20},
        {"edge_features", g->edge_type, 2, {edges, 2}, {g->edge_chunk, 2}, g->filters, 1ull << 20},
        {"targets", H5T_IEEE_F32LE, 2, {g->count, 5}, {1 + g->count / 3, 5}, g->filters},
    };
    struct set_config index = {
        "edge_index", g->index_type, 2, {2, edges}, {g->edge_planes, g->edge_chunk}, g->filters};
    struct set_config pointers[] = {
        {"node_ptr", type_random(4, 4), 1, {g->count + 1}, {pointer_chunk}, g->filters},
        {"edge_ptr", type_random(4, 4), 1, {g->count + 1}, {pointer_chunk}, g->filters},
    };
    if (index.chunk[1] > edges)
        index.chunk[1] = edges;
    if (!index.chunk[1])
        index.chunk[0] = 0;
    hid_t group, file = file_create(path, "train", &group);
    set_write(group, sets[0], 0, NULL);
    set_write(group, index, H5T_NATIVE_INT64, g->index);
    if (g->edge_features)
        set_write(group, sets[1], 0, NULL);
    if (g->targets)
        set_write(group, sets[2], 0, NULL);
    set_write(group, pointers[0], H5T_NATIVE_UINT64, g->nodes);
    set_write(group, pointers[1], H5T_NATIVE_UINT64, g->edges);
    H5Gclose(group);
    H5Fclose(file);
}

static void graphs_free(struct graphs *g)
{
    free(g->nodes);
    free(g->edges);
    free(g->index);
}

static struct graphs graphs_random(void)
{
    struct graphs g = {.count = 1 + test_random() % 90,
                       .nodes_max = test_random() % 12,
                       .edges_max = test_random() % 20,
                       .index_type = type_random(0, 8),
                       .node_type = type_random(0, TYPES),
                       .edge_type = type_random(0, TYPES),
                       .filters = filters_random(),
                       .edge_planes = 1 + test_random() % 2,
                       .edge_features = test_random() % 2,
                       .targets = test_random() % 4 != 0,
                       .pointer_chunk = test_random() % 2};
    g.node_chunk = chunk_random(200);
    g.edge_chunk = chunk_random(300);
    return g;
}

TEST_LIMIT(graphs_equal_h5dread, 120)
{
    for (int i = 0; i < TEST_ROUNDS(150, 36); i++) {
        struct graphs g = graphs_random();
        struct reader_open open = open_default();
        open.shuffle = i % 3 != 0;
        open.span_rows = test_random() % 3 ? 1 + test_random() % g.count : 0;
        open.streams = open.shuffle ? 0 : test_random() % (g.count < 5 ? g.count : 5);
        open.rest = i % 2;
        if (i % 2) /* so small that ranges of graphs are halved until they fit */
            open.span_bytes_chosen = 40000;
        pointers_make(&g);
        graphs_write("graphs.h5", &g);
        file_compare("graphs.h5", &open);
        graphs_free(&g);
    }
}

TEST_LIMIT(graphs_at_the_edges_equal_h5dread, 60)
{
    struct graphs cases[] = {
        {.count = 1, .nodes_max = 0},                                    /* one, empty */
        {.count = 1, .nodes_max = 7, .edges_max = 9},                    /* one */
        {.count = 50, .nodes_max = 5, .edges_max = 0},                   /* no edge anywhere */
        {.count = 50, .nodes_max = 5, .edges_max = 0, .edge_chunk = 16}, /* the same, chunked */
        {.count = 50, .nodes_max = 1, .edges_max = 1},                   /* nodes of their own */
        {.count = 30, .nodes_max = 9, .edges_max = 9, .node_chunk = 100000, .edge_chunk = 100000},
        {.count = 300, .nodes_max = 9, .edges_max = 9, .node_chunk = 1, .edge_chunk = 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct graphs g = cases[i];
        struct reader_open open = open_default();
        g.index_type = H5T_STD_I64LE;
        g.node_type = H5T_IEEE_F32LE;
        g.edge_type = H5T_STD_U8LE;
        g.edge_features = g.targets = 1;
        g.filters = SHUFFLE_GZIP;
        g.edge_planes = 2;
        open.span_rows = i % 2 ? 7 : 0;
        pointers_make(&g);
        graphs_write("edge.h5", &g);
        file_compare("edge.h5", &open);
        graphs_free(&g);
    }
}

/* In file order each stored chunk is decoded once, although none of them ends where a graph does;
 * permuted, the ranges are long enough for little to be decoded twice. */
TEST_LIMIT(stored_chunks_are_decoded_about_once, 60)
{
    struct graphs g = {.count = 20000,
                       .nodes_max = 12,
                       .edges_max = 30,
                       .index_type = H5T_STD_I16LE,
                       .node_type = H5T_IEEE_F32LE,
                       .edge_type = H5T_STD_U8LE,
                       .edge_features = 1,
                       .targets = 1,
                       .filters = SHUFFLE_GZIP,
                       .edge_planes = 2,
                       .node_chunk = 1000,
                       .edge_chunk = 3001};
    struct reader_open open = open_default();
    pointers_make(&g);
    graphs_write("once.h5", &g);
    open.shuffle = 0;
    struct compared ordered = file_compare_all("once.h5", &open);
    CHECK_EQ(ordered.decoded, ordered.delivered);
    open.span_rows = 700;
    ordered = file_compare_all("once.h5", &open);
    CHECK_EQ(ordered.decoded, ordered.delivered);
    open.shuffle = 1;
    open.span_rows = 0;
    struct compared permuted = file_compare_all("once.h5", &open);
    CHECK(permuted.decoded >= permuted.delivered &&
          (double)permuted.decoded < 1.09 * (double)permuted.delivered);
    CHECK(permuted.chunk_rows < g.count / 4);
    CHECK_EQ(permuted.digest, ordered.digest);
    graphs_free(&g);
}

/* ---- the largest batch ---------------------------------------------------------------------- */

/* Most items of the batches, or of their slices of slice_rows rows. */
static uint64_t batch_by_hand(const struct order *o, const struct reader_open *open,
                              uint64_t slice_rows, const uint64_t *cut)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < open->epoch_count; i++)
        for (uint64_t k = 0; k < open->epochs[i].count; k++)
            for (uint64_t at = 0, sum = 0; at < o->rows; at++) {
                uint64_t row = order_file_row(o, open->epochs[i].first + k, at);
                sum = (at % open->batch_rows % slice_rows ? sum : 0) + cut[row + 1] - cut[row];
                most = sum > most ? sum : most;
            }
    return most;
}

/* Of the slices of eight orders whose windows are one span. */
static uint64_t samples_by_hand(const struct order *o, const struct reader_open *open,
                                const uint64_t *cut)
{
    struct reader_open orders = *open;
    struct order samples = *o;
    uint64_t rows = open->slice_rows < open->batch_rows ? open->slice_rows : open->batch_rows;
    samples.shuffle = 1;
    samples.window_spans = 1;
    samples.streams = 0;
    orders.epoch_count = 1;
    orders.epochs[0] = (struct msg_epoch_range){0, 8};
    return batch_by_hand(&samples, &orders, rows, cut);
}

TEST_LIMIT(the_largest_batch_is_that_of_a_walk_by_hand, 60)
{
    for (int i = 0; i < 40; i++) {
        struct graphs g = graphs_random();
        struct reader_open open = open_default();
        struct harness h;
        g.count = 20 + test_random() % 900;
        g.edge_features = 1;
        open.shuffle = i % 4 != 0;
        open.span_bytes_chosen = 60000;
        open.streams = open.shuffle || i % 8 ? 0 : 1 + test_random() % 6;
        open.rest = i % 16 == 0;
        open.batch_rows = open.streams ? open.streams : 1 + test_random() % 70;
        open.window_spans = open.streams ? open.streams : 1 + test_random() % 5;
        open.slice_rows = test_random() % 40;
        open.epoch_count = 3;
        for (uint32_t j = 0; j < 3; j++)
            open.epochs[j] = (struct msg_epoch_range){(uint64_t)j << 20, 1 + test_random() % 3};
        pointers_make(&g);
        graphs_write("batch.h5", &g);
        CHECK(harness_open(&h, "batch.h5", &open) == 0);
        const struct reader_described *d = &h.described;
        struct order o = {open.seed,    open.shuffle,      d->rows,   d->chunk_rows,
                          d->span_rows, open.window_spans, d->streams};
        for (uint32_t j = 0; j < d->field_count; j++) {
            const struct msg_field_info *f = &d->fields[j];
            const uint64_t *cut = strcmp(f->pointer, "node_ptr") == 0 ? g.nodes : g.edges;
            uint64_t batch = batch_by_hand(&o, &open, open.batch_rows, cut), slice = 0;
            if (open.slice_rows)
                slice = batch_by_hand(&o, &open, open.slice_rows, cut);
            CHECK_EQ(f->batch_items_max, f->pointer[0] ? batch : 0);
            CHECK_EQ(f->slice_items_max, f->pointer[0] ? slice : 0);
            CHECK_EQ(f->sample_items_max,
                     f->pointer[0] && open.slice_rows ? samples_by_hand(&o, &open, cut) : 0);
        }
        harness_close(&h);
        graphs_free(&g);
    }
}

/* Too many epochs to walk: no batch of so many rows can have more. */
TEST(a_run_too_long_to_walk_is_bounded)
{
    struct graphs g = graphs_random();
    struct reader_open open = open_default();
    struct harness h;
    g.count = 500;
    g.nodes_max = 40;
    open.batch_rows = 3;
    open.slice_rows = 2;
    open.window_spans = 4;
    open.epoch_count = 1;
    open.epochs[0] = (struct msg_epoch_range){0, 1ull << 30};
    pointers_make(&g);
    graphs_write("long.h5", &g);
    CHECK(harness_open(&h, "long.h5", &open) == 0);
    uint64_t largest[3] = {0};
    for (uint64_t i = 0; i < g.count; i++) {
        uint64_t nodes = g.nodes[i + 1] - g.nodes[i];
        for (int j = 0; j < 3; j++)
            if (nodes > largest[j]) {
                uint64_t other = largest[j];
                largest[j] = nodes;
                nodes = other;
            }
    }
    const struct msg_field_info *f =
        span_field(h.described.fields, h.described.field_count, "node_features");
    CHECK_EQ(f->batch_items_max, largest[0] + largest[1] + largest[2]);
    CHECK_EQ(f->slice_items_max, largest[0] + largest[1]);
    CHECK(f->sample_items_max > 0 && f->sample_items_max <= f->slice_items_max);
    harness_close(&h);
    graphs_free(&g);
}

/* Two graphs that fit no span together: every number of chunks but one is too many, and finding
 * that takes no longer than a request may. */
TEST_LIMIT(a_skewed_table_of_graphs_is_laid_out_soon, 60)
{
    enum { GRAPHS = 400002, LARGE = 200000, LARGE_NODES = 240000 };
    struct graphs g = {
        .count = GRAPHS, .nodes_max = 1, .index_type = H5T_STD_I32LE, .node_type = H5T_STD_U8LE};
    struct reader_open open = open_default();
    struct harness h;
    open.span_bytes_chosen = open.span_bytes_limit = 1 << 20;
    pointers_make(&g);
    for (uint64_t i = 0; i < GRAPHS; i++)
        g.nodes[i + 1] = g.nodes[i] + (i == LARGE || i == LARGE + 1 ? LARGE_NODES : 1);
    graphs_write("skewed.h5", &g);
    CHECK(harness_open(&h, "skewed.h5", &open) == 0);
    CHECK(h.described.span_bytes_max <= open.span_bytes_limit);
    CHECK_EQ(h.described.span_rows, h.described.chunk_rows);
    harness_close(&h);
    graphs_free(&g);
}

/* How many rows are permuted together follows the file and order.span_rows, not the arena: one that
 * is too small says what else would do, and that does. */
TEST(ranges_of_graphs_are_no_longer_than_spans_are_asked_to_be)
{
    struct graphs g = {.count = 8000,
                       .nodes_max = 40,
                       .edges_max = 40,
                       .index_type = H5T_STD_I32LE,
                       .node_type = H5T_IEEE_F32LE};
    struct reader_open open = open_default();
    struct harness h;
    pointers_make(&g);
    graphs_write("ranges.h5", &g);
    open.window_spans = 4;
    CHECK(harness_open(&h, "ranges.h5", &open) == 0);
    uint64_t range = h.described.chunk_rows;
    CHECK(range > 500 && range < g.count);
    harness_close(&h);
    open.span_bytes_limit = 100000;
    file_refused("ranges.h5", &open, ", or lower order.span_rows (e.g. to ");
    CHECK(harness_open(&h, "ranges.h5", &open) != 0);
    open.span_rows = strtoull(strstr(h.reason, "e.g. to ") + 8, NULL, 10);
    harness_close(&h);
    for (int i = 0; i < 2; i++) {
        CHECK(harness_open(&h, "ranges.h5", &open) == 0);
        CHECK_EQ(h.described.chunk_rows, open.span_rows);
        CHECK_EQ(h.described.span_rows, open.span_rows);
        harness_close(&h);
        open.span_bytes_limit = 8 << 20;
    }
    graphs_free(&g);
}

/* ---- graphs that cannot be ------------------------------------------------------------------ */

TEST_LIMIT(impossible_graphs_are_refused, 60)
{
    static const struct {
        int node_at, edge_at, index_at; /* -1: as it was */
        int64_t value;
        const char *words;
    } cases[] = {
        {0, -1, -1, 1, "train/node_ptr[0] is 1; expected numbers that begin with 0"},
        {5, -1, -1, 1ll << 40, "train/node_ptr[5] is"},
        {5, -1, -1, -1, "train/node_ptr[5] is -1"},
        {30, -1, -1, 2, "train/node_ptr[30] is 2"},
        {-1, 30, -1, 0, "train/edge_ptr[30] is 0"},
        {-1, -1, 3, 1000, "names node 1000, and the graph has"},
        {-1, -1, 3, -1, "train/edge_index of graph"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct graphs g = {.count = 30,
                           .nodes_max = 12,
                           .edges_max = 9,
                           .index_type = H5T_STD_I32LE,
                           .node_type = H5T_IEEE_F32LE,
                           .node_chunk = 10,
                           .edge_chunk = 10,
                           .edge_planes = 1};
        struct reader_open open = open_default();
        pointers_make(&g);
        while (g.nodes[30] < 10 || g.edges[30] < 10) {
            graphs_free(&g);
            pointers_make(&g);
        }
        if (cases[i].index_at >= 0)
            g.index[cases[i].index_at] = cases[i].value;
        graphs_write("whole.h5", &g);
        hid_t file = H5Fopen("whole.h5", H5F_ACC_RDWR, H5P_DEFAULT);
        const char *name = cases[i].node_at >= 0 ? "train/node_ptr" : "train/edge_ptr";
        int at = cases[i].node_at >= 0 ? cases[i].node_at : cases[i].edge_at;
        uint64_t *numbers = cases[i].node_at >= 0 ? g.nodes : g.edges;
        if (at >= 0) {
            H5Ldelete(file, name, H5P_DEFAULT);
            numbers[at] = (uint64_t)cases[i].value;
            set_write(file, (struct set_config){name, H5T_STD_I64LE, 1, {31}}, H5T_NATIVE_INT64,
                      numbers);
        }
        H5Fclose(file);
        file_refused("whole.h5", &open, cases[i].words);
        graphs_free(&g);
    }
}

static void graph_refused(const char *name, const struct set_config *instead, const char *words)
{
    struct graphs g = {.count = 30,
                       .nodes_max = 12,
                       .edges_max = 9,
                       .index_type = H5T_STD_I32LE,
                       .node_type = H5T_IEEE_F32LE,
                       .edge_type = H5T_IEEE_F32LE,
                       .edge_features = 1,
                       .targets = 1};
    struct reader_open open = open_default();
    pointers_make(&g);
    graphs_write("instead.h5", &g);
    hid_t file = H5Fopen("instead.h5", H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t group = H5Gopen2(file, "train", H5P_DEFAULT);
    H5Ldelete(group, name, H5P_DEFAULT);
    if (instead)
        set_write(group, *instead, 0, NULL);
    H5Gclose(group);
    H5Fclose(file);
    file_refused("instead.h5", &open, words);
    graphs_free(&g);
}

TEST_LIMIT(wrong_data_sets_of_graphs_are_refused, 60)
{
    graph_refused("edge_index", NULL, "train has no data set edge_index");
    graph_refused("edge_ptr", NULL, "train has no data set edge_ptr");
    graph_refused("node_features", NULL, "train has no data set node_features");
    graph_refused("edge_index", &(struct set_config){"edge_index", H5T_STD_I32LE, 2, {3, 50}},
                  "has the dimensions 3 x 50; expected 2 dimensions: 2 (from, to) x edges");
    graph_refused("edge_index", &(struct set_config){"edge_index", H5T_IEEE_F32LE, 2, {2, 50}},
                  "has floats; expected whole numbers");
    graph_refused("edge_features", &(struct set_config){"edge_features", H5T_STD_U8LE, 2, {1, 2}},
                  "edges and train/edge_features has 1");
    graph_refused("targets", &(struct set_config){"targets", H5T_STD_U8LE, 1, {29}},
                  "train/targets has 29 rows for the 30 graphs");
    graph_refused("node_ptr", &(struct set_config){"node_ptr", H5T_IEEE_F64LE, 1, {31}},
                  "train/node_ptr has floats");
    graph_refused("node_ptr", &(struct set_config){"node_ptr", H5T_STD_U64LE, 1, {1}},
                  "train/node_ptr has 1 number");
    struct graphs g = graphs_random();
    struct reader_open open = open_default();
    g.nodes_max = g.count = 60;
    g.node_chunk = 0;
    open.span_bytes_chosen = open.span_bytes_limit = 128; /* less than a graph */
    pointers_make(&g);
    graphs_write("large.h5", &g);
    file_refused("large.h5", &open, "MiB a span; set it to 1 or more");
    graphs_free(&g);
}
