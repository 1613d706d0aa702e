/* device.cu - a GPU as a device: context, memory, copies, marks and recorded sequences.
 *
 * Streams: computing, in several lanes (engine/ops.h); copies that run beside it; and small ones
 * that computing waits for. Errors of calls and launches are kept, the first one, until somebody
 * asks.
 */
#include <cublas_v2.h>
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/cuda/cuda.h"
#include "engine/cuda/early.h"
#include "engine/cuda/gpus.h"
#include "engine/cuda/handle.h"

extern "C" {
#include "engine/device.h"
extern const struct device device_of_library;
}

enum { ALLOCATIONS_MAX = 4096 };

/* Those of the lane that is taken. */
cudaStream_t cuda_stream;
cublasHandle_t cuda_handle;
void *cuda_workspace;
unsigned cuda_lane;
double *cuda_partials;
float *cuda_scratch;
int cuda_products_rounded;
int cuda_joined[LANES];
int cuda_processors, cuda_capability;
uint64_t cuda_shared_bytes;

static struct {
    int open, debug, index;
    cudaStream_t copies, sends;
    cudaEvent_t sent;
    struct {
        cudaStream_t stream;
        cublasHandle_t handle;
        void *workspace;
    } lanes[LANES];
    cudaEvent_t lane_marks[LANE_MARKS];
    cudaEvent_t marks[2][DEVICE_MARKS]; /* on the copy stream, on the computing stream */
    cudaError_t error;
    char what[128];
    struct {
        void *at;
        uint64_t bytes;
    } allocations[ALLOCATIONS_MAX];
    int count;
    uint64_t used, high, context_bytes;
    struct {
        const void *at;
        uint64_t bytes;
    } locked[ALLOCATIONS_MAX]; /* of the host's memory */
    int locked_count;
    uint64_t locked_used, locked_high;
    size_t left;      /* as the driver said */
    time_t left_at_s; /* then; 0: it is another one since */
} device;

void cuda_note(cudaError_t error, const char *what)
{
    if (error == cudaSuccess || device.error != cudaSuccess)
        return;
    device.error = error;
    snprintf(device.what, sizeof device.what, "%s", what);
}

#define CU(call) cuda_note((call), #call)

void cuda_launched(const char *kernel)
{
    cuda_joined[cuda_lane] = 0;
    cuda_note(cudaGetLastError(), kernel);
    if (device.debug)
        cuda_note(cudaStreamSynchronize(cuda_stream), kernel);
}

void cuda_blas(cublasStatus_t status, const char *what)
{
    if (status != CUBLAS_STATUS_SUCCESS)
        cuda_note(status == CUBLAS_STATUS_ALLOC_FAILED ? cudaErrorMemoryAllocation
                                                       : cudaErrorUnknown,
                  what);
}

/* Would a process that is started again meet it again? What is missing, or does not go together.
 * All else a GPU may get over, or the one that fell off its bus is missed by the next process. */
static int failure_stays(cudaError_t error)
{
    switch (error) {
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorStubLibrary:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
        return 1;
    default:
        return 0;
    }
}

static int failure_set(struct err *e, cudaError_t error, const char *doing)
{
    return err_set(e, failure_stays(error) ? EXIT_CODE_PERMANENT : EXIT_CODE_TEMPORARY,
                   "%s: %s (%s)", doing, cudaGetErrorString(error), cudaGetErrorName(error));
}

static int device_failure(struct err *e)
{
    cudaError_t error = device.error;
    device.error = cudaSuccess;
    if (error == cudaSuccess)
        return 0;
    char doing[256];
    snprintf(doing, sizeof doing, "the GPU failed in %s", device.what);
    return failure_set(e, error, doing);
}

static int gpu_look(int index, struct gpu *g, struct err *e)
{
    struct cudaDeviceProp p;
    cudaError_t error = cudaGetDeviceProperties(&p, index);
    if (error != cudaSuccess)
        return failure_set(e, error, "cannot compute on device cuda");
    snprintf(g->name, sizeof g->name, "%s", p.name);
    g->capability = 10 * p.major + p.minor;
    return 0;
}

