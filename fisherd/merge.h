/* merge.h - the Fisher information of several tasks as one, for online EWC: block by block, from
 * the files of each, oldest first:
 *
 *   F = gamma (gamma (F_A) + F_B) + F_C      theta* is the last task's
 *
 * (Schwarz et al., "Progress and Compress"; Huszar). It is made from the tasks' own files and not
 * from a sum made before, so that what storing loses is lost once.
 */
#ifndef FISHERD_MERGE_H
#define FISHERD_MERGE_H

#include <stdint.h>

#include "proto/fisherfile.h"
#include "proto/msg.h"

enum { MERGE_TASKS_MAX = 17 }; /* a task protects 16 */

struct merge {
    struct merge_source {
        char path[96];
        struct fisherfile *file;
        double weight;
    } source[MERGE_TASKS_MAX];
    int count;
    uint64_t next; /* block that the files give next */
    float *values; /* of one file's block */
    uint64_t room;
};

/* The files of the job, its task's last; their parameters must be meta's, and the last one's theta*
 * the job's. Fills what meta says of the estimate. -1: permanent where a file is missing or of
 * something else; temporary where one is damaged, which is then removed. merge_close is due either
 * way. */
int merge_open(struct merge *m, const struct msg_estimate *job, struct fisherfile_meta *meta,
               struct err *e);
void merge_close(struct merge *m); /* harmless twice */

/* Block `index`, not before an earlier one: values[range->count], and range->noise. */
int merge_block(struct merge *m, uint64_t index, struct fisherfile_block *range, float *values,
                struct err *e);

#endif
