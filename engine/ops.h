/* ops.h - the operations of ops.def: views, the backend table, and the checked calls.
 *
 * Layers and the stepper call op_NAME(backend, ...): shapes and aliasing are checked (ops_check.h),
 * and the backend's own function is called. A view borrows its numbers and never owns them.
 */
#ifndef ENGINE_OPS_H
#define ENGINE_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "engine/scalar.h"

/* Types of 16 bits that activations are kept in and products read. */
enum half {
    HALF_NONE,
    HALF_F16,  /* IEEE 754 binary16 */
    HALF_BF16, /* the upper half of a float32 */
    HALF_COUNT
};

/* Each of them, and scalar.h's functions from it to float32 and back. */
#define HALVES(X)                                                                                  \
    X(F16, scalar_half, scalar_to_half)                                                            \
    X(BF16, scalar_brain, scalar_to_brain)

/* Types of stored elements, in the order of element_names (ops.c). */
enum element {
    ELEMENT_U8,
    ELEMENT_I8,
    ELEMENT_U16,
    ELEMENT_I16,
    ELEMENT_U32,
    ELEMENT_I32,
    ELEMENT_U64,
    ELEMENT_I64,
    ELEMENT_F16, /* IEEE 754 binary16 */
    ELEMENT_F32,
    ELEMENT_F64,
    ELEMENT_COUNT
};

/* Each of them, as what it is read, and what makes a double of that. */
#define ELEMENTS(X)                                                                                \
    X(U8, uint8_t, (double))                                                                       \
    X(I8, int8_t, (double))                                                                        \
    X(U16, uint16_t, (double))                                                                     \
    X(I16, int16_t, (double))                                                                      \
    X(U32, uint32_t, (double))                                                                     \
    X(I32, int32_t, (double))                                                                      \
    X(U64, uint64_t, (double))                                                                     \
    X(I64, int64_t, (double))                                                                      \
    X(F16, uint16_t, (double)scalar_half)                                                          \
    X(F32, float, (double))                                                                        \
    X(F64, double, (double))

/* "u8" -> ELEMENT_U8; ELEMENT_COUNT for another word. */
enum element element_named(const char *name);
uint64_t element_bytes(enum element type);
static inline int element_is_whole(enum element type)
{
    return type < ELEMENT_F16;
}

/* May it be negative? Of whole numbers. */
static inline int element_is_signed(enum element type)
{
    return type == ELEMENT_I8 || type == ELEMENT_I16 || type == ELEMENT_I32 || type == ELEMENT_I64;
}

/* Each activation, and what scalar.h's functions of it are called. */
#define ACTIVATIONS(X)                                                                             \
    X(RELU, relu)                                                                                  \
    X(GELU, gelu)                                                                                  \
    X(SILU, silu)                                                                                  \
    X(TANH, tanh)                                                                                  \
    X(SIGMOID, sigmoid)

enum activation {
#define ACTIVATION_ROW(KIND, NAME) ACTIVATION_##KIND,
    ACTIVATIONS(ACTIVATION_ROW) ACTIVATION_COUNT
#undef ACTIVATION_ROW
};

/* POOL_MEAN_SUM: both, one behind the other. */
enum pooling { POOL_LAST, POOL_MEAN, POOL_SUM, POOL_MAX, POOL_MEAN_SUM, POOL_COUNT };

/* Losses of one output that are averaged over a row. */
enum element_loss {
    ELEMENT_LOSS_SQUARED,
    ELEMENT_LOSS_ABSOLUTE,
    ELEMENT_LOSS_HUBER,
    ELEMENT_LOSS_BINARY_CROSS_ENTROPY,
    ELEMENT_LOSS_COUNT
};

/* Row r starts at at + r * stride; stride >= columns. */
struct matrix {
    float *at;
    uint64_t rows, columns, stride;
};

/* A dense matrix. Inputs are taken as const and not written by any operation that lists them as
 * inputs. */
SCALAR struct matrix matrix_of(const float *at, uint64_t rows, uint64_t columns)
{
    return (struct matrix){(float *)(uintptr_t)at, rows, columns, columns};
}

/* Columns first .. first + count - 1 of m. */
SCALAR struct matrix matrix_columns(struct matrix m, uint64_t first, uint64_t count)
{
    return (struct matrix){m.at + first, m.rows, count, m.stride};
}

/* A matrix whose numbers lie in float32, or where `halves` is not NULL in the 16 bits of the
 * operation's half. */
struct mixed {
    float *at;
    uint16_t *halves;
    uint64_t rows, columns, stride;
};

