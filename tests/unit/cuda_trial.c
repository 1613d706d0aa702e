/* cuda_trial.c - see cuda_trial.h.
 *
 * An operand has a guard of GUARD bytes on either side. Before the operation all of it is bytes of
 * ones (NaNs where read as floating-point numbers), then inputs are filled. Where the emulated
 * device and the test are built with AddressSanitizer the guards may not even be read.
 */
#include "tests/unit/cuda_trial.h"

#include <math.h>

#include "tests/test.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(at, bytes)   ((void)(at), (void)(bytes))
#define __asan_unpoison_memory_region(at, bytes) ((void)(at), (void)(bytes))
#endif

enum { GUARD = 256, OPERANDS_MAX = 320 };

struct operand {
    enum trial_role role;
    enum trial_bar bar;
    enum trial_number type;
    uint64_t rows, columns, stride; /* in numbers */
    uint64_t first, end, bytes;     /* of the numbers, in the bytes of all of it */
    char *at;                       /* in the backend's memory */
    char *before, *after;           /* on the host */
};

struct trial {
    const struct backend *backend;
    const struct device *device; /* NULL: the CPU */
    int emulated;
    struct trial_shape shape;
    uint64_t random;
    struct operand operands[OPERANDS_MAX];
    int count;
};

static const uint64_t number_bytes[] = {1, 2, 4, 8, 4, 8};

const struct backend *trial_backend(struct trial *t)
{
    return t->backend;
}

uint64_t trial_random(struct trial *t)
{
    return scalar_mix64(t->random++);
}

double trial_uniform(struct trial *t)
{
    return (double)(trial_random(t) >> 11) * 0x1p-52 - 1;
}

static void row_fill(struct trial *t, enum trial_number type, char *at, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++, at += number_bytes[type]) {
        double wide = trial_uniform(t);
        float narrow = (float)wide;
        uint64_t whole = trial_random(t);
        if (type == TRIAL_F32)
            memcpy(at, &narrow, sizeof narrow);
        else if (type == TRIAL_F64)
            memcpy(at, &wide, sizeof wide);
        else
            memcpy(at, &whole, number_bytes[type]);
    }
}

static struct operand *operand_make(struct trial *t, enum trial_role role, enum trial_bar bar,
                                    enum trial_number type, uint64_t rows, uint64_t columns,
                                    uint64_t pad)
{
    struct operand *o = &t->operands[t->count++];
    CHECK(t->count <= OPERANDS_MAX);
    *o = (struct operand){role, bar, type, rows, columns, columns + pad};
    o->first = GUARD + t->shape.skew * number_bytes[type];
    o->end = o->first + ((rows - 1) * o->stride + columns) * number_bytes[type];
    o->bytes = o->end + GUARD;
    o->before = malloc(o->bytes);
    o->after = malloc(o->bytes);
    memset(o->before, 0xff, o->bytes);
    return o;
}

static char *operand_row(const struct operand *o, char *of, uint64_t row)
{
    return of + o->first + row * o->stride * number_bytes[o->type];
}

/* Gives it to the backend's memory. */
static void *operand_place(struct trial *t, struct operand *o)
{
    struct err e;
    void *at = malloc(o->bytes);
    if (t->device) {
        free(at);
        CHECK_OK(t->device->allocate(o->bytes, "a trial", &at, &e), e);
        t->device->upload(at, o->before, o->bytes);
        t->device->wait();
    } else {
        memcpy(at, o->before, o->bytes);
    }
    o->at = at;
    if (!t->device || t->emulated) {
        __asan_poison_memory_region(o->at, o->first);
        __asan_poison_memory_region(o->at + o->end, GUARD);
    }
    return o->at + o->first;
}

static void *operand_random(struct trial *t, struct operand *o)
{
    int numbers = o->role == TRIAL_INPUT || o->role == TRIAL_CHANGED;
    for (uint64_t r = 0; numbers && r < o->rows; r++)
        row_fill(t, o->type, operand_row(o, o->before, r), o->columns);
    return operand_place(t, o);
}

struct matrix trial_matrix(struct trial *t, enum trial_role role, enum trial_bar bar, uint64_t rows,
                           uint64_t columns)
{
    struct operand *o = operand_make(t, role, bar, TRIAL_F32, rows, columns, t->shape.pad);
    return (struct matrix){operand_random(t, o), rows, columns, o->stride};
}

