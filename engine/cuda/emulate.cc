/* emulate.cc - a block's threads as fibers: see emulate.h.
 *
 * A fiber runs thread after thread; where one waits at a barrier it keeps its stack, and another
 * fiber goes on with the threads that have not begun. A kernel without barriers therefore runs in
 * one fiber, and nothing changes. When all threads have begun, those that wait are let on: the
 * whole block if all wait at __syncthreads, else each warp whose lanes all wait at a warp's
 * barrier. Where neither is so the barrier is divergent: the kernel is wrong, and that ends the
 * process.
 */
#include "engine/cuda/emulate.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/ops.h"

extern "C" {
#include "proto/err.h"
}

enum { THREADS_MAX = 1024, WARP = 32, STACK_BYTES = 64 * 1024, SHARED_BYTES_MAX = 232448 };
/* Stacks begin at different offsets in their pages: were all the same, the first lines of all of
 * them would want the same few places of the caches. */
enum { STACK_COLOURS = 61, STACK_COLOUR_BYTES = 5 * 64 };
/* At the far end of each: a thread that needs more writes over it. */
static const uint64_t stack_mark = 0x656e6f7473646e65;

/* Which barrier a thread waits at. */
enum waiting { WAITS_NOT, WAITS_BLOCK, WAITS_WARP };

struct fiber {
    void *stack, *stack_pointer;
    unsigned thread; /* the one it runs */
};

struct lane {
    enum waiting waiting;
    int ended, parity; /* of the warp's exchanges */
    unsigned mask;
    struct fiber *fiber;
};

static struct {
    const char *kernel;
    struct emulate_work *body; /* a thread's */
    unsigned begun, threads, ended;
    int backwards; /* the threads begin from the last one on */
    struct lane lanes[THREADS_MAX];
    uint64_t exchanged[2][THREADS_MAX]; /* alternately: a lane is at most one exchange ahead */
    struct fiber fibers[THREADS_MAX];
    struct fiber *idle[THREADS_MAX];
    unsigned fiber_count, idle_count;
    struct fiber *now;
    void *scheduler;
    int active;
} block;

uint3_emulated threadIdx, blockIdx;
dim3 blockDim, gridDim;

static __align__(16) char shared[SHARED_BYTES_MAX];

void *emulate_shared(void)
{
    return shared;
}

#if defined(__x86_64__)
/* Saves what a call must not change and the stack pointer, and goes on where the other left off. */
extern "C" void emulate_switch(void **save, void *to);
asm(".text\n.globl emulate_switch\n.hidden emulate_switch\n.type emulate_switch,@function\n"
    "emulate_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n");
#else
#error "kernels are emulated on x86-64 only"
#endif

static void thread_set(unsigned thread)
{
    threadIdx = {thread, 0, 0};
    if (thread < blockDim.x)
        return; /* divisions cost more than the rest of a switch */
    threadIdx.x = thread % blockDim.x;
    threadIdx.y = thread / blockDim.x % blockDim.y;
    threadIdx.z = thread / (blockDim.x * blockDim.y);
}

static void fiber_main(void)
{
    for (;;) {
        while (block.begun < block.threads) {
            struct fiber *f = block.now;
            unsigned nth = block.begun++;
            f->thread = block.backwards ? block.threads - 1 - nth : nth;
            block.lanes[f->thread].fiber = f;
            thread_set(f->thread);
            block.body->run(block.body);
            block.now->thread = f->thread;
            block.lanes[f->thread].ended = 1;
            block.ended++;
        }
        struct fiber *f = block.now;
        block.idle[block.idle_count++] = f;
        emulate_switch(&f->stack_pointer, block.scheduler);
    }
}

/* The stacks of all fibers, in large pages where the kernel has them: a switch would else cost a
 * walk through the page tables. */
