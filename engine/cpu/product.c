/* product.c - matrix products: the only file that knows oneDNN.
 *
 * dnnl_sgemm is row-major. Debian's oneDNN is built on OpenMP: the number of OpenMP threads is a
 * property of the calling thread, and each thread that comes through here sets its own to one, so
 * that a product runs where it was called and the library creates no threads.
 *
 * Each call allocates what it packs its matrices into, up to 17 MiB, and frees it. Left to itself
 * glibc raises the size from which it maps memory after the first such free, and from then on every
 * thread's heap keeps a block of it, which no plan knows of: so that size is fixed here.
 */
#include "engine/cpu/cpu.h"

#include <dnnl.h>
#include <malloc.h>
#include <omp.h>

#include "proto/err.h"

enum { MAPPED_BYTES = 1 << 20 };

static void library_prepare(void)
{
    static _Thread_local int done;
    if (!done) {
        omp_set_num_threads(1);
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
    done = 1;
}

void cpu_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta, struct matrix c)
{
    uint64_t inner = a_t ? a.rows : a.columns;
    library_prepare();
    dnnl_status_t status =
        dnnl_sgemm(a_t ? 'T' : 'N', b_t ? 'T' : 'N', (dnnl_dim_t)c.rows, (dnnl_dim_t)c.columns,
                   (dnnl_dim_t)inner, 1.0f, a.at, (dnnl_dim_t)a.stride, b.at, (dnnl_dim_t)b.stride,
                   beta, c.at, (dnnl_dim_t)c.stride);
    ensure(status == dnnl_success);
}

void cpu_finish(enum activation kind, enum half half, uint16_t *kept, struct matrix y)
{
    if (half)
        cpu_round_half(half, y);
    for (uint64_t r = 0; kind != ACTIVATION_COUNT && r < y.rows; r++)
        cpu_activation_forward(kind, y.at + r * y.stride, y.at + r * y.stride, y.columns);
    if (half && kind != ACTIVATION_COUNT)
        cpu_round_half(half, y);
    if (kept)
        cpu_store_half(half, y.at, kept, y.rows * y.columns);
}

void cpu_linear_forward(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                        enum half half, uint16_t *kept, struct matrix y)
{
    cpu_product(x, 0, w, 1, 0, y);
    cpu_bias_add(y, bias);
    cpu_finish(kind, half, kept, y);
}

void cpu_weight_gradient(struct matrix dy, struct matrix x, struct matrix dw, float *db)
{
    cpu_product(dy, 1, x, 0, 0, dw);
    cpu_column_sums(dy, db);
}
