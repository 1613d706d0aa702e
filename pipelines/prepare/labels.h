/* labels.h - the texts of a target column become class numbers.
 *
 * Whole numbers from 0 to LABELS_MAX - 1, all of them written plainly ("7", not "7.0" or "07"), are
 * class numbers already. Anything else is sorted (by value when all are numbers, else by bytes) and
 * counted from 0: the same set of texts has the same numbers, whatever the order of the rows.
 */
#ifndef PIPELINES_PREPARE_LABELS_H
#define PIPELINES_PREPARE_LABELS_H

#include <stdint.h>

#include "proto/err.h"

enum { LABELS_MAX = 65536, LABEL_BYTES_MAX = 255 };

struct label {
    char *text;
    uint32_t class;
};

struct labels {
    struct label *label; /* in the order they came; sorted by labels_number */
    uint32_t count;
    uint32_t *table;  /* hash -> index + 1 */
    int mapped;       /* class numbers are ours, not the texts' own */
    uint32_t classes; /* the largest class number + 1 */
};

int labels_open(struct labels *l, struct err *e);
void labels_close(struct labels *l); /* harmless twice */

/* Note a text. -1 for one that is none (empty, too long, with control characters), or one too many.
 */
int labels_add(struct labels *l, const char *text, struct err *e);

/* All are noted: give each its number. -1 when they look like a regression's targets, or are
 * numbers of which one is written in two ways. */
int labels_number(struct labels *l, struct err *e);

/* The number of a noted text, or -1 for another. After labels_number. */
int64_t labels_class(const struct labels *l, const char *text);

#endif
