/* test_order.c - proto/order: permutations are permutations, everywhere the same, and look random.
 */
#include "proto/order.h"

#include <math.h>

#include "tests/test.h"

TEST(permute_is_a_bijection_for_every_small_n)
{
    static unsigned char seen[2001];
    for (uint64_t n = 1; n <= 2000; n++) {
        uint64_t key = test_random();
        memset(seen, 0, sizeof seen);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t j = order_permute(key, n, i);
            CHECK(j < n && !seen[j]);
            seen[j] = 1;
        }
    }
}

/* Of a large n some images are taken: all below n, none twice. */
TEST(permute_stays_below_large_n_without_collisions)
{
    enum { SAMPLES = 400 };
    uint64_t image[SAMPLES];
    for (int round = 0; round < 60; round++) {
        uint64_t n = (test_random() >> (test_random() % 40)) | 1024, key = test_random();
        uint64_t first = test_random() % (n - SAMPLES);
        for (uint64_t i = 0; i < SAMPLES; i++) {
            image[i] = order_permute(key, n, first + i);
            CHECK(image[i] < n);
            for (uint64_t k = 0; k < i; k++)
                CHECK(image[k] != image[i]);
        }
    }
}

TEST(permute_takes_the_extremes_of_its_range)
{
    CHECK_EQ(order_permute(5, 1, 0), 0);
    for (int bits = 1; bits < 64; bits++)
        for (int more = -1; more <= 1; more++) {
            uint64_t n = (1ull << bits) + (uint64_t)more;
            CHECK(order_permute(7, n, n - 1) < n);
            CHECK(order_permute(7, n, 0) < n);
        }
    CHECK(order_permute(7, UINT64_MAX, UINT64_MAX - 1) < UINT64_MAX);
}

/* Computed by another program (Python integers) from the description: a changed constant, a
 * narrower type or another machine shows here. */
TEST(golden_vector)
{
    static const uint64_t ten[] = {9, 2, 5, 0, 7, 1, 6, 4, 8, 3};
    static const uint64_t thousand[] = {525, 977, 311, 947, 419, 46, 396, 940};
    static const uint64_t at[] = {0, 1, 12345678901, (1ull << 48) - 60};
    static const uint64_t large[] = {0xaa9b8b77fd71, 0x314e8cd6da02, 0x5c18a0f57d0e,
                                     0x956ac430b890};
    for (uint64_t i = 0; i < 10; i++)
        CHECK_EQ(order_permute(1, 10, i), ten[i]);
    for (uint64_t i = 0; i < 8; i++)
        CHECK_EQ(order_permute(0xfeedface, 1000, i), thousand[i]);
    for (uint64_t i = 0; i < 4; i++)
        CHECK_EQ(order_permute(UINT64_MAX, (1ull << 48) - 59, at[i]), large[i]);
    CHECK(order_key(0, 0) == 0x48218226ff3cd4bf);
    CHECK(order_key(1, 2) == 0x81a5c1377856b73);
    CHECK(order_key(UINT64_MAX, UINT64_MAX) == 0xe8ba9f99ca933538);

    static const uint64_t rows[] = {31, 30, 3,  28, 1,  36, 29, 38, 21, 23, 39, 22, 2,  0,  20,
                                    37, 26, 5,  12, 42, 43, 27, 4,  13, 14, 7,  24, 15, 40, 25,
                                    41, 6,  16, 34, 11, 18, 9,  10, 17, 8,  44, 32, 33, 19, 35};
    const struct order o = {
        .seed = 7, .shuffle = 1, .rows = 45, .chunk_rows = 4, .span_rows = 8, .window_spans = 2};
    for (uint64_t p = 0; p < 45; p++)
        CHECK_EQ(order_file_row(&o, 3, p), rows[p]);

    static const uint32_t features[] = {3, 11, 2, 10, 7, 8, 5, 9, 4, 0, 1, 6};
    uint32_t found[12];
    order_features(9, 12, found);
    for (int j = 0; j < 12; j++)
        CHECK_EQ(found[j], features[j]);
}

/* Over many keys each place goes everywhere about equally often: no count is off by 6 deviations.
 */
