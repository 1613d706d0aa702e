/* scalar.h - arithmetic of one element, read by gcc and by nvcc alike: each formula exists once.
 *
 * Backends loop over these functions; the loops are theirs, the numbers are decided here. Nothing
 * in this file depends on the order in which elements are visited. Random numbers are pure
 * functions of their place (counter-based): there is no generator state to keep in a checkpoint.
 */
#ifndef ENGINE_SCALAR_H
#define ENGINE_SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define SCALAR static __host__ __device__ __forceinline__
#else
#define SCALAR static inline
#endif

/* ---- random numbers ---- */

/* splitmix64's finaliser: a bijection of 64 bits in which every input bit moves every output bit.
 */
SCALAR uint64_t scalar_mix64(uint64_t z)
{
    z += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* The same in 32 bits (constants of Wellons' "lowbias32"): this one vectorises. */
SCALAR uint32_t scalar_mix32(uint32_t x)
{
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

SCALAR uint64_t scalar_key(uint64_t seed, uint64_t a, uint64_t b)
{
    return scalar_mix64(scalar_mix64(scalar_mix64(seed) ^ a) ^ b);
}

/* 32 random bits for one unit of one row; row_key = scalar_key(key, row, ...). */
SCALAR uint32_t scalar_unit_bits(uint64_t row_key, uint32_t unit)
{
    return scalar_mix32(scalar_mix32(unit + (uint32_t)row_key) ^ (uint32_t)(row_key >> 32));
}

/* Uniform in [-bound, bound), 24 bits. */
SCALAR float scalar_uniform(uint64_t bits, double bound)
{
    return (float)(bound * ((double)(bits >> 40) * 0x1p-23 - 1.0));
}

/* ---- activations ---- */

/* As PyTorch: a NaN stays a NaN. */
SCALAR float scalar_relu(float x)
{
    return x <= 0.0f ? 0.0f : x;
}

/* From the output y = relu(x): y > 0 exactly where x > 0. */
SCALAR float scalar_relu_backward(float y, float dy)
{
    return y > 0.0f ? dy : 0.0f;
}

/* Inverted dropout, the same in both directions: a kept value is scaled by 1 / (1 - p). */
SCALAR float scalar_dropout(float x, uint32_t bits, uint32_t threshold, float scale)
{
    return bits >= threshold ? x * scale : 0.0f;
}

/* ---- conversion of stored numbers to the model's input ---- */

/* The number behind the bits of an IEEE 754 binary16; exact. Selections instead of branches, and no
 * subnormal float in between: it vectorises, and flushing modes cannot change it. */
SCALAR float scalar_half(uint16_t bits)
{
    uint32_t rest = bits & 0x7fffu, wide = rest << 13; /* a float's exponent has 3 bits more */
    uint32_t number = rest >= 0x7c00u ? wide | 0x7f800000u : wide + (112u << 23);
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, small;
    float subnormal = (float)(int32_t)rest * 0x1p-24f, x;
    memcpy(&small, &subnormal, sizeof small);
    number = (rest < 0x400u ? small : number) | sign;
    memcpy(&x, &number, sizeof x);
    return x;
}

/* In double: one rounding, so that scale = 1/255 costs no systematic error. */
SCALAR float scalar_convert(double x, double scale)
{
    return (float)(x * scale);
}

/* ---- losses of one output z and its target y, in double ---- */

struct scalar_loss {
    double loss, d; /* d: by z */
};

SCALAR struct scalar_loss scalar_squared_error(double z, double y)
{
    double error = z - y;
    return (struct scalar_loss){error * error, 2 * error};
}

/* As PyTorch: the derivative of |0| is 0; a NaN stays a NaN. */
SCALAR struct scalar_loss scalar_absolute_error(double z, double y)
{
    double error = z - y;
    return (struct scalar_loss){fabs(error), error > 0 ? 1 : error < 0 ? -1 : error};
}

/* torch.nn.HuberLoss: a parabola up to delta, then a line of slope delta. */
SCALAR struct scalar_loss scalar_huber(double z, double y, double delta)
{
    double error = z - y;
    if (fabs(error) > delta)
        return (struct scalar_loss){delta * (fabs(error) - 0.5 * delta),
                                    error > 0 ? delta : -delta};
    return (struct scalar_loss){0.5 * error * error, error};
}

/* -y log p - (1 - y) log(1 - p) for p = 1 / (1 + exp(-z)), without overflow on either side. */
SCALAR struct scalar_loss scalar_binary_cross_entropy(double z, double y)
{
    double small = exp(-fabs(z)); /* NaN for a NaN */
    double p = (z >= 0 ? 1 : small) / (1 + small);
    return (struct scalar_loss){(z > 0 ? z : 0) - z * y + log1p(small), p - y};
}

/* ---- continual learning and the optimizer ---- */

/* d/d(theta) of lambda/2 F (theta - theta*)^2 */
SCALAR float scalar_ewc_gradient(float theta, float theta_star, float fisher, float lambda)
{
    return lambda * fisher * (theta - theta_star);
}

/* What does not change from one parameter to the next; computed in double, once a step. */
struct adamw_scalars {
    float clip;             /* the gradient's factor, 1 when not clipped */
    float decay;            /* lr wd */
    float beta1, one_beta1; /* b1, 1 - b1 */
    float beta2, one_beta2;
    float rate; /* lr / (1 - b1^t) */
    float root; /* 1 / sqrt(1 - b2^t) */
    float eps;
};

struct adamw_element {
    float p, m, v;
};

/* SQRT is the backend's square root, so that gcc and nvcc each use their instruction. p's decay and
 * step are added before they meet p: one rounding at p's size instead of two. */
#ifdef __CUDACC__
#define SCALAR_SQRT(x) sqrtf(x)
#else
#define SCALAR_SQRT(x) __builtin_sqrtf(x)
#endif

SCALAR struct adamw_element scalar_adamw(float p, float m, float v, float g,
                                         const struct adamw_scalars *a)
{
    struct adamw_element out;
    g *= a->clip;
    out.m = a->beta1 * m + a->one_beta1 * g;
    out.v = a->beta2 * v + a->one_beta2 * (g * g);
    float step = a->rate * out.m / (SCALAR_SQRT(out.v) * a->root + a->eps);
    out.p = p - (a->decay * p + step);
    return out;
}

#endif
