/* test_engine_graphs.c - rows that are graphs: convolution and pools by finite differences and
 * against their definition, per-sample squares against single graphs, the same bits for every
 * number of threads and pieces of a batch, and what is refused. PyTorch comparisons are in
 * tests/reference. */
#include <math.h>

#include "engine/layer.h"
#include "engine/ops.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

static const struct backend *const cpu = &backend_cpu;

struct chain {
    const char *lines[12];
    uint64_t inputs, edge_values;
};

static const struct chain chains[] = {
    {{"gcn out=4", "pool kind=mean", "linear out=3"}, 5, 0},
    {{"gcn out=4", "tanh", "gcn out=6", "pool kind=sum", "linear out=3"}, 7, 0},
    {{"gcn out=4 edges=true", "sigmoid", "gcn out=4 residual=true edges=true", "pool kind=mean_sum",
      "linear out=3"},
     5,
     3},
    {{"linear out=7", "gelu", "gcn out=7 residual=true", "pool kind=max", "linear out=3"}, 5, 2},
    {{"gcn out=5", "residual_begin", "gcn out=5", "tanh", "residual_end", "layernorm",
      "dropout p=0", "gcn out=3", "pool kind=sum", "tanh", "linear out=3"},
     4,
     0},
    {{"layernorm", "gcn out=5 residual=true", "silu", "pool kind=mean", "residual_begin",
      "linear out=5", "residual_end"},
     5,
     0},
    {{"pool kind=mean_sum", "linear out=4", "relu", "linear out=3"}, 6, 0},
    {{"gcn out=4", "batchnorm", "tanh", "gcn out=4 residual=true", "batchnorm", "pool kind=mean",
      "linear out=3"},
     5,
     0},
};
/* The last one's statistics cross rows: a graph's gradient is not by itself in training. */
enum { CHAINS = sizeof chains / sizeof chains[0], CHAINS_BY_GRAPH = CHAINS - 1 };

static struct fixture_config config_of(const struct chain *c)
{
    struct fixture_config f = {.layers = c->lines,
                               .inputs = c->inputs,
                               .loss = "mean_squared_error",
                               .graphs = 1,
                               .edge_values = c->edge_values};
    while (f.count < 12 && c->lines[f.count])
        f.count++;
    return f;
}

TEST_LIMIT(gradients_of_graphs_equal_finite_differences, 200)
{
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        fixture_check_gradient(&c, NULL, 0, NULL);
    }
}

TEST_LIMIT(squares_of_graphs_equal_single_graphs, 120)
{
    for (int i = 0; i < CHAINS_BY_GRAPH; i++) {
        struct fixture_config c = config_of(&chains[i]);
        fixture_check_squares(&c);
    }
}

/* y = A x W^T + M U^T + b + x by its definition: edge after edge, in double. */
static void wanted_convolution(const struct fixture *f, const struct graph_row *g, double y[6][4])
{
    const float *w = stepper_parameters(f->s), *b = w + 16, *u = b + 4;
    const uint16_t *from = g->sources, *to = g->targets;
    const float *x = g->nodes, *edge = g->edges;
    double degree[6];
    for (uint64_t v = 0; v < g->node_count; v++)
        degree[v] = 1;
    for (uint64_t k = 0; k < g->edge_count; k++)
        degree[to[k]] += from[k] != to[k];
    for (uint64_t v = 0; v < g->node_count; v++)
        for (int i = 0; i < 4; i++) {
            y[v][i] = (double)b[i] + (double)x[v * 4 + (uint64_t)i];
            for (int j = 0; j < 4; j++)
                y[v][i] += (double)w[i * 4 + j] * (double)x[v * 4 + (uint64_t)j] / degree[v];
        }
    for (uint64_t k = 0; k < g->edge_count; k++)
        for (int i = 0; i < 4; i++) {
            double a = 1 / sqrt(degree[from[k]] * degree[to[k]]), message = 0;
            for (int j = 0; j < 4 && from[k] != to[k]; j++)
                message += (double)w[i * 4 + j] * (double)x[from[k] * 4 + j];
            for (uint64_t j = 0; j < 2; j++)
                message += (double)u[(uint64_t)i * 2 + j] * (double)edge[k * 2 + j];
            y[to[k]][i] += a * message;
        }
}

