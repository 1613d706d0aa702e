/* scalar.h - arithmetic of one element, read by gcc and by nvcc alike: each formula exists once.
 *
 * Backends loop over these functions; the loops are theirs, the numbers are decided here. Nothing
 * in this file depends on the order in which elements are visited. Random numbers are pure
 * functions of their place (counter-based): there is no generator state to keep in a checkpoint.
 */
#ifndef ENGINE_SCALAR_H
#define ENGINE_SCALAR_H

#include <float.h>
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

/* One number of N(0, 1) from 64 bits, by Box and Muller: half of them a radius, half an angle. */
SCALAR float scalar_normal_random(uint64_t bits)
{
    double radius = sqrt(-2 * log(((double)(bits >> 32) + 0.5) * 0x1p-32));
    return (float)(radius * cos(6.283185307179586 * (double)(uint32_t)bits * 0x1p-32));
}

/* ---- exponentials ---- */

/* e^x = scale (p + 1) with scale a power of two: p is e^r - 1 for the rest r, |r| <= ln(2) / 2, by
 * its series up to r^7 (relative error 4e-8). x is held inside what a float32 can tell; a NaN stays
 * a NaN. No branches and no library: it vectorises, with the same bits for every width. */
struct scalar_exponential {
    float p, scale;
};

SCALAR struct scalar_exponential scalar_exponential(float x)
{
    const float shift = 12582912.0f; /* 1.5 2^23: a float this large keeps whole numbers only */
    struct scalar_exponential e;
    uint32_t bits;
    x = x < -87.0f ? -87.0f : x; /* two selections, not a branch in the other's arm */
    x = x > 88.0f ? 88.0f : x;
    float n = x * 1.44269504f + shift;
    memcpy(&bits, &n, sizeof bits);
    n -= shift;
    float r =
        (x - n * 0.693145751953125f) - n * 1.42860682e-6f; /* ln(2): n times its head is exact */
    float q = 1.0f / 720 + r * (1.0f / 5040);
    q = 1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * q));
    e.p = r + r * r * (0.5f + r * q);
    bits = (bits + 127) << 23;
    memcpy(&e.scale, &bits, sizeof bits);
    return e;
}

SCALAR float scalar_exp(float x)
{
    struct scalar_exponential e = scalar_exponential(x);
    return e.scale * e.p + e.scale;
}

/* ---- activations: y from x, and dx from dy and what the backward keeps ---- */

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

/* A quotient that may be off by two of its last digits where that is ten times as fast; 0 where the
 * divisor is above 2^126. */
#ifdef __CUDA_ARCH__
#define SCALAR_QUOTIENT(x, y) __fdividef(x, y)
#else
#define SCALAR_QUOTIENT(x, y) ((x) / (y))
#endif

SCALAR float scalar_sigmoid(float x)
{
    return SCALAR_QUOTIENT(1.0f, 1.0f + scalar_exp(-x));
}

SCALAR float scalar_sigmoid_slope(float y)
{
    return y * (1.0f - y);
}

SCALAR float scalar_sigmoid_backward(float y, float dy)
{
    return dy * scalar_sigmoid_slope(y);
}

/* 2 |x|, from where on tanh is 1 no more than that: the quotient's divisor stays small. */
SCALAR float scalar_tanh_exponent(float x)
{
    float twice = 2.0f * fabsf(x);
    return twice > 40.0f ? 40.0f : twice;
}

/* (e^2x - 1) / (e^2x + 1), where the numerator keeps its digits near 0. */
SCALAR float scalar_tanh(float x)
{
    struct scalar_exponential e = scalar_exponential(scalar_tanh_exponent(x));
    float above = e.scale * e.p + (e.scale - 1.0f);
    return copysignf(SCALAR_QUOTIENT(above, above + 2.0f), x);
}

SCALAR float scalar_tanh_slope(float y)
{
    return 1.0f - y * y;
}

SCALAR float scalar_tanh_backward(float y, float dy)
{
    return dy * scalar_tanh_slope(y);
}

SCALAR float scalar_silu(float x)
{
    return x * scalar_sigmoid(x);
}

