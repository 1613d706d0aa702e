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
