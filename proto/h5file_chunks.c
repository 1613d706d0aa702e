/* h5file_chunks.c - chunked data sets with byte shuffle and gzip, packed here instead of inside
 * libhdf5.
 *
 * A chunk is shuffled (byte k of every element, for each k in turn), compressed with libdeflate in
 * zlib's format and stored with H5Dwrite_chunk under the standard filters shuffle and deflate, so
 * that every HDF5 reader unpacks it. Chunks at the edge of an array are padded with zeros, as the
 * format wants.
 */
#include "proto/h5file_private.h"

#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct h5chunks {
    char name[H5FILE_NAME_MAX + 1];
    hid_t set;
    int rank, axis; /* rows are counted along the axis; 0 but for growing sets */
    int growing;    /* dims[axis] is what has been appended */
    uint32_t element_bytes;
    uint64_t dims[H5FILE_RANK_MAX], chunk[H5FILE_RANK_MAX];
    uint64_t chunk_bytes, packed_max;
    uint64_t rows; /* appended so far */
    struct libdeflate_compressor *compressor;
    uint8_t *whole, *shuffled, *packed;
};

static void chunks_close(struct h5chunks **c_p)
{
    struct h5chunks *c = *c_p;
    if (!c)
        return;
    h5_close(&c->set);
    if (c->compressor)
        libdeflate_free_compressor(c->compressor);
    free(c->whole);
    free(c->shuffled);
    free(c->packed);
    free(c);
    *c_p = NULL;
}

static hid_t chunks_create(struct h5writer *w, const struct h5chunks *c, enum h5type type,
                           int level)
{
    hsize_t sizes[H5FILE_RANK_MAX], limits[H5FILE_RANK_MAX], chunk[H5FILE_RANK_MAX];
    for (int i = 0; i < c->rank; i++) {
        sizes[i] = c->dims[i];
        limits[i] = c->growing && i == c->axis ? H5S_UNLIMITED : sizes[i];
        chunk[i] = c->chunk[i];
    }
    hid_t set = H5I_INVALID_HID;
    hid_t space = H5Screate_simple(c->rank, sizes, limits), list = H5Pcreate(H5P_DATASET_CREATE);
    if (space >= 0 && list >= 0 && H5Pset_obj_track_times(list, 0) >= 0 &&
        H5Pset_chunk(list, c->rank, chunk) >= 0 && H5Pset_shuffle(list) >= 0 &&
        H5Pset_deflate(list, (unsigned)level) >= 0 &&
        H5Pset_fill_time(list, H5D_FILL_TIME_NEVER) >= 0)
        set = H5Dcreate2(w->file, c->name, h5_type(type), space, H5P_DEFAULT, list, H5P_DEFAULT);
    h5_close(&list);
    h5_close(&space);
    return set;
}

/* chunk[] is cut to the array's size: a larger chunk would hold nothing but padding. axis: the one
 * that grows, or -1. */
static int chunks_open(struct h5chunks **c_p, struct h5writer *w, const char *name,
                       enum h5type type, int rank, const uint64_t *dims, const uint64_t *chunk,
                       int axis, int level, struct err *e)
{
    uint64_t bytes;
    ensure(rank >= 1 && rank <= H5FILE_RANK_MAX && level >= 1 && level <= 9 && axis < rank);
    ensure(h5_bytes(type, rank, axis < 0 ? dims : chunk, &bytes) == 0);
    struct h5chunks *c = *c_p = calloc(1, sizeof *c);
    if (!c)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write data set %s in %s", name,
                         w->temporary);
    c->set = H5I_INVALID_HID;
    snprintf(c->name, sizeof c->name, "%s", name);
    c->rank = rank;
    c->growing = axis >= 0;
    c->axis = c->growing ? axis : 0;
    c->element_bytes = h5type_bytes(type);
    for (int i = 0; i < rank; i++) {
        ensure((dims[i] > 0 || i == axis) && chunk[i] > 0);
        c->dims[i] = i == axis ? 0 : dims[i];
        c->chunk[i] = chunk[i] < dims[i] || i == axis ? chunk[i] : dims[i];
    }
    if (h5_bytes(type, rank, c->chunk, &c->chunk_bytes) < 0 || c->chunk_bytes > UINT32_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot write data set %s in %s: a chunk would have 4 GiB or more", name,
                       w->temporary);
    c->compressor = libdeflate_alloc_compressor(level);
    c->packed_max =
        c->compressor ? libdeflate_zlib_compress_bound(c->compressor, c->chunk_bytes) : 0;
    c->whole = malloc(c->chunk_bytes);
    c->shuffled = malloc(c->chunk_bytes);
    c->packed = malloc(c->packed_max);
    if (!c->compressor || !c->whole || !c->shuffled || !c->packed)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write data set %s in %s", name,
                         w->temporary);
    if (h5_groups_make(w, name, e) < 0)
        return -1;
    c->set = chunks_create(w, c, type, level);
    if (c->set < 0)
        return h5_fail(e, EXIT_CODE_PERMANENT, "cannot make data set %s in %s", name, w->temporary);
    return 0;
}

