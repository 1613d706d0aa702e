/* test_engine_product.c - the CPU's matrix products: their order of additions bit for bit, whatever
 * is cut, packed or turned to get there; their error; that steps allocate nothing. */
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/patch.h"
#include "engine/threads.h"
#include "tests/aborts.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

/* One product: a is [M, K] or transposed, b [K, N] or transposed, rows lie `pad` numbers apart. */
struct case_of_product {
    uint64_t m, n, k, pad;
    int a_t, b_t;
    float beta;
    struct matrix a, b, c;
    float *before; /* c's numbers */
};

static struct matrix matrix_random(uint64_t rows, uint64_t columns, uint64_t pad)
{
    struct matrix m = {NULL, rows, columns, columns + pad};
    m.at = malloc(rows * m.stride * sizeof *m.at);
    for (uint64_t i = 0; i < rows * m.stride; i++)
        m.at[i] = (float)((double)(test_random() >> 11) * 0x1p-52 - 1.0);
    return m;
}

static void case_open(struct case_of_product *p)
{
    p->a = p->a_t ? matrix_random(p->k, p->m, p->pad) : matrix_random(p->m, p->k, p->pad);
    p->b = p->b_t ? matrix_random(p->n, p->k, p->pad) : matrix_random(p->k, p->n, p->pad);
    p->c = matrix_random(p->m, p->n, p->pad);
    p->before = malloc(p->m * p->c.stride * sizeof *p->before);
    memcpy(p->before, p->c.at, p->m * p->c.stride * sizeof *p->before);
}

static void case_close(struct case_of_product *p)
{
    free(p->a.at), free(p->b.at), free(p->c.at), free(p->before);
}

static float a_of(const struct case_of_product *p, uint64_t i, uint64_t k)
{
    return p->a.at[p->a_t ? k * p->a.stride + i : i * p->a.stride + k];
}

static float b_of(const struct case_of_product *p, uint64_t k, uint64_t j)
{
    return p->b.at[p->b_t ? j * p->b.stride + k : k * p->b.stride + j];
}

/* The element as engine/cpu/product.c says that it is made. */
static float wanted(const struct case_of_product *p, int fused, uint64_t i, uint64_t j)
{
    float y = p->beta == 0 ? 0 : p->beta * p->before[i * p->c.stride + j];
    for (uint64_t k = 0; k < p->k;) {
        float sum = p->a_t ? y : 0;
        for (uint64_t end = k + PATCH_STEPS; k < p->k && k < end; k++)
            sum = fused ? fmaf(a_of(p, i, k), b_of(p, k, j), sum)
                        : sum + a_of(p, i, k) * b_of(p, k, j);
        y = p->a_t || (p->beta == 0 && k <= PATCH_STEPS) ? sum : y + sum;
    }
    return y;
}

/* Of many elements some. */
static void case_check(const struct case_of_product *p, int fused)
{
    uint64_t every = p->m * p->n * p->k / 200000 + 1;
    for (uint64_t i = 0; i < p->m; i++) {
        for (uint64_t j = i % every; j < p->n; j += every) {
            float got = p->c.at[i * p->c.stride + j], want = wanted(p, fused, i, j);
            if (got != want)
                test_fail(__FILE__, __LINE__,
                          "%lu x %lu x %lu, transposed %d %d, beta %g, fused %d: [%lu, %lu] is "
                          "%.9g instead of %.9g",
                          p->m, p->n, p->k, p->a_t, p->b_t, (double)p->beta, fused, i, j,
                          (double)got, (double)want);
        }
        for (uint64_t j = p->n; j < p->c.stride; j++)
            CHECK(p->c.at[i * p->c.stride + j] == p->before[i * p->c.stride + j]);
    }
}

static int has_fma(void)
{
    patches_force(PATCHES_PLAIN);
    const struct patches *plain = patches_choose();
    patches_force(PATCHES_FMA);
    return patches_choose() != plain;
}

/* Every instruction set, both ways to transpose each factor; the sizes lie about the borders of
 * vectors, patches, blocks of steps, of rows and of columns, and of what is packed: rows by
 * every instruction set in the last one. */
TEST(every_element_of_a_product_is_the_same_sum_however_it_is_cut)
{
    static const uint64_t sizes[][3] = {
        {1, 1, 1},      {1, 139, 300},   {139, 1, 300},   {1, 1, 300},   {7, 5, 3},
        {1, 40, 17},    {40, 1, 19},     {6, 16, 256},    {12, 32, 257}, {5, 33, 64},
        {33, 17, 65},   {16, 10, 96},    {10, 31, 9},     {101, 70, 8},  {97, 9, 70},
        {9, 97, 130},   {103, 271, 301}, {271, 103, 513}, {8, 1100, 40}, {70, 101, 301},
        {1100, 64, 33}, {300, 150, 270}};
    static const float betas[] = {0, 1, -0.5f};
    for (int kind = PATCHES_BEST; kind <= PATCHES_WIDE; kind++) {
        int fused = kind != PATCHES_PLAIN && has_fma();
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int t = 0; t < 4; t++) {
                struct case_of_product p = {sizes[i][0],
                                            sizes[i][1],
                                            sizes[i][2],
                                            (i + (size_t)t) % 3,
                                            t & 1,
                                            t >> 1,
                                            betas[(i + (size_t)kind + (size_t)t) % 3]};
                case_open(&p);
                patches_force((enum patches_kind)kind);
                cpu_product(p.a, p.a_t, p.b, p.b_t, p.beta, p.c);
                case_check(&p, fused);
                case_close(&p);
            }
    }
    patches_force(PATCHES_BEST);
}

