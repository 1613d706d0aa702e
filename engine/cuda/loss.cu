/* loss.cu - losses and right answers, a row to a team; exponentials and sums in double, as on the
 * CPU. */
#include "engine/cuda/early.h"
#include "engine/cuda/softmax.h"

/* ---- classes ---- */

template <unsigned size>
__global__ void softmax_loss(team<size> t, struct matrix z, struct softmax_work s)
{
    __shared__ double part[TEAM_PART];
    launch_wait();
    FOR_TEAM_ROWS(t, r, z.rows)
    softmax_row(t, s, r, z.at + r * z.stride, z.columns, part);
    rows_sum(s.losses, z.rows, s.sum);
}

void cuda_softmax_cross_entropy(struct matrix z, const uint32_t *targets, struct weighting w,
                                double divisor, double *losses, double *sum, struct matrix dz,
                                enum half half)
{
    struct softmax_work s = {targets, w, divisor, losses, sum_within(z.rows, sum), dz, half};
    if (team_is_warp(z.rows, z.columns))
        LAUNCH_EARLY(softmax_loss<WARP>, cuda_blocks(z.rows, TEAM_WARPS), TEAM_THREADS,
                     team<WARP>(), z, s);
    else
        LAUNCH_EARLY(softmax_loss<TEAM_THREADS>, cuda_blocks(z.rows, 1), TEAM_THREADS,
                     team<TEAM_THREADS>(), z, s);
    sum_behind(losses, z.rows, sum);
}

/* ---- means over the elements of a row ---- */

struct squared {
    double delta;
    __device__ struct scalar_loss operator()(double z, double y) const
    {
        return scalar_squared_error(z, y);
    }
};

struct absolute {
    double delta;
    __device__ struct scalar_loss operator()(double z, double y) const
    {
        return scalar_absolute_error(z, y);
    }
};

struct huber {
    double delta;
    __device__ struct scalar_loss operator()(double z, double y) const
    {
        return scalar_huber(z, y, delta);
    }
};

struct binary {
    double delta;
    __device__ struct scalar_loss operator()(double z, double y) const
    {
        return scalar_binary_cross_entropy(z, y);
    }
};

template <unsigned size, typename function>
__global__ void element_losses(team<size> t, function f, struct matrix z, struct matrix y,
                               struct weighting w, double divisor, double *losses, double *sum,
                               struct matrix dz, enum half half)
{
    __shared__ double part[TEAM_PART];
    FOR_TEAM_ROWS(t, r, z.rows)
    {
        double all = 0;
        FOR_LANES(t, c, z.columns)
        {
            struct scalar_loss at =
                f((double)z.at[r * z.stride + c], (double)y.at[r * y.stride + c]);
            double weight = weight_at(w, r, c);
            all += scalar_weighted(weight, at.loss);
            if (dz.at)
                dz.at[r * dz.stride + c] =
                    half_rounded(half, (float)(scalar_weighted(weight, at.d) / divisor));
        }
        all = t.sum(all, part);
        if (t.lane() == 0)
            losses[r] = all / (double)z.columns;
    }
    rows_sum(losses, z.rows, sum);
}

template <typename function>
static void losses_of(function f, struct matrix z, struct matrix y, struct weighting w,
                      double divisor, double *losses, double *sum, struct matrix dz, enum half half)
{
    divisor *= (double)z.columns;
    LAUNCH_TEAMS(element_losses, z.rows, z.columns, f, z, y, w, divisor, losses,
                 sum_within(z.rows, sum), dz, half);
    sum_behind(losses, z.rows, sum);
}

void cuda_element_loss(enum element_loss kind, double delta, struct matrix z, struct matrix y,
                       struct weighting w, double divisor, double *losses, double *sum,
                       struct matrix dz, enum half half)
{
    switch (kind) {
    case ELEMENT_LOSS_SQUARED:
        losses_of(squared{delta}, z, y, w, divisor, losses, sum, dz, half);
        return;
    case ELEMENT_LOSS_ABSOLUTE:
        losses_of(absolute{delta}, z, y, w, divisor, losses, sum, dz, half);
        return;
    case ELEMENT_LOSS_HUBER:
        losses_of(huber{delta}, z, y, w, divisor, losses, sum, dz, half);
        return;
    case ELEMENT_LOSS_BINARY_CROSS_ENTROPY:
        losses_of(binary{delta}, z, y, w, divisor, losses, sum, dz, half);
        return;
    case ELEMENT_LOSS_COUNT:
        return;
    }
}

/* ---- the angle between rows ---- */

/* The largest weight of a row, as it is stored. */
template <unsigned size>
static __device__ __forceinline__ double weight_largest(team<size> t, struct weighting w,
                                                        uint64_t r, uint64_t columns, double *part)
{
    double largest = 0;
    if (!w.at)
        return 1;
    FOR_LANES(t, c, columns)
    {
        double x = (double)w.at[r * w.stride + c];
        largest = x > largest ? x : largest;
    }
    return t.max(largest, part);
}

/* What an element counts in its row's cosine: of the largest weight there. */
static __device__ __forceinline__ double cosine_share(struct weighting w, uint64_t r, uint64_t c,
                                                      double largest)
{
    if (!w.at)
        return 1;
    double x = (double)w.at[r * w.stride + c];
    return w.use == WEIGHT_COUNTED ? x > 0 : largest > 0 ? x / largest : 0;
}

