/* test_fisher_code.c - the stored forms of the Fisher information: what a reader gets of every kind
 * of block, that a value which is not zero never becomes zero, that threads do not matter, and that
 * no reader believes damaged parts.
 */
#include "engine/fisher_code.h"

#include <float.h>
#include <malloc.h>
#include <math.h>

#include "tests/test.h"

enum { VALUES_MAX = 300000 };

static float values[VALUES_MAX], back[VALUES_MAX], other[VALUES_MAX];
static struct pool *pool;

static void begin(int threads)
{
    struct err e;
    CHECK_OK(pool_open(&pool, threads, &e), e);
}

static double uniform(void)
{
    return ((double)(test_random() >> 11) + 0.5) * 0x1p-53;
}

/* ln F: what the row and the column have, and chance; `zeros` of them 0, and row 1 and column 2
 * all. */
static void matrix_make(float *f, uint64_t rows, uint64_t columns, double spread, double zeros)
{
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = 0; j < columns; j++) {
            double chance = uniform() + uniform() + uniform() - 1.5;
            double ln = spread * (sin((double)i) + cos((double)(3 * j)) + chance) - 12;
            int dead = rows > 3 && columns > 3 && (i == 1 || j == 2);
            f[i * columns + j] = dead || uniform() < zeros ? 0 : (float)exp(ln);
        }
}

static uint64_t width_of(const struct fisher_part *part)
{
    return part->type[1] == '8' ? 1 : part->type[1] == '1' ? 2 : 4;
}

static uint64_t count_of(const struct fisher_piece *pieces, uint64_t piece_count)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < piece_count; i++)
        count += pieces[i].rows * pieces[i].columns;
    return count;
}

static double norm_of_difference(const float *a, const float *b, uint64_t count)
{
    double sum = 0;
    for (uint64_t i = 0; i < count; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum);
}

/* Encode and decode values[]; the parts' numbers and the zeros must hold. Returns the error. */
static double round_trip(struct fisher_coding coding, const struct fisher_piece *pieces,
                         uint64_t piece_count)
{
    struct fisher_code c = {0};
    struct err e;
    uint64_t count = count_of(pieces, piece_count);
    double sum = 0, squares = 0;
    CHECK(count <= VALUES_MAX);
    CHECK_OK(fisher_encode(&c, &coding, pieces, piece_count, values, pool, &e), e);
    CHECK_EQ(c.count, count);
    CHECK_OK(fisher_decode(&c, back, &e), e);
    for (uint64_t i = 0; i < count; i++) {
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
        if (values[i] != 0 ? back[i] == 0 : back[i] != 0 && coding.form != FISHER_LOWRANK)
            test_fail(__FILE__, __LINE__, "%s: value %llu is %g, stored as %g",
                      fisher_form_name(coding.form), (unsigned long long)i, (double)values[i],
                      (double)back[i]);
    }
    double error = squares > 0 ? norm_of_difference(values, back, count) / sqrt(squares) : 0;
    double nothing = (double)count * (double)FLT_MIN; /* denormal numbers count as much as zero */
    CHECK(fabs(c.sum - sum) <= 1e-9 * sum + nothing);
    CHECK(fabs(c.norm - sqrt(squares)) <= 1e-9 * sqrt(squares) + nothing);
    CHECK(fabs(c.error - error) <= 1e-5 * error + 1e-9 || sqrt(squares) < nothing);
    fisher_code_free(&c);
    return error;
}

static double bound_of(enum fisher_form form)
{
    return form <= FISHER_GZIP      ? 0
           : form == FISHER_INT8    ? 0.02
           : form == FISHER_INT4    ? 0.3
           : form == FISHER_LOWRANK ? 1.2
                                    : 0.06;
}