/* Step to the next line of a chunk, a line being what lies along the last axis; 0 after the last
 * one that is inside the array. */
static int line_next(const struct h5chunks *c, const uint64_t *offset, uint64_t *line)
{
    for (int i = c->rank - 2; i >= 0; i--) {
        line[i]++;
        if (line[i] < c->chunk[i] && offset[i] + line[i] < c->dims[i])
            return 1;
        line[i] = 0;
    }
    return 0;
}

/* Copy the part of the array that lies in the chunk at `offset` into the padded chunk `to`. */
static void region_copy(const struct h5chunks *c, const uint64_t *offset, const uint8_t *array,
                        uint8_t *to)
{
    int last = c->rank - 1;
    uint64_t line[H5FILE_RANK_MAX] = {0}, left = c->dims[last] - offset[last];
    uint64_t bytes = (left < c->chunk[last] ? left : c->chunk[last]) * c->element_bytes;
    do {
        uint64_t from_index = 0, to_index = 0;
        for (int i = 0; i < c->rank; i++) {
            from_index = from_index * c->dims[i] + offset[i] + line[i];
            to_index = to_index * c->chunk[i] + line[i];
        }
        memcpy(to + to_index * c->element_bytes, array + from_index * c->element_bytes, bytes);
    } while (line_next(c, offset, line));
}

void h5_shuffle(uint8_t *to, const uint8_t *from, uint64_t bytes, uint32_t element_bytes)
{
    uint64_t count = bytes / element_bytes;
    for (uint32_t k = 0; k < element_bytes; k++)
        for (uint64_t i = 0; i < count; i++)
            to[k * count + i] = from[i * element_bytes + k];
}

/* Pack and store one whole chunk whose first element is at `offset` of the array. */
static int chunk_store(struct h5writer *w, struct h5chunks *c, const uint64_t *offset,
                       const uint8_t *data, struct err *e)
{
    hsize_t at[H5FILE_RANK_MAX];
    for (int i = 0; i < c->rank; i++)
        at[i] = offset[i];
    if (c->element_bytes > 1) {
        h5_shuffle(c->shuffled, data, c->chunk_bytes, c->element_bytes);
        data = c->shuffled;
    }
    size_t packed =
        libdeflate_zlib_compress(c->compressor, data, c->chunk_bytes, c->packed, c->packed_max);
    ensure(packed > 0); /* packed_max is libdeflate's own bound */
    int result = H5Dwrite_chunk(c->set, H5P_DEFAULT, 0, at, packed, c->packed) < 0 ? -1 : 0;
    if (result < 0)
        h5_fail(e, EXIT_CODE_PERMANENT, "cannot write data set %s in %s", c->name, w->temporary);
    return h5_wrote(w, result, e);
}

/* Step `offset` to the next chunk, last axis fastest; 0 after the last. */
static int offset_next(const struct h5chunks *c, uint64_t *offset)
{
    for (int i = c->rank - 1; i >= 0; i--) {
        offset[i] += c->chunk[i];
        if (offset[i] < c->dims[i])
            return 1;
        offset[i] = 0;
    }
    return 0;
}

int h5writer_gzip(struct h5writer *w, const char *name, enum h5type type, int rank,
                  const uint64_t *dims, const uint64_t *chunk, int level, const void *data,
                  struct err *e)
{
    struct h5chunks *c = NULL;
    uint64_t offset[H5FILE_RANK_MAX] = {0};
    int result = chunks_open(&c, w, name, type, rank, dims, chunk, -1, level, e);
    int more = result == 0;
    while (more) {
        memset(c->whole, 0, c->chunk_bytes);
        region_copy(c, offset, data, c->whole);
        result = chunk_store(w, c, offset, c->whole, e);
        more = result == 0 && offset_next(c, offset);
    }
    chunks_close(&c);
    return result;
}