struct matrix trial_coarse(struct trial *t, enum trial_role role, uint64_t rows, uint64_t columns)
{
    struct operand *o = operand_make(t, role, TRIAL_SAME, TRIAL_F32, rows, columns, t->shape.pad);
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < columns; c++) {
            float x = (float)(floor(64 * trial_uniform(t)) / 64);
            memcpy(operand_row(o, o->before, r) + c * sizeof x, &x, sizeof x);
        }
    return (struct matrix){operand_place(t, o), rows, columns, o->stride};
}

void *trial_numbers(struct trial *t, enum trial_role role, enum trial_bar bar,
                    enum trial_number type, uint64_t count)
{
    return operand_random(t, operand_make(t, role, bar, type, 1, count, 0));
}

float *trial_floats(struct trial *t, enum trial_role role, enum trial_bar bar, uint64_t count)
{
    return trial_numbers(t, role, bar, TRIAL_F32, count);
}

void *trial_given(struct trial *t, enum trial_role role, enum trial_number type, const void *from,
                  uint64_t count)
{
    struct operand *o = operand_make(t, role, TRIAL_SAME, type, 1, count, 0);
    memcpy(o->before + o->first, from, count * number_bytes[type]);
    return operand_place(t, o);
}

/* Takes the operand back from the backend's memory. */
static void operand_take(struct trial *t, struct operand *o)
{
    if (!t->device || t->emulated)
        __asan_unpoison_memory_region(o->at, o->bytes);
    if (t->device) {
        t->device->download(o->after, o->at, o->bytes);
        t->device->release(o->at);
    } else {
        memcpy(o->after, o->at, o->bytes);
        free(o->at);
    }
    o->at = NULL;
}

/* Has anything been written that is not the operation's to write? */
static int operand_whole(const struct operand *o)
{
    uint64_t row_bytes = o->columns * number_bytes[o->type];
    uint64_t stride_bytes = o->stride * number_bytes[o->type];
    if (o->role == TRIAL_INPUT)
        return memcmp(o->before, o->after, o->bytes) == 0;
    if (memcmp(o->before, o->after, o->first) != 0 ||
        memcmp(o->before + o->end, o->after + o->end, GUARD) != 0)
        return 0;
    for (uint64_t at = o->first + row_bytes; at < o->end; at += stride_bytes)
        if (memcmp(o->before + at, o->after + at, stride_bytes - row_bytes) != 0)
            return 0;
    return 1;
}

static double number_at(enum trial_number type, const char *at)
{
    float narrow;
    double wide;
    if (type == TRIAL_F32)
        return memcpy(&narrow, at, sizeof narrow), (double)narrow;
    return memcpy(&wide, at, sizeof wide), wide;
}

/* ||device - cpu|| / ||cpu||, 0 where all bits are the same, infinite where one only is NaN. */
static double operand_error(const struct operand *cpu, const struct operand *device)
{
    double off2 = 0, norm2 = 0;
    uint64_t bytes = number_bytes[cpu->type];
    if (memcmp(cpu->after, device->after, cpu->bytes) == 0)
        return 0;
    if (cpu->type < TRIAL_F32)
        return INFINITY;
    for (uint64_t r = 0; r < cpu->rows; r++)
        for (uint64_t c = 0; c < cpu->columns; c++) {
            uint64_t place = (r * cpu->stride + c) * bytes + cpu->first;
            double x = number_at(cpu->type, cpu->after + place);
            double y = number_at(cpu->type, device->after + place);
            if (!isnan(x) != !isnan(y))
                return INFINITY;
            if (isnan(x) || (isinf(x) && x == y))
                continue;
            off2 += (x - y) * (x - y);
            norm2 += x * x;
        }
    return off2 > 0 ? sqrt(off2 / norm2) : 0;
}

static double bar_of(const struct operand *o, const struct trial *t)
{
    static const double bars[][2] = {
        [TRIAL_SAME] = {2e-6, 0},        [TRIAL_FLOAT] = {2e-6, 1e-6},
        [TRIAL_ROWS] = {2e-6, 1e-6},     [TRIAL_HALF] = {4e-3, 4e-3},
        [TRIAL_DOUBLE] = {1e-11, 1e-12}, [TRIAL_TERMS] = {1e-9, 1e-12}};
    double bar = o->type < TRIAL_F32 ? 0 : bars[o->bar][t->emulated];
    return o->bar == TRIAL_ROWS ? fmax(bar, 6e-8 * sqrt((double)t->shape.rows)) : bar;
}

