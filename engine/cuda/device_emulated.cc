/* device_emulated.cc - the device of the tests: kernels run on the CPU (emulate.h), products are
 * the CPU backend's, and its memory is closed to the host but while a launch or a copy runs. Copies
 * on the copy stream are put off until something waits for them. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/cuda/blas.h"
#include "engine/cuda/emulated.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(at, bytes)   ((void)(at), (void)(bytes))
#define __asan_unpoison_memory_region(at, bytes) ((void)(at), (void)(bytes))
#endif

extern "C" {
#include "engine/device.h"
void cpu_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta, struct matrix c);
void cpu_product_half(enum half kind, struct halves a, int a_t, struct halves b, int b_t,
                      float beta, struct matrix c);
extern const struct device device_of_library;
}

unsigned cuda_lane;

enum { ALLOCATIONS_MAX = 256, PAGE_BYTES = 4096, COPIES_MAX = 256 };

static const uint64_t memory_bytes = (uint64_t)1 << 30;
static const int runtime = 13000;

/* Allocations lie in one range of addresses, so that one call opens and closes all of them; by
 * address, a page that belongs to none behind each. */
static struct {
    char *base;
    struct {
        char *at;
        uint64_t bytes, asked; /* whole pages, for so many */
    } allocations[ALLOCATIONS_MAX];
    int count, depth;
    uint64_t used, high;
    uint64_t context; /* of `used`, what it took when it was opened */
} memory;

/* The copies that were asked for and are not done, oldest first; and by mark, how many had been
 * asked for. */
static struct {
    struct {
        void *to;
        const void *from;
        uint64_t bytes;
    } waiting[COPIES_MAX];
    uint64_t asked, done, marks[DEVICE_MARKS];
} copies;

/* By mark of the computing: how much had been asked for, and how often it is still said that it is
 * not done. */
static uint64_t compute_marks[DEVICE_MARKS];
static int compute_asks[DEVICE_MARKS];

static uint64_t worked; /* launches and copies so far */

int emulate_works(void)
{
    return ++worked < emulated()->work || !emulated()->work;
}

static int device_failed(void)
{
    return emulated()->work && worked >= emulated()->work;
}

static int device_failure(struct err *e)
{
    if (!device_failed())
        return 0;
    return err_set(e, EXIT_CODE_TEMPORARY, "the GPU failed in its work number %llu (emulated)",
                   (unsigned long long)emulated()->work);
}

void emulate_open(int on)
{
    memory.depth += on ? 1 : -1;
    if (memory.depth != (on ? 1 : 0))
        return;
    if (memory.count) {
        auto *last = &memory.allocations[memory.count - 1];
        ensure(mprotect(memory.base, (uint64_t)(last->at - memory.base) + last->bytes,
                        on ? PROT_READ | PROT_WRITE : PROT_NONE) == 0);
    }
}

/* The CPU's product stands for cuBLAS's, without epilogues. */
void cuda_blas_product(struct matrix a, int a_t, struct matrix b, int b_t, float beta,
                       struct matrix c)
{
    ensure(cuda_lane < LANE_FIRST);
    emulate_ask([=] {
        emulate_open(1);
        cpu_product(a, a_t, b, b_t, beta, c);
        emulate_open(0);
    });
}

void cuda_product_half(enum half kind, struct halves a, int a_t, struct halves b, int b_t,
                       float beta, struct matrix c)
{
    ensure(cuda_lane < LANE_FIRST);
    emulate_ask([=] {
        emulate_open(1);
        cpu_product_half(kind, a, a_t, b, b_t, beta, c);
        emulate_open(0);
    });
}

int cuda_blas_product_mixed(enum half half, struct mixed a, int a_t, struct mixed b, int b_t,
                            float beta, struct mixed c)
{
    (void)half, (void)a, (void)a_t, (void)b, (void)b_t, (void)beta, (void)c;
    return 0;
}

int cuda_blas_linear(struct matrix x, struct matrix w, const float *bias, int relu, struct matrix y)
{
    (void)x, (void)w, (void)bias, (void)relu, (void)y;
    return 0;
}

int cuda_blas_gradient(struct matrix dy, struct matrix x, struct matrix dw, float *db)
{
    (void)dy, (void)x, (void)dw, (void)db;
    return 0;
}

double *cuda_partials;
float *cuda_scratch;
/* As few multiprocessors as that: small batches have more rows than them. */
int cuda_processors = 4, cuda_capability = 80;
uint64_t cuda_shared_bytes = 227 << 10;
int cuda_products_rounded;

static int device_allocate(uint64_t bytes, const char *what, void **at, struct err *e);
static void device_release(void *at);

