/* sparse.h - products with a sparse matrix: what kernels of one row a thread share (graph.cu,
 * convolution.cu).
 *
 * A thread has one, four or eight columns of a sparse row and takes its values in their order, so
 * that a warp reads whole lines and nothing is added up by chance. Graphs are small: what several
 * rows read of x is in the cache.
 */
#ifndef ENGINE_CUDA_SPARSE_H
#define ENGINE_CUDA_SPARSE_H

#include "engine/cuda/half.h"

/* Numbers of one row that a thread has: four, where they lie on whole 16 bytes (8 of those in 16
 * bits), or one. */
struct four_numbers {
    enum { COUNT = FOUR };
    float at[COUNT];
    static __device__ __forceinline__ struct four_numbers load(const float *from)
    {
        float4 x = *(const float4 *)from;
        return {{x.x, x.y, x.z, x.w}};
    }
    typedef struct four_halves narrow;
    template <typename half>
    static __device__ __forceinline__ struct four_numbers widen(const narrow &from)
    {
        float4 x = halves_widen<half>(from);
        return {{x.x, x.y, x.z, x.w}};
    }
    __device__ __forceinline__ void store(float *to) const
    {
        *(float4 *)to = make_float4(at[0], at[1], at[2], at[3]);
    }
    template <typename half> __device__ __forceinline__ void store(uint16_t *to) const
    {
        *(struct four_halves *)to = halves_narrow<half>(make_float4(at[0], at[1], at[2], at[3]));
    }
};

/* Eight, on whole 16 bytes of numbers in 16 bits. */
static const unsigned EIGHT = 2 * FOUR;
struct eight_numbers {
    enum { COUNT = 8 };
    float at[COUNT];
    static __device__ __forceinline__ struct eight_numbers load(const float *from)
    {
        float4 x = ((const float4 *)from)[0], y = ((const float4 *)from)[1];
        return {{x.x, x.y, x.z, x.w, y.x, y.y, y.z, y.w}};
    }
    typedef uint4 narrow;
    template <typename half>
    static __device__ __forceinline__ struct eight_numbers widen(const narrow &x)
    {
        return {{half::widen((uint16_t)x.x), half::widen((uint16_t)(x.x >> 16)),
                 half::widen((uint16_t)x.y), half::widen((uint16_t)(x.y >> 16)),
                 half::widen((uint16_t)x.z), half::widen((uint16_t)(x.z >> 16)),
                 half::widen((uint16_t)x.w), half::widen((uint16_t)(x.w >> 16))}};
    }
    __device__ __forceinline__ void store(float *to) const
    {
        ((float4 *)to)[0] = make_float4(at[0], at[1], at[2], at[3]);
        ((float4 *)to)[1] = make_float4(at[4], at[5], at[6], at[7]);
    }
    template <typename half> static __device__ __forceinline__ uint32_t pair(float low, float high)
    {
        return half::narrow(low) | (uint32_t)half::narrow(high) << 16;
    }
    template <typename half> __device__ __forceinline__ void store(uint16_t *to) const
    {
        *(uint4 *)to = uint4{pair<half>(at[0], at[1]), pair<half>(at[2], at[3]),
                             pair<half>(at[4], at[5]), pair<half>(at[6], at[7])};
    }
};

struct one_number {
    enum { COUNT = 1 };
    float at[COUNT];
    static __device__ __forceinline__ struct one_number load(const float *from)
    {
        return {{*from}};
    }
    typedef uint16_t narrow;
    template <typename half>
    static __device__ __forceinline__ struct one_number widen(const narrow &from)
    {
        return {{half::widen(from)}};
    }
    __device__ __forceinline__ void store(float *to) const
    {
        *to = at[0];
    }
    template <typename half> __device__ __forceinline__ void store(uint16_t *to) const
    {
        *to = half::narrow(at[0]);
    }
};

/* A kind as a type; of HALF_NONE, which no numbers are stored in, it is not called. */
template <int kind> struct half_kind {
    static __device__ __forceinline__ float widen(uint16_t h)
    {
        return half_value<kind>(h);
    }
    static __device__ __forceinline__ uint16_t narrow(float x)
    {
        return half_bits<kind>(x);
    }
};

