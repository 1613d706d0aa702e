/* kernel_times.c - when each kernel and copy of a process ran on the GPU, by CUPTI: a library that
 * CUDA loads into any program, for gpu_check.py.
 *
 *   CUDA_INJECTION64_PATH=.../libkernel-times.so KERNEL_TIMES=FILE PROGRAM ...
 *
 * FILE has a line for each: when it began and ended, nanoseconds of the GPU's clock; what it was, a
 * kernel's (mangled) name or "copy" or "set". They come in no order. (CUPTI's records grow at their
 * ends: those named here are older than the toolkit.)
 */
#include <cupti.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUFFER_BYTES = 1 << 20, ALIGNMENT = 8 };

static FILE *times;

/* Called by CUPTI on the loading of CUDA. */
int InitializeInjection(void);

static void room_give(uint8_t **buffer, size_t *bytes, size_t *records_max)
{
    *buffer = aligned_alloc(ALIGNMENT, BUFFER_BYTES);
    *bytes = *buffer ? BUFFER_BYTES : 0;
    *records_max = 0; /* as many as there is room for */
}

static void record_write(const CUpti_Activity *r)
{
    if (r->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
        const CUpti_ActivityKernel9 *k = (const CUpti_ActivityKernel9 *)r;
        fprintf(times, "%" PRIu64 " %" PRIu64 " %s\n", k->start, k->end, k->name);
    } else if (r->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
        const CUpti_ActivityMemcpy5 *c = (const CUpti_ActivityMemcpy5 *)r;
        fprintf(times, "%" PRIu64 " %" PRIu64 " copy\n", c->start, c->end);
    } else if (r->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
        const CUpti_ActivityMemset4 *s = (const CUpti_ActivityMemset4 *)r;
        fprintf(times, "%" PRIu64 " %" PRIu64 " set\n", s->start, s->end);
    }
}

static void room_take(CUcontext context, uint32_t stream, uint8_t *buffer, size_t bytes,
                      size_t used)
{
    CUpti_Activity *record = NULL;
    (void)context, (void)stream, (void)bytes;
    while (cuptiActivityGetNextRecord(buffer, used, &record) == CUPTI_SUCCESS)
        record_write(record);
    free(buffer);
}

static void times_end(void)
{
    cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
    fclose(times);
}

int InitializeInjection(void)
{
    const char *path = getenv("KERNEL_TIMES");
    times = path ? fopen(path, "w") : NULL;
    if (!times || atexit(times_end) != 0 ||
        cuptiActivityRegisterCallbacks(room_give, room_take) != CUPTI_SUCCESS)
        return 0;
    return cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) == CUPTI_SUCCESS &&
           cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY) == CUPTI_SUCCESS &&
           cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMSET) == CUPTI_SUCCESS;
}