SCALAR float scalar_silu_backward(float x, float dy)
{
    float s = scalar_sigmoid(x);
    return dy * (s + x * (s * (1.0f - s)));
}

/* The normal distribution's density times sqrt(2 pi), and its function. The tail is density t P(t),
 * t = 1 / (1 + k |x|) (the form of Abramowitz and Stegun 26.2.17), P fitted to a relative error of
 * 1e-7 for |x| up to 13: small values keep their digits. */
struct scalar_normal {
    float density, below;
};

SCALAR struct scalar_normal scalar_normal(float x)
{
    struct scalar_normal n;
    float t = 1.0f / (1.0f + 0.2316419f * fabsf(x));
    n.density = scalar_exp(-0.5f * (x * x));
    float p = 0.25018214f + t * -0.07100342f;
    p = 0.011131351f + t * (0.22957385f + t * (-0.2061353f + t * p));
    p = 0.09253202f + t * (0.09028366f + t * (0.10343574f + t * p));
    float tail = n.density * (t * p), rest = 1.0f - tail;
    n.below = x < 0.0f ? tail : rest;
    return n;
}

/* x Phi(x), the exact form: torch.nn.GELU's default. */
SCALAR float scalar_gelu(float x)
{
    return x * scalar_normal(x).below;
}

SCALAR float scalar_gelu_backward(float x, float dy)
{
    struct scalar_normal n = scalar_normal(x);
    return dy * (n.below + x * (n.density * 0.39894228f)); /* 1 / sqrt(2 pi) */
}

/* Is x larger than the largest so far? A NaN is larger than every number. */
SCALAR int scalar_larger(float x, float most)
{
    return most == most && !(x <= most);
}

/* tanh where is_tanh is set, else the sigmoid, with the bits of those functions: one path for the
 * four gates of an LSTM. */
SCALAR float scalar_gate(float x, int is_tanh)
{
    struct scalar_exponential e = scalar_exponential(is_tanh ? scalar_tanh_exponent(x) : -x);
    float above = e.scale * e.p + (is_tanh ? e.scale - 1.0f : e.scale);
    float y = SCALAR_QUOTIENT(is_tanh ? above : 1.0f, above + (is_tanh ? 2.0f : 1.0f));
    return is_tanh ? copysignf(y, x) : y;
}

/* ---- a cell of an LSTM, after its gates' sums are there ---- */

struct scalar_lstm {
    float i, f, g, o, c, h;
};

SCALAR float scalar_lstm_c(float i, float f, float g, float c_before)
{
    return f * c_before + i * g;
}

SCALAR float scalar_lstm_h(float o, float c)
{
    return o * scalar_tanh(c);
}

SCALAR struct scalar_lstm scalar_lstm(float i, float f, float g, float o, float c_before)
{
    struct scalar_lstm s;
    s.i = scalar_sigmoid(i);
    s.f = scalar_sigmoid(f);
    s.g = scalar_tanh(g);
    s.o = scalar_sigmoid(o);
    s.c = scalar_lstm_c(s.i, s.f, s.g, c_before);
    s.h = scalar_lstm_h(s.o, s.c);
    return s;
}

/* What its backward needs that no gradient is in: the gates, c before, tanh(c), and the functions'
 * derivatives. */
struct scalar_lstm_slopes {
    float i, f, g, o, c_before, t;
    float d_i, d_f, d_g, d_o, d_t;
};

/* From the gates i, f, g, o after their functions, t = tanh(c) and c before. */
SCALAR struct scalar_lstm_slopes scalar_lstm_slopes_with(float i, float f, float g, float o,
                                                         float t, float c_before)
{
    struct scalar_lstm_slopes s = {i, f, g, o, c_before, t, 0, 0, 0, 0, 0};
    s.d_i = scalar_sigmoid_slope(i);
    s.d_f = scalar_sigmoid_slope(f);
    s.d_g = scalar_tanh_slope(g);
    s.d_o = scalar_sigmoid_slope(o);
    s.d_t = scalar_tanh_slope(s.t);
    return s;
}