/* The loss of one row whose target is 0 is the mean square of its outputs: here those of a pool. */
TEST(convolution_equals_its_definition)
{
    static const char *const lines[] = {"gcn out=4 residual=true edges=true", "pool kind=mean_sum"};
    struct fixture_config c = {.layers = lines,
                               .count = 2,
                               .inputs = 4,
                               .loss = "mean_squared_error",
                               .graphs = 1,
                               .edge_values = 2};
    struct fixture f;
    int loops = 0;
    fixture_open(&f, &c);
    memset(f.values, 0, sizeof f.values);
    for (int i = 0; i < 4; i++)
        stepper_parameters(f.s)[16 + i] = 0.1f * (float)i;
    for (uint64_t r = 0; r < FIXTURE_ROWS; r++) {
        const struct graph_row *g = &f.graph_rows[r];
        double y[6][4], wanted = 0;
        wanted_convolution(&f, g, y);
        for (int i = 0; i < 4; i++) {
            double sum = 0, nodes = (double)g->node_count;
            for (uint64_t v = 0; v < g->node_count; v++)
                sum += y[v][i];
            wanted += (sum * sum + sum * sum / nodes / nodes) / 8;
        }
        for (uint64_t k = 0; k < g->edge_count; k++)
            loops += ((const uint16_t *)g->sources)[k] == ((const uint16_t *)g->targets)[k];
        fixture_gather_rows(&f, r, 1);
        double loss = fixture_evaluate(&f, 1).loss;
        if (!(fabs(loss - wanted) <= 1e-6 * wanted))
            test_fail(__FILE__, __LINE__, "graph %d: %.9g instead of %.9g", (int)r, loss, wanted);
    }
    CHECK(loops > 5); /* or nothing was tested of them */
    fixture_close(&f);
}

TEST(graphs_give_the_same_bits_for_every_number_of_threads_and_pieces)
{
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        float *kept = NULL;
        for (c.threads = 1; c.threads <= 4; c.threads++) {
            struct fixture f;
            struct err e;
            uint64_t bad, piece = (uint64_t)c.threads * 7;
            fixture_open(&f, &c);
            for (uint64_t at = 0; at < FIXTURE_ROWS; at += piece)
                CHECK_OK(
                    stepper_gather_graphs(f.s, &f.gather, at,
                                          FIXTURE_ROWS - at < piece ? FIXTURE_ROWS - at : piece,
                                          f.graph_rows + at, f.target_rows + at, &bad, &e),
                    e);
            fixture_check_bits(&f, &kept);
            fixture_close(&f);
        }
        free(kept);
    }
}

TEST(graphs_recomputed_have_the_same_bits)
{
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        float *kept = NULL;
        for (c.checkpointing = 0; c.checkpointing < 2; c.checkpointing++) {
            struct fixture f;
            fixture_open(&f, &c);
            fixture_check_bits(&f, &kept);
            fixture_close(&f);
        }
        free(kept);
    }
}

/* Gradients of 16-bit activations: near float32's, and the same where they are computed again. */
TEST(graphs_in_half_precision_are_near_float32)
{
    static const double bar[HALF_COUNT] = {[HALF_F16] = 4e-3, [HALF_BF16] = 4e-2};
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        float wanted[1024], kept[1024];
        for (c.half = HALF_NONE; c.half < HALF_COUNT; c.half++)
            for (c.checkpointing = 0; c.checkpointing < 2; c.checkpointing++) {
                struct fixture f;
                double off = 0, all = 0;
                fixture_open(&f, &c);
                uint64_t count = f.m.parameter_count;
                CHECK(count <= 1024);
                fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_still, NULL, 0);
                float *g = stepper_gradient(f.s);
                if (!c.checkpointing)
                    memcpy(kept, g, count * sizeof *g);
                CHECK(memcmp(kept, g, count * sizeof *g) == 0);
                if (c.half == HALF_NONE)
                    memcpy(wanted, g, count * sizeof *g);
                for (uint64_t k = 0; k < count; k++) {
                    double d = (double)g[k] - (double)wanted[k];
                    off += d * d, all += (double)wanted[k] * (double)wanted[k];
                }
                if (c.half != HALF_NONE && !(off > 0 && sqrt(off / all) < bar[c.half]))
                    test_fail(__FILE__, __LINE__, "%s ...: off by %g", c.layers[0],
                              sqrt(off / all));
                fixture_close(&f);
            }
    }
}

