/* embedding.c - rows of a table by number: taken, added to, and squared. */
#include "engine/cpu/cpu.h"

#include <string.h>

void cpu_embedding_forward(const float *tokens, struct matrix w, struct matrix y)
{
    for (uint64_t r = 0; r < y.rows; r++)
        memcpy(y.at + r * y.stride, w.at + (uint64_t)tokens[r] * w.stride,
               y.columns * sizeof *y.at);
}

CPU_CLONES static void row_add(const float *restrict x, float *restrict y, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        y[i] += x[i];
}

void cpu_embedding_add(const float *tokens, uint64_t first, struct matrix dy, struct matrix dw)
{
    for (uint64_t r = 0; r < dy.rows; r++) {
        uint64_t row = (uint64_t)tokens[r] - first; /* a token before `first` is a large number */
        if (row < dw.rows)
            row_add(dy.at + r * dy.stride, dw.at + row * dw.stride, dw.columns);
    }
}

CPU_CLONES static void row_square(float *restrict sums, float *restrict squares, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        squares[i] += sums[i] * sums[i];
        sums[i] = 0;
    }
}

/* A sample touches few rows: only those are squared, and left at 0 for the next one. */
void cpu_embedding_square_add(const float *tokens, struct samples dy, uint64_t first,
                              struct squares_work work, struct matrix y)
{
    struct matrix sums = matrix_of(work.tile, y.rows, y.columns);
    cpu_zero(sums.at, sums.rows * sums.columns);
    for (uint64_t n = 0; n < dy.count; n++, tokens += dy.first.rows) {
        cpu_embedding_add(tokens, first, sample_at(dy, n), sums);
        for (uint64_t r = 0; r < dy.first.rows; r++) {
            uint64_t row = (uint64_t)tokens[r] - first;
            if (row < sums.rows)
                row_square(sums.at + row * sums.stride, y.at + row * y.stride, sums.columns);
        }
    }
}
