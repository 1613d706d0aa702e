/* squares.c - see squares.h: one sample after the other, its gradient squared before it leaves the
 * cache. The samples are summed by themselves first: sums of many slices keep more digits so. */
#include "engine/squares.h"

#include <string.h>

struct matrix sample_at(struct samples s, uint64_t n)
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

void squares_of_products(const struct backend *b, struct samples d, struct samples x,
                         const struct tile_work *w, float *sums)
{
    uint64_t count = d.first.columns * x.first.columns;
    struct matrix squares = matrix_of(w->squares, d.first.columns, x.first.columns);
    op_zero(b, w->squares, count);
    for (uint64_t n = 0; n < d.count; n++)
        op_product_square_add(b, sample_at(d, n), sample_at(x, n), w->products, squares);
    op_add(b, w->squares, sums, count);
}

void squares_of_sums(const struct backend *b, struct samples d, const struct tile_work *w,
                     float *sums)
{
    op_zero(b, w->squares, d.first.columns);
    for (uint64_t n = 0; n < d.count; n++) {
        op_column_sums(b, sample_at(d, n), w->products.tile);
        op_add_square(b, w->products.tile, w->squares, d.first.columns);
    }
    op_add(b, w->squares, sums, d.first.columns);
}