static int index_choose(const char *which, struct err *e)
{
    struct gpus all = {};
    cudaDriverGetVersion(&all.driver);
    cudaRuntimeGetVersion(&all.runtime);
    cudaError_t error = cudaGetDeviceCount(&all.count);
    all.too_old = error == cudaErrorInsufficientDriver;
    all.count = error == cudaSuccess ? all.count : 0;
    all.least = CUDA_LEAST_CAPABILITY; /* the Makefile's least SM */
    all.look = gpu_look;
    if (all.driver && !all.too_old && error != cudaSuccess && error != cudaErrorNoDevice)
        return failure_set(e, error, "cannot compute on device cuda");
    return gpus_choose(&all, which, e);
}

void cuda_lane_take(unsigned lane)
{
    cuda_lane = lane;
    cuda_stream = device.lanes[lane].stream;
    cuda_handle = device.lanes[lane].handle;
    cuda_workspace = device.lanes[lane].workspace;
}

void cuda_lane_mark(unsigned mark)
{
    CU(cudaEventRecord(device.lane_marks[mark], cuda_stream));
}

void cuda_lane_await(unsigned mark)
{
    cuda_joined[cuda_lane] = 1;
    CU(cudaStreamWaitEvent(cuda_stream, device.lane_marks[mark], 0));
}

static uint64_t workspace_bytes(int lane)
{
    return lane == LANE_MAIN ? CUDA_WORKSPACE_BYTES : CUDA_WORKSPACE_BYTES / 2;
}

/* Where there are few blocks they are those of steps that are waited for: they go first, and what
 * LANE_PRODUCTS has, which is waited for at the end, goes last. (Greater numbers: later.) */
static void lanes_open(void)
{
    int least = 0, first = 0;
    CU(cudaDeviceGetStreamPriorityRange(&least, &first));
    for (int i = 0; i < LANES; i++) {
        auto *lane = &device.lanes[i];
        int priority = i >= LANE_FIRST ? first : i == LANE_PRODUCTS ? least : (least + first) / 2;
        CU(cudaStreamCreateWithPriority(&lane->stream, cudaStreamNonBlocking, priority));
        if (i >= LANE_FIRST)
            continue;
        CU(cudaMalloc(&lane->workspace, workspace_bytes(i)));
        cuda_blas(cublasCreate(&lane->handle), "cublasCreate");
        cuda_blas(cublasSetStream(lane->handle, lane->stream), "cublasSetStream");
        cuda_blas(cublasSetWorkspace(lane->handle, lane->workspace, workspace_bytes(i)),
                  "cublasSetWorkspace");
    }
    for (int i = 0; i < LANE_MARKS; i++)
        CU(cudaEventCreateWithFlags(&device.lane_marks[i], cudaEventDisableTiming));
    cuda_lane_take(LANE_MAIN);
}

static void lanes_close(void)
{
    for (int i = 0; i < LANES; i++) {
        cudaStreamSynchronize(device.lanes[i].stream);
        if (device.lanes[i].handle)
            cublasDestroy(device.lanes[i].handle);
        cudaFree(device.lanes[i].workspace);
        cudaStreamDestroy(device.lanes[i].stream);
    }
    for (int i = 0; i < LANE_MARKS; i++)
        cudaEventDestroy(device.lane_marks[i]);
    memset(device.lanes, 0, sizeof device.lanes);
}

static void products_rounded(int on)
{
    /* Parts of a sum whose result has 16 bits are float32's, as the sum is: they may be too large
     * for 16. */
    int rounded = CUBLAS_TF32_TENSOR_OP_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
    cuda_products_rounded = on;
    for (int i = 0; i < LANE_FIRST; i++)
        cuda_blas(cublasSetMathMode(device.lanes[i].handle,
                                    on ? (cublasMath_t)rounded : CUBLAS_PEDANTIC_MATH),
                  "cublasSetMathMode");
}

static void device_close(void)
{
    if (!device.open)
        return;
    lanes_close();
    cudaFree(cuda_partials);
    cudaFree(cuda_scratch);
    for (int i = 0; i < DEVICE_MARKS; i++)
        for (int k = 0; k < 2; k++)
            cudaEventDestroy(device.marks[k][i]);
    cudaEventDestroy(device.sent);
    cudaStreamDestroy(device.sends);
    cudaStreamDestroy(device.copies);
    cudaDeviceReset(); /* the context's memory, too */
    device.open = 0;
}

static uint64_t context_measure(size_t before)
{
    size_t after = 0, total = 0;
    uint64_t ours = CUDA_BLOCKS_MAX * sizeof *cuda_partials;
    ours += CUDA_SCRATCH_FLOATS * sizeof *cuda_scratch;
    for (int i = 0; i < LANE_FIRST; i++)
        ours += workspace_bytes(i);
    CU(cudaMemGetInfo(&after, &total));
    return gpus_context_bytes(before, after, ours);
}