static void check_uniform(uint64_t n, int keys)
{
    uint32_t count[64][64] = {{0}};
    for (int k = 0; k < keys; k++)
        for (uint64_t i = 0; i < n; i++)
            count[i][order_permute(order_key(11, (uint64_t)k), n, i)]++;
    double wanted = (double)keys / (double)n;
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < n; j++)
            CHECK(fabs(count[i][j] - wanted) < 6 * sqrt(wanted));
}

TEST(permute_sends_every_place_everywhere)
{
    static const uint64_t sizes[] = {2, 3, 4, 5, 7, 16, 17, 31, 64};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        check_uniform(sizes[i], 20000);
}

/* Neighbours must not stay neighbours, and keys that follow each other must be unrelated: the share
 * of coincidences is that of chance (1/n each; 1000 samples, bound at 6 deviations). */
TEST(permute_has_no_fixed_structure)
{
    enum { N = 1000 };
    int fixed = 0, neighbours = 0, same = 0, shifted = 0;
    for (uint64_t key = 0; key < 20; key++)
        for (uint64_t i = 0; i < N; i++) {
            uint64_t here = order_permute(key, N, i);
            uint64_t next = order_permute(key, N, (i + 1) % N);
            fixed += here == i;
            neighbours += next == here + 1;
            same += here == order_permute(key + 1, N, i);
            shifted += next == order_permute(key + 1, N, i);
        }
    CHECK(fixed < 50 && neighbours < 50 && same < 50 && shifted < 50); /* 20 each by chance */
    CHECK(fixed + neighbours + same + shifted > 20);
}

/* Every position of an epoch leads to another row of the file, by the same way as loader and
 * consumer go together: chunk places, spans, windows. */
static void check_order(const struct order *o, uint64_t epoch)
{
    unsigned char *seen = calloc(o->rows, 1);
    uint64_t spans = order_spans(o), windows = order_windows(o), rows = 0;
    for (uint64_t s = 0; s < spans; s++) {
        CHECK(order_span_rows(o, s) <= o->span_rows);
        CHECK(s == spans - 1 || order_span_rows(o, s) == o->span_rows);
        rows += order_span_rows(o, s);
    }
    CHECK_EQ(rows, o->rows);
    rows = 0;
    for (uint64_t w = 0; w < windows; w++)
        rows += order_window_rows(o, w);
    CHECK_EQ(rows, o->rows);
    for (uint64_t p = 0; p < o->rows; p++) {
        struct order_row at = order_row_at(o, epoch, p);
        CHECK(at.span < spans && at.row < order_span_rows(o, at.span));
        CHECK(at.span / o->window_spans == p / (o->span_rows * o->window_spans));
        uint64_t laid = at.span * o->span_rows + at.row;
        uint64_t row =
            order_chunk_at(o, epoch, laid / o->chunk_rows) * o->chunk_rows + laid % o->chunk_rows;
        CHECK_EQ(row, order_file_row(o, epoch, p));
        CHECK(row < o->rows && !seen[row]);
        CHECK(o->shuffle || row == p);
        seen[row] = 1;
    }
    free(seen);
}

TEST(file_rows_are_a_permutation_for_every_shape)
{
    static const uint64_t rows[] = {1, 2, 3, 7, 8, 9, 63, 64, 65, 100, 127, 256, 1000};
    static const uint64_t chunk[] = {1, 2, 3, 8, 17, 256};
    static const uint64_t chunks_a_span[] = {1, 2, 5};
    static const uint64_t window[] = {1, 2, 4, 7};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t c = 0; c < sizeof chunk / sizeof *chunk; c++)
            for (size_t s = 0; s < sizeof chunks_a_span / sizeof *chunks_a_span; s++)
                for (size_t w = 0; w < sizeof window / sizeof *window; w++)
                    for (int shuffle = 0; shuffle < 2; shuffle++) {
                        struct order o = {.seed = test_random(),
                                          .shuffle = shuffle,
                                          .rows = rows[r],
                                          .chunk_rows = chunk[c],
                                          .span_rows = chunk[c] * chunks_a_span[s],
                                          .window_spans = window[w]};
                        check_order(&o, test_random() % 1000);
                    }
}

