/* finish.c - see finish.h. */
#include "loaderd/finish.h"

#include <string.h>

uint64_t finish_windows_shift(uint64_t rows)
{
    return rows - 1;
}

static void pointer_write(const struct source_pointer *cut, const struct order_run *run,
                          uint64_t *pointer)
{
    if (run->at == 0)
        pointer[0] = 0;
    for (uint64_t i = 0; i < run->rows; i++)
        pointer[run->at + i + 1] =
            pointer[run->at + i] + cut->at[run->first + i + 1] - cut->at[run->first + i];
}

/* Rows of T + 1 tokens out of rows x T + 1: each begins with the last token of the one before. A
 * row's tokens are never overwritten before they are moved, since they stand behind their row. */
static void windows_spread(char *first_row, uint64_t rows, uint64_t row_bytes, uint64_t token_bytes)
{
    const char *from = first_row + finish_windows_shift(rows) * token_bytes;
    for (uint64_t i = 0; i < rows; i++)
        memmove(first_row + i * row_bytes, from + i * (row_bytes - token_bytes), row_bytes);
}

/* The first document that begins with token `token` or later. */
static uint64_t document_find(const struct source_pointer *documents, uint64_t token)
{
    uint64_t low = 0, high = documents->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (documents->at[middle] < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Bit j of a row (the lowest of byte j / 8 first): a document begins with its token j. */
static void starts_mark(const struct source_pointer *documents, uint64_t window,
                        const struct order_run *run, unsigned char *first_row, uint64_t row_bytes)
{
    uint64_t first = run->first * window, last = first + run->rows * window;
    uint64_t tokens = documents->at[documents->count - 1];
    memset(first_row, 0, run->rows * row_bytes);
    for (uint64_t i = document_find(documents, first); i < documents->count; i++) {
        uint64_t at = documents->at[i];
        if (at > last || at == tokens)
            return;
        uint64_t row = (at - first) / window, j = (at - first) % window;
        if (row < run->rows)
            first_row[row * row_bytes + j / 8] |= (unsigned char)(1 << j % 8);
        if (j == 0 && row > 0) /* it is the last token of the row before as well */
            first_row[(row - 1) * row_bytes + window / 8] |= (unsigned char)(1 << window % 8);
    }
}

static void begins_mark(const struct source_pointer *documents, uint64_t window,
                        const struct order_run *run, unsigned char *row)
{
    uint64_t next = document_find(documents, run->first * window);
    for (uint64_t i = 0; i < run->rows; i++) {
        uint64_t first = (run->first + i) * window;
        while (next < documents->count && documents->at[next] < first)
            next++;
        row[i] = next < documents->count && documents->at[next] == first;
    }
}

#define ENDS_MAX(NAME, TYPE)                                                                       \
    static uint64_t ends_max_##NAME(const void *at, uint64_t first, uint64_t end)                  \
    {                                                                                              \
        const TYPE *ends = at;                                                                     \
        uint64_t most = 0;                                                                         \
        for (uint64_t i = first; i < end; i++)                                                     \
            most = (uint64_t)ends[i] > most ? (uint64_t)ends[i] : most;                            \
        return most;                                                                               \
    }
ENDS_MAX(u8, uint8_t)
ENDS_MAX(i8, int8_t)
ENDS_MAX(u16, uint16_t)
ENDS_MAX(i16, int16_t)
ENDS_MAX(u32, uint32_t)
ENDS_MAX(i32, int32_t)
ENDS_MAX(u64, uint64_t)
ENDS_MAX(i64, int64_t)

typedef uint64_t ends_max_fn(const void *at, uint64_t first, uint64_t end);

/* Largest of the ends [first, end); a negative one counts as a number above all nodes. */
static ends_max_fn *ends_max_of(const char *type)
{
    static ends_max_fn *const functions[H5TYPE_COUNT] = {
        [H5TYPE_U8] = ends_max_u8,   [H5TYPE_I8] = ends_max_i8,   [H5TYPE_U16] = ends_max_u16,
        [H5TYPE_I16] = ends_max_i16, [H5TYPE_U32] = ends_max_u32, [H5TYPE_I32] = ends_max_i32,
        [H5TYPE_U64] = ends_max_u64, [H5TYPE_I64] = ends_max_i64};
    int known = h5type_of(type);
    ensure(known >= 0 && functions[known]);
    return functions[known];
}

static int edges_check(const struct fetch *f, uint32_t i, const struct order_run *run,
                       const char *slot, struct err *e)
{
    const struct reader_described *d = f->described;
    ends_max_fn *ends_max = ends_max_of(d->fields[i].type);
    const struct source_pointer *nodes = source_nodes(f->source), *edges = source_edges(f->source);
    const struct msg_field_info *pointer = span_field(d->fields, d->field_count, "edge_ptr");
    const uint64_t *local = (const uint64_t *)(slot + pointer->offset) + run->at;
    for (uint64_t row = 0; row < run->rows; row++) {
        uint64_t graph = run->first + row, count = nodes->at[graph + 1] - nodes->at[graph];
        if (edges->at[graph + 1] == edges->at[graph])
            continue;
        uint64_t most = ends_max(slot + d->fields[i].offset, local[row], local[row + 1]);
        if (most >= count)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s of graph %llu names node %lld, and the graph has %llu nodes; edges "
                           "are counted from 0 in their graph",
                           source_field(f->source, f->layout->field[i].set)->path,
                           (unsigned long long)graph, (long long)most, (unsigned long long)count);
    }
    return 0;
}

static int field_finish(const struct fetch *f, uint32_t i, const struct order_run *run, char *slot,
                        struct err *e)
{
    const struct layout_field *from = &f->layout->field[i];
    const struct msg_field_info *info = &f->described->fields[i];
    char *first_row = slot + info->offset + run->at * info->row_bytes;
    switch (from->from) {
    case LAYOUT_POINTER:
        pointer_write(from->cut, run, (uint64_t *)(slot + info->offset));
        return 0;
    case LAYOUT_WINDOWS:
        windows_spread(first_row, run->rows, info->row_bytes, info->row_bytes / info->values);
        return 0;
    case LAYOUT_STARTS:
        starts_mark(from->cut, f->layout->window, run, (unsigned char *)first_row, info->row_bytes);
        return 0;
    case LAYOUT_BEGINS:
        begins_mark(from->cut, f->layout->window, run, (unsigned char *)first_row);
        return 0;
    case LAYOUT_ITEMS:
        break;
    }
    int is_end = strcmp(info->name, "edge_source") == 0 || strcmp(info->name, "edge_target") == 0;
    return is_end ? edges_check(f, i, run, slot, e) : 0;
}

int finish_span(const struct fetch *f, uint64_t epoch, uint64_t span, char *slot, struct err *e)
{
    struct order_run run = {0};
    while (order_run_next(f->order, epoch, span, &run))
        for (uint32_t i = 0; i < f->described->field_count; i++)
            if (field_finish(f, i, &run, slot, e) != 0)
                return -1;
    return 0;
}
