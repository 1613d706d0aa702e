/* h5source_read.c - see h5source.h: the bytes of a data set, as stored or converted by libhdf5. */
#include "loaderd/h5source_private.h"

#include <stdio.h>
#include <string.h>

/* Where the chunk begins. */
static void chunk_at(const struct source_set *t, uint32_t plane, uint64_t chunk,
                     hsize_t at[H5FILE_RANK_MAX])
{
    int axis = t->kind->axis;
    memset(at, 0, H5FILE_RANK_MAX * sizeof *at);
    at[0] = plane / t->chunk[0] * t->chunk[0];
    at[axis] = chunk * t->chunk[axis];
}

static int size_check(const struct source *s, const struct source_set *t, uint64_t chunk,
                      uint64_t bytes, struct err *e)
{
    if (bytes <= s->file_bytes && bytes <= 2 * t->field.chunk_bytes + 4096)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "chunk %llu of %s claims %llu stored bytes for %llu of data in a file of %llu: "
                   "the file is damaged",
                   (unsigned long long)chunk, t->field.path, (unsigned long long)bytes,
                   (unsigned long long)t->field.chunk_bytes, (unsigned long long)s->file_bytes);
}

/* By a read that reads nothing: in any order it costs one look-up, where
 * H5Dget_chunk_info_by_coord walks over all chunks before the one wanted. */
int source_chunk_find(struct source *s, uint32_t field, uint32_t plane, uint64_t chunk,
                      uint64_t *bytes, uint64_t *place, uint32_t *mask, struct err *e)
{
    const struct source_set *t = &s->set[field];
    hsize_t at[H5FILE_RANK_MAX], stored = 0;
    chunk_at(t, plane, chunk, at);
    int failed = H5Dread_chunk(t->dataset, H5P_DEFAULT, at, mask, source_driver_seek()) < 0;
    *bytes = source_driver_sought(place);
    if (!failed && *bytes)
        return size_check(s, t, chunk, *bytes, e);
    char reason[200];
    snprintf(reason, sizeof reason, "%s", failed ? source_reason() : "it has no bytes");
    if (H5Dget_chunk_storage_size(t->dataset, at, &stored) < 0)
        stored = 0; /* "not allocated", or damaged: then reading its rows says so */
    *bytes = 0;
    if (!stored || size_check(s, t, chunk, stored, e) != 0)
        return stored ? -1 : 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "chunk %llu of %s (%llu stored bytes) cannot be read: %s",
                   (unsigned long long)chunk, t->field.path, (unsigned long long)stored, reason);
}

source_bytes_read_at *source_bytes_reader(const struct source *s, int *fd)
{
    *fd = s->fd;
    return source_driver_pread;
}

static int plain_read(struct source *s, const struct source_field *f, uint32_t plane, uint64_t item,
                      uint64_t items, void *out, struct err *e)
{
    if (source_driver_read(s->fd, out, items * f->row_bytes,
                           f->plain_at + (plane * f->items + item) * f->row_bytes) == 0)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "rows %llu to %llu of %s cannot be read: the file was cut or its disk fails",
                   (unsigned long long)item, (unsigned long long)(item + items - 1), f->path);
}

/* A box of a data set. */
struct box {
    hsize_t start[H5FILE_RANK_MAX], count[H5FILE_RANK_MAX];
};

/* libhdf5 keeps some 4 KiB for each chunk that a read touches: so it is given boxes of at most this
 * many. */
enum { CHUNKS_A_READ = 4096 };

/* How large such boxes of whole chunks are; all of `whole` when it is not chunked. */
static void box_sizes(const struct source_set *t, const struct box *whole,
                      hsize_t sizes[H5FILE_RANK_MAX])
{
    uint64_t left = CHUNKS_A_READ;
    for (int i = t->rank - 1; i >= 0; i--) {
        sizes[i] = whole->count[i];
        if (!t->field.chunk_rows)
            continue;
        uint64_t chunks = whole->count[i] / t->chunk[i] + 2; /* both ends may lie inside one */
        if (chunks > left) {
            chunks = left;
            sizes[i] = chunks * t->chunk[i];
        }
        left = chunks < left ? left / chunks : 1;
    }
}

/* Move `b` to the next box of `whole`; 0 after the last. */
static int box_next(const struct source_set *t, const struct box *whole,
                    const hsize_t sizes[H5FILE_RANK_MAX], struct box *b)
{
    for (int i = t->rank - 1; i >= 0; i--) {
        hsize_t end = whole->start[i] + whole->count[i];
        b->start[i] += b->count[i];
        int more = b->start[i] < end;
        if (!more)
            b->start[i] = whole->start[i];
        b->count[i] = end - b->start[i] < sizes[i] ? end - b->start[i] : sizes[i];
        if (more)
            return 1;
    }
    return 0;
}