static char *stacks_map(void)
{
    static char *stacks;
    const size_t large = (size_t)2 << 20, bytes = (size_t)THREADS_MAX * STACK_BYTES;
    if (stacks)
        return stacks;
    void *map = mmap(NULL, bytes + large, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ensure(map != MAP_FAILED);
    stacks = (char *)map + (large - (uintptr_t)map % large) % large;
    madvise(stacks, bytes, MADV_HUGEPAGE);
    return stacks;
}

static struct fiber *fiber_take(void)
{
    if (block.idle_count)
        return block.idle[--block.idle_count];
    size_t colour = block.fiber_count % STACK_COLOURS * STACK_COLOUR_BYTES;
    struct fiber *f = &block.fibers[block.fiber_count++];
    f->stack = stacks_map() + (size_t)(f - block.fibers) * STACK_BYTES;
    memcpy(f->stack, &stack_mark, sizeof stack_mark);
    void **top = (void **)((char *)f->stack + STACK_BYTES - colour);
    top--; /* a return address that nobody uses: the stack is aligned as after a call */
    *--top = (void *)fiber_main;
    for (int i = 0; i < 6; i++)
        *--top = NULL;
    f->stack_pointer = top;
    return f;
}

static void fiber_run(struct fiber *f)
{
    block.now = f;
    emulate_switch(&block.scheduler, f->stack_pointer);
}

static void thread_wait(enum waiting waiting, unsigned mask)
{
    struct fiber *f = block.now;
    unsigned thread = f->thread;
    ensure(block.active);
    block.lanes[thread].waiting = waiting;
    block.lanes[thread].mask = mask;
    emulate_switch(&f->stack_pointer, block.scheduler);
    block.now = f;
    thread_set(thread);
}

void __syncthreads(void)
{
    thread_wait(WAITS_BLOCK, 0);
}

void __syncwarp(unsigned mask)
{
    thread_wait(WAITS_WARP, mask);
}

unsigned emulate_lane(void)
{
    return block.now->thread % WARP;
}

uint64_t emulate_exchange(unsigned mask, uint64_t value, unsigned lane)
{
    unsigned thread = block.now->thread, first = thread / WARP * WARP;
    int parity = block.lanes[thread].parity ^= 1;
    ensure(mask >> (thread - first) & 1);
    block.exchanged[parity][thread] = value;
    thread_wait(WAITS_WARP, mask);
    if (!(mask >> lane & 1) || first + lane >= block.threads) {
        fprintf(stderr, "emulated kernel %s reads lane %u, which takes no part\n", block.kernel,
                lane);
        abort();
    }
    return block.exchanged[parity][first + lane];
}

unsigned emulate_ballot(unsigned mask, int x)
{
    unsigned thread = block.now->thread, first = thread / WARP * WARP, bits = 0;
    int parity = block.lanes[thread].parity ^= 1;
    block.exchanged[parity][thread] = x != 0;
    thread_wait(WAITS_WARP, mask);
    for (unsigned lane = 0; lane < WARP && first + lane < block.threads; lane++)
        if (mask >> lane & 1)
            bits |= (unsigned)block.exchanged[parity][first + lane] << lane;
    return bits;
}

/* All live threads wait for the block: they go on. */
static int block_release(void)
{
    for (unsigned i = 0; i < block.threads; i++)
        if (!block.lanes[i].ended && block.lanes[i].waiting != WAITS_BLOCK)
            return 0;
    for (unsigned i = 0; i < block.threads; i++)
        block.lanes[i].waiting = WAITS_NOT;
    return 1;
}

/* All lanes that the mask of this one names wait for the warp with the same mask: they go on. */
static int warp_release(unsigned thread)
{
    unsigned first = thread / WARP * WARP, mask = block.lanes[thread].mask;
    for (unsigned lane = 0; lane < WARP; lane++) {
        struct lane *l = &block.lanes[first + lane];
        if ((mask >> lane & 1) && first + lane < block.threads &&
            (l->ended || l->waiting != WAITS_WARP || l->mask != mask))
            return 0;
    }
    for (unsigned lane = 0; lane < WARP && first + lane < block.threads; lane++)
        if (mask >> lane & 1)
            block.lanes[first + lane].waiting = WAITS_NOT;
    return 1;
}

static void divergent(void)
{
    unsigned counts[3] = {0};
    for (unsigned i = 0; i < block.threads; i++)
        if (!block.lanes[i].ended)
            counts[block.lanes[i].waiting]++;
    fprintf(
        stderr,
        "emulated kernel %s: divergent barrier in block (%u, %u, %u): %u threads ended, %u wait "
        "for the block, %u for their warp\n",
        block.kernel, blockIdx.x, blockIdx.y, blockIdx.z, block.ended, counts[WAITS_BLOCK],
        counts[WAITS_WARP]);
    abort();
}

static void block_run(void)
{
    block.begun = block.ended = 0;
    memset(block.lanes, 0, block.threads * sizeof *block.lanes);
    while (block.begun < block.threads)
        fiber_run(fiber_take());
    while (block.ended < block.threads) {
        int released = block_release();
        for (unsigned i = 0; !released && i < block.threads; i++)
            if (block.lanes[i].waiting == WAITS_WARP && !block.lanes[i].ended)
                released |= warp_release(i);
        released = 0;
        for (unsigned i = 0; i < block.threads; i++)
            if (!block.lanes[i].ended && block.lanes[i].waiting == WAITS_NOT) {
                released = 1;
                fiber_run(block.lanes[i].fiber);
            }
        if (!released)
            divergent();
    }
}

static unsigned chance(unsigned below)
{
    static uint64_t state = 1;
    return (unsigned)(scalar_mix64(state++) % below);
}

/* The largest that divides both. */
static uint64_t divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b, b = rest;
    }
    return a;
}