/* On the CPU, on the device and once more there. Under a sanitizer, which makes no arithmetic
 * another, once is enough. */
enum { RUNS = TEST_ROUNDS(3, 2) };

static void operands_check(const char *name, const struct trial runs[RUNS], int i)
{
    const struct operand *cpu = &runs[0].operands[i], *device = &runs[1].operands[i];
    struct trial_shape s = runs[0].shape;
    int result = cpu->role == TRIAL_OUTPUT || cpu->role == TRIAL_CHANGED;
    double error = result ? operand_error(cpu, device) : 0;
    const char *wrong = NULL;
    if (!operand_whole(device))
        wrong = "writes what is not its own";
    else if (!(error <= bar_of(device, &runs[1])))
        wrong = "is not near the CPU's";
    else if (result && memcmp(device->after, runs[RUNS - 1].operands[i].after, device->bytes) != 0)
        wrong = "is not the same twice";
    if (wrong)
        test_fail(__FILE__, __LINE__,
                  "%s, shape %llu x %llu, pad %llu, skew %llu: operand %d of %llu x %llu %s "
                  "(error %g)",
                  name, (unsigned long long)s.rows, (unsigned long long)s.columns,
                  (unsigned long long)s.pad, (unsigned long long)s.skew, i,
                  (unsigned long long)cpu->rows, (unsigned long long)cpu->columns, wrong, error);
}

static void trial_one(struct trial *t, trial_function *f)
{
    struct err e;
    t->count = 0;
    f(t, t->shape);
    if (t->device) {
        t->device->wait();
        CHECK_OK(t->device->failure(&e), e);
    }
    for (int i = 0; i < t->count; i++)
        operand_take(t, &t->operands[i]);
}

static void shape_run(const char *name, trial_function *f, const struct device *device,
                      const struct trial_shape *s, uint64_t random)
{
    static struct trial runs[RUNS];
    struct device_facts facts;
    device->facts(&facts);
    for (int k = 0; k < RUNS; k++) {
        runs[k].device = k ? device : NULL;
        runs[k].backend = k ? device->backend : &backend_cpu;
        runs[k].emulated = strcmp(facts.name, "emulated") == 0;
        runs[k].shape = *s;
        runs[k].random = random;
        trial_one(&runs[k], f);
    }
    CHECK_EQ(runs[0].count, runs[1].count);
    for (int i = 0; i < runs[0].count; i++)
        operands_check(name, runs, i);
    for (int k = 0; k < RUNS; k++)
        for (int i = 0; i < runs[k].count; i++)
            free(runs[k].operands[i].before), free(runs[k].operands[i].after);
}

void trial_run(const struct device *device, const char *name, trial_function *f)
{
    static const struct {
        struct trial_shape shape;
        int plainly; /* not under a sanitizer: another has its edges */
    } shapes[] = {{{1, 1, 0, 0}, 0},     {{1, 257, 0, 1}, 0},  {{9, 1, 0, 0}, 1},
                  {{9, 1, 2, 0}, 0},     {{33, 65, 0, 0}, 0},  {{33, 64, 0, 0}, 1},
                  {{130, 128, 4, 0}, 1}, {{67, 100, 3, 1}, 0}, {{3, 2051, 1, 0}, 0},
                  {{260, 36, 0, 0}, 1},  {{560, 9, 0, 0}, 0},  {{1, 70000, 0, 0}, 1}};
    /* whose padded rows begin where kernels that read fours can take them */
    static const struct trial_shape large = {TRIAL_ROWS_LARGE, 33, 4, 0};
    struct device_facts facts;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        uint64_t random = test_random();
        if (TEST_ROUNDS(1, !shapes[i].plainly))
            shape_run(name, f, device, &shapes[i].shape, random);
    }
    device->facts(&facts);
    if (strcmp(facts.name, "emulated") != 0) /* whose grids are small */
        shape_run(name, f, device, &large, test_random());
}