TEST(fisher_code_every_form_of_every_shape)
{
    const struct fisher_piece shapes[] = {{1, 1},     {1, 7}, {7, 1},     {1, 70000},
                                          {90000, 1}, {2, 3}, {130, 257}, {300, 1000}};
    begin(2);
    for (int form = 0; form < FISHER_FORMS; form++)
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
            for (int zeros = 0; zeros < 3; zeros++) {
                matrix_make(values, shapes[k].rows, shapes[k].columns, 1.5, 0.4 * zeros);
                double error = round_trip((struct fisher_coding){form, 0.1, 0.16}, &shapes[k], 1);
                if (error > bound_of((enum fisher_form)form))
                    test_fail(__FILE__, __LINE__, "%s of shape %zu: error %g",
                              fisher_form_name((enum fisher_form)form), k, error);
            }
}

TEST(fisher_code_of_several_pieces_one_of_them_all_zero)
{
    const struct fisher_piece pieces[] = {{40, 100}, {1, 100}, {8, 9}, {3, 500}, {1, 1}};
    uint64_t at = 0;
    begin(2);
    for (int k = 0; k < 5; k++) {
        matrix_make(values + at, pieces[k].rows, pieces[k].columns, 1, k == 2 ? 1 : 0.1);
        at += pieces[k].rows * pieces[k].columns;
    }
    for (int form = 0; form < FISHER_FORMS; form++)
        CHECK(round_trip((struct fisher_coding){form, 0.1, 0.16}, pieces, 5) <=
              bound_of((enum fisher_form)form));
    memset(values, 0, at * sizeof *values);
    for (int form = 0; form < FISHER_FORMS; form++)
        CHECK(round_trip((struct fisher_coding){form, 0.1, 0.16}, pieces, 5) == 0);
}

/* The ends of float32 and all there is between them: steps may be coarse, but nothing is lost and
 * nothing is made. */
TEST(fisher_code_of_the_least_and_the_largest_numbers)
{
    const struct fisher_piece piece = {20, 30};
    begin(1);
    for (int form = 0; form < FISHER_FORMS; form++)
        for (int kind = 0; kind < 4; kind++) {
            for (int i = 0; i < 600; i++)
                values[i] = kind == 0
                                ? (float)ldexp(1 + uniform(), -149 + (int)(test_random() % 276))
                            : kind == 1 ? 0x1p-149f * (float)(1 + test_random() % 9)
                            : kind == 2 ? 1e18f * (float)(1 + i % 5)
                                        : 1e-30f;
            values[17] = 0;
            round_trip((struct fisher_coding){form, 0.1, kind ? 0.05 : 2}, &piece, 1);
        }
}

TEST(fisher_code_step_decides_the_error)
{
    const struct fisher_piece piece = {200, 300};
    begin(2);
    matrix_make(values, piece.rows, piece.columns, 1, 0);
    for (double step = 0.05; step < 0.8; step *= 2) {
        double error = round_trip((struct fisher_coding){FISHER_LOG_RANK1, 0.1, step}, &piece, 1);
        CHECK(error > 0.8 * step / sqrt(12) && error < 1.2 * step / sqrt(12));
    }
}

TEST(fisher_code_does_not_depend_on_threads)
{
    const struct fisher_piece pieces[] = {{300, 700}, {700, 100}};
    uint64_t count = count_of(pieces, 2);
    matrix_make(values, 300, 700, 2, 0.1);
    matrix_make(values + 210000, 700, 100, 2, 0.1);
    for (int form = 0; form < FISHER_FORMS; form++) {
        struct fisher_code c[2] = {{0}, {0}};
        struct err e;
        for (int k = 0; k < 2; k++) {
            begin(k ? 3 : 1);
            for (int again = 0; again < 2; again++) /* and not on what its memory held */
                CHECK_OK(fisher_encode(&c[k], &(struct fisher_coding){form, 0.1, 0.16}, pieces, 2,
                                       values, pool, &e),
                         e);
            pool_close(&pool);
        }
        for (int i = 0; i < c[0].parts; i++) {
            uint64_t bytes = c[0].part[i].count * width_of(&c[0].part[i]);
            CHECK_EQ(c[0].part[i].count, c[1].part[i].count);
            CHECK(memcmp(c[0].part[i].data, c[1].part[i].data, bytes) == 0);
        }
        CHECK(c[0].sum == c[1].sum && c[0].norm == c[1].norm && c[0].error == c[1].error);
        CHECK_OK(fisher_decode(&c[0], back, &e), e);
        CHECK_OK(fisher_decode(&c[1], other, &e), e);
        CHECK(memcmp(back, other, count * sizeof *back) == 0);
        fisher_code_free(&c[0]);
        fisher_code_free(&c[1]);
    }
}

