/* test_engine_tokens.c - rows of tokens: the embedding, and a class for each step. Finite
 * differences, per-sample squares against single rows, definitions, bits, and what is refused. */
#include <math.h>

#include "engine/ops.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

static const struct backend *const cpu = &backend_cpu;
static const char classes_loss[] = "softmax_cross_entropy";

struct chain {
    const char *lines[8], *loss;
    uint64_t inputs;
};

/* More tokens than a row has, and fewer: rows of the table that nobody and that several take. */
static const struct chain chains[] = {
    {{"embedding count=40 out=3", "linear out=5"}, classes_loss, 6},
    {{"embedding count=4 out=6", "tanh", "lstm out=5", "linear out=6"}, classes_loss, 7},
    {{"embedding count=9 out=4", "layernorm", "linear out=5"}, classes_loss, 1},
    {{"embedding count=7 out=5", "lstm out=4", "pool kind=mean", "linear out=5"}, classes_loss, 9},
    {{"embedding count=7 out=5", "linear out=3"}, "mean_squared_error", 4},
    {{"embedding count=12 out=8", "residual_begin", "linear out=8", "gelu", "residual_end",
      "pool kind=sum", "linear out=3"},
     "huber delta=0.4",
     5},
};
enum { CHAINS = sizeof chains / sizeof chains[0] };

static struct fixture_config config_of(const struct chain *c)
{
    struct fixture_config f = {.layers = c->lines, .inputs = c->inputs, .loss = c->loss};
    while (f.count < 8 && c->lines[f.count])
        f.count++;
    return f;
}

TEST_LIMIT(gradients_of_tokens_equal_finite_differences, 100)
{
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        fixture_check_gradient(&c, NULL, 0, NULL);
    }
}

TEST_LIMIT(squares_of_tokens_equal_single_rows, 100)
{
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        fixture_check_squares(&c);
    }
}

TEST(tokens_give_the_same_bits_for_every_number_of_threads)
{
    for (int i = 0; i < CHAINS; i++) {
        struct fixture_config c = config_of(&chains[i]);
        float *kept = NULL;
        for (c.threads = 1; c.threads <= 4; c.threads++) {
            struct fixture f;
            fixture_open(&f, &c);
            fixture_check_bits(&f, &kept);
            fixture_close(&f);
        }
        free(kept);
    }
}

/* With a model that is its table alone, a token's row are its logits. */
TEST(the_loss_is_the_mean_over_all_steps)
{
    enum { STEPS = 6, TOKENS = 11, CLASSES = 5 };
    static const char *const lines[] = {"embedding count=11 out=5"};
    struct fixture_config c = {.layers = lines, .count = 1, .inputs = STEPS};
    double loss = 0, right = 0;
    struct fixture f;
    fixture_open(&f, &c);
    const float *w = stepper_parameters(f.s);
    for (int r = 0; r < FIXTURE_ROWS; r++)
        for (int t = 0; t < STEPS; t++) {
            const float *z = w + f.tokens[r][t] * CLASSES;
            double sum = 0;
            int best = 0;
            for (int k = 0; k < CLASSES; k++) {
                sum += exp((double)z[k]);
                best = z[k] > z[best] ? k : best;
            }
            loss += log(sum) - (double)z[f.classes[r][t]];
            right += best == f.classes[r][t];
        }
    loss /= FIXTURE_ROWS * STEPS;
    struct evaluation_result e = fixture_evaluate(&f, FIXTURE_ROWS);
    CHECK(fabs(e.loss / loss - 1) < 1e-9);
    CHECK(fabs(e.metric - right / (FIXTURE_ROWS * STEPS)) < 1e-12);
    CHECK_EQ(e.rows, FIXTURE_ROWS);
    struct step_result r = fixture_train(&f, FIXTURE_ROWS, 0, 1, &fixture_still, NULL, 0);
    CHECK(fabs(r.loss / loss - 1) < 1e-9 && fabs(r.loss_sum / r.loss / FIXTURE_ROWS - 1) < 1e-12);
    fixture_close(&f);
}