/* A node's mask is that of its place in the batch, whichever slice it is in. */
TEST(dropout_of_nodes_does_not_depend_on_slices)
{
    static const char *const lines[] = {"gcn out=8", "relu", "dropout p=0.3", "pool kind=sum",
                                        "linear out=3"};
    struct fixture_config c = {
        .layers = lines, .count = 5, .inputs = 4, .loss = "mean_squared_error", .graphs = 1};
    struct step_result first = {0}, r;
    struct fixture f;
    for (c.slice = 7; c.slice <= FIXTURE_ROWS; c.slice += 43) {
        fixture_open(&f, &c);
        r = fixture_train(&f, FIXTURE_ROWS, 3, 1, &fixture_still, NULL, 0);
        if (c.slice == 7)
            first = r;
        CHECK(fabs(r.loss / first.loss - 1) < 1e-6);
        CHECK(fabs(r.gradient_norm / first.gradient_norm - 1) < 1e-5);
        CHECK(fixture_train(&f, FIXTURE_ROWS, 4, 1, &fixture_still, NULL, 0).loss != r.loss);
        fixture_close(&f);
    }
}

TEST(accumulated_batches_of_graphs_have_the_bits_of_whole_ones)
{
    static const char *const lines[] = {"gcn out=8", "relu", "dropout p=0.3", "pool kind=sum",
                                        "linear out=3"};
    struct fixture_config c = {.layers = lines,
                               .count = 5,
                               .inputs = 4,
                               .loss = "mean_squared_error",
                               .graphs = 1,
                               .accumulates = 1};
    float *kept = NULL;
    for (uint64_t micro = 64; micro >= 16; micro /= 2) {
        struct fixture f;
        struct step_result r;
        struct err e;
        fixture_open(&f, &c);
        uint64_t bytes = f.m.parameter_count * sizeof(float);
        for (uint64_t step = 0; step < 3; step++) {
            stepper_batch(f.s, FIXTURE_ROWS, step, NULL, 0);
            for (uint64_t at = 0; at < FIXTURE_ROWS; at += micro) {
                uint64_t rows = FIXTURE_ROWS - at < micro ? FIXTURE_ROWS - at : micro;
                fixture_gather_rows(&f, at, rows);
                stepper_accumulate(f.s, rows);
            }
            CHECK_OK(stepper_update(f.s, step + 1, &fixture_adamw, &r, &e), e);
        }
        if (!kept)
            memcpy(kept = malloc(bytes), stepper_parameters(f.s), bytes);
        CHECK(memcmp(kept, stepper_parameters(f.s), bytes) == 0);
        fixture_close(&f);
    }
    free(kept);
}

TEST(pools_of_segments_equal_their_definition)
{
    enum { SEGMENTS = 5, COLUMNS = 131 };
    static const uint64_t begin[SEGMENTS + 1] = {7, 8, 12, 13, 30, 34};
    static float x[27 * COLUMNS], y[SEGMENTS * 2 * COLUMNS], dx[27 * COLUMNS];
    struct segments s = {SEGMENTS, 0, begin};
    for (int i = 0; i < 27 * COLUMNS; i++)
        x[i] = (float)((i * 7919) % 1000) - 500;
    for (enum pooling kind = POOL_MEAN; kind < POOL_COUNT; kind++) {
        uint64_t wide = COLUMNS * (kind == POOL_MEAN_SUM ? 2 : 1);
        struct matrix in = matrix_of(x, 27, COLUMNS), out = matrix_of(y, SEGMENTS, wide);
        op_pool_forward(cpu, kind, in, s, out);
        op_pool_backward(cpu, kind, in, out, s, matrix_of(dx, 27, COLUMNS));
        for (uint64_t n = 0; n < SEGMENTS; n++)
            for (uint64_t c = 0; c < COLUMNS; c++) {
                const float *at = x + (begin[n] - 7) * COLUMNS + c, *d = dx + (at - x);
                uint64_t rows = begin[n + 1] - begin[n], first = 0;
                double sum = 0;
                for (uint64_t r = 0; r < rows; r++) {
                    sum += (double)at[r * COLUMNS];
                    first = at[r * COLUMNS] > at[first * COLUMNS] ? r : first;
                }
                double mean = sum / (double)rows, most = (double)at[first * COLUMNS];
                const double wanted[] = {0, mean, sum, most, mean};
                CHECK(fabs((double)y[n * wide + c] - wanted[kind]) <= 1e-4);
                if (kind == POOL_MEAN_SUM)
                    CHECK(fabs((double)y[n * wide + COLUMNS + c] - sum) <= 1e-4);
                for (uint64_t r = 0; r < rows; r++) {
                    const double each[] = {0, mean / (double)rows, sum, r == first ? most : 0,
                                           mean / (double)rows + sum};
                    CHECK(fabs((double)d[r * COLUMNS] - each[kind]) <= 2e-3);
                }
            }
    }
}

