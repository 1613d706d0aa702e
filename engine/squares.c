/* squares.c - see squares.h. The samples are summed by themselves first: sums of many slices keep
 * more digits so. */
#include "engine/squares.h"

void squares_of_products(const struct backend *b, struct samples d, struct samples x,
                         const struct tile_work *w, float *sums)
{
    uint64_t count = d.first.columns * x.first.columns;
    op_zero(b, w->squares, count);
    op_products_square_add(b, d, x, w->products,
                           matrix_of(w->squares, d.first.columns, x.first.columns));
    op_add(b, w->squares, sums, count);
}

void squares_of_sums(const struct backend *b, struct samples d, const struct tile_work *w,
                     float *sums)
{
    op_zero(b, w->squares, d.first.columns);
    op_sums_square_add(b, d, w->products, w->squares);
    op_add(b, w->squares, sums, d.first.columns);
}