SCALAR struct mixed mixed_of(struct matrix m)
{
    return (struct mixed){m.at, NULL, m.rows, m.columns, m.stride};
}

/* Dense; at the halves, or where they are NULL at the floats. */
SCALAR struct mixed mixed_at(const uint16_t *halves, const float *at, uint64_t rows,
                             uint64_t columns)
{
    return (struct mixed){halves ? NULL : (float *)(uintptr_t)at, (uint16_t *)(uintptr_t)halves,
                          rows, columns, columns};
}

/* What the numbers of a loss weigh: w[r, c] at at[r * stride + c]; [R, 1] where a row has one loss.
 * at NULL: 1 each. */
enum weight_use {
    WEIGHT_ITSELF,
    WEIGHT_COUNTED, /* 1 for each that is above 0 */
    WEIGHT_ROOT,    /* its root: what is squared then weighs w */
};
struct weighting {
    const float *at;
    uint64_t stride;
    enum weight_use use;
};

SCALAR double weight_used(float w, enum weight_use use)
{
    return use == WEIGHT_ITSELF ? (double)w : use == WEIGHT_COUNTED ? w > 0 : sqrt((double)w);
}

SCALAR double weight_at(struct weighting w, uint64_t row, uint64_t column)
{
    return w.at ? weight_used(w.at[row * w.stride + column], w.use) : 1;
}

/* A target's class that is not there. */
#define CLASS_MISSING UINT32_MAX

/* Rows of a matrix that belong together: `count` runs, one behind the other, of `steps` rows each,
 * or where begin is not NULL of begin[n + 1] - begin[n] rows, at least one. */
struct segments {
    uint64_t count, steps;
    const uint64_t *begin; /* [count + 1]; only its differences count */
};

SCALAR uint64_t segment_first(struct segments s, uint64_t n)
{
    return s.begin ? s.begin[n] - s.begin[0] : n * s.steps;
}

SCALAR uint64_t segment_rows(struct segments s, uint64_t n)
{
    return segment_first(s, n + 1) - segment_first(s, n);
}

/* The steps of `count` samples as a matrix each: sample n begins at first.at + n * distance, or
 * where begin is not NULL it is the rows that segments of such a begin have (first.rows is not read
 * then). */
struct samples {
    struct matrix first;
    uint64_t count, distance;
    const uint64_t *begin;
};

/* The steps of sample n. */
SCALAR struct matrix sample_at(struct samples s, uint64_t n)
{
    if (s.begin) {
        struct segments of = {.count = s.count, .begin = s.begin};
        s.first.at += segment_first(of, n) * s.first.stride;
        s.first.rows = segment_rows(of, n);
    } else {
        s.first.at += n * s.distance;
    }
    return s.first;
}

/* Steps of one direction of an LSTM's layer, which are [steps, rows, ..] arrays in the order of the
 * steps' numbers. */
struct lstm_steps {
    uint64_t steps, rows, hidden;
    int reverse;           /* the last is taken first */
    int begins;            /* no step is taken before these */
    const float *c_before; /* [rows, hidden] after the step before, or as they begin */
    float *gates;          /* [steps, rows, 4 hidden] (i, f, g, o) */
    float *c;              /* [steps, rows, hidden] */
    /* Kept in 16 bits: forward leaves gates and c there, rounded, and backward takes them from
     * there; the arrays above are scratch then, but for the gradients. Both NULL: they are not. */
    uint16_t *gates_half, *c_half;
    float *c_after; /* NULL, or where forward leaves c [rows, hidden] after the last step */
    float *sums;    /* NULL, or [rows, 4 hidden] to which backward adds the gradients of gates */
};

/* The place of the k-th step that is taken. */
SCALAR uint64_t lstm_step(struct lstm_steps s, uint64_t k)
{
    return s.reverse ? s.steps - 1 - k : k;
}

/* A matrix of numbers of 16 bits. */
struct halves {
    uint16_t *at;
    uint64_t rows, columns, stride;
};

SCALAR struct halves half_matrix_of(const uint16_t *at, uint64_t rows, uint64_t columns)
{
    return (struct halves){(uint16_t *)(uintptr_t)at, rows, columns, columns};
}

/* Steps of an LSTM's layer that keeps all of its numbers in 16 bits, [steps, rows, ..] arrays; the
 * four gates of a unit lie together. The h and the c of the step before lie before the first ones,
 * unless the steps begin: they are 0 then. All arrays of a narrow layer are aligned to 16 bytes. */
