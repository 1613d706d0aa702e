/* importance.c - see importance.h: which form each tensor has, where it lies, and how it is
 * expanded. importance_build.c makes it.
 */
#include "engine/importance.h"

#include <stdlib.h>
#include <string.h>

#include "engine/importance_private.h"

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
}

static uint64_t codes_bytes(const struct importance_tensor *t)
{
    return aligned((t->count + CODED_GROUP - 1) / CODED_GROUP * (CODED_GROUP / 2));
}

/* One, and where there is more than one a table for each VALUES values, a 128th of their codes. */
static unsigned tables_of(uint64_t count)
{
    enum { VALUES = 16384 };
    uint64_t tables = count < VALUES ? 1 : count / VALUES;
    return tables < CODED_TABLES ? (unsigned)tables : CODED_TABLES;
}

static uint64_t levels_bytes(const struct importance_tensor *t)
{
    return t->tables * CODED_LEVELS * sizeof(float);
}

static uint64_t values_bytes(uint64_t count)
{
    return aligned(count * sizeof(uint16_t));
}

static uint64_t coded_bytes(const struct importance_tensor *t)
{
    return codes_bytes(t) + aligned(t->rows) + aligned(t->columns) + levels_bytes(t);
}

static uint64_t exact_bytes(const struct importance_tensor *t)
{
    return aligned(t->count * sizeof(float));
}

/* Nothing of a tensor is placed yet, but coded[i] says which form it has. Returns all bytes. */
static uint64_t forms_choose(const struct model *m, struct importance_tensor *tensors, char *coded)
{
    uint64_t total = 0;
    double most = IMPORTANCE_BYTES * (double)m->parameter_count;
    for (uint32_t i = 0; i < m->tensor_count; i++) {
        const struct tensor_info *of = &m->tensors[i];
        struct importance_tensor *t = &tensors[i];
        *t = (struct importance_tensor){.first = of->first, .count = of->count};
        t->rows = of->rank == 2 ? of->dims[0] : 1;
        t->columns = of->count / t->rows;
        t->tables = tables_of(t->count);
        coded[i] = of->rank == 2 && coded_bytes(t) < values_bytes(t->count);
        total += coded[i] ? coded_bytes(t) : values_bytes(t->count);
    }
    for (;;) {
        uint32_t least = m->tensor_count;
        for (uint32_t i = 0; i < m->tensor_count; i++)
            if (coded[i] && (least == m->tensor_count || tensors[i].count < tensors[least].count))
                least = i;
        if (least == m->tensor_count)
            return total;
        const struct importance_tensor *t = &tensors[least];
        uint64_t more = total - coded_bytes(t) + values_bytes(t->count);
        if ((double)more > most)
            return total;
        coded[least] = 0;
        total = more;
    }
}

static uint64_t all_bytes(const struct model *m, int exact, struct importance_tensor *tensors,
                          char *coded)
{
    uint64_t bytes = forms_choose(m, tensors, coded), total = 0;
    for (uint32_t i = 0; exact && i < m->tensor_count; i++)
        total += exact_bytes(&tensors[i]);
    return exact ? total : bytes;
}

uint64_t importance_bytes(const struct model *m, int exact)
{
    struct importance_tensor tensors[MODEL_TENSORS_MAX];
    char coded[MODEL_TENSORS_MAX];
    return region_small_bytes(all_bytes(m, exact, tensors, coded));
}

uint64_t importance_build_bytes(const struct model *m)
{
    struct importance_tensor tensors[MODEL_TENSORS_MAX];
    char coded[MODEL_TENSORS_MAX];
    all_bytes(m, 0, tensors, coded);
    return importance_build_bytes_of(tensors, m->tensor_count);
}

static void tensor_place(struct importance_tensor *t, int exact, int coded, char **at)
{
    if (exact) {
        t->exact = (float *)*at;
        *at += exact_bytes(t);
        return;
    }
    if (!coded) {
        t->values = (uint16_t *)*at;
        *at += values_bytes(t->count);
        return;
    }
    t->codes = (uint8_t *)*at;
    *at += codes_bytes(t);
    t->row = (uint8_t *)*at;
    *at += aligned(t->rows);
    t->column = (uint8_t *)*at;
    *at += aligned(t->columns);
    t->level = (float *)*at;
    *at += levels_bytes(t);
}

int importance_open(struct importance *f, const struct model *m, int exact, struct err *e)
{
    char coded[MODEL_TENSORS_MAX];
    *f = (struct importance){.count = m->tensor_count};
    f->tensors = calloc(m->tensor_count, sizeof *f->tensors);
    if (!f->tensors)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the list of Fisher tensors");
    uint64_t bytes = all_bytes(m, exact, f->tensors, coded);
    if (region_small_open(&f->region, bytes, "Fisher information", e) < 0)
        return -1;
    char *at = f->region.at;
    for (uint32_t i = 0; i < f->count; i++)
        tensor_place(&f->tensors[i], exact, coded[i], &at);
    return importance_build_open(f, e);
}

void importance_close(struct importance *f)
{
    importance_build_close(f);
    region_close(&f->region);
    free(f->tensors);
    *f = (struct importance){0};
}

struct importance_view importance_view(const struct importance *f, uint32_t tensor)
{
    const struct importance_tensor *t = &f->tensors[tensor];
    struct importance_view v = {t->exact, t->values, {0}};
    ensure(tensor < f->count);
    if (!t->exact && !t->values)
        v.coded = (struct coded_matrix){.codes = t->codes,
                                        .row = t->row,
                                        .column = t->column,
                                        .level = t->level,
                                        .rows = t->rows,
                                        .columns = t->columns,
                                        .tables = t->tables};
    return v;
}

void importance_expand(const struct importance *f, const struct backend *backend, uint32_t tensor,
                       uint64_t from, uint64_t count, float *out)
{
    struct importance_view v = importance_view(f, tensor);
    ensure(from <= f->tensors[tensor].count && count <= f->tensors[tensor].count - from);
    if (v.exact)
        memcpy(out, v.exact + from, count * sizeof *out);
    else if (v.values)
        op_load_half(backend, HALF_BF16, v.values + from, out, count);
    else
        op_expand_codes(backend, v.coded, from, count, out);
}
