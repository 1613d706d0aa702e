/* split.h - products of float32 on the tensor cores.
 *
 * A number is the sum of its first 11 digits, rounded, and of a rest. The product of the former is
 * one of TF32; those of either with the other's rest, which count from the 12th digit on, need no
 * more than the 8 digits of bfloat16, which go twice as fast; that of the rests is below the last
 * digit. What is lost is 7e-7 of a product of matrices of normal numbers (relative L2, computed),
 * however long its sums: as much as float32 loses in sums of a thousand numbers one after the
 * other, and ten times what it loses in those of ten. The tensor cores' own sums do not round to
 * nearest, so the sum over each piece of k, 16 numbers or 32, is to begin at 0 and to be added to
 * the others in float32. Of numbers that are infinite or nearly so a rest is none, and products too
 * large for float32 meet others of both signs: sums that are not finite are to be made again in
 * float32.
 */
#ifndef ENGINE_CUDA_SPLIT_H
#define ENGINE_CUDA_SPLIT_H

#include "engine/cuda/mma.h"

/* Two numbers along k: the registers of TF32, and both of bfloat16, their rests apart. */
struct split {
    uint32_t first, second, both, rests;
};

static __device__ __forceinline__ struct split split_of(float first, float second)
{
    struct split s;
    s.first = (__float_as_uint(first) + 0x1000) & 0xffffe000;
    s.second = (__float_as_uint(second) + 0x1000) & 0xffffe000;
    s.both = mma_pack<HALF_BF16>(first, second);
    s.rests =
        mma_pack<HALF_BF16>(first - __uint_as_float(s.first), second - __uint_as_float(s.second));
    return s;
}

/* Operands of two steps: each one's of TF32, and of bfloat16 what both have, in an order of k that
 * is the same in a and b. */
struct rows_split {
    uint32_t big[2][4], both[4], rests[4];
};
struct columns_split {
    uint32_t big[2][2], both[2], rests[2];
};

#endif