/* In another order each time, as on a GPU: what is not the same then depends on it. From anywhere
 * on, in steps that come by each of them because they have no divisor with their number in common.
 */
static void blocks_run(void)
{
    const uint64_t rows = gridDim.y, count = (uint64_t)gridDim.x * rows * gridDim.z;
    uint64_t step = 1 + chance((unsigned)count), at = chance((unsigned)count);
    ensure(count <= UINT32_MAX);
    while (divisor(step, count) != 1)
        step = step % count + 1;
    block.backwards = (int)chance(2);
    for (uint64_t done = 0; done < count; done++, at = (at + step) % count) {
        blockIdx.x = (unsigned)(at % gridDim.x);
        blockIdx.y = (unsigned)(at / gridDim.x % rows);
        blockIdx.z = (unsigned)(at / gridDim.x / rows);
        block_run();
    }
}

static void launch(const char *kernel, dim3 blocks, dim3 threads, struct emulate_work *body)
{
    ensure(!block.active);
    block.kernel = kernel;
    block.body = body;
    block.threads = threads.x * threads.y * threads.z;
    ensure(block.threads >= 1 && block.threads <= THREADS_MAX);
    block.active = 1;
    emulate_open(1);
    gridDim = blocks;
    blockDim = threads;
    blocks_run();
    emulate_open(0);
    block.active = 0;
    for (unsigned i = 0; i < block.fiber_count; i++)
        ensure(memcmp(block.fibers[i].stack, &stack_mark, sizeof stack_mark) == 0);
}

struct launch_work : emulate_work {
    const char *kernel;
    dim3 blocks, threads;
    struct emulate_work *body;
};

static void launch_run(struct emulate_work *w)
{
    struct launch_work *l = static_cast<struct launch_work *>(w);
    launch(l->kernel, l->blocks, l->threads, l->body);
}

static void launch_end(struct emulate_work *w)
{
    struct launch_work *l = static_cast<struct launch_work *>(w);
    l->body->end(l->body);
    delete l;
}