static void device_close_emulated(void)
{
    device_release(cuda_partials);
    device_release(cuda_scratch);
    cuda_partials = NULL;
    cuda_scratch = NULL;
}

static int chosen; /* of the GPUs */

static int gpu_look(int index, struct gpu *g, struct err *e)
{
    (void)e;
    *g = emulated()->gpus[index];
    return 0;
}

static int index_choose(const char *which, struct err *e)
{
    struct gpus all = {};
    all.driver = emulated()->driver;
    all.runtime = runtime;
    all.too_old = all.driver / 1000 < runtime / 1000;
    all.count = emulated()->count;
    all.least = 75;
    all.look = gpu_look;
    return gpus_choose(&all, which, e);
}

static int device_open_emulated(const char *which, int debug, struct err *e)
{
    (void)debug;
    if (cuda_partials)
        return 0;
    emulated_read();
    if ((chosen = index_choose(which, e)) < 0)
        return -1;
    cuda_capability = emulated()->gpus[chosen].capability;
    void *partials, *scratch;
    if (device_allocate(CUDA_BLOCKS_MAX * sizeof *cuda_partials, "sums", &partials, e) < 0)
        return -1;
    cuda_partials = (double *)partials;
    if (device_allocate(CUDA_SCRATCH_FLOATS * sizeof *cuda_scratch, "sums", &scratch, e) < 0)
        return -1;
    cuda_scratch = (float *)scratch;
    memory.high = memory.context = memory.used;
    return 0;
}

static void device_facts_emulated(struct device_facts *f)
{
    memset(f, 0, sizeof *f);
    strcpy(f->name, emulated()->gpus[chosen].name);
    snprintf(f->bus, sizeof f->bus, "ffff:%02x:00.0", chosen); /* where no GPU is */
    f->index = chosen;
    f->driver = emulated()->driver;
    f->runtime = runtime;
    f->capability = cuda_capability;
    f->processors = cuda_processors;
    f->halves = 1;
    f->memory_bytes = memory_bytes;
    f->context_bytes = memory.context;
}

enum { LOCKED_MAX = 4096 };
static struct {
    const char *at[LOCKED_MAX];
    uint64_t bytes[LOCKED_MAX];
    int count;
    uint64_t used, high;
} locked;

static void device_memory_emulated(struct device_memory *m)
{
    m->used_bytes = memory.used - memory.context;
    m->high_bytes = memory.high - memory.context;
    m->locked_high_bytes = locked.high;
    m->free_bytes = memory_bytes - memory.used;
}

