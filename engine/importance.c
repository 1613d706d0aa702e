/* importance.c - see importance.h: which form each tensor has, where it lies, and how it is
 * expanded. importance_build.c makes it.
 */
#include "engine/importance.h"

#include <stdlib.h>
#include <string.h>

#include "engine/importance_private.h"

/* A parameter, of all tensors without outliers, where small matrices are bfloat16. */
static const double MATRICES_BYTES = IMPORTANCE_BYTES - 0.01;

/* Where a tensor begins; more than its numbers need, so that four float32 can be one load. */
static uint64_t aligned(uint64_t bytes)
{
    enum { ALIGNMENT = 16 };
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static uint64_t codes_bytes(const struct importance_tensor *t)
{
    return (t->count + CODED_GROUP - 1) / CODED_GROUP * (CODED_GROUP / 2);
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

static uint64_t outlier_firsts_bytes(const struct importance_tensor *t)
{
    return (coded_tiles(t->count) + 1) * sizeof(uint32_t);
}

static uint64_t values_bytes(uint64_t count)
{
    return aligned(count * sizeof(uint16_t));
}

static uint64_t coded_bytes(const struct importance_tensor *t)
{
    return aligned(codes_bytes(t) + levels_bytes(t) + outlier_firsts_bytes(t) + t->rows +
                   t->columns);
}

static uint64_t exact_bytes(const struct importance_tensor *t)
{
    return aligned(t->count * sizeof(float));
}

/* Which form each tensor has, how many outliers there are, and what it all takes. */
struct forms {
    char coded[MODEL_TENSORS_MAX];
    uint64_t outliers, bytes;
};

/* The smallest matrix in codes; m->tensor_count: there is none. */
static uint32_t coded_least(const struct model *m, const struct importance_tensor *tensors,
                            const struct forms *forms)
{
    uint32_t least = m->tensor_count;
    for (uint32_t i = 0; i < m->tensor_count; i++)
        if (forms->coded[i] &&
            (least == m->tensor_count || tensors[i].count < tensors[least].count))
            least = i;
    return least;
}

/* Outliers fill what is left of IMPORTANCE_BYTES, or else of the last page. */
static void outliers_choose(const struct model *m, const struct importance_tensor *tensors,
                            struct forms *forms)
{
    uint64_t most = (uint64_t)(IMPORTANCE_BYTES * (double)m->parameter_count), bytes = most;
    if (coded_least(m, tensors, forms) == m->tensor_count)
        return;
    while (bytes > forms->bytes && region_small_bytes(bytes) > most)
        bytes -= MEMORY_ALIGNMENT;
    bytes = region_small_bytes(bytes > forms->bytes ? bytes : forms->bytes);
    forms->outliers = (bytes - forms->bytes) / sizeof(uint32_t);
    forms->bytes += forms->outliers * sizeof(uint32_t);
}

/* Nothing of a tensor is placed yet. */
static void forms_choose(const struct model *m, struct importance_tensor *tensors,
                         struct forms *forms)
{
    double most = MATRICES_BYTES * (double)m->parameter_count;
    *forms = (struct forms){.bytes = 0};
    for (uint32_t i = 0; i < m->tensor_count; i++) {
        const struct tensor_info *of = &m->tensors[i];
        struct importance_tensor *t = &tensors[i];
        *t = (struct importance_tensor){.first = of->first, .count = of->count};
        t->rows = of->rank == 2 ? of->dims[0] : 1;
        t->columns = of->count / t->rows;
        t->tables = tables_of(t->count);
        forms->coded[i] = of->rank == 2 && coded_bytes(t) < values_bytes(t->count);
        forms->bytes += forms->coded[i] ? coded_bytes(t) : values_bytes(t->count);
    }
    for (uint32_t i; (i = coded_least(m, tensors, forms)) < m->tensor_count;) {
        uint64_t more = forms->bytes - coded_bytes(&tensors[i]) + values_bytes(tensors[i].count);
        if ((double)more > most)
            break;
        forms->coded[i] = 0;
        forms->bytes = more;
    }
    outliers_choose(m, tensors, forms);
}

static void all_choose(const struct model *m, int exact, struct importance_tensor *tensors,
                       struct forms *forms)
{
    forms_choose(m, tensors, forms);
    if (!exact)
        return;
    forms->bytes = forms->outliers = 0;
    for (uint32_t i = 0; i < m->tensor_count; i++)
        forms->bytes += exact_bytes(&tensors[i]);
}

uint64_t importance_bytes(const struct model *m, int exact)
{
    struct importance_tensor tensors[MODEL_TENSORS_MAX];
    struct forms forms;
    all_choose(m, exact, tensors, &forms);
    return region_small_bytes(forms.bytes);
}

uint64_t importance_build_bytes(const struct model *m)
{
    struct importance_tensor tensors[MODEL_TENSORS_MAX];
    struct forms forms;
    all_choose(m, 0, tensors, &forms);
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
    t->level = (float *)(*at + codes_bytes(t));
    t->outlier_first = (uint32_t *)((char *)t->level + levels_bytes(t));
    t->row = (uint8_t *)t->outlier_first + outlier_firsts_bytes(t);
    t->column = t->row + t->rows;
    *at += coded_bytes(t);
}

int importance_open(struct importance *f, const struct model *m, int exact, struct err *e)
{
    struct forms forms;
    *f = (struct importance){.count = m->tensor_count};
    f->tensors = calloc(m->tensor_count, sizeof *f->tensors);
    if (!f->tensors)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the list of Fisher tensors");
    all_choose(m, exact, f->tensors, &forms);
    if (region_small_open(&f->region, forms.bytes, "Fisher information", e) < 0)
        return -1;
    char *at = f->region.at;
    for (uint32_t i = 0; i < f->count; i++)
        tensor_place(&f->tensors[i], exact, forms.coded[i], &at);
    f->outliers = (uint32_t *)at;
    f->outliers_max = forms.outliers;
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
                                        .outlier = t->outlier,
                                        .outlier_first = t->outlier_first,
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