SCALAR struct scalar_lstm_slopes scalar_lstm_slopes(float i, float f, float g, float o, float c,
                                                    float c_before)
{
    return scalar_lstm_slopes_with(i, f, g, o, scalar_tanh(c), c_before);
}

/* And from the gradients at h and c: those at the gates' sums, and in c that at c before. */
SCALAR struct scalar_lstm scalar_lstm_backward(const struct scalar_lstm_slopes *s, float dh,
                                               float dc)
{
    struct scalar_lstm d;
    dc += dh * s->o * s->d_t;
    d.o = dh * s->t * s->d_o;
    d.i = dc * s->g * s->d_i;
    d.f = dc * s->c_before * s->d_f;
    d.g = dc * s->i * s->d_g;
    d.c = dc * s->f;
    d.h = dh;
    return d;
}

/* x to mean 0 and variance 1, scale being 1 / sqrt(variance + eps). */
SCALAR float scalar_normalise(float x, double mean, double scale)
{
    return (float)(((double)x - mean) * scale);
}

/* Its gradient: factor (g - mean(g) - n mean(g n)), n: x normalised, g: the gradient at n. */
SCALAR float scalar_normalise_backward(double factor, double g, double n, double mean_g,
                                       double mean_gn)
{
    return (float)(factor * (g - mean_g - n * mean_gn));
}

/* A mean, and the sum of squares about it, of `before` values and of `count` more together (Chan,
 * Golub and LeVeque). */
struct scalar_moments {
    double mean, squares;
};

SCALAR struct scalar_moments scalar_moments_merge(struct scalar_moments a, double before,
                                                  struct scalar_moments b, double count)
{
    double off = b.mean - a.mean, share = count / (before + count);
    return (struct scalar_moments){a.mean + off * share,
                                   a.squares + b.squares + off * off * (before * share)};
}

