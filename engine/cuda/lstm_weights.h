/* lstm_weights.h - weights of an LSTM's layer as operands of the tensor cores (engine/cuda/mma.h),
 * for the kernels that keep them in the registers of a block's warps. */
#ifndef ENGINE_CUDA_LSTM_WEIGHTS_H
#define ENGINE_CUDA_LSTM_WEIGHTS_H

#include "engine/cuda/mma.h"

/* Shared memory of 16-bit h: a row, and what keeps rows in different banks. */
template <int pairs> struct h_rows {
    enum { LENGTH = 32 * pairs, STRIDE = LENGTH + 32 };
};

static __device__ __forceinline__ float weight(struct matrix w, uint64_t gate, uint64_t hidden,
                                               uint64_t unit, uint64_t column)
{
    return unit < hidden && column < hidden ? w.at[(gate * hidden + unit) * w.stride + column] : 0;
}

/* 8 numbers of a gate's row that lie together, 0 where they are not there. */
static __device__ __forceinline__ void weights_take(struct matrix w, uint64_t gate, uint64_t hidden,
                                                    uint64_t unit, uint64_t column, float of[8])
{
    const float *at = w.at + ((gate * hidden + unit) * w.stride + column);
    if (unit < hidden && column + 8 <= hidden && (uintptr_t)at % 16 == 0) {
        float4 low = *(const float4 *)at, high = *(const float4 *)(at + 4);
        of[0] = low.x, of[1] = low.y, of[2] = low.z, of[3] = low.w;
        of[4] = high.x, of[5] = high.y, of[6] = high.z, of[7] = high.w;
        return;
    }
    UNROLL(8)
    for (int i = 0; i < 8; i++)
        of[i] = weight(w, gate, hidden, unit, column + i);
}

/* Two tiles of 16 rows: gates i and f of the warp's units, of which `unit` is the lane's, g and o
 * of them. A lane's columns of a pair of tiles of 16 are 8 that lie together: 32 pair + 8 q .., q
 * being lane % 4. */
template <int pairs, int kind>
static __device__ __forceinline__ void weights_forward(struct matrix w, uint64_t hidden,
                                                       uint64_t unit, unsigned q,
                                                       uint32_t a[2][2 * pairs][4])
{
    UNROLL(4)
    for (int gate = 0; gate < 4; gate++) {
        UNROLL(4)
        for (int pair = 0; pair < pairs; pair++) {
            float of[8];
            weights_take(w, gate, hidden, unit, 32 * pair + 8 * q, of);
            UNROLL(4)
            for (int k = 0; k < 4; k++)
                a[gate / 2][2 * pair + k / 2][2 * (k % 2) + gate % 2] =
                    mma_pack<kind>(of[2 * k], of[2 * k + 1]);
        }
    }
}

#endif
