/* product.c - matrix products: the only file that knows oneDNN.
 *
 * dnnl_sgemm is row-major. Debian's oneDNN is built on OpenMP: the number of OpenMP threads is a
 * property of the calling thread, and each thread that comes through here sets its own to one, so
 * that a product runs where it was called and the library creates no threads.
 */
#include "engine/cpu/cpu.h"

#include <dnnl.h>
#include <omp.h>

#include "proto/err.h"

static void library_threads_none(void)
{
    static _Thread_local int done;
    if (!done)
        omp_set_num_threads(1);
    done = 1;
}

void cpu_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta, struct matrix c)
{
    uint64_t inner = a_t ? a.rows : a.columns;
    library_threads_none();
    dnnl_status_t status =
        dnnl_sgemm(a_t ? 'T' : 'N', b_t ? 'T' : 'N', (dnnl_dim_t)c.rows, (dnnl_dim_t)c.columns,
                   (dnnl_dim_t)inner, 1.0f, a.at, (dnnl_dim_t)a.stride, b.at, (dnnl_dim_t)b.stride,
                   beta, c.at, (dnnl_dim_t)c.stride);
    ensure(status == dnnl_success);
}
