/* mma.h - one matrix product of a warp on the tensor cores: c[16, 8] += a[16, 16] b[16, 8], a and b
 * of 16 bits, c in float32; or a[16, 8] b[8, 8] of float32, of which the upper 19 bits are taken
 * (HALF_NONE: TF32).
 *
 * Each lane holds a part of each, q being its place in its group of four, lane % 4:
 *   a[0], a[2]  row lane / 4; a[1], a[3]  row lane / 4 + 8
 *   a[0], a[1]  columns 2 q and 2 q + 1, the first one in the lower half; a[2], a[3]  8 columns on
 *   b[0]        rows 2 q and 2 q + 1 of column lane / 4; b[1]  8 rows on
 *   c[0], c[1]  row lane / 4, columns 2 q and 2 q + 1; c[2], c[3]  row lane / 4 + 8
 * A register of TF32 has one column or row instead of two: q, and in a[2], a[3] and b[1] q + 4.
 * In which order the 16 columns of a and rows of b are taken is the caller's, if it is the same of
 * both. Parts of 16 bits come from shared memory four matrices [8, 8] at a time (mma_load). In the
 * emulated build the lanes exchange their parts and add up by themselves; on GPUs
 * before compute capability 8.0, which have no such instructions, what calls it is not launched.
 */
#ifndef ENGINE_CUDA_MMA_H
#define ENGINE_CUDA_MMA_H

#include "engine/cuda/half.h"

/* Two numbers of the kind, which they hold exactly, as a register of a or b. */
template <int kind> static __device__ __forceinline__ uint32_t mma_pack(float low, float high)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t both;
    if (kind == HALF_BF16)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    return half_bits<kind>(low) | (uint32_t)half_bits<kind>(high) << 16;
#endif
}

#ifndef CUDA_EMULATED

template <int kind>
static __device__ __forceinline__ void mma(float c[4], const uint32_t a[4], const uint32_t b[2])
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    __trap();
#else
    if (kind == HALF_NONE)
        asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else if (kind == HALF_BF16)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/* Parts of four matrices [8, 8] of 16 bits: `row`, on whole 16 bytes of shared memory, is row lane
 * % 8 of matrix lane / 8. Of each the lane has columns 2 q and 2 q + 1 of row lane / 4, or turned
 * rows 2 q and 2 q + 1 of column lane / 4. Rows that lie 16 bytes more than a multiple of 128 apart
 * are in different banks. */
template <int turned>
static __device__ __forceinline__ void mma_load(uint32_t parts[4], const uint16_t *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    if (turned)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                     : "r"(at)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                     : "r"(at)
                     : "memory");
}

#else

/* Every lane shows its row, and takes what it needs of the others'. */
template <int turned>
static __device__ __forceinline__ void mma_load(uint32_t parts[4], const uint16_t *row)
{
    __shared__ const uint16_t *rows[1024];
    unsigned thread = threadIdx.x, first = thread / WARP * WARP, lane = thread % WARP;
    unsigned across = lane / 4, pair = lane % 4 * 2;
    rows[thread] = row;
    __syncwarp();
    for (unsigned m = 0; m < 4; m++) {
        const uint16_t *const *of = rows + first + 8 * m;
        uint16_t low = turned ? of[pair][across] : of[across][pair];
        uint16_t high = turned ? of[pair + 1][across] : of[across][pair + 1];
        parts[m] = low | (uint32_t)high << 16;
    }
    __syncwarp();
}

/* sum + the product of both halves, or of two numbers of TF32. */
template <int kind>
static __device__ __forceinline__ float mma_registers(uint32_t a, uint32_t b, float sum)
{
    enum { TF32 = 0xffffe000 };
    if (kind == HALF_NONE)
        return sum + __uint_as_float(a & TF32) * __uint_as_float(b & TF32);
    for (int shift = 0; shift < 32; shift += 16) {
        uint16_t x = (uint16_t)(a >> shift), y = (uint16_t)(b >> shift);
        sum += half_value<kind>(x) * half_value<kind>(y);
    }
    return sum;
}

/* Every lane shows its parts of a and b, and takes what it needs of the others'. */
template <int kind>
static __device__ __forceinline__ void mma(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    __shared__ struct {
        uint32_t a[4], b[2];
    } parts[1024];
    unsigned thread = threadIdx.x, first = thread / WARP * WARP, lane = thread % WARP;
    memcpy(parts[thread].a, a, sizeof parts->a);
    memcpy(parts[thread].b, b, sizeof parts->b);
    __syncwarp();
    for (int half = 0; half < 2; half++)
        for (unsigned q = 0; q < 4; q++)
            for (unsigned k = 0; k < 4; k++) {
                uint32_t x = parts[first + lane / 4 * 4 + q].a[2 * half + k / 2];
                uint32_t y = parts[first + lane % 4 * 8 + k % 2 * 4 + q].b[half];
                c[k] = mma_registers<kind>(x, y, c[k]);
            }
    __syncwarp();
}

#endif

#endif