/* A running statistic takes in a batch's, as torch.nn.BatchNorm1d. */
SCALAR float scalar_running(float running, double now, double momentum)
{
    return (float)((1 - momentum) * (double)running + momentum * now);
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

/* x times the inverse of its row's scale as a whole number -127 .. 127, to even; 127 for a NaN. */
SCALAR int32_t scalar_quantise(float x, float inverse)
{
    float q = rintf(x * inverse);
    q = q < 127.0f ? q : 127.0f;
    return (int32_t)(q > -127.0f ? q : -127.0f);
}

/* What a row's numbers are multiplied with before scalar_quantise, and the row's scale, from the
 * largest magnitude of the row: NaN where one of it is no number, or infinite. */
SCALAR float scalar_quantise_inverse(float largest)
{
    float inverse = largest > 0 ? 127.0f / largest : 0;
    return inverse <= FLT_MAX ? inverse : FLT_MAX; /* of subnormal numbers */
}

SCALAR float scalar_quantise_scale(float largest)
{
    return largest / 127.0f;
}

/* The nearest binary16, ties to even; from 65520 on infinite; a NaN stays one. */
SCALAR uint16_t scalar_to_half(float x)
{
    const float half_ulp = 0.5f; /* 2^-24, the least binary16, is its last digit */
    uint32_t bits, small, magic;
    memcpy(&bits, &x, sizeof bits);
    uint32_t sign = bits & 0x80000000u;
    bits ^= sign;
    float size, sum;
    memcpy(&size, &bits, sizeof size);
    sum = size + half_ulp; /* below 2^-14: rounds where a subnormal ends */
    memcpy(&small, &sum, sizeof small);
    memcpy(&magic, &half_ulp, sizeof magic);
    uint32_t normal = (bits - (112u << 23) + 0xfffu + (bits >> 13 & 1)) >> 13;
    uint32_t large = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
    uint32_t number = bits >= 143u << 23 ? large : normal;
    number = bits < 113u << 23 ? small - magic : number;
    return (uint16_t)(number | sign >> 16);
}

/* bfloat16 is a float32 without its last 16 bits. */
SCALAR float scalar_brain(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
}

SCALAR uint16_t scalar_to_brain(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16, nan = bits >> 16 | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

/* A number that is not negative in OUTLIER_BITS: a float32 without its sign and its last 11 bits of
 * mantissa. Here the lower bits of a word whose upper ones say where the number is. */
enum { OUTLIER_BITS = 20 };

SCALAR float scalar_outlier(uint32_t word)
{
    uint32_t wide = word << (32 - OUTLIER_BITS) >> 1;
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
}

/* The nearest one to a finite x >= 0; 0 for 0 alone, and none is infinite. */
SCALAR uint32_t scalar_to_outlier(float x)
{
    uint32_t bits, most = (0x7f800000u >> (31 - OUTLIER_BITS)) - 1;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + (1u << (30 - OUTLIER_BITS))) >> (31 - OUTLIER_BITS);
    rounded = rounded < most ? rounded : most;
    return rounded ? rounded : bits > 0;
}

/* A number in eight bits, five of exponent and three of mantissa: 2^-31 to 1 and a little above. */
enum { SHARE_ONE = 31 << 3 };

SCALAR float scalar_share(uint8_t bits)
{
    uint32_t wide = ((uint32_t)bits << 20) + (96u << 23);
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
}

/* The nearest one to x, 0 <= x <= 1. */
SCALAR uint8_t scalar_to_share(double x)
{
    int exponent;
    double mantissa = frexp(x, &exponent); /* 1/2 <= mantissa < 1 */
    if (x < 0x1p-31)
        return 0;
    return (uint8_t)(((exponent + 30) << 3) + (int)(16 * mantissa - 7.5));
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

/* Of -log softmax(z)[target], by one z whose share is p: p - 1 of a sure answer keeps its digits.
 */
SCALAR float scalar_softmax_gradient(double p, int is_target, double divisor)
{
    return (float)((is_target ? p - 1.0 : p) / divisor);
}

/* A number that weighs w: what weighs nothing does not count, whatever it is. */
SCALAR double scalar_weighted(double w, double x)
{
    return w > 0 ? w * x : 0;
}

/* From a sum that was divided by `rows` to the mean of what weighs `weight` together, times `by`.
 */
SCALAR float scalar_mean_factor(double weight, double rows, float by)
{
    return weight > 0 ? (float)((double)by * (rows / weight)) : 0;
}

/* 1 - the cosine of two vectors z and y is their loss; from |z|^2, |y|^2 and z y. With u = z / a,
 * v = y / b, a = max(|z|, eps), b = max(|y|, eps): the derivative is (u (u v) - v) / a, and -v / a
 * where a is eps. Shorter vectors have no direction: torch.nn.functional.cosine_similarity's eps.
 */
struct scalar_cosine {
    double cosine, a, b, along; /* along: u v / a, or 0 */
};

SCALAR struct scalar_cosine scalar_cosine(double zz, double yy, double zy)
{
    const double eps = 1e-8;
    struct scalar_cosine s;
    double length = sqrt(zz);
    int directed = !(length <= eps); /* a NaN too */
    s.a = directed ? length : eps;
    s.b = fmax(sqrt(yy), eps);
    s.cosine = zy / (s.a * s.b);
    s.along = directed ? s.cosine / s.a : 0;
    return s;
}

SCALAR float scalar_cosine_gradient(const struct scalar_cosine *s, double z, double y,
                                    double divisor)
{
    return (float)((z * s->along - y / s->b) / s->a / divisor);
}

/* ---- the losses as likelihoods of the target ---- */

/* Uniform in [0, 1), 53 bits. */
SCALAR double scalar_unit_random(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

SCALAR double scalar_probability(double z)
{
    double small = exp(-fabs(z));
    return (z >= 0 ? 1 : small) / (1 + small);
}

/* sqrt(p (1 - p)) for the same p, which far from 0 is not lost in 1 - p. */
SCALAR double scalar_deviation(double z)
{
    double small = exp(-fabs(z));
    return sqrt(small) / (1 + small);
}

/* One number of N(z, deviation^2), and one that is 1 with the probability of z, else 0. */
SCALAR float scalar_normal_draw(double z, double deviation, uint64_t bits)
{
    return (float)(z + deviation * (double)scalar_normal_random(bits));
}

SCALAR float scalar_event_draw(double z, uint64_t bits)
{
    return (float)(scalar_unit_random(bits) < scalar_probability(z));
}

/* Of class_root (ops.def), by one z whose share is p; root: that of the class's share. */
SCALAR float scalar_class_root(double p, int is_class, double root)
{
    return (float)(root * (is_class ? p - 1 : p));
}

/* ---- continual learning and the optimizer ---- */

/* d/d(theta) of lambda/2 F (theta - theta*)^2 */
SCALAR float scalar_ewc_gradient(float theta, float theta_star, float fisher, float lambda)
{
    return lambda * fisher * (theta - theta_star);
}

/* The batch's loss from the sum of its rows' losses: their mean over `numbers` of them, or where
 * targets weigh over what they weigh together; 0 where that is 0. */
SCALAR double scalar_step_loss(double sum, double weight, int weighted, double target_steps,
                               double rows)
{
    if (!weighted)
        return sum / target_steps / rows;
    return weight > 0 ? sum / weight : sum;
}

/* torch.nn.utils.clip_grad_norm_'s factor; max 0: nothing is clipped. */
SCALAR double scalar_clip(double norm, double max)
{
    return max > 0 ? fmin(1.0, max / (norm + 1e-6)) : 1.0;
}

/* What a device decides of a step where the host does not wait for the step's numbers. */
struct step_verdict {
    float clip;       /* as below */
    uint32_t refused; /* nothing is updated, nor by the steps behind it */
};

/* What does not change from one parameter to the next; computed in double, once a step. */
struct adamw_scalars {
    float clip;             /* the gradient's factor, 1 when not clipped */
    float decay;            /* lr wd */
    float beta1, one_beta1; /* b1, 1 - b1 */
    float beta2, one_beta2;
    float rate; /* lr / (1 - b1^t) */
    float root; /* 1 / sqrt(1 - b2^t) */
    float eps;
    const struct step_verdict *late; /* not NULL: clip is there, read when the step is made */
};

struct adamw_element {
    float p, m, v;
};

struct sgd_scalars {
    float clip;                   /* as above */
    float decay;                  /* wd, coupled: added to the gradient */
    float momentum;               /* m = momentum m + d */
    float of_moment, of_gradient; /* the step is rate (of_moment m + of_gradient d) */
    float rate;
    const struct step_verdict *late; /* as above */
};

/* The backend's square root and quotient, a few instructions each: a GPU's are off by two in the
 * last digit at most, and have no branches, which a sweep over all parameters would wait for. p's
 * decay and step are added before they meet p: one rounding at p's size instead of two. */
#ifdef __CUDA_ARCH__
SCALAR float scalar_root(float x)
{
    float y;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
SCALAR float scalar_quotient(float x, float y)
{
    return __fdividef(x, y);
}
#else
SCALAR float scalar_root(float x)
{
    return __builtin_sqrtf(x);
}
SCALAR float scalar_quotient(float x, float y)
{
    return x / y;
}
#endif

SCALAR struct adamw_element scalar_adamw(float p, float m, float v, float g,
                                         const struct adamw_scalars *a)
{
    struct adamw_element out;
    g *= a->clip;
    out.m = a->beta1 * m + a->one_beta1 * g;
    out.v = a->beta2 * v + a->one_beta2 * (g * g);
    float step = scalar_quotient(a->rate * out.m, scalar_root(out.v) * a->root + a->eps);
    out.p = p - (a->decay * p + step);
    return out;
}

struct sgd_element {
    float p, m;
};

/* d: the clipped gradient with the weight decay in it. */
SCALAR float scalar_sgd_gradient(float p, float g, const struct sgd_scalars *a)
{
    return a->clip * g + a->decay * p;
}

SCALAR struct sgd_element scalar_sgd_momentum(float p, float m, float g,
                                              const struct sgd_scalars *a)
{
    struct sgd_element out;
    float d = scalar_sgd_gradient(p, g, a);
    out.m = a->momentum * m + d;
    out.p = p - a->rate * (a->of_moment * out.m + a->of_gradient * d);
    return out;
}

SCALAR float scalar_sgd(float p, float g, const struct sgd_scalars *a)
{
    return p - a->rate * scalar_sgd_gradient(p, g, a);
}

#endif