/* dz may be z: a thread writes where it alone has read. `one_minus`: the loss, else the cosine. */
template <unsigned size>
__global__ void cosines_of(team<size> t, struct matrix z, struct matrix y, struct weighting w,
                           double divisor, int one_minus, double *out, double *sum,
                           struct matrix dz, enum half half)
{
    __shared__ double part[TEAM_PART];
    launch_wait();
    FOR_TEAM_ROWS(t, r, z.rows)
    {
        const float *a = z.at + r * z.stride, *b = y.at + r * y.stride;
        double largest = weight_largest(t, w, r, z.columns, part);
        double weight = weight_used((float)largest, w.use);
        double sums[3] = {0}; /* of z z, y y, z y */
        UNROLL(4)
        FOR_LANES(t, c, z.columns)
        {
            double u = cosine_share(w, r, c, largest);
            sums[0] += u * ((double)a[c] * (double)a[c]);
            sums[1] += u * ((double)b[c] * (double)b[c]);
            sums[2] += u * ((double)a[c] * (double)b[c]);
        }
        t.sums(sums, part);
        struct scalar_cosine s = scalar_cosine(sums[0], sums[1], sums[2]);
        double factor = weight / divisor / s.a;
        if (t.lane() == 0)
            out[r] = scalar_weighted(weight, one_minus ? 1 - s.cosine : s.cosine);
        if (dz.at)
            FOR_LANES(t, c, z.columns)
            {
                /* scalar_cosine_gradient, but two of its three divisions once a row */
                float d = (float)(((double)a[c] * s.along - (double)b[c] / s.b) * factor);
                dz.at[r * dz.stride + c] =
                    weight > 0 ? half_rounded(half, (float)cosine_share(w, r, c, largest) * d) : 0;
            }
    }
    rows_sum(out, z.rows, sum);
}

void cuda_cosine_loss(struct matrix z, struct matrix y, struct weighting w, double divisor,
                      double *losses, double *sum, struct matrix dz, enum half half)
{
    if (team_is_warp(z.rows, z.columns))
        LAUNCH_EARLY(cosines_of<WARP>, cuda_blocks(z.rows, TEAM_WARPS), TEAM_THREADS, team<WARP>(),
                     z, y, w, divisor, 1, losses, sum_within(z.rows, sum), dz, half);
    else
        LAUNCH_EARLY(cosines_of<TEAM_THREADS>, cuda_blocks(z.rows, 1), TEAM_THREADS,
                     team<TEAM_THREADS>(), z, y, w, divisor, 1, losses, sum_within(z.rows, sum), dz,
                     half);
    sum_behind(losses, z.rows, sum);
}

void cuda_cosine_similarity(struct matrix z, struct matrix y, struct weighting w, double *cosines)
{
    struct matrix unwanted = {NULL, 0, 0, 0};
    LAUNCH_TEAMS(cosines_of, z.rows, z.columns, z, y, w, 1.0, 0, cosines, (double *)NULL, unwanted,
                 HALF_NONE);
}

/* ---- right answers ---- */

/* Larger for a larger value, and among equal ones for the one before; 0 for a NaN. */
static __device__ __forceinline__ uint64_t class_order(float z, uint64_t place)
{
    uint32_t bits = __float_as_uint(z + 0.0f); /* -0 is 0 */
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return z == z ? (uint64_t)bits << 32 | (uint32_t) ~(uint32_t)place : 0;
}

/* Place of the first largest value; 0 where the first one is a NaN, as by comparing with it. */
template <unsigned size>
static __device__ __forceinline__ uint64_t row_class(team<size> t, const float *row,
                                                     uint64_t columns, uint64_t *part)
{
    uint64_t best = 0;
    FOR_LANES(t, c, columns)
    {
        uint64_t order = class_order(row[c], c);
        best = order > best ? order : best;
    }
    best = t.max(best, part);
    return row[0] == row[0] ? (uint32_t) ~(uint32_t)best : 0;
}

/* targets NULL: the classes themselves. */
template <unsigned size>
__global__ void classes_of(team<size> t, struct matrix z, const uint32_t *targets,
                           struct weighting w, double *out)
{
    __shared__ uint64_t part[TEAM_PART];
    FOR_TEAM_ROWS(t, r, z.rows)
    {
        uint64_t place = row_class(t, z.at + r * z.stride, z.columns, part);
        if (t.lane() == 0)
            out[r] = !targets ? (double)place : place == targets[r] ? weight_at(w, r, 0) : 0;
    }
}

void cuda_correct_classes(struct matrix z, const uint32_t *targets, struct weighting w,
                          double *correct)
{
    LAUNCH_TEAMS(classes_of, z.rows, z.columns, z, targets, w, correct);
}

void cuda_predicted_classes(struct matrix z, double *classes)
{
    struct weighting unwanted = {NULL, 0, WEIGHT_ITSELF};
    LAUNCH_TEAMS(classes_of, z.rows, z.columns, z, (const uint32_t *)NULL, unwanted, classes);
}

template <unsigned size>
__global__ void signs_of(team<size> t, struct matrix z, struct matrix y, struct weighting w,
                         double *correct)
{
    __shared__ double part[TEAM_PART];
    FOR_TEAM_ROWS(t, r, z.rows)
    {
        double sum = 0;
        FOR_LANES(t, c, z.columns)
        if ((z.at[r * z.stride + c] > 0) == (y.at[r * y.stride + c] > 0.5f))
            sum += weight_at(w, r, c);
        sum = t.sum(sum, part);
        if (t.lane() == 0)
            correct[r] = sum / (double)z.columns;
    }
}

void cuda_correct_signs(struct matrix z, struct matrix y, struct weighting w, double *correct)
{
    LAUNCH_TEAMS(signs_of, z.rows, z.columns, z, y, w, correct);
}
