/* emulate.h - CUDA's kernel language on the CPU, for tests: see emulate.cc.
 *
 * Blocks run one after the other; the threads of a block are fibers that change at barriers and
 * shuffles only, so there is no race, but a missing or divergent barrier is found. Shared memory is
 * static: one block at a time uses it. Before each block it has what the last one left, as on a
 * GPU.
 */
#ifndef ENGINE_CUDA_EMULATE_H
#define ENGINE_CUDA_EMULATE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__ static
#define __device__
#define __host__
#define __shared__      static
#define __forceinline__ inline __attribute__((unused))
#define __noinline__    __attribute__((noinline, unused))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
struct uint3_emulated {
    unsigned x, y, z;
};
struct __align__(8) float2
{
    float x, y;
};
struct __align__(16) float4
{
    float x, y, z, w;
};
struct __align__(16) uint4
{
    uint32_t x, y, z, w;
};
static inline __attribute__((unused)) float4 make_float4(float x, float y, float z, float w)
{
    return float4{x, y, z, w};
}

/* The thread at work; set by the scheduler. */
extern uint3_emulated threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

/* What is asked of the device is done when somebody waits for it (emulate_finish, or what was asked
 * for up to some point: emulate_until), in the order in which it was asked, so that a host that
 * writes memory too early, which is still to be read, is found; or it is recorded instead, and done
 * as often as that is asked for. What was asked of several lanes (engine/ops.h) is done in one of
 * the orders that the marks allow, another one each time, so that a lane that does not await what
 * it reads is found, too. (Functions rather than std::function: every file of kernels reads this
 * one, and instances cost the compiler.) */
struct emulate_work {
    void (*run)(struct emulate_work *w);
    void (*end)(struct emulate_work *w); /* frees it */
    struct emulate_work *next, *awaited; /* awaited: of the same queue; NULL: nothing */
    unsigned lane;
    int done;
};
struct emulate_queue { /* empty: all 0 */
    struct emulate_work *first, *last;
};

template <typename function> struct emulate_work_of : emulate_work {
    function f;
    explicit emulate_work_of(const function &given) : f(given)
    {
        run = [](struct emulate_work *w) { static_cast<emulate_work_of *>(w)->f(); };
        end = [](struct emulate_work *w) { delete static_cast<emulate_work_of *>(w); };
        next = awaited = NULL;
    }
};

void emulate_take(struct emulate_work *work); /* which is its own from here on */
void emulate_finish(void);
uint64_t emulate_asked(void);                  /* how much was asked for since the start */
void emulate_until(uint64_t count);            /* the first so many are done, and no more of them */
void emulate_record(struct emulate_queue *to); /* NULL: no more */
void emulate_queue_run(const struct emulate_queue *q);
void emulate_queue_end(struct emulate_queue *q); /* ends its work; empty behind it */
void emulate_lane_take(unsigned lane);
void emulate_lane_mark(unsigned mark);
void emulate_lane_await(unsigned mark);

template <typename function> static inline void emulate_ask(const function &f)
{
    emulate_take(new emulate_work_of<function>(f));
}

/* f with arguments as they are now; given to emulate_launch. */
template <typename function, typename... given>
static inline struct emulate_work *emulate_bind(function f, given... arguments)
{
    auto bound = [=] { f(arguments...); };
    return new emulate_work_of<decltype(bound)>(bound);
}

/* body: its own from here on. */
void emulate_launch(const char *kernel, dim3 blocks, dim3 threads, size_t shared_bytes,
                    struct emulate_work *body);
void *emulate_shared(void); /* the launch's dynamic shared memory */
/* The device's memory may be touched: while a launch or a copy runs, and at no other time, so that
 * a host function that reads a device's number faults as it would with a GPU. Calls nest. */
void emulate_open(int on);

void __syncthreads(void);
void __syncwarp(unsigned mask = 0xffffffffu);
/* Gives the 8 bytes at `value` to the warp; returns, behind the warp's barrier, those of `lane`. */
uint64_t emulate_exchange(unsigned mask, uint64_t value, unsigned lane);
unsigned emulate_lane(void);

template <typename T> static inline T emulate_shuffle(unsigned mask, T x, unsigned lane)
{
    static_assert(sizeof(T) <= 8, "a register");
    uint64_t bits = 0;
    memcpy(&bits, &x, sizeof x);
    bits = emulate_exchange(mask, bits, lane);
    memcpy(&x, &bits, sizeof x);
    return x;
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T x, int lanes)
{
    return emulate_shuffle(mask, x, emulate_lane() ^ (unsigned)lanes);
}
template <typename T> static inline T __shfl_down_sync(unsigned mask, T x, unsigned lanes)
{
    unsigned to = emulate_lane() + lanes;
    return emulate_shuffle(mask, x, to < 32 ? to : emulate_lane());
}
template <typename T> static inline T __shfl_up_sync(unsigned mask, T x, unsigned lanes)
{
    return emulate_shuffle(mask, x,
                           emulate_lane() >= lanes ? emulate_lane() - lanes : emulate_lane());
}
template <typename T> static inline T __shfl_sync(unsigned mask, T x, int lane)
{
    return emulate_shuffle(mask, x, (unsigned)lane % 32);
}
unsigned emulate_ballot(unsigned mask, int x);
static inline __attribute__((unused)) unsigned __ballot_sync(unsigned mask, int x)
{
    return emulate_ballot(mask, x);
}
static inline __attribute__((unused)) int __any_sync(unsigned mask, int x)
{
    return emulate_ballot(mask, x) != 0;
}

/* One thread runs at a time: a plain read and write. */
template <typename T> static inline T atomicMin(T *at, T x)
{
    T old = *at;
    *at = x < old ? x : old;
    return old;
}
template <typename T> static inline T atomicAdd(T *at, T x)
{
    static_assert(T(0.5) == T(0), "sums of floating-point numbers would depend on chance");
    T old = *at;
    *at = old + x;
    return old;
}
template <typename T> static inline T __ldg(const T *at)
{
    return *at;
}
static inline __attribute__((unused)) float __uint_as_float(unsigned x)
{
    float y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static inline __attribute__((unused)) unsigned __float_as_uint(float x)
{
    unsigned y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static inline __attribute__((unused)) int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline __attribute__((unused)) int __ffs(unsigned x)
{
    return __builtin_ffs((int)x);
}

#endif