static int device_open(const char *which, int debug, struct err *e)
{
    size_t before = 0, total = 0;
    struct cudaDeviceProp p;
    if (device.open)
        return 0;
    if (debug) /* read when the driver starts */
        setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
    else
        unsetenv("CUDA_LAUNCH_BLOCKING");
    if ((device.index = index_choose(which, e)) < 0)
        return -1;
    cudaError_t error = cudaGetDeviceProperties(&p, device.index);
    if (error != cudaSuccess)
        return failure_set(e, error, "cannot compute on device cuda");
    cuda_processors = p.multiProcessorCount;
    cuda_capability = 10 * p.major + p.minor;
    cuda_shared_bytes = p.sharedMemPerBlockOptin;
    device.debug = debug;
    device.error = cudaSuccess;
    CU(cudaSetDevice(device.index));
    /* the context is made by the first call that needs it: what it takes is seen from the total */
    CU(cudaFree(NULL));
    CU(cudaMemGetInfo(&before, &total));
    CU(cudaStreamCreateWithFlags(&device.copies, cudaStreamNonBlocking));
    CU(cudaStreamCreateWithFlags(&device.sends, cudaStreamNonBlocking));
    CU(cudaEventCreateWithFlags(&device.sent, cudaEventDisableTiming));
    for (int i = 0; i < DEVICE_MARKS; i++)
        for (int k = 0; k < 2; k++)
            CU(cudaEventCreateWithFlags(&device.marks[k][i], cudaEventDisableTiming));
    CU(cudaMalloc(&cuda_partials, CUDA_BLOCKS_MAX * sizeof *cuda_partials));
    CU(cudaMalloc(&cuda_scratch, CUDA_SCRATCH_FLOATS * sizeof *cuda_scratch));
    lanes_open();
    products_rounded(0);
    device.context_bytes = context_measure(before);
    device.open = 1;
    if (device_failure(e) == 0)
        return 0;
    device_close();
    return -1;
}

static void device_facts_get(struct device_facts *f)
{
    struct cudaDeviceProp p;
    memset(f, 0, sizeof *f);
    CU(cudaGetDeviceProperties(&p, device.index));
    snprintf(f->name, sizeof f->name, "%s", p.name);
    if (cudaDeviceGetPCIBusId(f->bus, sizeof f->bus, device.index) != cudaSuccess) {
        f->bus[0] = 0; /* it computes all the same */
        cudaGetLastError();
    }
    f->index = device.index;
    f->capability = 10 * p.major + p.minor;
    f->processors = p.multiProcessorCount;
    f->halves = f->capability >= 80;
    f->memory_bytes = p.totalGlobalMem;
    f->context_bytes = device.context_bytes;
    cudaDriverGetVersion(&f->driver);
    cudaRuntimeGetVersion(&f->runtime);
}

static void device_memory_get(struct device_memory *m)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!device.left_at_s || now.tv_sec > device.left_at_s) {
        size_t total = 0;
        CU(cudaMemGetInfo(&device.left, &total));
        device.left_at_s = now.tv_sec;
    }
    m->free_bytes = device.left;
    m->used_bytes = device.used;
    m->high_bytes = device.high;
    m->locked_high_bytes = device.locked_high;
}

static int device_allocate(uint64_t bytes, const char *what, void **at, struct err *e)
{
    *at = NULL;
    ensure(device.count < ALLOCATIONS_MAX);
    cudaError_t error = cudaMalloc(at, bytes);
    if (error != cudaSuccess) {
        size_t left = 0, total = 0;
        cudaGetLastError(); /* it does not stick */
        cudaMemGetInfo(&left, &total);
        return err_set(e, EXIT_CODE_TEMPORARY,
                       "no device memory for %s: %llu MiB are wanted, %llu of %llu are free (%s)",
                       what, (unsigned long long)(bytes >> 20), (unsigned long long)(left >> 20),
                       (unsigned long long)(total >> 20), cudaGetErrorString(error));
    }
    CU(cudaMemsetAsync(*at, 0, bytes, cuda_stream));
    CU(cudaStreamSynchronize(cuda_stream)); /* the other streams may write there at once */
    device.allocations[device.count].at = *at;
    device.allocations[device.count++].bytes = bytes;
    device.used += bytes;
    device.left_at_s = 0;
    device.high = device.used > device.high ? device.used : device.high;
    return 0;
}