/* Bytes that the process has taken and not given back. */
static uint64_t held(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* What encoding takes besides is as large as the values: it is not kept for the next block. */
TEST(fisher_code_keeps_its_parts_only)
{
    static const struct fisher_piece piece = {500, 600};
    struct fisher_code c = {0};
    struct err e;
    begin(1);
    matrix_make(values, piece.rows, piece.columns, 1, 0.1);
    for (int form = 0; form < FISHER_FORMS; form++) {
        const struct fisher_coding coding = {(enum fisher_form)form, 0.1, 0.16};
        uint64_t before = held(), parts = 0;
        CHECK_OK(fisher_encode(&c, &coding, &piece, 1, values, pool, &e), e);
        for (int i = 0; i <= FISHER_PARTS_MAX; i++)
            parts += c.memory[i].bytes;
        CHECK(parts <= 4 * VALUES_MAX + 4096);
        CHECK(held() - before <= parts + 65536);
        fisher_code_free(&c);
    }
    pool_close(&pool);
}

TEST(fisher_code_refuses_numbers_that_are_none)
{
    const struct fisher_piece piece = {3, 4};
    const float bad[] = {NAN, INFINITY, -INFINITY, -1e-30f};
    struct fisher_code c = {0};
    struct err e;
    begin(1);
    for (int k = 0; k < 4; k++) {
        matrix_make(values, 3, 4, 1, 0);
        values[5] = bad[k];
        CHECK(fisher_encode(&c, &(struct fisher_coding){FISHER_LOG_RANK1, 0.1, 0.16}, &piece, 1,
                            values, pool, &e) < 0);
        CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
        CHECK_HAS(e.text, "parameter 5 of a block");
    }
    values[5] = -0.0f;
    CHECK_OK(fisher_encode(&c, &(struct fisher_coding){FISHER_LOG_RANK1, 0.1, 0.16}, &piece, 1,
                           values, pool, &e),
             e);
    fisher_code_free(&c);
}

/* Parts of which one byte is another, or of which the end is missing: an error or other values,
 * never a wild read (the parts are in memory of their very size, so that a sanitizer sees one). */
TEST(fisher_code_reader_believes_nothing)
{
    const struct fisher_piece pieces[] = {{9, 11}, {1, 20}};
    struct err e;
    int refused = 0;
    begin(1);
    matrix_make(values, 9, 11, 1, 0.1);
    matrix_make(values + 99, 1, 20, 1, 0.1);
    for (int form = 0; form < FISHER_FORMS; form++) {
        struct fisher_code c = {0}, read;
        CHECK_OK(fisher_encode(&c, &(struct fisher_coding){form, 0.1, 0.16}, pieces, 2, values,
                               pool, &e),
                 e);
        for (int round = 0; round < 3000; round++) {
            read = (struct fisher_code){.form = c.form, .count = c.count, .parts = c.parts};
            int victim = (int)(test_random() % (uint64_t)c.parts);
            for (int i = 0; i < c.parts; i++) {
                uint64_t width = width_of(&c.part[i]), count = c.part[i].count;
                if (i == victim && round % 2)
                    count -= test_random() % (count + 1);
                read.part[i] = c.part[i];
                read.part[i].count = count;
                read.part[i].data = malloc(count * width + !count);
                memcpy(read.part[i].data, c.part[i].data, count * width);
                if (i == victim && count)
                    ((uint8_t *)read.part[i].data)[test_random() % (count * width)] =
                        (uint8_t)test_random();
            }
            if (fisher_decode(&read, back, &e) < 0) {
                refused++;
                CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
                CHECK(e.text[0]);
            }
            for (int i = 0; i < c.parts; i++)
                free(read.part[i].data);
        }
        read = c;
        read.parts--;
        CHECK(fisher_decode(&read, back, &e) < 0);
        CHECK_HAS(e.text, "has no array");
        fisher_code_free(&c);
    }
    CHECK(refused > 3000);
}
