/* lstm_half.cu - the steps of an LSTM's layer with weights of 16 bits: lstm_cell.h says how a block
 * is laid out. W_hh stays in the registers of its warps as operands of the tensor cores
 * (engine/cuda/mma.h), whose 8 columns are the block's rows, several times.
 *
 * Forward a warp makes the sums of its own units out of h of all of them, which goes round by
 * shared memory: one barrier a step. Backward a warp multiplies its own units' gradients with
 * their weights for the h of all units, and the warps' parts are added up by shared memory: again
 * one barrier a step.
 */
#include "engine/cuda/lstm_cell.h"
#include "engine/cuda/lstm_weights.h"

/* sums[rows]: this lane's gate of W_hh h. */
template <int pairs, int rows, int kind>
static __device__ __forceinline__ void product_forward(const uint32_t a[2][2 * pairs][4],
                                                       const uint16_t *h,
                                                       const struct lane<rows> &l, float sums[rows])
{
    float c[2][4] = {{0}};
    const uint16_t *row = h + l.u % rows * h_rows<pairs>::STRIDE + 8 * l.gate;
    UNROLL(4)
    for (int pair = 0; pair < pairs; pair++) {
        uint4 four = *(const uint4 *)(row + 32 * pair);
        uint32_t b[2][2] = {{four.x, four.y}, {four.z, four.w}};
        UNROLL(2)
        for (int step = 0; step < 2; step++) {
            mma<kind>(c[0], a[0][2 * pair + step], b[step]);
            mma<kind>(c[1], a[1][2 * pair + step], b[step]);
        }
    }
    /* every column has a row, and a lane's two have all rows: it takes its own gate of them */
    UNROLL(rows)
    for (int r = 0; r < rows; r++) {
        float first = l.gate % 2 ? c[0][2 + r] : c[0][r];
        float second = l.gate % 2 ? c[1][2 + r] : c[1][r];
        sums[r] = l.gate / 2 ? second : first;
    }
}

template <int pairs, int rows, int kind>
__global__ void __launch_bounds__(THREADS_MAX, 1)
    half_forward(struct lstm_steps s, const float *bias_ih, const float *bias_hh, struct matrix w,
                 struct matrix h)
{
    __shared__ __align__(16) uint16_t all[2][rows * h_rows<pairs>::STRIDE];
    uint32_t a[2][2 * pairs][4];
    struct lane<rows> l = lane_here<rows>(s);
    struct forward_cell<rows> f;
    for (unsigned i = threadIdx.x; i < rows * h_rows<pairs>::STRIDE; i += blockDim.x)
        all[0][i] = all[1][i] = 0; /* units that are not there */
    weights_forward<pairs, kind>(w, s.hidden, l.unit, l.gate, a);
    forward_begin<rows>(s, l, bias_ih, bias_hh, h, &f);
    float value = forward_h_before<rows>(s, l, &f);
    __syncthreads();
    for (unsigned k = 0; k < l.steps; k++) {
        uint16_t *now = all[k % 2];
        float sums[rows];
        if (tells_h<rows>(l))
            now[l.gate * h_rows<pairs>::STRIDE + l.unit] = half_bits<kind>(value);
        __syncthreads();
        product_forward<pairs, rows, kind>(a, now, l, sums);
        value = forward_step<rows, kind>(l, k, sums, &f);
    }
    forward_end<rows>(s, l, &f);
}

/* W_hh^T of the warp's units: tiles of 16 of h by two of 16 gates' rows, of which a lane's 8 are
 * the units of gate lane % 4. */
template <int pairs, int kind, int rows>
static __device__ __forceinline__ void weights_backward(struct matrix w, uint64_t hidden,
                                                        const struct lane<rows> &l,
                                                        uint32_t a[2 * pairs][2][4])
{
    UNROLL(8)
    for (int tile = 0; tile < 2 * pairs; tile++)
        UNROLL(2)
    for (int step = 0; step < 2; step++)
        UNROLL(4)
    for (int k = 0; k < 4; k++) {
        uint64_t column = 16 * tile + l.u + 8 * (k % 2);
        uint64_t unit = l.warp * UNITS + 4 * step + 2 * (k / 2);
        a[tile][step][k] = mma_pack<kind>(weight(w, l.gate, hidden, unit, column),
                                          weight(w, l.gate, hidden, unit + 1, column));
    }
}

/* The warp's part [hidden][rows] of the gradient at h: four groups of 8 units at a time, a lane
 * writing one of group lane % 4. */