/* Row b of every round of S positions goes on in part b; spans and windows tell the same. */
static void check_streams(const struct order *o)
{
    uint64_t part = o->rows / o->streams, longer = o->rows % o->streams, rows = 0, spans = 0;
    for (uint64_t s = 0; s < order_spans(o); s++)
        rows += order_span_rows(o, s);
    CHECK_EQ(rows, o->rows);
    for (uint64_t w = rows = 0; w < order_windows(o); w++) {
        CHECK_EQ(order_window_first(o, w), rows);
        CHECK(order_window_spans(o, w) == o->streams || w + 1 == order_windows(o));
        rows += order_window_rows(o, w);
        spans += order_window_spans(o, w);
    }
    CHECK(rows == o->rows && spans == order_spans(o));
    for (uint64_t p = 0; p < o->rows; p++) {
        struct order_row at = order_row_at(o, 3, p);
        uint64_t window = order_window_of(o, p), first = order_window_first(o, window);
        uint64_t b = p % o->streams, begin = b * part + (b < longer ? b : longer);
        CHECK_EQ(order_file_row(o, 3, p), begin + p / o->streams);
        CHECK_EQ(order_span_first(o, at.span) + at.row, order_file_row(o, 3, p));
        CHECK(at.span < order_spans(o) && at.row < order_span_rows(o, at.span));
        CHECK(first <= p && p - first < order_window_rows(o, window));
        CHECK(at.span / o->window_spans == window && window < order_windows(o));
        CHECK(at.span % o->streams < order_window_spans(o, window));
    }
}

TEST(streams_cover_equal_parts_side_by_side)
{
    static const uint64_t streams[] = {1, 2, 3, 64}, part[] = {0, 1, 2, 7, 16, 33},
                          span[] = {1, 4, 16};
    for (size_t s = 0; s < sizeof streams / sizeof *streams; s++)
        for (size_t r = 0; r < sizeof part / sizeof *part; r++)
            for (size_t w = 0; w < sizeof span / sizeof *span; w++)
                for (uint64_t rest = part[r] == 0; rest < streams[s]; rest += rest ? 31 : 1)
                    check_streams(&(struct order){.rows = streams[s] * part[r] + rest,
                                                  .chunk_rows = span[w],
                                                  .span_rows = span[w],
                                                  .window_spans = streams[s],
                                                  .streams = streams[s]});
}

TEST(epochs_and_seeds_give_other_orders)
{
    struct order o = {.seed = 1,
                      .shuffle = 1,
                      .rows = 4096,
                      .chunk_rows = 16,
                      .span_rows = 128,
                      .window_spans = 4};
    struct order other = o;
    other.seed = 2;
    int epochs = 0, seeds = 0;
    for (uint64_t p = 0; p < o.rows; p++) {
        epochs += order_file_row(&o, 0, p) == order_file_row(&o, 1, p);
        seeds += order_file_row(&o, 0, p) == order_file_row(&other, 0, p);
    }
    CHECK(epochs < 20 && seeds < 20); /* 1 by chance */
}

TEST(features_are_a_permutation)
{
    enum { N = 784 };
    uint32_t out[N];
    unsigned char seen[N] = {0};
    order_features(1, N, out);
    for (int j = 0; j < N; j++) {
        CHECK(out[j] < N && !seen[out[j]]);
        seen[out[j]] = 1;
    }
}

/* The runs of a span are its rows, in order, and none could be longer. */
TEST(runs_are_the_rows_of_a_span)
{
    for (int round = 0; round < 200; round++) {
        struct order o = {.seed = test_random(),
                          .shuffle = round % 3 != 0,
                          .rows = 1 + test_random() % 500,
                          .chunk_rows = 1 + test_random() % 20,
                          .window_spans = 4};
        o.span_rows = o.chunk_rows * (1 + test_random() % 6);
        for (uint64_t span = 0; span < order_spans(&o); span++) {
            struct order_run run = {0};
            uint64_t at = 0, before = UINT64_MAX, runs = 0;
            for (; order_run_next(&o, 3, span, &run); runs++) {
                CHECK_EQ(run.at, at);
                CHECK(run.first != before);
                for (uint64_t i = 0; i < run.rows; i++, at++) {
                    uint64_t laid = span * o.span_rows + at;
                    CHECK_EQ(run.first + i,
                             order_chunk_at(&o, 3, laid / o.chunk_rows) * o.chunk_rows +
                                 laid % o.chunk_rows);
                }
                before = run.first + run.rows;
            }
            CHECK_EQ(at, order_span_rows(&o, span));
            CHECK(o.shuffle || runs == 1);
        }
    }
}