static int boxes_read(const struct source_set *t, const struct box *whole, hid_t memory,
                      hid_t space, void *out)
{
    hsize_t sizes[H5FILE_RANK_MAX], at[H5FILE_RANK_MAX];
    struct box b = *whole;
    box_sizes(t, whole, sizes);
    for (int i = 0; i < t->rank; i++)
        b.count[i] = sizes[i] < whole->count[i] ? sizes[i] : whole->count[i];
    do {
        for (int i = 0; i < t->rank; i++)
            at[i] = b.start[i] - whole->start[i];
        if (H5Sselect_hyperslab(space, H5S_SELECT_SET, b.start, NULL, b.count, NULL) < 0 ||
            H5Sselect_hyperslab(memory, H5S_SELECT_SET, at, NULL, b.count, NULL) < 0 ||
            H5Dread(t->dataset, t->memory_type, memory, space, H5P_DEFAULT, out) < 0)
            return -1;
    } while (box_next(t, whole, sizes, &b));
    return 0;
}

/* Bytes of `count` decoded chunks, the last of them (all that hold its items) those of item `last`:
 * the final chunk of a data set holds fewer items than the others. */
static uint64_t chunks_bytes(const struct source_set *t, uint64_t count, uint64_t last)
{
    const struct source_field *f = &t->field;
    uint64_t beside = 1, end = (last / f->chunk_rows + 1) * f->chunk_rows;
    uint64_t item_bytes = f->row_bytes * f->chunk_planes;
    uint64_t missing = end > f->items ? (end - f->items) * item_bytes : 0;
    for (int i = t->kind->axis + 1; i < t->rank; i++)
        beside *= (t->dims[i] - 1) / t->chunk[i] + 1;
    uint64_t of_last = count < beside ? count : beside;
    return (count * f->chunk_rows * item_bytes - of_last * missing) / beside;
}

/* What libhdf5 decoded for a read that ended with item `last`, by its reads of the file: a filtered
 * chunk is decoded whole, and not at all where the cache still has it; of others it reads what it
 * wants. */
static uint64_t bytes_decoded(const struct source_set *t, const struct source_raw *before,
                              uint64_t items, uint64_t last)
{
    struct source_raw now = source_driver_raw();
    if (!t->field.chunk_rows)
        return items * t->field.row_bytes;
    return t->field.plan.count ? chunks_bytes(t, now.count - before->count, last)
                               : now.bytes - before->bytes;
}

int source_set_read(struct source *s, const struct source_set *t, uint32_t plane, uint64_t item,
                    uint64_t items, void *out, struct err *e)
{
    struct box whole = {.start = {0}};
    int axis = t->kind->axis;
    struct source_raw before = source_driver_raw();
    ensure(items > 0 && item + items <= t->field.items && plane < t->field.planes);
    if (t->field.plain_at != UINT64_MAX) {
        s->bytes_decoded += items * t->field.row_bytes;
        return plain_read(s, &t->field, plane, item, items, out, e);
    }
    memcpy(whole.count, t->dims, sizeof whole.count);
    if (axis) {
        whole.start[0] = plane;
        whole.count[0] = 1;
    }
    whole.start[axis] = item;
    whole.count[axis] = items;
    if (t->field.chunk_rows) /* a chunk never written, of a set without fill values, leaves `out`
                                alone */
        memset(out, 0, items * t->field.row_bytes);
    hid_t memory = H5Screate_simple(t->rank, whole.count, NULL), space = H5Dget_space(t->dataset);
    int failed = memory < 0 || space < 0 || boxes_read(t, &whole, memory, space, out) != 0;
    s->bytes_decoded += bytes_decoded(t, &before, items, item + items - 1);
    if (failed)
        err_set(e, EXIT_CODE_PERMANENT, "rows %llu to %llu of %s cannot be read: %s",
                (unsigned long long)item, (unsigned long long)(item + items - 1), t->field.path,
                source_reason());
    if (memory >= 0)
        H5Sclose(memory);
    if (space >= 0)
        H5Sclose(space);
    return failed ? -1 : 0;
}

int source_items_read(struct source *s, uint32_t field, uint32_t plane, uint64_t item,
                      uint64_t items, void *out, struct err *e)
{
    ensure(field < s->field_count);
    return source_set_read(s, &s->set[field], plane, item, items, out, e);
}

uint64_t source_bytes_decoded(const struct source *s)
{
    return s->bytes_decoded;
}

uint64_t source_bytes_read(const struct source *s)
{
    (void)s;
    return source_driver_bytes();
}