/* Numbers of a matrix as they lie there, in 16 bits where halves is set; and what they are. */
template <class numbers, int half, int halves> struct stored {
    typedef numbers type;
    static __device__ __forceinline__ type load(const struct mixed &m, uint64_t place)
    {
        return numbers::load(m.at + place);
    }
    static __device__ __forceinline__ numbers value(const type &x)
    {
        return x;
    }
};

template <class numbers, int half> struct stored<numbers, half, 1> {
    typedef typename numbers::narrow type;
    static __device__ __forceinline__ type load(const struct mixed &m, uint64_t place)
    {
        return *(const type *)(m.halves + place);
    }
    static __device__ __forceinline__ numbers value(const type &x)
    {
        return numbers::template widen<half_kind<half>>(x);
    }
};

template <int half, class numbers>
static __device__ __forceinline__ void mixed_store(const struct mixed &m, uint64_t place,
                                                   const numbers &x)
{
    if (half != HALF_NONE && m.halves)
        x.template store<half_kind<half>>(m.halves + place);
    else
        x.store(m.at + place);
}

template <class numbers> static __device__ __forceinline__ void numbers_zero(numbers &x)
{
    UNROLL(8)
    for (int i = 0; i < numbers::COUNT; i++)
        x.at[i] = 0;
}

template <class numbers>
static __device__ __forceinline__ void numbers_add(numbers &sum, float factor, const numbers &x)
{
    UNROLL(8)
    for (int i = 0; i < numbers::COUNT; i++)
        sum.at[i] += factor * x.at[i];
}

/* ---- whose rows are added up ---- */

/* Those of a matrix. */
template <class numbers, int half, int halves> struct rows_of {
    typedef struct stored<numbers, half, halves> of_x;
    typedef typename of_x::type taken;
    struct mixed x;
    __device__ __forceinline__ taken take(uint64_t r, uint64_t c) const
    {
        return of_x::load(x, r * x.stride + c);
    }
    __device__ __forceinline__ numbers value(const taken &x) const
    {
        return of_x::value(x);
    }
};

/* sum += row r of a times the rows that `from` reads, at column c. Rows are short: BATCH values are
 * on their way together, the last one again where there are fewer. */
template <class source, class numbers>
static __device__ __forceinline__ void row_sum(const struct sparse &a, uint64_t r, uint64_t c,
                                               const source &from, numbers &sum)
{
    enum { BATCH = 4 };
    uint32_t end = a.begin[r + 1];
    for (uint32_t k = a.begin[r]; k < end; k += BATCH) {
        uint32_t column[BATCH];
        float value[BATCH];
        typename source::taken x[BATCH];
        UNROLL(4)
        for (uint32_t i = 0; i < BATCH; i++) {
            uint32_t at = k + i < end ? k + i : end - 1;
            column[i] = a.column[at];
            value[i] = a.value[at];
        }
        UNROLL(4)
        for (uint32_t i = 0; i < BATCH; i++)
            x[i] = from.take(column[i], c);
        UNROLL(4)
        for (uint32_t i = 0; i < BATCH; i++)
            if (k + i < end)
                numbers_add(sum, value[i], from.value(x[i]));
    }
}

/* Can so many of its numbers be had at a time? at NULL: nobody asks for any. */
static int goes_by(unsigned count, const struct mixed &m)
{
    uintptr_t at = m.halves ? (uintptr_t)m.halves : (uintptr_t)m.at;
    uint64_t bytes = count * (m.halves ? sizeof *m.halves : sizeof *m.at);
    return at % (bytes < sizeof(float4) ? bytes : sizeof(float4)) == 0 && m.stride % count == 0 &&
           m.columns % count == 0;
}

/* work<numbers, half, halves>(...): whether a matrix has them is known when it is compiled. */
#define BY_HALF(work, numbers, half, halves, ...)                                                  \
    ((half) == HALF_NONE  ? work<numbers, HALF_NONE, 0>(__VA_ARGS__)                               \
     : (half) == HALF_F16 ? (halves) ? work<numbers, HALF_F16, 1>(__VA_ARGS__)                     \
                                     : work<numbers, HALF_F16, 0>(__VA_ARGS__)                     \
     : (halves) ? work<numbers, HALF_BF16, 1>(__VA_ARGS__)                                         \
                          : work<numbers, HALF_BF16, 0>(__VA_ARGS__))

#endif
