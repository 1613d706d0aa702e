/* h5file_packed.c - one-dimensional sets whose chunks the caller packs, in threads, before libhdf5
 * sees them.
 *
 * H5PACK_GZIP is the standard pair of filters, shuffle and deflate; H5PACK_CODES is deflate alone,
 * by huffman.c.
 */
#include "proto/h5file_private.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>

#include "proto/huffman.h"

/* Bytes so few that clearing the tables of a higher level takes longer than packing. */
enum { SMALL = 16384 };

int h5packed_open(struct h5packed *p, enum h5packing packing, enum h5type type, int level,
                  uint64_t count, uint64_t chunk, const void *data, struct err *e)
{
    chunk = chunk < count || !count ? chunk : count;
    ensure(packing != H5PACK_CODES || (type == H5TYPE_U8 && chunk <= HUFFMAN_BYTES_MAX));
    ensure(level >= 1 && level <= 9 && chunk > 0 && chunk * h5type_bytes(type) <= UINT32_MAX);
    *p = (struct h5packed){packing, type, level, count, chunk, data, 0, NULL};
    if (packing == H5PACK_NONE || count == 0)
        return 0;
    p->chunks = (count - 1) / chunk + 1;
    p->chunk_at = calloc(p->chunks, sizeof *p->chunk_at);
    return p->chunk_at ? 0
                       : err_errno(e, EXIT_CODE_TEMPORARY, "cannot pack %llu chunks",
                                   (unsigned long long)p->chunks);
}

void h5packed_free(struct h5packed *p)
{
    for (uint64_t i = 0; p->chunk_at && i < p->chunks; i++)
        free(p->chunk_at[i].bytes);
    free(p->chunk_at);
    p->chunk_at = NULL;
    p->chunks = 0;
}

uint64_t h5packed_bytes(const struct h5packed *p)
{
    uint64_t bytes = p->chunk_at ? 0 : p->count * h5type_bytes(p->type);
    for (uint64_t i = 0; i < p->chunks; i++)
        bytes += p->chunk_at[i].size;
    return bytes;
}

static int chunk_deflate(struct h5packed_chunk *c, const uint8_t *data, uint64_t bytes, int level)
{
    struct libdeflate_compressor *compressor =
        libdeflate_alloc_compressor(bytes < SMALL ? 1 : level);
    if (!compressor)
        return -1;
    uint64_t room = libdeflate_zlib_compress_bound(compressor, bytes);
    c->bytes = malloc(room);
    if (c->bytes) {
        c->size = libdeflate_zlib_compress(compressor, data, bytes, c->bytes, room);
        ensure(c->size > 0); /* `room` is libdeflate's own bound */
    }
    libdeflate_free_compressor(compressor);
    return c->bytes ? 0 : -1;
}

static int chunk_huffman(struct h5packed_chunk *c, const uint8_t *data, uint64_t bytes)
{
    c->bytes = malloc(huffman_bound(bytes));
    if (!c->bytes)
        return -1;
    c->size = huffman_pack(data, bytes, c->bytes);
    return 0;
}

/* What is kept is only as large as it has to be: all chunks of a block are held until they are
 * written. */
static void chunk_trim(struct h5packed_chunk *c)
{
    void *less = realloc(c->bytes, c->size);
    c->bytes = less ? less : c->bytes;
}

int h5packed_chunk(struct h5packed *p, uint64_t index, struct err *e)
{
    uint32_t element = h5type_bytes(p->type);
    uint64_t bytes = p->chunk * element, first = index * p->chunk, left = p->count - first;
    const uint8_t *from = (const uint8_t *)p->data + first * element;
    struct h5packed_chunk *c = &p->chunk_at[index];
    uint8_t *whole = NULL, *shuffled = NULL;
    int result = -1;
    ensure(index < p->chunks && !c->bytes);
    if (left < p->chunk) { /* the format wants whole chunks */
        whole = calloc(bytes, 1);
        if (!whole)
            goto out;
        memcpy(whole, from, left * element);
        from = whole;
    }
    if (p->packing == H5PACK_GZIP && element > 1) {
        shuffled = malloc(bytes);
        if (!shuffled)
            goto out;
        h5_shuffle(shuffled, from, bytes, element);
        from = shuffled;
    }
    result = p->packing == H5PACK_GZIP ? chunk_deflate(c, from, bytes, p->level)
                                       : chunk_huffman(c, from, bytes);
    if (result == 0)
        chunk_trim(c);
out:
    free(whole);
    free(shuffled);
    return result == 0 ? 0
                       : err_errno(e, EXIT_CODE_TEMPORARY, "cannot pack a chunk of %llu bytes",
                                   (unsigned long long)bytes);
}

static hid_t packed_create(struct h5writer *w, const char *name, const struct h5packed *p)
{
    hsize_t size = p->count, chunk = p->chunk;
    hid_t set = H5I_INVALID_HID, space = H5Screate_simple(1, &size, NULL),
          list = H5Pcreate(H5P_DATASET_CREATE);
    if (space >= 0 && list >= 0 && H5Pset_obj_track_times(list, 0) >= 0 &&
        H5Pset_chunk(list, 1, &chunk) >= 0 &&
        (p->packing != H5PACK_GZIP || H5Pset_shuffle(list) >= 0) &&
        H5Pset_deflate(list, (unsigned)p->level) >= 0 &&
        H5Pset_fill_time(list, H5D_FILL_TIME_NEVER) >= 0)
        set = H5Dcreate2(w->file, name, h5_type(p->type), space, H5P_DEFAULT, list, H5P_DEFAULT);
    h5_close(&list);
    h5_close(&space);
    return set;
}

int h5writer_packed(struct h5writer *w, const char *name, const struct h5packed *p, struct err *e)
{
    if (p->packing == H5PACK_NONE || p->count == 0)
        return h5writer_array(w, name, p->type, 1, &p->count, p->data, e);
    if (h5_groups_make(w, name, e) < 0)
        return -1;
    hid_t set = packed_create(w, name, p);
    int result = set < 0 ? -1 : 0;
    for (uint64_t i = 0; result == 0 && i < p->chunks; i++) {
        hsize_t at = i * p->chunk;
        ensure(p->chunk_at[i].bytes);
        result =
            H5Dwrite_chunk(set, H5P_DEFAULT, 0, &at, p->chunk_at[i].size, p->chunk_at[i].bytes) < 0
                ? -1
                : 0;
    }
    if (result < 0)
        h5_fail(e, EXIT_CODE_PERMANENT, "cannot write data set %s in %s", name, w->temporary);
    h5_close(&set);
    return h5_wrote(w, result, e);
}

int h5writer_copy(struct h5writer *w, const char *name, struct h5reader *from, struct err *e)
{
    int result = h5_groups_make(w, name, e);
    if (result == 0 && H5Ocopy(from->file, name, w->file, name, H5P_DEFAULT, H5P_DEFAULT) < 0)
        result = h5_fail(e, EXIT_CODE_PERMANENT, "cannot copy %s of %s to %s", name, from->path,
                         w->temporary);
    return h5_wrote(w, result, e);
}