enum {
    LSTM_NARROW_HIDDEN_MAX = 128, /* whose weights fit a multiprocessor */
    LSTM_NARROW_UNITS = 8,        /* hidden is a multiple of it */
};

/* Numbers that lstm_narrow_weights leaves of w_hh, in an order of the backend's. */
SCALAR uint64_t lstm_narrow_weights_count(uint64_t hidden)
{
    uint64_t padded =
        hidden <= LSTM_NARROW_HIDDEN_MAX / 2 ? LSTM_NARROW_HIDDEN_MAX / 2 : LSTM_NARROW_HIDDEN_MAX;
    return 2 * 4 * padded * padded; /* forward, backward */
}

struct lstm_narrow {
    uint64_t steps, rows, hidden;
    enum half half;
    int begins;
    uint16_t *gates; /* [steps, rows, hidden, 4] (i, f, g, o) */
    uint16_t *c, *h; /* [steps, rows, hidden] */
};

/* Where float32 numbers of a cell are: of unit u of row r in step t at at[t step + r row + u]. */
struct lstm_cells {
    float *at;
    uint64_t step, row;
};

/* [rows, columns]: row r has the values value[k] in the columns column[k], k from begin[r] to
 * begin[r + 1] - 1; a column that is named twice counts twice. */
struct sparse {
    const uint32_t *begin, *column;
    const float *value;
    uint64_t rows, columns;
};

/* A layer's place among the graph convolutions that go backward one behind the other, and ask for
 * nothing else between them. The gradients of weights, which the layer before does not wait for,
 * may be in the making until the one that `ends` is done: before that what they are made of, g and
 * x, stays as it is, but that the turn after the next may write its own g there, and the one that
 * ends its dx. */
struct convolution_turn {
    unsigned number; /* from 0 on */
    int ends;
};

/* A graph convolution's backward (convolution_backward). All but dw dense, kept and x in 16 bits
 * where they are read for a derivative and there is a half; d is used up. */
struct convolution_back {
    struct sparse a;        /* [R, K] */
    enum half half;         /* what e is rounded to, and dx where it is in 16 bits */
    enum activation behind; /* whose derivative makes e of d; ACTIVATION_COUNT: e is d */
    struct mixed kept, d;   /* [K, C] */
    struct mixed g;         /* [R, C] */
    struct mixed x, w;      /* [R, I], [C, I] */
    struct convolution_turn turn;
    int adds;               /* to dw and db */
    struct matrix dw;       /* [C, I] */
    float *db;              /* [C]; NULL, as dw.at: neither is wanted */
    enum activation before; /* one told by its output, which is x: its derivative makes dx what
                               it is; ACTIVATION_COUNT: there is none */
    struct mixed dx;        /* [R, I]; without a place: not wanted */
};

/* Numbers in 8 bits, row by row: value = scales[row] * at[row * stride + column]. Room for whole
 * INT8_OUTPUTS rows, stride a multiple of INT8_COLUMNS, what pads both being 0; `at` is aligned to
 * 4 bytes (engine/quantised.h).
 */
enum { INT8_ROWS = 64, INT8_OUTPUTS = 4, INT8_COLUMNS = 16 };
struct int8_matrix {
    int8_t *at;
    float *scales; /* [rows] */
    uint64_t rows, columns, stride;
};

struct int8_work { /* scratch of a product: INT8_ROWS quantised rows, aligned as those, and scales
                    */
    int16_t *rows; /* [INT8_ROWS, stride of the weights] */
    float *scales;
};

/* A matrix in 4 bits: value [r, c] = share(row[r]) share(column[c]) level[table][code], scalar.h
 * having the shares. Rows whose shares are of one octave have one table of levels, those of the
 * last octaves together. Codes are in row-major order, CODED_GROUP of them in half as many bytes:
 * byte k of a group has the code of its value k in the lower half and that of value k + CODED_GROUP
 * / 2 in the upper.
 *
 * Code 0 is that of zeros and of outliers, which are kept apart: those among the CODED_TILE values
 * of tile k are the words outlier_first[k] .. outlier_first[k + 1] - 1 of outlier[], in the order
 * of their places: place in the tile << OUTLIER_BITS | scalar_to_outlier(value).
 */
enum { CODED_GROUP = 32, CODED_LEVELS = 16, CODED_TABLES = 8, CODED_TILE = 4096 };
struct coded_matrix {
    const uint8_t *codes, *row, *column;
    const float *level;                      /* [tables, CODED_LEVELS]; that of code 0 is 0 */
    const uint32_t *outlier, *outlier_first; /* [outlier_first[tiles]], [tiles + 1] */
    uint64_t rows, columns;
    unsigned tables; /* 1 to CODED_TABLES */
};