TEST(sparse_products_add_in_order)
{
    enum { COLUMNS = 200 };
    static const uint32_t begin[] = {0, 2, 2, 5}, column[] = {1, 0, 2, 2, 1};
    static const float value[] = {2, -1, 0.5f, 3, 0.25f};
    static float x[3 * COLUMNS], y[3 * COLUMNS], bias[COLUMNS];
    struct sparse a = {begin, column, value, 3, 3};
    for (int i = 0; i < 3 * COLUMNS; i++)
        x[i] = 0.01f * (float)i, y[i] = 1, bias[i % COLUMNS] = (float)(i % 7);
    op_sparse_product(cpu, a, matrix_of(x, 3, COLUMNS), bias, 1, matrix_of(y, 3, COLUMNS));
    for (int c = 0; c < COLUMNS; c++) {
        float start = 1 + bias[c], *in = x + c;
        CHECK(y[c] == start + 2 * in[COLUMNS] + -1 * in[0]);
        CHECK(y[COLUMNS + c] == start);
        CHECK(y[2 * COLUMNS + c] ==
              start + 0.5f * in[2 * COLUMNS] + 3 * in[2 * COLUMNS] + 0.25f * in[COLUMNS]);
    }
    memset(y, 0xff, sizeof y); /* NaN: with beta 0 it is not read */
    op_sparse_product(cpu, a, matrix_of(x, 3, COLUMNS), NULL, 0, matrix_of(y, 3, COLUMNS));
    CHECK(y[0] == 2 * x[COLUMNS] - x[0] && y[COLUMNS] == 0);
}

TEST(models_of_graphs_read_back)
{
    static const char *const lines[] = {"gcn out=8 edges=true", "relu",
                                        "gcn out=8 residual=true edges=false", "pool kind=mean_sum",
                                        "linear out=3"};
    struct model_input input = {12, 1, 5};
    struct model m, again;
    struct err e;
    char text[512], second[512];
    CHECK_OK(model_open_input(&m, lines, 5, &input, "cosine", &e), e);
    CHECK(m.outputs == 3 && m.tensor_count == 3 + 2 + 2);
    CHECK_STR(m.tensors[2].name, "0.edge_weight");
    CHECK(m.tensors[2].dims[0] == 8 && m.tensors[2].dims[1] == 5);
    CHECK(m.tensors[5].dims[1] == 16); /* the head reads mean and sum */
    CHECK_OK(model_text(&m, text, sizeof text, &e), e);
    CHECK_STR(text, "graphs inputs=12 edge_inputs=5 loss=cosine\n"
                    "gcn out=8 residual=false edges=true\nrelu\n"
                    "gcn out=8 residual=true edges=false\npool kind=mean_sum\nlinear out=3\n");
    CHECK_OK(model_from_text(&again, text, &e), e);
    CHECK_OK(model_text(&again, second, sizeof second, &e), e);
    CHECK_STR(second, text);
    model_close(&m);
    model_close(&again);
}