/* Random signs: errors of additions grow as the root of their number, in blocks. */
TEST(products_are_as_exact_as_float32_allows)
{
    for (int kind = PATCHES_BEST; kind <= PATCHES_WIDE; kind++)
        for (uint64_t k = 4; k < 5000; k *= 9) {
            struct case_of_product p = {13, 18, k, 1, 0, 1, 0};
            double error = 0, bound = 0;
            case_open(&p);
            patches_force((enum patches_kind)kind);
            cpu_product(p.a, p.a_t, p.b, p.b_t, p.beta, p.c);
            for (uint64_t i = 0; i < p.m; i++)
                for (uint64_t j = 0; j < p.n; j++) {
                    double sum = 0, squares = 0;
                    for (uint64_t x = 0; x < k; x++) {
                        double term = (double)a_of(&p, i, x) * (double)b_of(&p, x, j);
                        sum += term;
                        squares += term * term;
                    }
                    error += pow((double)p.c.at[i * p.c.stride + j] - sum, 2);
                    bound +=
                        squares * (double)(k < PATCH_STEPS ? k : PATCH_STEPS + k / PATCH_STEPS);
                }
            if (!(sqrt(error) <= sqrt(bound) * (double)FLT_EPSILON / 2))
                test_fail(__FILE__, __LINE__, "kind %d, %lu steps: error %g, more than %g", kind, k,
                          sqrt(error), sqrt(bound) * (double)FLT_EPSILON / 2);
            case_close(&p);
        }
    patches_force(PATCHES_BEST);
}

/* Of no steps a sum has no sense, and blocks of none have no end. */
TEST(an_empty_product_aborts)
{
    float number = 0;
    struct matrix one = {&number, 1, 1, 1}, column = {&number, 1, 0, 1}, row = {&number, 0, 1, 1};
    CHECK(ABORTS(cpu_product(column, 0, row, 0, 0, one)));
    CHECK(ABORTS(cpu_product(row, 0, one, 0, 0, row)));
    CHECK(ABORTS(cpu_product(one, 0, column, 0, 0, column)));
    CHECK(!ABORTS(cpu_product(one, 0, one, 0, 0, one)));
}

static void *large_product(void *argument)
{
    struct case_of_product *p = argument;
    cpu_product(p->a, p->a_t, p->b, p->b_t, p->beta, p->c);
    return NULL;
}

/* The pages of a stack of our own that were touched: as many as threads.h says. */
TEST(a_product_takes_so_much_of_a_stack)
{
    enum { STACK = 1 << 20, PAGE = 4096 };
    struct case_of_product p = {256, 256, 256, 1, 1, 0, 0}; /* too far apart to be read in place */
    unsigned char resident[STACK / PAGE];
    pthread_attr_t attributes;
    pthread_t id;
    uint64_t used = 0;
    if (TEST_ROUNDS(0, 1))
        test_skip("under a sanitizer threads take more");
    case_open(&p);
    void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack != MAP_FAILED && madvise(stack, STACK, MADV_NOHUGEPAGE) == 0);
    pthread_attr_init(&attributes);
    CHECK_EQ(pthread_attr_setstack(&attributes, stack, STACK), 0);
    CHECK_EQ(pthread_create(&id, &attributes, large_product, &p), 0);
    CHECK_EQ(pthread_join(id, NULL), 0);
    CHECK_EQ(mincore(stack, STACK, resident), 0);
    for (int i = 0; i < STACK / PAGE; i++)
        used += (resident[i] & 1) * PAGE;
    if (used > POOL_STACK_USED || used + (32 << 10) < POOL_STACK_USED)
        test_fail(__FILE__, __LINE__, "a product used %lu bytes of the stack, not %d", used,
                  POOL_STACK_USED);
    pthread_attr_destroy(&attributes);
    munmap(stack, STACK);
    case_close(&p);
}

/* What our own code asks of the heap, counted by the linker's --wrap. */
void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__real_realloc(void *at, size_t bytes);
void *__wrap_realloc(void *at, size_t bytes);
static _Atomic uint64_t allocations;

void *__wrap_malloc(size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *at, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __real_realloc(at, bytes);
}

static void steps_check(const struct fixture_config *c)
{
    struct fixture f;
    uint64_t before = allocations;
    fixture_open(&f, c);
    CHECK(allocations > before);
    for (uint64_t step = 0; step < 4; step++) {
        before = allocations;
        fixture_train(&f, FIXTURE_ROWS, step, step + 1, &fixture_adamw, NULL, 0);
        CHECK_EQ(allocations - before, 0);
    }
    before = allocations;
    fixture_evaluate(&f, FIXTURE_ROWS);
    CHECK_EQ(allocations - before, 0);
    fixture_close(&f);
}

TEST(steps_allocate_nothing)
{
    static const char *const dense[] = {"linear out=300", "relu", "linear out=5"};
    static const char *const steps[] = {"sequence steps=3", "lstm out=20", "pool kind=last",
                                        "linear out=5"};
    static const char *const graphs[] = {"gcn out=40", "relu", "pool kind=mean", "linear out=5"};
    steps_check(&(struct fixture_config){.layers = dense, .count = 3, .threads = 3});
    steps_check(&(struct fixture_config){.layers = steps, .count = 4, .inputs = 36});
    steps_check(&(struct fixture_config){.layers = graphs, .count = 4, .inputs = 7, .graphs = 1});
}
