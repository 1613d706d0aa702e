/* fisher_code_private.h - what the files engine/fisher_*.c of the stored forms share. Nobody else
 * includes it. */
#ifndef ENGINE_FISHER_CODE_PRIVATE_H
#define ENGINE_FISHER_CODE_PRIVATE_H

#include <string.h>

#include "engine/fisher_code.h"

/* A form: values -> parts, and back. Both may trust that the pieces cover the values and that these
 * are finite and not negative, encode unless it `checks` them itself, which saves a pass over them;
 * decode trusts nothing else. */
struct fisher_form_type {
    const char *name;
    int checks;
    int (*encode)(struct fisher_code *c, const struct fisher_coding *coding,
                  const struct fisher_piece *pieces, uint64_t piece_count, const float *values,
                  struct pool *pool, struct err *e);
    int (*decode)(const struct fisher_code *c, float *values, struct err *e);
};

extern const struct fisher_form_type fisher_form_int8, fisher_form_int4, fisher_form_lowrank,
    fisher_form_log_rank1;

/* Add a part of `count` elements of any content, which the code owns; NULL and *e when there is no
 * memory. */
void *fisher_part_add(struct fisher_code *c, const char *name, const char *type, uint64_t count,
                      struct err *e);

/* `bytes` bytes that last until the next call, owned by the code; NULL and *e when there is no
 * memory. */
void *fisher_scratch(struct fisher_code *c, uint64_t bytes, struct err *e);

/* The part of that name; -1 and *e when it is missing, or of another type. */
int fisher_part_find(const struct fisher_code *c, const char *name, const char *type,
                     struct fisher_part *part, struct err *e);

/* Are all values finite and not negative? -1 and *e, which names the first that is not; `verb`:
 * what cannot be done with it. */
int fisher_values_check(const float *values, uint64_t count, const char *verb, struct err *e);

/* Sums over a block: the values, their squares, the squared differences of the decoded ones. */
struct fisher_sums {
    double values, squares, differences;
};

/* What they say of the block: sum, norm, error. */
void fisher_sums_take(struct fisher_code *c, const struct fisher_sums *sums);

/* The same by decoding what was encoded. */
int fisher_measure(struct fisher_code *c, const float *values, struct pool *pool, struct err *e);

/* Not zero, denormal numbers included even where they are flushed. */
static inline int fisher_is_some(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits << 1 != 0;
}

#endif