/* Begin a set that stays open until the file is committed; axis: the one that grows, or -1. */
static int rows_begin(struct h5writer *w, const char *name, enum h5type type, int rank,
                      const uint64_t *dims, int axis, uint64_t chunk_rows, int level, struct err *e)
{
    uint64_t chunk[H5FILE_RANK_MAX];
    ensure(rank >= 1 && rank <= H5FILE_RANK_MAX && w->row_sets < H5FILE_ROWS_SETS_MAX);
    for (int i = 0; i < rank; i++)
        chunk[i] = i == (axis < 0 ? 0 : axis) ? chunk_rows : dims[i];
    struct h5chunks **c_p = &w->rows[w->row_sets];
    int result = chunks_open(c_p, w, name, type, rank, dims, chunk, axis, level, e);
    if (result < 0)
        chunks_close(c_p);
    else
        w->row_sets++;
    return result;
}

int h5writer_rows_begin(struct h5writer *w, const char *name, enum h5type type, int rank,
                        const uint64_t *dims, uint64_t chunk_rows, int level, struct err *e)
{
    return rows_begin(w, name, type, rank, dims, -1, chunk_rows, level, e);
}

int h5writer_growing_begin(struct h5writer *w, const char *name, enum h5type type, int rank,
                           const uint64_t *dims, int axis, uint64_t chunk_rows, int level,
                           struct err *e)
{
    ensure(axis >= 0);
    return rows_begin(w, name, type, rank, dims, axis, chunk_rows, level, e);
}

/* Copy a piece of `rows` rows along the axis into the padded chunk c->whole. */
static void piece_pad(const struct h5chunks *c, const uint8_t *data, uint64_t rows)
{
    uint64_t outer = 1, row_bytes = c->element_bytes;
    for (int i = 0; i < c->axis; i++)
        outer *= c->chunk[i];
    for (int i = c->axis + 1; i < c->rank; i++)
        row_bytes *= c->chunk[i];
    uint64_t bytes = rows * row_bytes, stride = c->chunk[c->axis] * row_bytes;
    for (uint64_t i = 0; i < outer; i++) {
        memcpy(c->whole + i * stride, data + i * bytes, bytes);
        memset(c->whole + i * stride + bytes, 0, stride - bytes);
    }
}

/* Make room for a piece of `rows` rows at the end of a growing set. */
static int set_extend(struct h5writer *w, struct h5chunks *c, uint64_t rows, struct err *e)
{
    hsize_t sizes[H5FILE_RANK_MAX];
    ensure(rows <= c->chunk[c->axis] && c->rows % c->chunk[c->axis] == 0);
    c->dims[c->axis] += rows;
    for (int i = 0; i < c->rank; i++)
        sizes[i] = c->dims[i];
    return H5Dset_extent(c->set, sizes) < 0
               ? h5_fail(e, EXIT_CODE_PERMANENT, "cannot extend data set %s in %s", c->name,
                         w->temporary)
               : 0;
}

int h5writer_rows_append(struct h5writer *w, const char *name, const void *data, uint64_t rows,
                         struct err *e)
{
    struct h5chunks *c = NULL;
    for (int i = 0; i < w->row_sets && !c; i++)
        if (strcmp(w->rows[i]->name, name) == 0)
            c = w->rows[i];
    ensure(c);
    if (c->growing && set_extend(w, c, rows, e) < 0)
        return -1;
    uint64_t chunk_rows = c->chunk[c->axis], row_bytes = c->chunk_bytes / chunk_rows;
    ensure(rows <= c->dims[c->axis] - c->rows);
    ensure(rows % chunk_rows == 0 || c->rows + rows == c->dims[c->axis]);
    const uint8_t *from = data;
    while (rows > 0) {
        uint64_t offset[H5FILE_RANK_MAX] = {0}, count = rows < chunk_rows ? rows : chunk_rows;
        offset[c->axis] = c->rows;
        if (count < chunk_rows)
            piece_pad(c, from, count);
        if (chunk_store(w, c, offset, count < chunk_rows ? c->whole : from, e) < 0)
            return -1;
        from += count * row_bytes;
        c->rows += count;
        rows -= count;
    }
    return 0;
}

int h5_rows_complete(const struct h5writer *w, struct err *e)
{
    for (int i = 0; i < w->row_sets; i++) {
        const struct h5chunks *c = w->rows[i];
        if (c->rows != c->dims[c->axis])
            return err_set(e, EXIT_CODE_PERMANENT,
                           "cannot finish %s: data set %s has %llu of its %llu rows", w->path,
                           c->name, (unsigned long long)c->rows,
                           (unsigned long long)c->dims[c->axis]);
    }
    return 0;
}

void h5_rows_free(struct h5writer *w)
{
    for (int i = 0; i < w->row_sets; i++)
        chunks_close(&w->rows[i]);
    w->row_sets = 0;
}
