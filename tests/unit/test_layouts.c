/* test_layouts.c - timeframes, graphs and tokens: what a reader process delivers is what libhdf5
 * gives, the largest batch is that of a walk by hand, and what cannot be is refused.
 */
#include "proto/h5file_type.h"
#include "proto/order.h"
#include "tests/test.h"
#include "tests/unit/reader_compare.h"

enum { TYPES = 11 };

static const char *const types[TYPES] = {"u8",  "i8",  "u16", "i16", "u32", "i32",
                                         "u64", "i64", "f16", "f32", "f64"};

/* Big-endian every third time: those go through libhdf5's conversion. */
static hid_t type_random(int first, int count)
{
    hid_t type = H5Tcopy(h5_type(h5type_of(types[first + (int)(test_random() % (uint64_t)count)])));
    if (test_random() % 3 == 0)
        H5Tset_order(type, H5T_ORDER_BE);
    return type;
}

static enum filters filters_random(void)
{
    return (enum filters)(test_random() % NBIT);
}

static hsize_t chunk_random(hsize_t items)
{
    return test_random() % 5 == 0 ? 0 : 1 + test_random() % (items < 60 ? items : 60);
}

static void set_write(hid_t group, struct set_config c, hid_t memory, const void *data)
{
    if (!c.dims[0] || (c.rank == 2 && !c.dims[1]))
        memset(c.chunk, 0, sizeof c.chunk);
    if (!c.chunk[0]) {
        c.filters = PLAIN;
        c.dims_max0 = 0;
    }
    hid_t set = set_create(group, &c);
    if (data)
        CHECK(H5Dwrite(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    else if (c.dims[0])
        set_fill(set, &c);
    H5Dclose(set);
}

/* ---- timeframes ----------------------------------------------------------------------------- */

enum naming { AS_TEXT, AS_ARRAY, AS_STRINGS, NAMINGS };

/* "M1 M5" as one text, as an array of fixed length, as an array of variable length. */
static void timeframes_write(hid_t group, const char *const *names, int count, enum naming naming)
{
    char text[256] = "", fixed[8][8] = {{0}};
    hsize_t n = (hsize_t)count;
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    for (int i = 0; i < count; i++) {
        snprintf(text + strlen(text), 16, "%s%s", i ? " " : "", names[i]);
        snprintf(fixed[i], sizeof fixed[i], "%s", names[i]);
    }
    const void *data = naming == AS_TEXT    ? (void *)text
                       : naming == AS_ARRAY ? (void *)fixed
                                            : names;
    if (naming != AS_TEXT)
        space = H5Screate_simple(1, &n, NULL);
    H5Tset_size(type, naming == AS_TEXT    ? strlen(text)
                      : naming == AS_ARRAY ? sizeof fixed[0]
                                           : H5T_VARIABLE);
    hid_t attribute = H5Acreate2(group, "timeframes", type, space, H5P_DEFAULT, H5P_DEFAULT);
    CHECK(attribute >= 0 && H5Awrite(attribute, type, data) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static const char *const frames[] = {"M5", "M1", "H1"}; /* not the order of their names */

static void timeframes_make(const char *path, enum naming naming, hsize_t rows, hsize_t other_rows)
{
    hid_t train, file = file_create(path, "train", &train);
    hid_t group = H5Gcreate2(train, "features", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    for (int i = 0; i < 3; i++) {
        hsize_t time = 2 + (hsize_t)i * 3, n = i == 2 ? other_rows : rows;
        struct set_config c = {frames[i], type_random(0, TYPES), 3, {n, time, 4}};
        c.chunk[0] = test_random() % 4 ? 1 + test_random() % rows : 0;
        c.chunk[1] = time;
        c.chunk[2] = test_random() % 5 ? 4 : 3;
        c.filters = c.chunk[0] ? filters_random() : PLAIN;
        set_write(group, c, 0, NULL);
    }
    set_write(train, (struct set_config){"targets", H5T_STD_U8LE, 1, {rows}, {rows}, GZIP}, 0,
              NULL);
    set_write(train, (struct set_config){"begins", H5T_STD_U16BE, 1, {rows}, {7}, GZIP}, 0, NULL);
    timeframes_write(group, frames, 3, naming);
    H5Gclose(group);
    H5Gclose(train);
    H5Fclose(file);
}

TEST_LIMIT(timeframes_equal_h5dread, 60)
{
    for (int i = 0; i < TEST_ROUNDS(40, 12); i++) {
        struct reader_open open = open_default();
        struct harness h;
        open.shuffle = i % 4 != 0;
        open.span_rows = 1 + test_random() % 40;
        open.begins = i % 2;
        timeframes_make("frames.h5", (enum naming)(i % NAMINGS), 70, 70);
        CHECK(file_compare("frames.h5", &open) >= 2);
        CHECK(harness_open(&h, "frames.h5", &open) == 0);
        CHECK_STR(h.described.layout, "dense");
        CHECK_EQ(h.described.field_count, 4 + open.begins);
        CHECK_STR(h.described.fields[0].name, "features/M5");
        CHECK_STR(h.described.fields[1].name, "features/M1");
        CHECK_STR(h.described.fields[2].name, "features/H1");
        CHECK_EQ(h.described.fields[2].values, 32);
        harness_close(&h);
    }
}

static void attribute_write(hid_t at, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text));
    hid_t attribute = H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    CHECK(attribute >= 0 && H5Awrite(attribute, type, text) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

/* Of a file of another writer, to which begins and weights were added: row `begin` does, row
 * `heavy` weighs 2, all others 1. `wanted`: what a run takes of it. */
enum added { NEITHER = 0, BEGINS = 1, WEIGHTS = 2 };

static void added_make(hsize_t chunk, int begin, int heavy)
{
    uint8_t begins[70] = {0};
    float weights[70];
    hid_t train, file = file_create("added.h5", "train", &train);
    begins[begin] = 1;
    for (int i = 0; i < 70; i++)
        weights[i] = i == heavy ? 2 : 1;
    attribute_write(file, "fingerprint", "12ab");
    set_write(train, (struct set_config){"features", H5T_IEEE_F32LE, 2, {70, 3}, {7, 3}, GZIP}, 0,
              NULL);
    set_write(train, (struct set_config){"begins", H5T_STD_U8LE, 1, {70}, {chunk}, GZIP},
              H5T_NATIVE_UINT8, begins);
    set_write(train, (struct set_config){"w", H5T_IEEE_F32LE, 1, {70}, {chunk}, GZIP},
              H5T_NATIVE_FLOAT, weights);
    H5Gclose(train);
    H5Fclose(file);
}

static void fingerprint_get(unsigned wanted, char hex[65])
{
    struct reader_open open = open_default();
    struct harness h;
    open.begins = wanted & BEGINS;
    if (wanted & WEIGHTS)
        MSG_STR(open.weights, "w");
    CHECK(harness_open(&h, "added.h5", &open) == 0);
    memcpy(hex, h.described.fingerprint, 65);
    harness_close(&h);
}

/* Whatever the file's writer stored: a run sees that what it takes is another, and only that. */
TEST(fingerprint_knows_what_was_added)
{
    char first[4][65], again[65];
    for (hsize_t chunk = 0; chunk < 64; chunk += 32)
        for (unsigned changed = NEITHER; changed <= (BEGINS | WEIGHTS); changed++) {
            added_make(chunk, 69, 69);
            for (unsigned wanted = 0; wanted < 4; wanted++) {
                fingerprint_get(wanted, first[wanted]);
                for (unsigned other = 0; other < wanted; other++)
                    CHECK(strcmp(first[wanted], first[other]) != 0);
            }
            CHECK_STR(first[NEITHER], "12ab");
            added_make(chunk, changed & BEGINS ? 68 : 69, changed & WEIGHTS ? 68 : 69);
            for (unsigned wanted = 0; wanted < 4; wanted++) {
                fingerprint_get(wanted, again);
                CHECK_EQ(strcmp(again, first[wanted]) != 0, (wanted & changed) != 0);
            }
        }
}

static void refused(const char *path, const struct reader_open *open, const char *words)
{
    struct harness h;
    struct reader_done done;
    int failed = harness_open(&h, path, open);
    if (!failed) {
        harness_arm(&h, 1);
        for (uint64_t span = 0; span < h.described.spans && !failed; span++)
            failed = harness_read(&h, 0, span, 0, &done);
    }
    if (!failed)
        test_fail(__FILE__, __LINE__, "%s was not refused; expected: %s", path, words);
    CHECK_HAS(h.reason, words);
    harness_close(&h);
}

TEST(wrong_timeframes_are_refused)
{
    static const char *const wrong[][2] = {{"M1", "M1"}, {"M1", "M15"}, {"../M1", "M5"}};
    static const char *const words[] = {"names \"M1\" twice", "no data set M15", "\"../M1\""};
    struct reader_open open = open_default();
    for (int i = 0; i < 3; i++) {
        hid_t group, file;
        timeframes_make("wrong.h5", AS_TEXT, 20, 20);
        file = H5Fopen("wrong.h5", H5F_ACC_RDWR, H5P_DEFAULT);
        group = H5Gopen2(file, "train/features", H5P_DEFAULT);
        H5Adelete(group, "timeframes");
        timeframes_write(group, wrong[i], 2, (enum naming)i);
        H5Gclose(group);
        H5Fclose(file);
        refused("wrong.h5", &open, words[i]);
    }
    timeframes_make("rows.h5", AS_TEXT, 20, 21);
    refused("rows.h5", &open, "timeframes need the same rows and features");
    hid_t train, file = file_create("none.h5", "train", &train);
    H5Gclose(H5Gcreate2(train, "features", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Gclose(train);
    H5Fclose(file);
    refused("none.h5", &open, "its attribute timeframes does not say");
}

TEST(data_sets_are_named_by_options)
{
    struct set_config sets[2] = {{"pixels", H5T_STD_U8LE, 2, {50, 6}, {16, 6}, GZIP},
                                 {"label", H5T_STD_I32LE, 1, {50}, {50}, GZIP}};
    struct reader_open open = open_default();
    struct harness h;
    file_make("names.h5", sets, 2);
    refused("names.h5", &open, "train has no data set features (there is: label, pixels)");
    MSG_STR(open.features, "pixels");
    MSG_STR(open.targets, "label");
    CHECK(harness_open(&h, "names.h5", &open) == 0);
    CHECK_STR(h.described.fields[0].name, "features");
    CHECK_STR(h.described.fields[1].name, "targets");
    CHECK_EQ(h.described.fields[0].values, 6);
    harness_close(&h);
    MSG_STR(open.features, "train/pixels");
    refused("names.h5", &open, "has no data set train/pixels");
    MSG_STR(open.features, "pixels");
    MSG_STR(open.targets, "../label");
    refused("names.h5", &open, "without /");
}

/* Targets in longer chunks than the features: 5 chunks of 4 MiB, which the cache does not hold. */
enum { LONG_ROWS = 5 * 8192 };

static void long_targets_make(const char *path, hsize_t features_chunk)
{
    struct set_config sets[2] = {
        {"features", H5T_STD_U8LE, 2, {LONG_ROWS, 16}, {features_chunk, 16}, GZIP},
        {"targets", H5T_IEEE_F32LE, 2, {LONG_ROWS, 128}, {8192, 128}, SHUFFLE_GZIP}};
    file_make(path, sets, 2);
}

static uint64_t chunk_rows_of(const char *path, const struct reader_open *open)
{
    struct harness h;
    CHECK(harness_open(&h, path, open) == 0);
    uint64_t rows = h.described.chunk_rows;
    harness_close(&h);
    return rows;
}

TEST_LIMIT(the_longest_chunk_is_permuted_whole_where_it_fits, 60)
{
    struct reader_open open = open_default();
    long_targets_make("long.h5", 64);
    CHECK_EQ(chunk_rows_of("long.h5", &open), 8192);
    struct compared found = file_compare_all("long.h5", &open);
    CHECK_EQ(found.decoded, found.delivered);
    open.shuffle = 0;
    CHECK_EQ(chunk_rows_of("long.h5", &open), 64);
    found = file_compare_all("long.h5", &open);
    CHECK_EQ(found.decoded, found.delivered);
}

/* What is decoded again is counted again. */
TEST_LIMIT(a_chunk_that_is_decoded_again_counts_again, 60)
{
    struct reader_open open = open_default();
    long_targets_make("again.h5", 256);
    open.span_bytes_limit = (4 << 20) + (64 << 10);
    CHECK_EQ(chunk_rows_of("again.h5", &open), 256);
    struct compared found = file_compare_all("again.h5", &open);
    CHECK(found.decoded > 2 * found.delivered);
}

TEST_LIMIT(the_common_multiple_of_chunks_is_permuted_whole_where_it_is_small, 60)
{
    struct reader_open open = open_default();
    open.span_bytes_limit = 32 << 20;
    long_targets_make("common.h5", 96);
    CHECK_EQ(chunk_rows_of("common.h5", &open), 3 * 8192);
    long_targets_make("common.h5", 97);
    CHECK_EQ(chunk_rows_of("common.h5", &open), 8192);
}

/* Small data sets in chunks of their own: decoded once for all epochs, and rows stay well mixed. */
TEST_LIMIT(data_sets_that_the_cache_holds_leave_the_order_alone, 60)
{
    struct set_config sets[2] = {
        {"features", H5T_STD_U8LE, 2, {6000, 64}, {64, 64}, GZIP},
        {"targets", H5T_STD_U8LE, 2, {6000, 4}, {6000, 4}, GZIP},
    };
    struct reader_open open = open_default();
    for (int i = 0; i < 3; i++) {
        sets[1].chunk[0] = i == 0 ? 6000 : 1500;
        sets[1].chunk[1] = i == 2 ? 1 : 4;
        file_make("small.h5", sets, 2);
        CHECK_EQ(chunk_rows_of("small.h5", &open), 64);
        struct compared found = file_compare_all("small.h5", &open);
        CHECK_EQ(found.decoded, found.delivered);
    }
}

/* ---- graphs --------------------------------------------------------------------------------- */

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
            open.span_bytes_limit = 40000;
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

TEST_LIMIT(the_largest_batch_is_that_of_a_walk_by_hand, 60)
{
    for (int i = 0; i < 40; i++) {
        struct graphs g = graphs_random();
        struct reader_open open = open_default();
        struct harness h;
        g.count = 20 + test_random() % 900;
        g.edge_features = 1;
        open.shuffle = i % 4 != 0;
        open.span_bytes_limit = 60000;
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
    open.span_bytes_limit = 1 << 20;
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
        refused("whole.h5", &open, cases[i].words);
        graphs_free(&g);
    }
}

TEST(begins_that_are_none_are_refused)
{
    struct reader_open open = open_default();
    hid_t truth = H5Tenum_create(H5T_STD_I8LE);
    H5Tenum_insert(truth, "FALSE", (int8_t[]){0});
    const struct {
        struct set_config set;
        const char *words;
    } cases[] = {
        {{"begins", truth, 1, {70}}, "train/begins is of a type that is enumerated"},
        {{"begins", H5T_IEEE_F32LE, 1, {70}}, "train/begins has floats"},
        {{"begins", H5T_STD_I8LE, 1, {70}}, "train/begins has signed numbers"},
        {{"begins", H5T_STD_U8LE, 2, {70, 1}}, "train/begins has 2 dimensions (70 x 1)"},
        {{"begins", H5T_STD_U8LE, 1, {69}}, "train/begins has 69 rows, where 70 rows begin"},
    };
    open.begins = 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hid_t train, file = file_create("begins.h5", "train", &train);
        set_write(train, (struct set_config){"features", H5T_IEEE_F32LE, 2, {70, 3}}, 0, NULL);
        hid_t set = set_create(train, &cases[i].set);
        if (i == 4)
            set_fill(set, &cases[i].set);
        H5Dclose(set);
        H5Gclose(train);
        H5Fclose(file);
        refused("begins.h5", &open, cases[i].words);
        if (i < 4)
            refused("begins.h5", &open, "; expected one unsigned number a row (NumPy: .astype(");
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
    refused("instead.h5", &open, words);
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
    open.span_bytes_limit = 128; /* less than a graph */
    pointers_make(&g);
    graphs_write("large.h5", &g);
    refused("large.h5", &open, "MiB a span");
    graphs_free(&g);
}

/* ---- tokens --------------------------------------------------------------------------------- */

/* weights: of the tokens; the name NULL: none. */
static void tokens_make(const char *path, uint64_t tokens, uint64_t documents, hid_t type,
                        hsize_t chunk, enum filters filters, struct set_config weights)
{
    uint64_t *at = calloc(documents + 1, sizeof *at);
    for (uint64_t i = 1; i < documents; i++) /* some are empty */
        at[i] = at[i - 1] + (test_random() % 3 ? test_random() % (2 * tokens / documents + 1) : 0);
    for (uint64_t i = 1; i < documents; i++)
        at[i] = at[i] < tokens ? at[i] : tokens;
    at[documents] = tokens;
    hid_t group, file = file_create(path, "train", &group);
    set_write(group, (struct set_config){"tokens", type, 1, {tokens}, {chunk}, filters, 1ull << 30},
              0, NULL);
    set_write(group, (struct set_config){"doc_ptr", type_random(4, 4), 1, {documents + 1}},
              H5T_NATIVE_UINT64, at);
    if (weights.name)
        set_write(group, weights, 0, NULL);
    H5Gclose(group);
    H5Fclose(file);
    free(at);
}

static hid_t unsigned_random(void)
{
    hid_t type = H5Tcopy(h5_type(h5type_of(types[2 * (test_random() % 4)])));
    if (test_random() % 3 == 0)
        H5Tset_order(type, H5T_ORDER_BE);
    return type;
}

TEST_LIMIT(windows_of_tokens_equal_h5dread, 120)
{
    for (int i = 0; i < TEST_ROUNDS(120, 36); i++) {
        struct reader_open open = open_default();
        uint64_t tokens = 2 + test_random() % 3000;
        hsize_t chunk = i % 6 ? chunk_random(tokens) : 2 * tokens; /* larger than the data */
        open.window = 1 + test_random() % (tokens - 1 < 70 ? tokens - 1 : 70);
        open.shuffle = i % 3 != 0;
        open.span_rows = i % 4 ? 1 + test_random() % 50 : 0;
        open.streams = open.shuffle ? 0 : test_random() % ((tokens - 1) / open.window % 4 + 1);
        if (i % 4 == 0)
            open.span_bytes_limit = 60000;
        struct set_config weights = {"weights", type_random(0, TYPES),  1,
                                     {tokens},  {chunk_random(tokens)}, filters_random()};
        MSG_STR(open.weights, "weights"); /* where there are such */
        if (i % 2)
            weights.name = NULL;
        open.begins = open.rest = i / 2 % 2;
        tokens_make("tokens.h5", tokens, 1 + test_random() % 40, unsigned_random(), chunk,
                    filters_random(), weights);
        file_compare("tokens.h5", &open);
    }
}

TEST(windows_are_cut_and_counted)
{
    struct reader_open open = open_default();
    struct harness h;
    const struct set_config none = {0}, few = {"w", H5T_IEEE_F32LE, 1, {100}},
                            wide = {"w", H5T_IEEE_F32LE, 2, {101, 2}};
    tokens_make("count.h5", 101, 5, H5T_STD_U16LE, 0, PLAIN, none);
    static const uint64_t cases[][2] = {{1, 100}, {10, 10}, {33, 3}, {34, 2}, {100, 1}};
    for (int i = 0; i < 5; i++) {
        open.window = cases[i][0];
        CHECK(harness_open(&h, "count.h5", &open) == 0);
        CHECK_STR(h.described.layout, "tokens");
        CHECK_EQ(h.described.rows, cases[i][1]);
        CHECK_EQ(h.described.fields[0].values, cases[i][0] + 1);
        CHECK_EQ(h.described.fields[1].values, (cases[i][0] + 8) / 8);
        harness_close(&h);
    }
    open.window = 101;
    refused("count.h5", &open, "has 101 tokens and data.window is 101");
    open.window = 0;
    refused("count.h5", &open, "expected a window of 1 to 100 tokens");
    open.window = 1ull << 31;
    refused("count.h5", &open, "expected a window of 1 to 100 tokens");
    open.window = 10;
    tokens_make("signed.h5", 101, 5, H5T_STD_I16LE, 0, PLAIN, none);
    refused("signed.h5", &open, "has signed numbers; expected unsigned integers in one dimension");
    MSG_STR(open.weights, "w");
    tokens_make("few.h5", 101, 5, H5T_STD_U16LE, 0, PLAIN, few);
    refused("few.h5", &open, "train/w has 100 numbers, where there are 101 to be weighed");
    tokens_make("wide.h5", 101, 5, H5T_STD_U16LE, 0, PLAIN, wide);
    refused("wide.h5", &open, "expected 1 dimension: a number a token");
}

TEST_LIMIT(stored_chunks_of_tokens_are_decoded_about_once, 60)
{
    struct reader_open open = open_default();
    open.window = 64;
    tokens_make("stream.h5", 400001, 900, H5T_STD_U16LE, 5000, SHUFFLE_GZIP,
                (struct set_config){0});
    open.shuffle = 0;
    struct compared ordered = file_compare_all("stream.h5", &open);
    /* windows share a token with the next: 65 are delivered for each 64 that are decoded */
    CHECK_EQ(ordered.decoded, 2 * 400001);
    CHECK_EQ(ordered.delivered, 2 * 65 * (400000 / 64));
    open.shuffle = 1;
    struct compared permuted = file_compare_all("stream.h5", &open);
    CHECK((double)permuted.decoded < 1.09 * (double)ordered.decoded);
    CHECK_EQ(permuted.digest, ordered.digest);
}
