/* fisher_code.c - see fisher_code.h: what the forms have in common, and the exact one. */
#include "engine/fisher_code_private.h"

#include <math.h>
#include <stdlib.h>

static int values_encode(struct fisher_code *c, const struct fisher_coding *coding,
                         const struct fisher_piece *pieces, uint64_t piece_count,
                         const float *values, struct pool *pool, struct err *e)
{
    float *to = fisher_part_add(c, "values", "f32", c->count, e);
    (void)coding, (void)pieces, (void)piece_count;
    if (!to)
        return -1;
    memcpy(to, values, c->count * sizeof *to);
    return fisher_measure(c, values, pool, e);
}

static int values_decode(const struct fisher_code *c, float *values, struct err *e)
{
    struct fisher_part part = {0};
    if (fisher_part_find(c, "values", "f32", &part, e) < 0)
        return -1;
    if (part.count != c->count)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the block has %llu values, its array `values` has %llu",
                       (unsigned long long)c->count, (unsigned long long)part.count);
    memcpy(values, part.data, c->count * sizeof *values);
    return 0;
}

static const struct fisher_form_type form_float32 = {"float32", 0, values_encode, values_decode};
static const struct fisher_form_type form_gzip = {"gzip", 0, values_encode, values_decode};

static const struct fisher_form_type *const forms[FISHER_FORMS] = {
    [FISHER_FLOAT32] = &form_float32,        [FISHER_GZIP] = &form_gzip,
    [FISHER_INT8] = &fisher_form_int8,       [FISHER_INT4] = &fisher_form_int4,
    [FISHER_LOWRANK] = &fisher_form_lowrank, [FISHER_LOG_RANK1] = &fisher_form_log_rank1,
};

const char *fisher_form_name(enum fisher_form form)
{
    return forms[form]->name;
}

int fisher_form_of(const char *name)
{
    for (int i = 0; i < FISHER_FORMS; i++)
        if (strcmp(forms[i]->name, name) == 0)
            return i;
    return -1;
}

static uint64_t type_bytes(const char *type)
{
    return type[1] == '8' ? 1 : type[1] == '1' ? 2 : 4; /* u8; f16; u32 and f32 */
}

static void memory_free(struct fisher_memory *m)
{
    free(m->data);
    *m = (struct fisher_memory){0};
}

static void *memory_take(struct fisher_memory *m, uint64_t bytes, struct err *e)
{
    if (m->bytes < bytes || !m->data) {
        memory_free(m);
        *m = (struct fisher_memory){malloc(bytes ? bytes : 1), bytes};
    }
    if (!m->data)
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot hold a block of the Fisher information");
    return m->data;
}

void *fisher_part_add(struct fisher_code *c, const char *name, const char *type, uint64_t count,
                      struct err *e)
{
    ensure(c->parts < FISHER_PARTS_MAX);
    void *data = memory_take(&c->memory[c->parts], count * type_bytes(type), e);
    if (data)
        c->part[c->parts++] = (struct fisher_part){name, type, count, data};
    return data;
}

void *fisher_scratch(struct fisher_code *c, uint64_t bytes, struct err *e)
{
    return memory_take(&c->memory[FISHER_PARTS_MAX], bytes, e);
}

int fisher_part_find(const struct fisher_code *c, const char *name, const char *type,
                     struct fisher_part *part, struct err *e)
{
    for (int i = 0; i < c->parts; i++) {
        if (strcmp(c->part[i].name, name) != 0)
            continue;
        if (strcmp(c->part[i].type, type) != 0)
            return err_set(e, EXIT_CODE_PERMANENT, "the block's array `%s` is %s, not %s", name,
                           c->part[i].type, type);
        *part = c->part[i];
        return 0;
    }
    return err_set(e, EXIT_CODE_PERMANENT, "the block is stored as %s and has no array `%s`",
                   fisher_form_name(c->form), name);
}

/* No branch in the loop: bad numbers are rare, and then looked for again. */
static int values_good(const float *values, uint64_t count)
{
    uint32_t bad = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bad |= (bits >= 0x7f800000u) & (bits != 0x80000000u);
    }
    return !bad;
}

int fisher_values_check(const float *values, uint64_t count, const char *verb, struct err *e)
{
    if (values_good(values, count))
        return 0;
    uint64_t i = 0;
    while (values_good(values + i, 1))
        i++;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "cannot %s the Fisher information of parameter %llu of a block: it is %g; "
                   "accepted: finite numbers "
                   "from 0 on",
                   verb, (unsigned long long)i, (double)values[i]);
}

