/* product.cu - matrix products by cuBLAS.
 *
 * cuBLAS's matrices are column-major: a row-major matrix is its own transposed there, so c^T = b^T
 * a^T is asked for. What cuBLAS can do in a product's own launch it does: a bias, relu, the sums of
 * a gradient (cublasLt's epilogues). Which of its algorithms does it is its heuristic's first
 * answer, asked for once a shape.
 */
#include <cublasLt.h>
#include <string.h>

#include "engine/cuda/blas.h"
#include "engine/cuda/handle.h"

void cuda_blas_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta,
                       struct matrix c)
{
    const float one = 1;
    uint64_t inner = a_t ? a.rows : a.columns;
    ensure(cuda_handle);
    cuda_blas(cublasSgemm_64(cuda_handle, b_t ? CUBLAS_OP_T : CUBLAS_OP_N,
                             a_t ? CUBLAS_OP_T : CUBLAS_OP_N, (int64_t)c.columns, (int64_t)c.rows,
                             (int64_t)inner, &one, b.at, (int64_t)b.stride, a.at, (int64_t)a.stride,
                             &beta, c.at, (int64_t)c.stride),
              "cublasSgemm");
}

void cuda_product_half(enum half kind, struct halves a, int a_t, struct halves b, int b_t,
                       float beta, struct matrix c)
{
    const float one = 1;
    cudaDataType_t type = kind == HALF_BF16 ? CUDA_R_16BF : CUDA_R_16F;
    uint64_t inner = a_t ? a.rows : a.columns;
    ensure(cuda_handle); /* not every lane has one */
    cuda_blas(cublasGemmEx_64(cuda_handle, b_t ? CUBLAS_OP_T : CUBLAS_OP_N,
                              a_t ? CUBLAS_OP_T : CUBLAS_OP_N, (int64_t)c.columns, (int64_t)c.rows,
                              (int64_t)inner, &one, b.at, type, (int64_t)b.stride, a.at, type,
                              (int64_t)a.stride, &beta, c.at, CUDA_R_32F, (int64_t)c.stride,
                              CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
              "cublasGemmEx");
}

int cuda_blas_product_mixed(enum half half, struct mixed a, int a_t, struct mixed b, int b_t,
                            float beta, struct mixed c)
{
    const float one = 1;
    uint64_t inner = a_t ? a.rows : a.columns;
    cudaDataType type = half == HALF_F16 ? CUDA_R_16F : CUDA_R_16BF;
    cublasStatus_t status = cublasGemmEx_64(
        cuda_handle, b_t ? CUBLAS_OP_T : CUBLAS_OP_N, a_t ? CUBLAS_OP_T : CUBLAS_OP_N,
        (int64_t)c.columns, (int64_t)c.rows, (int64_t)inner, &one, b.halves, type,
        (int64_t)b.stride, a.halves, type, (int64_t)a.stride, &beta,
        c.halves ? (void *)c.halves : (void *)c.at, c.halves ? type : CUDA_R_32F, (int64_t)c.stride,
        CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_ARCH_MISMATCH)
        return 0;
    cuda_blas(status, "cublasGemmEx");
    return 1;
}

/* ---- products with an epilogue ---- */

/* A product in cuBLAS's order: d[m, n] = op(a)[m, k] op(b)[k, n]. */
struct lt_shape {
    uint64_t m, n, k, a_stride, b_stride, d_stride;
    int a_t, b_t, rounded, epilogue;
    unsigned alignment; /* of all three */
};

struct lt_plan {
    struct lt_shape shape;
    int used, found;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algorithm;
};

enum { PLANS_MAX = 128 };
static struct lt_plan plans[PLANS_MAX];

static int shapes_equal(const struct lt_shape *a, const struct lt_shape *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->a_stride == b->a_stride &&
           a->b_stride == b->b_stride && a->d_stride == b->d_stride && a->a_t == b->a_t &&
           a->b_t == b->b_t && a->rounded == b->rounded && a->epilogue == b->epilogue &&
           a->alignment == b->alignment;
}

static cublasLtMatrixLayout_t layout_make(uint64_t rows, uint64_t columns, uint64_t stride)
{
    cublasLtMatrixLayout_t l = NULL;
    cublasLtMatrixLayoutCreate(&l, CUDA_R_32F, rows, columns, (int64_t)stride);
    return l;
}

static void product_set(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t what, int value)
{
    cublasLtMatmulDescSetAttribute(d, what, &value, sizeof value);
}

static void plan_make(struct lt_plan *p)
{
    const struct lt_shape *s = &p->shape;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    size_t workspace = CUDA_WORKSPACE_BYTES;
    uint32_t schemes =
        CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    int count = 0;
    cublasLtMatmulDescCreate(
        &p->product, s->rounded ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F);
    product_set(p->product, CUBLASLT_MATMUL_DESC_TRANSA, s->a_t ? CUBLAS_OP_T : CUBLAS_OP_N);
    product_set(p->product, CUBLASLT_MATMUL_DESC_TRANSB, s->b_t ? CUBLAS_OP_T : CUBLAS_OP_N);
    product_set(p->product, CUBLASLT_MATMUL_DESC_EPILOGUE, s->epilogue);
    p->a = layout_make(s->a_t ? s->k : s->m, s->a_t ? s->m : s->k, s->a_stride);
    p->b = layout_make(s->b_t ? s->n : s->k, s->b_t ? s->k : s->n, s->b_stride);
    p->d = layout_make(s->m, s->n, s->d_stride);
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &workspace, sizeof workspace);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                         &schemes, sizeof schemes);
    const cublasLtMatmulPreferenceAttributes_t sides[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (cublasLtMatmulPreferenceAttributes_t side : sides) {
        uint32_t bytes = s->alignment;
        cublasLtMatmulPreferenceSetAttribute(preference, side, &bytes, sizeof bytes);
    }
    p->found = cublasLtMatmulAlgoGetHeuristic((cublasLtHandle_t)cuda_handle, p->product, p->a, p->b,
                                              p->d, p->d, preference, 1, &result,
                                              &count) == CUBLAS_STATUS_SUCCESS &&
               count > 0;
    if (p->found)
        p->algorithm = result.algo;
    cublasLtMatmulPreferenceDestroy(preference);
}

