/* fisher_log.h - limits of the form log_rank1, and its two directions: fisher_log.c writes it and
 * says what it is, fisher_log_decode.c reads it. */
#ifndef ENGINE_FISHER_LOG_H
#define ENGINE_FISHER_LOG_H

#include "engine/fisher_code_private.h"

enum {
    LOG_NUMBERS = 4, /* of a piece in the part `shapes`: rows, columns, levels, expected levels */
    LOG_MEAN_MAX = 254,   /* a mean is stored as a byte */
    LOG_DEAD = 255,       /* in its place: a row or column without any F */
    LOG_LEVELS_MAX = 255, /* a code is a byte, and 0 is F = 0 */
    LOG_EXPECTED_MAX = 2 * LOG_MEAN_MAX + 1
};

int log_encode(struct fisher_code *c, const struct fisher_coding *coding,
               const struct fisher_piece *pieces, uint64_t piece_count, const float *values,
               struct pool *pool, struct err *e);
int log_decode(const struct fisher_code *c, float *values, struct err *e);

#endif