template <int pairs, int rows, int kind>
static __device__ __forceinline__ void product_backward(const uint32_t a[2 * pairs][2][4],
                                                        const uint16_t *d,
                                                        const struct lane<rows> &l, float *part)
{
    uint4 four = *(const uint4 *)(d + (l.u % rows * GATES + l.gate) * UNITS);
    uint32_t b[2][2] = {{four.x, four.y}, {four.z, four.w}};
    UNROLL(4)
    for (int pair = 0; pair < pairs; pair++) {
        float c[2][4] = {{0}};
        UNROLL(2)
        for (int step = 0; step < 2; step++) {
            mma<kind>(c[0], a[2 * pair][step], b[step]);
            mma<kind>(c[1], a[2 * pair + 1][step], b[step]);
        }
        UNROLL(rows)
        for (int r = 0; r < rows; r++) {
            float first = l.gate % 2 ? c[0][2 + r] : c[0][r];
            float second = l.gate % 2 ? c[1][2 + r] : c[1][r];
            part[(32 * pair + 8 * l.gate + l.u) * rows + r] = l.gate / 2 ? second : first;
        }
    }
}

template <int pairs, int rows, int kind>
__global__ void __launch_bounds__(THREADS_MAX, 1)
    half_backward(struct lstm_steps s, struct matrix w, struct matrix dh, float *dc)
{
    enum { PART = (32 * pairs + UNITS) * rows, PARTS = 4 * pairs * PART };
    __shared__ float parts[2][PARTS];
    __shared__ __align__(16) uint16_t gradients[4 * pairs][rows * GATES * UNITS];
    uint32_t a[2 * pairs][2][4];
    struct lane<rows> l = lane_here<rows>(s);
    struct backward_cell<rows> b;
    float recurrent = 0;
    for (unsigned i = threadIdx.x; i < PARTS; i += blockDim.x)
        parts[0][i] = parts[1][i] = 0; /* of warps that are not there */
    weights_backward<pairs, kind>(w, s.hidden, l, a);
    backward_begin<rows, kind>(s, l, dh, dc, &b);
    __syncthreads(); /* the last steps are read, before their gates become gradients */
    for (unsigned k = l.steps; k-- > 0;) {
        float own[rows];
        backward_step<rows, kind>(l, s.hidden, k, recurrent, &b, own);
        UNROLL(rows)
        for (int i = 0; i < rows; i++)
            gradients[l.warp][(l.gate % rows * GATES + own_gate<rows>(l, i)) * UNITS + l.u] =
                half_bits<kind>(own[i]);
        __syncwarp();
        product_backward<pairs, rows, kind>(a, gradients[l.warp], l, parts[k % 2] + l.warp * PART);
        backward_ready<rows, kind>(l, s.hidden, k, &b);
        __syncthreads();
        recurrent = parts_sum<rows, 4 * pairs, PART>(parts[k % 2], l);
    }
    backward_end<rows>(s, l, dh, recurrent, dc, &b);
}

/* Pairs of tiles of 16 that the hidden units take, at most: 2 or 4. */
#define FORWARD(pairs, rows, kind)                                                                 \
    LAUNCH((half_forward<pairs, rows, kind>), blocks, threads, s, bias_ih, bias_hh, w_hh, h)
#define BACKWARD(pairs, rows, kind)                                                                \
    LAUNCH((half_backward<pairs, rows, kind>), blocks, threads, s, w_hh, dh, dc)
#define WITH_PAIRS(KERNEL, rows, kind)                                                             \
    do {                                                                                           \
        if (s.hidden <= 64)                                                                        \
            KERNEL(2, rows, kind);                                                                 \
        else                                                                                       \
            KERNEL(4, rows, kind);                                                                 \
    } while (0)
#define WITH_ROWS(KERNEL, kind)                                                                    \
    do {                                                                                           \
        if (rows == 1)                                                                             \
            WITH_PAIRS(KERNEL, 1, kind);                                                           \
        else                                                                                       \
            WITH_PAIRS(KERNEL, 2, kind);                                                           \
    } while (0)

static int fits(struct lstm_steps s)
{
    return s.hidden <= HIDDEN_MAX && cuda_capability >= 80;
}

int lstm_forward_half(struct lstm_steps s, const float *bias_ih, const float *bias_hh,
                      struct matrix w_hh, enum half half, struct matrix h)
{
    int rows = rows_of_block(s);
    unsigned blocks = (unsigned)((s.rows + rows - 1) / rows);
    unsigned threads = (unsigned)((s.hidden + UNITS - 1) / UNITS) * WARP;
    if (!fits(s))
        return -1;
    if (half == HALF_BF16)
        WITH_ROWS(FORWARD, HALF_BF16);
    else
        WITH_ROWS(FORWARD, HALF_F16);
    return 0;
}

int lstm_backward_half(struct lstm_steps s, struct matrix w_hh, enum half half, struct matrix dh,
                       float *dc)
{
    int rows = rows_of_block(s);
    unsigned blocks = (unsigned)((s.rows + rows - 1) / rows);
    unsigned threads = (unsigned)((s.hidden + UNITS - 1) / UNITS) * WARP;
    if (!fits(s))
        return -1;
    if (half == HALF_BF16)
        WITH_ROWS(BACKWARD, HALF_BF16);
    else
        WITH_ROWS(BACKWARD, HALF_F16);
    return 0;
}