/* What was asked for with it stays as it is. */
static void plan_drop(struct lt_plan *p)
{
    cublasLtMatmulDescDestroy(p->product);
    for (cublasLtMatrixLayout_t l : {p->a, p->b, p->d})
        cublasLtMatrixLayoutDestroy(l);
    memset(p, 0, sizeof *p);
}

/* Its plan; NULL where there is none: that follows from the shape, and not from which shapes there
 * were before it, or a run that was started again would not have the same bits. */
static struct lt_plan *plan_find(const struct lt_shape *shape)
{
    static int oldest; /* where all places are taken */
    int i = 0;
    while (i < PLANS_MAX && plans[i].used && !shapes_equal(&plans[i].shape, shape))
        i++;
    if (i == PLANS_MAX) {
        i = oldest;
        oldest = (oldest + 1) % PLANS_MAX;
        plan_drop(&plans[i]);
    }
    if (!plans[i].used) {
        plans[i].shape = *shape;
        plans[i].used = 1;
        plan_make(&plans[i]);
    }
    return plans[i].found ? &plans[i] : NULL;
}

static unsigned alignment_of(uintptr_t addresses)
{
    unsigned bytes = 256;
    while (addresses % bytes)
        bytes /= 2;
    return bytes;
}

/* d = op(a) op(b) with its epilogue, all of them row-major; `vector` is the bias that is added, or
 * where the sums of b's gradient go. 0: cuBLAS cannot. */
static int lt_run(struct matrix a, int a_t, struct matrix b, int b_t, struct matrix d,
                  cublasLtEpilogue_t epilogue, const float *vector)
{
    const float one = 1, zero = 0;
    struct lt_shape s = {};
    s.m = d.columns, s.n = d.rows, s.k = a_t ? a.rows : a.columns;
    s.a_stride = b.stride, s.b_stride = a.stride, s.d_stride = d.stride;
    s.a_t = b_t, s.b_t = a_t;
    s.rounded = cuda_products_rounded;
    s.epilogue = epilogue;
    s.alignment = alignment_of((uintptr_t)a.at | (uintptr_t)b.at | (uintptr_t)d.at);
    CUDA_MAIN_LANE(); /* its workspace is as large as plans want it */
    struct lt_plan *p = plan_find(&s);
    if (!p)
        return 0;
    cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &vector,
                                   sizeof vector);
    cuda_blas(cublasLtMatmul((cublasLtHandle_t)cuda_handle, p->product, &one, b.at, p->a, a.at,
                             p->b, &zero, d.at, p->d, d.at, p->d, &p->algorithm, cuda_workspace,
                             CUDA_WORKSPACE_BYTES, cuda_stream),
              "cublasLtMatmul");
    return 1;
}

int cuda_blas_linear(struct matrix x, struct matrix w, const float *bias, int relu, struct matrix y)
{
    return lt_run(x, 0, w, 1, y, relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS, bias);
}

int cuda_blas_gradient(struct matrix dy, struct matrix x, struct matrix dw, float *db)
{
    return lt_run(dy, 1, x, 0, dw, CUBLASLT_EPILOGUE_BGRADB, db);
}
