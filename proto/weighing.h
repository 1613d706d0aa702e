/* weighing.h - what can be wrong with the weights of targets (data.weights), in the same words
 * whoever finds it: loaderd, trainerd and fisherd, or `prepare check` before them. Callers put in
 * front which split of which file it is about.
 */
#ifndef PROTO_WEIGHING_H
#define PROTO_WEIGHING_H

#include <stdint.h>

#include "proto/err.h"

/* What their data set has: of the targets of rows, or of graphs, and of tokens. */
#define WEIGHING_OF_ROWS   "1 or 2 dimensions, rows first"
#define WEIGHING_OF_TOKENS "1 dimension: a number a token"

/* Each 0, or -1 and a permanent *e. */

/* Is data.weights the name of a data set beside the targets? */
int weighing_name_check(const char *name, struct err *e);

/* Has data set `path` a number, or numbers, for each of the rows, or of the tokens? */
int weighing_count_check(const char *path, uint64_t count, uint64_t wanted, int of_tokens,
                         struct err *e);

/* Are `values` weights a row one for all of it, or one for each of its targets? 0: there are none.
 */
int weighing_width_check(uint64_t values, uint64_t targets, struct err *e);

/* Always -1: there is no data set of that name; of so many rows none counts. */
int weighing_absent(const char *name, struct err *e);
int weighing_nothing(uint64_t rows, struct err *e);

#endif
