/* fisher_code.h - the stored forms of a block of the Fisher information: values -> a few plain
 * arrays, and back.
 *
 *   float32, gzip   values f32 [count], exact
 *   int8, int4      codes of sqrt F, a scale for each group of them
 *   lowrank         half-precision factors of sqrt F, a pair for each piece
 *   log_rank1       ln F on a grid, less what its row and column say; one code a parameter
 *
 * A block is a row of pieces, each a matrix [rows, columns] of consecutive values: whole rows of a
 * tensor, a vector being one row. What each array holds, and the arithmetic by which a reader of
 * its own gets the same bits, is written in docs/FISHER.md. In every form a value that is not zero
 * is never stored as zero. Encoding does not depend on the number of threads.
 */
#ifndef ENGINE_FISHER_CODE_H
#define ENGINE_FISHER_CODE_H

#include <stdint.h>

#include "engine/threads.h"
#include "proto/err.h"

enum fisher_form {
    FISHER_FLOAT32,
    FISHER_GZIP, /* here the same as float32: compressed where it is written */
    FISHER_INT8,
    FISHER_INT4,
    FISHER_LOWRANK,
    FISHER_LOG_RANK1,
    FISHER_FORMS
};

const char *fisher_form_name(enum fisher_form form);
int fisher_form_of(const char *name); /* or -1 */

struct fisher_coding {
    enum fisher_form form;
    double ratio; /* lowrank: bytes of the factors as a share of those of float32 */
    double step;  /* log_rank1: width of a level in ln F */
};

struct fisher_piece {
    uint64_t rows, columns;
};

/* One array of the stored form. type: u8, f16, u32 or f32. */
struct fisher_part {
    const char *name, *type;
    uint64_t count;
    void *data;
};

enum { FISHER_PARTS_MAX = 5 };

/* A block in its stored form. A reader fills form, count and part[] with data of its own.
 * fisher_encode fills all, with data that lasts until it is called again; that call uses the memory
 * again, fisher_code_free releases it. */
struct fisher_code {
    enum fisher_form form;
    uint64_t count; /* values of the block */
    int parts;
    struct fisher_part part[FISHER_PARTS_MAX];
    double sum, norm; /* of the exact values: their sum, the root of the sum of their squares */
    double error; /* norm of what the decoded values differ by, as a share of `norm`: the relative
                     error of the penalty's gradient where the displacement is equally large
                     everywhere */
    struct fisher_memory {
        void *data;
        uint64_t bytes;
    } memory[FISHER_PARTS_MAX + 1]; /* of the parts, and for encoding */
};

/* values[count], the pieces in order covering them. A value that is negative or not finite is
 * refused, with its place. *c is zero the first time. 0, or
 * -1 and *e; fisher_code_free is due either way. */
int fisher_encode(struct fisher_code *c, const struct fisher_coding *coding,
                  const struct fisher_piece *pieces, uint64_t piece_count, const float *values,
                  struct pool *pool, struct err *e);

/* A reader's code: of a form's name and count, then its parts one after the other, whose data stay
 * the caller's. begin: -1 (permanent) for an unknown form. A part too many is left out, which
 * fisher_decode then misses. */
int fisher_code_begin(struct fisher_code *c, const char *form, uint64_t count, struct err *e);
void fisher_code_add(struct fisher_code *c, const char *name, const char *type, uint64_t count,
                     void *data);

/* values[c->count]. What the parts say of sizes is checked before it is believed: -1 and a
 * permanent *e. */
int fisher_decode(const struct fisher_code *c, float *values, struct err *e);

void fisher_code_free(struct fisher_code *c); /* harmless twice */

#endif