static void device_release(void *at)
{
    int i = 0;
    while (at && device.allocations[i].at != at)
        ensure(++i < device.count);
    if (!at)
        return;
    CU(cudaStreamSynchronize(device.copies));
    CU(cudaStreamSynchronize(cuda_stream));
    CU(cudaFree(at));
    device.used -= device.allocations[i].bytes;
    device.left_at_s = 0;
    device.allocations[i] = device.allocations[--device.count];
}

static void locked_add(const void *at, uint64_t bytes)
{
    ensure(device.locked_count < ALLOCATIONS_MAX);
    device.locked[device.locked_count].at = at;
    device.locked[device.locked_count++].bytes = bytes;
    device.locked_used += bytes;
    if (device.locked_used > device.locked_high)
        device.locked_high = device.locked_used;
}

static void locked_drop(const void *at)
{
    int i = 0;
    while (device.locked[i].at != at)
        ensure(++i < device.locked_count);
    device.locked_used -= device.locked[i].bytes;
    device.locked[i] = device.locked[--device.locked_count];
}

static int host_allocate(uint64_t bytes, const char *what, void **at, struct err *e)
{
    cudaError_t error = cudaMallocHost(at, bytes ? bytes : 1);
    if (error != cudaSuccess) {
        cudaGetLastError();
        return err_set(e, EXIT_CODE_TEMPORARY, "no page-locked memory for %s: %llu MiB (%s)", what,
                       (unsigned long long)(bytes >> 20), cudaGetErrorString(error));
    }
    memset(*at, 0, bytes);
    locked_add(*at, bytes);
    return 0;
}

static void host_release(void *at)
{
    if (!at)
        return;
    locked_drop(at);
    CU(cudaFreeHost(at));
}

/* Through the driver API: its errors do not stick. */
static int host_lock(void *at, uint64_t bytes, struct err *e)
{
    CUresult result = cuMemHostRegister(at, bytes, CU_MEMHOSTREGISTER_PORTABLE);
    const char *why = "unknown";
    if (result == CUDA_SUCCESS) {
        locked_add(at, bytes);
        return 0;
    }
    cuGetErrorString(result, &why);
    return err_set(e, EXIT_CODE_TEMPORARY, "cannot page-lock %llu bytes of memory: %s",
                   (unsigned long long)bytes, why);
}

static void host_unlock(void *at)
{
    cudaStreamSynchronize(device.copies);
    cudaStreamSynchronize(cuda_stream);
    cuMemHostUnregister(at);
    locked_drop(at);
}

static void device_upload(void *to, const void *from, uint64_t bytes)
{
    CU(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cuda_stream));
}

static void device_send(void *to, const void *from, uint64_t bytes)
{
    CU(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, device.sends));
    CU(cudaEventRecord(device.sent, device.sends));
    CU(cudaStreamWaitEvent(cuda_stream, device.sent, 0));
}

static void device_deliver(const struct device_parcel *parcels, int count)
{
    for (int i = 0; i < count; i++)
        CU(cudaMemcpyAsync(parcels[i].by, parcels[i].from, parcels[i].bytes, cudaMemcpyHostToDevice,
                           device.sends));
    CU(cudaEventRecord(device.sent, device.sends));
    CU(cudaStreamWaitEvent(cuda_stream, device.sent, 0));
    cuda_parcels_copy(parcels, count);
}

static void device_wait(void)
{
    CU(cudaStreamSynchronize(cuda_stream));
}

static void device_download(void *to, const void *from, uint64_t bytes)
{
    CU(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda_stream));
    device_wait();
}

static void download_later(void *to, const void *from, uint64_t bytes)
{
    CU(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda_stream));
}

static void device_copy(void *to, const void *from, uint64_t bytes)
{
    CU(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda_stream));
}

/* A few numbers that a step begins with: its first kernel may then be launched early, too. */
enum { CLEAR_THREADS = 256 };

__global__ void words_clear(uint64_t *at, uint64_t count)
{
    launch_wait();
    if (threadIdx.x < count)
        at[threadIdx.x] = 0;
}

static void device_clear(void *at, uint64_t bytes)
{
    if (bytes <= CLEAR_THREADS * sizeof(uint64_t) && bytes % sizeof(uint64_t) == 0 &&
        (uintptr_t)at % sizeof(uint64_t) == 0)
        LAUNCH_EARLY(words_clear, 1, CLEAR_THREADS, (uint64_t *)at, bytes / sizeof(uint64_t));
    else
        CU(cudaMemsetAsync(at, 0, bytes, cuda_stream));
}