TEST(models_that_do_not_fit_graphs_are_refused)
{
    static const struct {
        const char *lines[4], *part;
        int graphs;
        uint64_t edge_values;
    } cases[] = {
        {{"gcn out=4", "linear out=3"},
         "layer 0 (gcn) takes graphs, and its rows are vectors",
         0,
         0},
        {{"sequence steps=3", "gcn out=4"},
         "layer 1 (gcn) takes graphs, and its rows are sequences",
         0,
         0},
        {{"gcn out=4", "lstm out=3"}, "layer 1 (lstm) takes vectors or sequences", 1, 0},
        {{"gcn out=4", "pool kind=mean", "gcn out=3"}, "layer 2 (gcn) takes graphs", 1, 0},
        {{"gcn out=4", "linear out=3"}, "layer 1 (linear) leaves a vector for each node", 1, 0},
        {{"gcn out=4 edges=true"}, "the edges of the data have no features", 1, 0},
        {{"gcn out=4 residual=true"},
         "residual adds its input of 6 values a node to its output of 4",
         1,
         2},
        {{"pool kind=last", "linear out=3"},
         "a graph has no last node; accepted for key 'kind'",
         1,
         0},
        {{"residual_begin", "pool kind=mean", "residual_end", "linear out=3"},
         "layer 2 (residual_end): its input is 1 x 6, that of its residual_begin (layer 0) of each "
         "node 1 x 6",
         1,
         0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_input input = {6, cases[i].graphs, cases[i].edge_values};
        struct model m;
        struct err e;
        uint32_t count = 0;
        while (count < 4 && cases[i].lines[count])
            count++;
        CHECK(model_open_input(&m, cases[i].lines, count, &input, "mean_squared_error", &e) < 0);
        CHECK_HAS(e.text, cases[i].part);
        model_close(&m);
    }
}

static void refused(struct fixture *f, uint64_t row, const char *part)
{
    struct err e;
    uint64_t bad = 0;
    CHECK(stepper_gather_graphs(f->s, &f->gather, 0, FIXTURE_ROWS, f->graph_rows, f->target_rows,
                                &bad, &e) < 0);
    CHECK_EQ(bad, row);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, part);
    fixture_fill(f);
}

static uint64_t row_with_edges(const struct fixture *f, uint64_t from)
{
    while (f->graph_rows[from].edge_count < 3)
        from++;
    return from;
}

TEST(graphs_that_cannot_be_used_are_named)
{
    struct fixture_config c = config_of(&chains[2]);
    struct fixture f;
    fixture_open(&f, &c);
    uint64_t row = row_with_edges(&f, 20), nodes = f.graph_rows[row].node_count;
    char text[96];
    f.graphs[row].targets[2] = (uint16_t)nodes;
    snprintf(text, sizeof text, "the target of its edge 2 is node %d; it has the nodes 0 to %d",
             (int)nodes, (int)nodes - 1);
    refused(&f, row, text);
    f.graphs[row].sources[0] = 65535;
    refused(&f, row, "the source of its edge 0 is node 65535");
    f.graphs[row].edges[1][1] = INFINITY;
    refused(&f, row, "a feature of its edge 1 times data.scale is not a finite number");
    f.features[row][c.inputs * (nodes - 1)] = NAN;
    snprintf(text, sizeof text, "a feature of its node %d times", (int)nodes - 1);
    refused(&f, row, text);
    f.graph_rows[row].node_count = 0;
    refused(&f, row, "its graph has no nodes");
    f.values[row][1] = NAN;
    refused(&f, row, "its target 1 as float32 is");
    f.graph_rows[row].node_count = FIXTURE_ROWS * FIXTURE_NODES_MAX + 1;
    refused(&f, row, "more than the loader said");
    f.graph_rows[row].edge_count = FIXTURE_ROWS * FIXTURE_EDGES_MAX + 1;
    refused(&f, row, "more than the loader said");
    fixture_gather(&f, FIXTURE_ROWS); /* as it was, all is well */
    fixture_close(&f);
}

TEST(gathers_of_graphs_of_other_shapes_are_refused)
{
    struct fixture_config c = config_of(&chains[2]);
    struct fixture f;
    struct err e;
    uint64_t bad;
    fixture_open(&f, &c);
    f.gather.edge_features = 2;
    CHECK(stepper_gather_graphs(f.s, &f.gather, 0, 1, f.graph_rows, f.target_rows, &bad, &e) < 0);
    CHECK_HAS(e.text, "graphs of 5 features a node and 2 an edge into a model of 5 and 3");
    f.gather.edge_features = 3;
    strcpy(f.gather.end_type, "f32");
    CHECK(stepper_gather_graphs(f.s, &f.gather, 0, 1, f.graph_rows, f.target_rows, &bad, &e) < 0);
    CHECK_HAS(e.text, "ends of edges of type 'f32'");
    fixture_close(&f);
}
