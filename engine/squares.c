/* squares.c - see squares.h: one sample after the other, its gradient squared before it leaves the
 * cache. */
#include "engine/squares.h"

#include <string.h>

static struct matrix sample_at(struct samples s, uint64_t n)
{
    if (s.begin) {
        struct segments of = {.count = s.count, .begin = s.begin};
        s.first.at += segment_first(of, n) * s.first.stride;
        s.first.rows = segment_rows(of, n);
    } else {
        s.first.at += n * s.distance;
    }
    return s.first;
}

void squares_of_products(const struct backend *b, struct samples d, struct samples x, float *sample,
                         float *squares)
{
    struct matrix gradient = matrix_of(sample, d.first.columns, x.first.columns);
    uint64_t count = d.first.columns * x.first.columns;
    memset(squares, 0, count * sizeof *squares);
    for (uint64_t n = 0; n < d.count; n++) {
        op_product(b, sample_at(d, n), 1, sample_at(x, n), 0, 0, gradient);
        op_add_square(b, sample, squares, count);
    }
}

void squares_of_sums(const struct backend *b, struct samples d, float *sample, float *squares)
{
    memset(squares, 0, d.first.columns * sizeof *squares);
    for (uint64_t n = 0; n < d.count; n++) {
        op_column_sums(b, sample_at(d, n), sample);
        op_add_square(b, sample, squares, d.first.columns);
    }
}