struct device_graph {
    cudaGraphExec_t run;
};

static int graph_begin(struct err *e)
{
    if (device.debug) /* each launch is waited for */
        return err_set(e, EXIT_CODE_TEMPORARY, "with debug_mode steps are not recorded");
    cudaError_t error = cudaStreamBeginCapture(cuda_stream, cudaStreamCaptureModeThreadLocal);
    return error == cudaSuccess ? 0 : failure_set(e, error, "cannot record the step");
}

static int graph_end(struct device_graph **g, struct err *e)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t run = NULL;
    *g = NULL;
    cudaError_t error = cudaStreamEndCapture(cuda_stream, &graph);
    if (error == cudaSuccess)
        error = cudaGraphInstantiate(&run, graph, cudaGraphInstantiateFlagUseNodePriority);
    if (graph && error != cudaSuccess) { /* then without the lanes' priorities */
        cudaGetLastError();
        error = cudaGraphInstantiate(&run, graph, 0);
    }
    if (graph)
        cudaGraphDestroy(graph);
    /* what memory it takes there it takes now, while the step can still be made without it */
    if (error == cudaSuccess && (error = cudaGraphUpload(run, cuda_stream)) != cudaSuccess)
        cudaGraphExecDestroy(run);
    if (error != cudaSuccess) {
        cudaGetLastError();
        device.error = cudaSuccess; /* nothing of it was done: it is done without */
        return failure_set(e, error, "cannot record the step");
    }
    *g = (struct device_graph *)malloc(sizeof **g);
    if (!*g)
        cudaGraphExecDestroy(run);
    if (!*g)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot record the step");
    (*g)->run = run;
    return 0;
}

static void graph_run(struct device_graph *g)
{
    CU(cudaGraphLaunch(g->run, cuda_stream));
}

static void graph_close(struct device_graph **g)
{
    if (!*g)
        return;
    CU(cudaStreamSynchronize(cuda_stream));
    CU(cudaGraphExecDestroy((*g)->run));
    free(*g);
    *g = NULL;
}

static void copy_in(void *to, const void *from, uint64_t bytes)
{
    CU(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, device.copies));
}

static void copy_out(void *to, const void *from, uint64_t bytes)
{
    CU(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, device.copies));
}

static void copy_mark(int mark)
{
    CU(cudaEventRecord(device.marks[0][mark], device.copies));
}

static void copy_await(int mark)
{
    CU(cudaStreamWaitEvent(cuda_stream, device.marks[0][mark], 0));
}

/* A stream that failed is done, too. */
static int event_done(cudaEvent_t event)
{
    cudaError_t error = cudaEventQuery(event);
    if (error != cudaErrorNotReady)
        CU(error);
    return error != cudaErrorNotReady;
}

static int copy_done(int mark)
{
    return event_done(device.marks[0][mark]);
}

static void copy_wait(int mark)
{
    CU(cudaEventSynchronize(device.marks[0][mark]));
}

static void compute_mark(int mark)
{
    CU(cudaEventRecord(device.marks[1][mark], cuda_stream));
}

static void compute_await(int mark)
{
    CU(cudaStreamWaitEvent(device.copies, device.marks[1][mark], 0));
}

/* Of the tensor cores (engine/cuda/mma.h). */
static int multiplies_half(void)
{
    return cuda_capability >= 80;
}

static void compute_wait(int mark)
{
    CU(cudaEventSynchronize(device.marks[1][mark]));
}

static int compute_done(int mark)
{
    return event_done(device.marks[1][mark]);
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
    .open = device_open,
    .close = device_close,
    .facts = device_facts_get,
    .memory = device_memory_get,
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
    .download_later = download_later,
    .copy = device_copy,
    .clear = device_clear,
    .wait = device_wait,
    .failure = device_failure,
    .products_rounded = products_rounded,
    .multiplies_half = multiplies_half,
    .graph_begin = graph_begin,
    .graph_end = graph_end,
    .graph_run = graph_run,
    .graph_close = graph_close,
    .copy_in = copy_in,
    .copy_out = copy_out,
    .copy_mark = copy_mark,
    .copy_await = copy_await,
    .copy_done = copy_done,
    .copy_wait = copy_wait,
    .compute_mark = compute_mark,
    .compute_await = compute_await,
    .compute_wait = compute_wait,
    .compute_done = compute_done,
};