/* Which of `tables` tables a row has that has this share. */
SCALAR unsigned coded_table(uint8_t share, unsigned tables)
{
    unsigned octave = share < SHARE_ONE ? (unsigned)(SHARE_ONE - share) >> 3 : 0;
    return octave < tables ? octave : tables - 1;
}

SCALAR uint64_t coded_tiles(uint64_t values)
{
    return (values + CODED_TILE - 1) / CODED_TILE;
}

/* What makes a step one that is refused: a loss above loss_max (0: no limit), numbers that are not
 * finite, and rows gathered on the device that cannot be used: the first ones of piece i are
 * bad[i][k], rows[i][k] or more where all can (0: nobody looks). */
enum { STEP_PIECES_MAX = 16, STEP_BADS = 4 };
struct step_limits {
    double loss_max, max_grad_norm;
    double target_steps, batch_rows;
    int weighted;
    uint32_t pieces;
    uint64_t rows[STEP_PIECES_MAX][STEP_BADS];
};

/* Sums are those of the gradient's squares, the penalty, losses and weights. */
struct step_told {
    double sums[4];
    struct step_verdict verdict;
};

SCALAR int step_refuses(const double sums[4], const uint64_t (*bad)[STEP_BADS],
                        const struct step_limits *l)
{
    int refused = !isfinite(sums[0]) || !isfinite(sums[1]);
    for (uint32_t i = 0; i < l->pieces; i++)
        for (int k = 0; k < STEP_BADS; k++)
            refused |= bad[i][k] < l->rows[i][k];
    double loss = scalar_step_loss(sums[2], sums[3], l->weighted, l->target_steps, l->batch_rows);
    return refused | !isfinite(loss) | (l->loss_max > 0 && loss > l->loss_max);
}

/* Scratch of sums of squares, a thread's own. */
enum { SQUARES_PACKED = 35840 };
struct squares_work {
    float *packed; /* [SQUARES_PACKED] */
    float *tile;   /* as large as y */
};

/* Where an operation is recorded and done again, the step is not known when it is asked for: it is
 * read where `step` points to, if that is not NULL. inner: the mask is one of several of its layer.
 */
struct dropout_late {
    const uint64_t *step;
    uint64_t seed, place, layer, number;
    int inner;
};

struct dropout_mask {
    uint64_t key;       /* scalar_key(seed, step, layer) */
    uint64_t row_first; /* place in the batch of the matrix's first row */
    double p;           /* probability of a zero, 0 <= p < 1 */
    struct dropout_late late;
};

SCALAR uint64_t dropout_key_late(const struct dropout_late *d, uint64_t step)
{
    uint64_t key = scalar_key(d->seed, step, d->place);
    return d->inner ? scalar_key(key, d->layer, d->number) : key;
}

/* Its key, where the step is at hand. */
SCALAR uint64_t dropout_key(const struct dropout_mask *m)
{
    return m->late.step ? dropout_key_late(&m->late, *m->late.step) : m->key;
}

/* Work that need not be done in the order in which it is asked for, where a device has room for
 * more than one operation at a time. What is asked for goes to one of a few lanes, each of which
 * does its own in their order; a lane waits for what another has done where it awaits a mark, which
 * stands for all that was asked of the lane that set it until then, when it was last set. Main is
 * the lane at the start and has to be at the end, and to have awaited the others'. product_half may
 * be asked of main and of LANE_PRODUCTS, operations that may have scratch of the device's own
 * (other products, linear layers, sums over rows, losses) of main alone. */
enum { LANE_MAIN, LANE_PRODUCTS, LANE_FIRST, LANE_SECOND, LANES };
enum { LANE_MARKS = 32 };

struct backend {
    const char *name;
    /* All three NULL: there is one lane. */
    void (*lane_take)(unsigned lane); /* what is asked for from here on goes there */
    void (*lane_mark)(unsigned mark);
    void (*lane_await)(unsigned mark);
#define OP(name, args, names, what) void(*name) args;
#include "engine/ops.def"
#undef OP
};

extern const struct backend backend_cpu;

/* void op_NAME(const struct backend *b, ...) for every row of ops.def. The arguments in parentheses
 * are spliced behind the backend. */
#define OP_SPLICE(...)              __VA_ARGS__
#define OP(name, args, names, what) void op_##name(const struct backend *backend, OP_SPLICE args);
#include "engine/ops.def"
#undef OP

#endif