/* Twice the memory: what is free may lie in pieces. */
static int range_reserve(struct err *e)
{
    if (memory.base)
        return 0;
    void *range =
        mmap(NULL, 2 * memory_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot reserve addresses for an emulated device");
    memory.base = (char *)range;
    return 0;
}

/* The first gap of `bytes` and a page from there on: before which allocation, and where. */
static int gap_from(char *from, uint64_t bytes, char **at)
{
    int i = 0;
    *at = from;
    for (; i < memory.count; i++) {
        char *first = memory.allocations[i].at;
        if (first >= *at && (uint64_t)(first - *at) >= bytes + PAGE_BYTES)
            break;
        if (first + memory.allocations[i].bytes >= *at)
            *at = first + memory.allocations[i].bytes + PAGE_BYTES;
    }
    return i;
}

/* What was given back is not given out again before all else was: who still reads it does not find
 * what came after it. */
static int gap_find(uint64_t bytes, char **at)
{
    static char *next;
    int i = gap_from(next ? next : memory.base, bytes, at);
    if ((uint64_t)(*at - memory.base) + bytes > 2 * memory_bytes)
        i = gap_from(memory.base, bytes, at);
    next = *at + bytes + PAGE_BYTES;
    return i;
}

/* The limit of 1 GiB is a device's too. */
static int device_allocate(uint64_t bytes, const char *what, void **at, struct err *e)
{
    uint64_t whole = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    static uint64_t asked;
    char *place;
    *at = NULL;
    if (device_failed())
        return device_failure(e);
    if (++asked == emulated()->allocation || bytes > memory_bytes - memory.used ||
        memory.count == ALLOCATIONS_MAX)
        return err_set(e, EXIT_CODE_TEMPORARY,
                       "no device memory for %s: %llu bytes are wanted, %llu are free", what,
                       (unsigned long long)bytes, (unsigned long long)(memory_bytes - memory.used));
    if (range_reserve(e) < 0)
        return -1;
    int i = gap_find(whole, &place);
    if ((uint64_t)(place - memory.base) + whole > 2 * memory_bytes)
        return err_set(e, EXIT_CODE_TEMPORARY, "no device memory for %s in one piece", what);
    memmove(&memory.allocations[i + 1], &memory.allocations[i],
            (size_t)(memory.count - i) * sizeof *memory.allocations);
    memory.allocations[i].at = place;
    memory.allocations[i].bytes = whole;
    memory.allocations[i].asked = bytes;
    memory.count++;
    __asan_unpoison_memory_region(place, bytes);
    __asan_poison_memory_region(place + bytes, whole + PAGE_BYTES - bytes);
    if (memory.depth)
        ensure(mprotect(place, whole, PROT_READ | PROT_WRITE) == 0);
    memory.used += bytes;
    memory.high = memory.used > memory.high ? memory.used : memory.high;
    *at = place;
    return 0;
}

static void copies_until(uint64_t count)
{
    emulate_open(1);
    for (; copies.done < count; copies.done++) {
        auto *c = &copies.waiting[copies.done % COPIES_MAX];
        if (emulate_works())
            memcpy(c->to, c->from, c->bytes);
    }
    emulate_open(0);
}

static void copy_in(void *to, const void *from, uint64_t bytes)
{
    if (copies.asked - copies.done == COPIES_MAX)
        copies_until(copies.done + 1);
    auto *c = &copies.waiting[copies.asked++ % COPIES_MAX];
    c->to = to;
    c->from = from;
    c->bytes = bytes;
}

static void copy_mark(int mark)
{
    copies.marks[mark] = copies.asked;
}

static void copy_await(int mark)
{
    copies_until(copies.marks[mark]);
}

/* Each time that it is asked one more is done. */
static int copy_done(int mark)
{
    if (copies.done < copies.marks[mark])
        copies_until(copies.done + 1);
    return copies.done >= copies.marks[mark];
}

static void device_release(void *at)
{
    int i = 0;
    copies_until(copies.asked);
    emulate_finish();
    while (at && memory.allocations[i].at != at)
        ensure(++i < memory.count);
    if (!at)
        return;
    ensure(madvise(at, memory.allocations[i].bytes, MADV_DONTNEED) == 0);
    ensure(mprotect(at, memory.allocations[i].bytes, PROT_NONE) == 0);
    __asan_poison_memory_region(at, memory.allocations[i].bytes);
    memory.used -= memory.allocations[i].asked;
    memory.count--;
    memmove(&memory.allocations[i], &memory.allocations[i + 1],
            (size_t)(memory.count - i) * sizeof *memory.allocations);
}

static void locked_add(const void *at, uint64_t bytes)
{
    ensure(locked.count < LOCKED_MAX);
    locked.used += bytes;
    locked.high = locked.used > locked.high ? locked.used : locked.high;
    locked.at[locked.count] = (const char *)at;
    locked.bytes[locked.count++] = bytes;
}

static void locked_drop(const void *at)
{
    int i = 0;
    while (locked.at[i] != at)
        ensure(++i < locked.count);
    locked.used -= locked.bytes[i];
    locked.count--;
    locked.at[i] = locked.at[locked.count];
    locked.bytes[i] = locked.bytes[locked.count];
}

static int host_allocate(uint64_t bytes, const char *what, void **at, struct err *e)
{
    if (posix_memalign(at, PAGE_BYTES, bytes ? bytes : 1) != 0)
        return err_set(e, EXIT_CODE_TEMPORARY, "no page-locked memory for %s: %llu bytes", what,
                       (unsigned long long)bytes);
    memset(*at, 0, bytes);
    locked_add(*at, bytes);
    return 0;
}

static void host_release(void *at)
{
    emulate_finish();
    if (at)
        locked_drop(at);
    free(at);
}

static int host_lock(void *at, uint64_t bytes, struct err *e)
{
    (void)e;
    locked_add(at, bytes);
    return 0;
}

static void host_unlock(void *at)
{
    copies_until(copies.asked);
    emulate_finish();
    locked_drop(at);
}

static void device_copy(void *to, const void *from, uint64_t bytes)
{
    emulate_ask([=] {
        emulate_open(1);
        memmove(to, from, bytes);
        emulate_open(0);
    });
}

struct device_graph {
    struct emulate_queue work;
};

static struct device_graph *recording;

static int is_locked(const void *at)
{
    for (int i = 0; i < locked.count; i++)
        if (locked.at[i] <= (const char *)at && (const char *)at < locked.at[i] + locked.bytes[i])
            return 1;
    return 0;
}

/* Page-locked memory is read when the copy is done, other memory at once. */
static void device_upload(void *to, const void *from, uint64_t bytes)
{
    if (is_locked(from)) {
        device_copy(to, from, bytes);
        return;
    }
    void *kept = malloc(bytes ? bytes : 1);
    ensure(kept && !recording); /* freed when it is done: once */
    memcpy(kept, from, bytes);
    emulate_ask([=] {
        emulate_open(1);
        memcpy(to, kept, bytes);
        emulate_open(0);
        free(kept);
    });
}

/* At once, though what was asked for before is still to be done: it must not read `to`. */
static void device_send(void *to, const void *from, uint64_t bytes)
{
    ensure(is_locked(from));
    emulate_open(1);
    if (emulate_works())
        memcpy(to, from, bytes);
    emulate_open(0);
}

static void device_deliver(const struct device_parcel *parcels, int count)
{
    for (int i = 0; i < count; i++)
        device_send(parcels[i].by, parcels[i].from, parcels[i].bytes);
    cuda_parcels_copy(parcels, count);
}

static void device_download(void *to, const void *from, uint64_t bytes)
{
    device_copy(to, from, bytes);
    emulate_finish();
}

static void device_clear(void *at, uint64_t bytes)
{
    emulate_ask([=] {
        emulate_open(1);
        memset(at, 0, bytes);
        emulate_open(0);
    });
}

static void products_rounded(int on)
{
    cuda_products_rounded = on;
}

static int graph_begin(struct err *e)
{
    (void)e;
    recording = new device_graph();
    emulate_record(&recording->work);
    return 0;
}

static int graph_end(struct device_graph **g, struct err *e)
{
    (void)e;
    emulate_record(NULL);
    *g = recording;
    recording = NULL;
    return 0;
}

static void graph_run(struct device_graph *g)
{
    emulate_ask([=] { emulate_queue_run(&g->work); });
}

static void graph_close(struct device_graph **g)
{
    emulate_finish();
    if (*g)
        emulate_queue_end(&(*g)->work);
    delete *g;
    *g = NULL;
}

static void compute_mark(int mark)
{
    compute_marks[mark] = emulate_asked();
    compute_asks[mark] = 3;
}

static int compute_done(int mark)
{
    if (compute_asks[mark]-- > 0)
        return 0;
    emulate_until(compute_marks[mark]);
    return 1;
}

static void compute_await(int mark)
{
    emulate_until(compute_marks[mark]);
}

static void copy_wait(int mark)
{
    copies_until(copies.marks[mark]);
}

void cuda_lane_take(unsigned lane)
{
    cuda_lane = lane;
    emulate_lane_take(lane);
}

void cuda_lane_mark(unsigned mark)
{
    emulate_lane_mark(mark);
}

void cuda_lane_await(unsigned mark)
{
    emulate_lane_await(mark);
}

/* Of the tensor cores (engine/cuda/mma.h). */
static int multiplies_half(void)
{
    return cuda_capability >= 80;
}

static void compute_wait(int mark)
{
    emulate_until(compute_marks[mark]);
}

static const struct backend backend_cuda = {
    .name = "cuda",
    .lane_take = cuda_lane_take,
    .lane_mark = cuda_lane_mark,
    .lane_await = cuda_lane_await,
#define OP(name, args, names, what) .name = cuda_##name,
#include "engine/ops.def"
#undef OP
};

const struct device device_of_library = {
    .kind = "cuda",
    .backend = &backend_cuda,
    .apart = 1,
    .open = device_open_emulated,
    .close = device_close_emulated,
    .facts = device_facts_emulated,
    .memory = device_memory_emulated,
    .allocate = device_allocate,
    .release = device_release,
    .allocate_host = host_allocate,
    .release_host = host_release,
    .host_lock = host_lock,
    .host_unlock = host_unlock,
    .upload = device_upload,
    .download = device_download,
    .send = device_send,
    .deliver = device_deliver,
    .download_later = device_copy,
    .copy = device_copy,
    .clear = device_clear,
    .wait = emulate_finish,
    .failure = device_failure,
    .products_rounded = products_rounded,
    .multiplies_half = multiplies_half,
    .graph_begin = graph_begin,
    .graph_end = graph_end,
    .graph_run = graph_run,
    .graph_close = graph_close,
    .copy_in = copy_in,
    .copy_out = copy_in,
    .copy_mark = copy_mark,
    .copy_await = copy_await,
    .copy_done = copy_done,
    .copy_wait = copy_wait,
    .compute_mark = compute_mark,
    .compute_await = compute_await,
    .compute_wait = compute_wait,
    .compute_done = compute_done,
};
