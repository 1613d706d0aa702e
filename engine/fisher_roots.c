/* fisher_roots.c - the forms int8 and int4: the root of F in 8 or 4 bits, a scale for each group of
 * values.
 *
 * scales[g] = the group's largest root / the largest code; code = round(root / scale), at least 1
 * where F is not zero; F = (code * scale)^2, both products rounded to float32, and no less than
 * 2^-126 where the code is not 0. Of two int4 codes in a byte the first is the high one.
 */
#include "engine/fisher_code_private.h"

#include <math.h>

struct root_form {
    const struct fisher_code *c;
    uint64_t group; /* values that share a scale */
    uint32_t code_max;
    int packed; /* two codes a byte */
    const float *values;
    float *scales;
    uint8_t *codes;
};

static struct root_form root_form_of(const struct fisher_code *c)
{
    int packed = c->form == FISHER_INT4;
    return (struct root_form){
        .c = c, .group = packed ? 64 : 256, .code_max = packed ? 15 : 255, .packed = packed};
}

static uint64_t groups_count(const struct root_form *f)
{
    return (f->c->count - 1) / f->group + 1;
}

static void group_encode(void *argument, uint64_t g, int thread)
{
    const struct root_form *f = argument;
    uint64_t first = g * f->group, left = f->c->count - first,
             count = left < f->group ? left : f->group;
    float peak = 0;
    (void)thread;
    for (uint64_t i = first; i < first + count; i++)
        peak = f->values[i] > peak ? f->values[i] : peak;
    float scale = sqrtf(peak) / (float)f->code_max;
    f->scales[g] = scale;
    for (uint64_t i = first; i < first + count; i++) {
        float code = scale > 0 ? rintf(sqrtf(f->values[i]) / scale) : 0;
        code = code > (float)f->code_max ? (float)f->code_max : code;
        uint32_t whole = (uint32_t)code;
        whole = whole == 0 && fisher_is_some(f->values[i]) ? 1 : whole;
        if (f->packed) /* a group is a whole number of bytes */
            f->codes[i / 2] |= (uint8_t)(i % 2 ? whole : whole << 4);
        else
            f->codes[i] = (uint8_t)whole;
    }
}

static int roots_encode(struct fisher_code *c, const struct fisher_coding *coding,
                        const struct fisher_piece *pieces, uint64_t piece_count,
                        const float *values, struct pool *pool, struct err *e)
{
    struct root_form f = root_form_of(c);
    (void)coding, (void)pieces, (void)piece_count;
    f.values = values;
    f.codes = fisher_part_add(c, "codes", "u8", f.packed ? (c->count + 1) / 2 : c->count, e);
    f.scales = f.codes ? fisher_part_add(c, "scales", "f32", groups_count(&f), e) : NULL;
    if (!f.scales)
        return -1;
    memset(f.codes, 0, c->part[0].count);
    pool_run(pool, group_encode, &f, groups_count(&f));
    return fisher_measure(c, values, pool, e);
}

static int roots_decode(const struct fisher_code *c, float *values, struct err *e)
{
    struct root_form f = root_form_of(c);
    struct fisher_part codes = {0}, scales = {0};
    if (fisher_part_find(c, "codes", "u8", &codes, e) < 0 ||
        fisher_part_find(c, "scales", "f32", &scales, e) < 0)
        return -1;
    if (codes.count != (f.packed ? (c->count + 1) / 2 : c->count) ||
        scales.count != groups_count(&f))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "a block of %llu values has %llu bytes of codes and %llu scales",
                       (unsigned long long)c->count, (unsigned long long)codes.count,
                       (unsigned long long)scales.count);
    const uint8_t *code = codes.data;
    const float *scale = scales.data;
    for (uint64_t i = 0; i < c->count; i++) {
        uint32_t here = f.packed ? code[i / 2] >> (i % 2 ? 0 : 4) & 15 : code[i];
        float root = (float)here * scale[i / f.group], value = root * root;
        values[i] = here && !(value > 0x1p-126f) ? 0x1p-126f : value;
    }
    return 0;
}

const struct fisher_form_type fisher_form_int8 = {"int8", 0, roots_encode, roots_decode};
const struct fisher_form_type fisher_form_int4 = {"int4", 0, roots_encode, roots_decode};
