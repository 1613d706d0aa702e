/* sequences.c - see sequences.h. */
#include "trainerd/sequences.h"

#include <stdlib.h>

int sequences_open(struct sequences *q, uint64_t streams, uint64_t rows_max, struct err *e)
{
    *q = (struct sequences){.streams = streams, .rows_max = rows_max};
    q->rows = calloc(rows_max, sizeof *q->rows);
    q->all = calloc(streams, sizeof *q->all);
    return q->rows && q->all ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot hold a block of rows");
}

void sequences_close(struct sequences *q)
{
    free(q->rows);
    free(q->all);
    *q = (struct sequences){0};
}

static int row_begins(const struct msg_field_info *begins, struct feed_row row)
{
    const unsigned char *at = begins->name[0] ? feed_field(begins, row) : NULL;
    int any = 0;
    for (uint64_t i = 0; at && i < begins->row_bytes; i++)
        any |= at[i];
    return any != 0;
}

static int longer_first(const void *a, const void *b)
{
    const struct sequence *x = a, *y = b;
    if (x->rows != y->rows)
        return x->rows > y->rows ? -1 : 1;
    return x->first < y->first ? -1 : 1;
}

void sequences_cut(struct sequences *q, const struct msg_field_info *begins, uint64_t count)
{
    q->count = q->block_rows = 0;
    for (uint64_t i = 0; i < count; i++) {
        if (i == 0 || row_begins(begins, q->rows[i])) {
            if (q->count == q->streams)
                break;
            q->all[q->count++] = (struct sequence){.first = i};
        }
        q->all[q->count - 1].rows++;
        q->block_rows++;
    }
    qsort(q->all, q->count, sizeof *q->all, longer_first);
    q->from = q->last;
    for (uint64_t i = 0; i < q->count; i++) {
        if (q->all[i].first == 0)
            q->to = i;
        if (q->all[i].first + q->all[i].rows == q->block_rows)
            q->last = i;
    }
}

uint64_t sequences_with(const struct sequences *q, uint64_t k)
{
    uint64_t count = 0;
    while (count < q->count && q->all[count].rows > k)
        count++;
    return count;
}