enum { COMPARE_VALUES = 65536 };

struct comparison {
    const float *exact, *decoded;
    uint64_t count;
    double (*sums)[3]; /* of the values, their squares, the squared differences */
};

static void compare_item(void *argument, uint64_t item, int thread)
{
    const struct comparison *c = argument;
    uint64_t first = item * COMPARE_VALUES, left = c->count - first;
    uint64_t end = first + (left < COMPARE_VALUES ? left : COMPARE_VALUES);
    double sum[4] = {0}, square[4] = {0}, difference[4] = {0};
    (void)thread;
    for (uint64_t i = first; i < end; i++) {
        double exact = (double)c->exact[i], error = (double)c->decoded[i] - exact;
        sum[i & 3] += exact;
        square[i & 3] += exact * exact;
        difference[i & 3] += error * error;
    }
    c->sums[item][0] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    c->sums[item][1] = (square[0] + square[1]) + (square[2] + square[3]);
    c->sums[item][2] = (difference[0] + difference[1]) + (difference[2] + difference[3]);
}

void fisher_sums_take(struct fisher_code *c, const struct fisher_sums *sums)
{
    c->sum = sums->values;
    c->norm = sqrt(sums->squares);
    c->error = sums->squares > 0 ? sqrt(sums->differences / sums->squares) : 0;
}

int fisher_measure(struct fisher_code *c, const float *values, struct pool *pool, struct err *e)
{
    uint64_t items = (c->count - 1) / COMPARE_VALUES + 1, sums_bytes = items * 3 * sizeof(double);
    int exact = forms[c->form]->decode == values_decode; /* then the only part is what is decoded */
    struct fisher_sums total = {0};
    double(*sums)[3] = fisher_scratch(c, sums_bytes + (exact ? 0 : c->count * sizeof(float)), e);
    if (!sums)
        return -1;
    float *decoded = exact ? c->part[0].data : (float *)(sums + items);
    if (!exact && forms[c->form]->decode(c, decoded, e) < 0)
        return -1;
    struct comparison compared = {values, decoded, c->count, sums};
    pool_run(pool, compare_item, &compared, items);
    for (uint64_t i = 0; i < items; i++) {
        total.values += sums[i][0];
        total.squares += sums[i][1];
        total.differences += sums[i][2];
    }
    fisher_sums_take(c, &total);
    return 0;
}

int fisher_encode(struct fisher_code *c, const struct fisher_coding *coding,
                  const struct fisher_piece *pieces, uint64_t piece_count, const float *values,
                  struct pool *pool, struct err *e)
{
    c->form = coding->form;
    c->count = 0;
    c->parts = 0;
    for (uint64_t i = 0; i < piece_count; i++)
        c->count += pieces[i].rows * pieces[i].columns;
    ensure(c->count > 0);
    if (!forms[c->form]->checks && fisher_values_check(values, c->count, "store", e) < 0)
        return -1;
    int result = forms[c->form]->encode(c, coding, pieces, piece_count, values, pool, e);
    memory_free(&c->memory[FISHER_PARTS_MAX]);
    return result;
}

int fisher_code_begin(struct fisher_code *c, const char *form, uint64_t count, struct err *e)
{
    int found = fisher_form_of(form);
    *c = (struct fisher_code){.count = count};
    if (found < 0)
        return err_set(e, EXIT_CODE_PERMANENT, "stored in the form '%s', which is unknown", form);
    c->form = (enum fisher_form)found;
    return 0;
}

void fisher_code_add(struct fisher_code *c, const char *name, const char *type, uint64_t count,
                     void *data)
{
    if (c->parts < FISHER_PARTS_MAX)
        c->part[c->parts++] = (struct fisher_part){name, type, count, data};
}

int fisher_decode(const struct fisher_code *c, float *values, struct err *e)
{
    if (forms[c->form]->decode(c, values, e) < 0)
        return -1;
    return fisher_values_check(values, c->count, "read", e);
}

void fisher_code_free(struct fisher_code *c)
{
    for (int i = 0; i <= FISHER_PARTS_MAX; i++)
        memory_free(&c->memory[i]);
    memset(c, 0, sizeof *c);
}
