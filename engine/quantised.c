/* quantised.c - see quantised.h. Sizes first, then one region for all weights; the arithmetic is in
 * engine/cpu/int8.c. */
#include "engine/quantised.h"

#include <stdlib.h>
#include <string.h>

static uint64_t padded(uint64_t count, uint64_t unit)
{
    return (count + unit - 1) / unit * unit;
}

/* Is that tensor of the layer one of a product? */
static int is_product(const struct layer_instance *l, const struct tensor_info *t)
{
    return l->type->quantises && t->rank == 2;
}

/* All products' tensors: their shapes, without numbers yet. Returns how many bytes they take. */
static uint64_t tensors_list(struct quantised *q, const struct model *m, uint64_t *stride_max)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < m->layer_count; i++)
        for (uint32_t n = 0; n < m->layers[i].tensor_count; n++) {
            const struct tensor_info *t = &m->tensors[m->layers[i].tensor_first + n];
            if (!is_product(&m->layers[i], t))
                continue;
            struct int8_matrix *w = &q->tensors[q->count].weights;
            q->tensors[q->count++].first = t->first;
            w->rows = t->dims[0];
            w->columns = t->dims[1];
            w->stride = padded(w->columns, INT8_COLUMNS);
            bytes += padded(padded(w->rows, INT8_OUTPUTS) * w->stride, MEMORY_ALIGNMENT) +
                     padded(w->rows * sizeof *w->scales, MEMORY_ALIGNMENT);
            q->float_bytes += t->count * sizeof(float);
            *stride_max = w->stride > *stride_max ? w->stride : *stride_max;
        }
    return bytes;
}

static void tensors_fill(struct quantised *q, const float *parameters)
{
    char *at = q->region.at;
    for (uint32_t i = 0; i < q->count; i++) {
        struct int8_matrix *w = &q->tensors[i].weights;
        w->at = (int8_t *)at;
        at += padded(padded(w->rows, INT8_OUTPUTS) * w->stride, MEMORY_ALIGNMENT);
        w->scales = (float *)at;
        at += padded(w->rows * sizeof *w->scales, MEMORY_ALIGNMENT);
        op_quantise(&backend_cpu, matrix_of(parameters + q->tensors[i].first, w->rows, w->columns),
                    *w);
    }
}

int quantised_open(struct quantised *q, const struct model *m, const float *parameters,
                   uint64_t lanes, struct err *e)
{
    uint64_t stride_max = 0;
    *q = (struct quantised){.lanes = lanes};
    q->tensors = calloc(m->tensor_count, sizeof *q->tensors);
    if (!q->tensors)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the list of quantised weights");
    q->bytes = tensors_list(q, m, &stride_max);
    q->work_bytes =
        padded(INT8_ROWS * (stride_max * sizeof(int16_t) + sizeof(float)), MEMORY_ALIGNMENT);
    if (region_open(&q->region, q->bytes, "quantised weights", e) < 0 ||
        region_open(&q->work, size_times(lanes, q->work_bytes), "quantised rows", e) < 0) {
        quantised_close(q);
        return -1;
    }
    tensors_fill(q, parameters);
    return 0;
}

void quantised_close(struct quantised *q)
{
    region_close(&q->region);
    region_close(&q->work);
    free(q->tensors);
    *q = (struct quantised){0};
}

static int first_compare(const void *key, const void *tensor)
{
    uint64_t a = *(const uint64_t *)key, b = ((const struct quantised_tensor *)tensor)->first;
    return (a > b) - (a < b);
}

const struct int8_matrix *quantised_find(const struct quantised *q, uint64_t first)
{
    const struct quantised_tensor *t =
        q->count ? bsearch(&first, q->tensors, q->count, sizeof *t, first_compare) : NULL;
    return t ? &t->weights : NULL;
}

struct int8_work quantised_work(const struct quantised *q, uint64_t lane)
{
    char *at = (char *)q->work.at + lane * q->work_bytes;
    ensure(lane < q->lanes);
    return (struct int8_work){.scales = (float *)at,
                              .rows = (int16_t *)(at + INT8_ROWS * sizeof(float))};
}

void layer_product(const struct layer_instance *l, const struct layer_pass *p, struct matrix x,
                   struct matrix w, float beta, struct matrix y)
{
    const struct int8_matrix *q =
        p->quantised ? quantised_find(p->quantised, l->first + (uint64_t)(w.at - p->weights))
                     : NULL;
    if (q)
        op_product_int8(p->backend, x, *q, quantised_work(p->quantised, p->lane), beta, y);
    else
        op_product(p->backend, x, 0, w, 1, beta, y);
}