void emulate_launch(const char *kernel, dim3 blocks, dim3 threads, size_t shared_bytes,
                    struct emulate_work *body)
{
    ensure(blocks.x && blocks.y && blocks.z && blocks.y <= 65535 && blocks.z <= 65535);
    ensure(shared_bytes <= SHARED_BYTES_MAX);
    struct launch_work *l = new launch_work;
    l->run = launch_run, l->end = launch_end, l->next = l->awaited = NULL;
    l->kernel = kernel, l->blocks = blocks, l->threads = threads, l->body = body;
    emulate_take(l);
}

/* ---- what is asked, and done later ---- */

static struct emulate_queue asked, *recorded;
static uint64_t asked_count, done_count;       /* since the start, of what is not recorded */
static struct emulate_work *marks[LANE_MARKS]; /* set in the queue that is asked, NULL: not there */
static unsigned lane_taken;

void emulate_take(struct emulate_work *work)
{
    struct emulate_queue *q = recorded ? recorded : &asked;
    asked_count += q == &asked;
    work->lane = lane_taken;
    work->done = 0;
    *(q->first ? &q->last->next : &q->first) = work;
    q->last = work;
}

void emulate_lane_take(unsigned lane)
{
    lane_taken = lane;
}

static void nothing(void)
{
}

void emulate_lane_mark(unsigned mark)
{
    ensure(mark < LANE_MARKS);
    marks[mark] = emulate_bind(nothing);
    emulate_take(marks[mark]);
}

void emulate_lane_await(unsigned mark)
{
    struct emulate_work *w = emulate_bind(nothing);
    ensure(mark < LANE_MARKS && marks[mark]); /* nothing would be awaited */
    w->awaited = marks[mark];
    emulate_take(w);
}

/* The first of the lane's work from w on. */
static struct emulate_work *lane_next(struct emulate_work *w, unsigned lane)
{
    while (w && w->lane != lane)
        w = w->next;
    return w;
}

/* Lane after lane as far as it comes, now and then interrupted; which one is left to chance. */
void emulate_queue_run(const struct emulate_queue *q)
{
    struct emulate_work *at[LANES];
    unsigned left = 0, lane = LANE_MAIN;
    for (unsigned i = 0; i < LANES; i++)
        left += (at[i] = lane_next(q->first, i)) != NULL;
    for (struct emulate_work *w = q->first; w; w = w->next)
        w->done = 0;
    while (left) {
        struct emulate_work *w = at[lane];
        if (!w || (w->awaited && !w->awaited->done) || (left > 1 && chance(8) == 0)) {
            lane = chance(LANES);
            continue;
        }
        if (emulate_works())
            w->run(w);
        w->done = 1; /* of a device that has failed, too */
        at[lane] = lane_next(w->next, lane);
        left -= at[lane] == NULL;
    }
}

void emulate_queue_end(struct emulate_queue *q)
{
    for (struct emulate_work *w = q->first, *next; w; w = next) {
        next = w->next;
        w->end(w);
    }
    *q = {};
}

uint64_t emulate_asked(void)
{
    return asked_count;
}

/* Takes from the queue that is asked what is to be done until so many are. */
static struct emulate_queue queue_cut(uint64_t count)
{
    struct emulate_queue cut = {asked.first, asked.first};
    while (++done_count < count)
        cut.last = cut.last->next;
    asked.first = cut.last->next;
    cut.last->next = NULL;
    return cut;
}

void emulate_until(uint64_t count)
{
    if (count <= done_count)
        return;
    struct emulate_queue now = queue_cut(count);
    emulate_open(1); /* once for all of them */
    emulate_queue_run(&now);
    emulate_open(0);
    for (struct emulate_work *w = asked.first; w; w = w->next)
        if (w->awaited && w->awaited->done)
            w->awaited = NULL;
    for (struct emulate_work *&mark : marks)
        mark = mark && mark->done ? NULL : mark;
    emulate_queue_end(&now);
}

void emulate_finish(void)
{
    emulate_until(asked_count);
}

void emulate_record(struct emulate_queue *to)
{
    ensure(lane_taken == LANE_MAIN);
    memset(marks, 0, sizeof marks);
    recorded = to;
}