TEST(embedding_operations_equal_their_definition)
{
    enum { TOKENS = 7, COLUMNS = 21, STEPS = 5 };
    static const float tokens[2 * STEPS] = {3, 0, 3, 6, 2, 3, 0, 3, 6, 2};
    static float w[TOKENS * COLUMNS], y[STEPS * COLUMNS], dw[3 * COLUMNS], squares[3 * COLUMNS];
    for (int i = 0; i < TOKENS * COLUMNS; i++)
        w[i] = (float)(i % 13);
    op_embedding_forward(cpu, tokens, matrix_of(w, TOKENS, COLUMNS), matrix_of(y, STEPS, COLUMNS));
    for (int t = 0; t < STEPS; t++)
        CHECK(memcmp(y + t * COLUMNS, w + (int)tokens[t] * COLUMNS, COLUMNS * sizeof *w) == 0);
    /* tokens 2, 3 and 4 of the table: 0 lies before them, 6 behind */
    op_embedding_add(cpu, tokens, 2, matrix_of(y, STEPS, COLUMNS), matrix_of(dw, 3, COLUMNS));
    for (int c = 0; c < COLUMNS; c++) {
        CHECK(dw[c] == w[2 * COLUMNS + c] && dw[2 * COLUMNS + c] == 0);
        CHECK(dw[COLUMNS + c] == 2 * w[3 * COLUMNS + c]);
    }
    /* the same as the sample's gradient, squared; then twice more */
    struct squares_work work = {.tile = dw};
    struct samples dy = {matrix_of(y, STEPS, COLUMNS), 1, 0, NULL};
    squares[0] = 5;
    for (int round = 1; round <= 3; round += 2) {
        op_embedding_square_add(cpu, tokens, dy, 2, work, matrix_of(squares, 3, COLUMNS));
        CHECK(squares[0] == 5 + (float)round * w[2 * COLUMNS] * w[2 * COLUMNS]);
        for (int c = 0; c < COLUMNS; c++) {
            float twice = 2 * w[3 * COLUMNS + c];
            CHECK(squares[COLUMNS + c] == (float)round * twice * twice);
            CHECK(squares[2 * COLUMNS + c] == 0);
        }
        dy.count = 2; /* the second one's tokens and dy are the first one's */
    }
}

TEST(fresh_tables_are_normal)
{
    static const char *const lines[] = {"embedding count=500 out=100"};
    struct model m;
    struct err e;
    double sum = 0, squares = 0, fourth = 0;
    CHECK_OK(model_open(&m, lines, 1, 3, classes_loss, &e), e);
    float *w = malloc(m.parameter_count * sizeof *w);
    model_initialise(&m, 4, w);
    for (uint64_t i = 0; i < m.parameter_count; i++) {
        double x = (double)w[i];
        sum += x, squares += x * x, fourth += x * x * x * x;
    }
    double n = (double)m.parameter_count; /* 50,000: bars of some five deviations */
    CHECK(fabs(sum / n) < 0.025 && fabs(squares / n - 1) < 0.035 && fabs(fourth / n - 3) < 0.25);
    free(w);
    model_close(&m);
}

TEST(models_of_tokens_are_checked)
{
    static const struct {
        const char *lines[3], *part;
        int graphs;
    } cases[] = {
        {{"linear out=4", "embedding count=9 out=2"}, "layer 1 (embedding) takes tokens", 0},
        {{"embedding count=9 out=2", "pool kind=mean"}, "and the rows no graphs", 1},
        {{"embedding out=2"}, "key 'count' is missing", 0},
        {{"embedding count=9 out=9000000"}, "makes 4 x 9000000 values of a row", 0},
    };
    struct model m;
    struct err e;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_input input = {4, cases[i].graphs, 0};
        uint32_t count = 0;
        while (count < 3 && cases[i].lines[count])
            count++;
        CHECK(model_open_input(&m, cases[i].lines, count, &input, classes_loss, &e) < 0);
        CHECK_HAS(e.text, cases[i].part);
        model_close(&m);
    }
    static const char *const lines[] = {"embedding count=9 out=6"};
    CHECK_OK(model_open(&m, lines, 1, 4, classes_loss, &e), e);
    CHECK(m.target_steps == 4 && m.token_count == 9 && m.outputs == 24);
    CHECK_OK(model_targets_check(&m, "u16", 4, &e), e);
    CHECK(model_targets_check(&m, "u16", 1, &e) < 0);
    CHECK_HAS(e.text, "1 values of type u16 a row, and the loss softmax_cross_entropy takes one "
                      "integer class a row for each of the 4 steps that the model leaves");
    model_close(&m);
}

TEST(bad_tokens_and_classes_are_named)
{
    struct fixture_config c = config_of(&chains[0]);
    struct fixture f;
    struct err e;
    uint64_t bad;
    fixture_open(&f, &c);
    const void *const *rows = f.feature_rows, *const *targets = f.target_rows;
    f.tokens[31][4] = 40;
    CHECK(stepper_gather(f.s, &f.gather, 0, FIXTURE_ROWS, rows, targets, &bad, &e) < 0);
    CHECK_EQ(bad, 31);
    CHECK_HAS(e.text, "its token 4 is 40; accepted: 0 to 39");
    fixture_fill(&f);
    f.classes[7][5] = 5;
    CHECK(stepper_gather(f.s, &f.gather, 0, FIXTURE_ROWS, rows, targets, &bad, &e) < 0);
    CHECK_EQ(bad, 7);
    CHECK_HAS(e.text, "its class of step 5 is 5; accepted: 0 to 4");
    fixture_fill(&f);
    f.gather.scale = 0.5;
    CHECK(stepper_gather(f.s, &f.gather, 0, FIXTURE_ROWS, rows, targets, &bad, &e) < 0);
    CHECK_HAS(e.text, "cannot gather tokens of type 'u16', scaled by 0.5");
    f.gather.scale = 1;
    strcpy(f.gather.feature_type, "f32");
    CHECK(stepper_gather(f.s, &f.gather, 0, FIXTURE_ROWS, rows, targets, &bad, &e) < 0);
    CHECK_HAS(e.text, "accepted: integers as they are stored");
    fixture_close(&f);
}
