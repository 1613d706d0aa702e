/* piece.c - see piece.h. */
#include "pipelines/prepare/piece.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GZIP_LEVEL = 1, /* as prepare idx */
    CHUNK_BYTES_MAX = 4 << 20,
};

uint64_t piece_chunk_rows(uint64_t row_bytes, uint64_t wanted)
{
    uint64_t rows = CHUNK_BYTES_MAX / row_bytes;
    return rows < 1 ? 1 : rows < wanted ? rows : wanted;
}

/* The buffer of a chunk; rows lie along `axis`. */
static int buffer_get(struct piece *p, struct h5writer *w, const char *name, enum h5type type,
                      int rank, const uint64_t *dims, int axis, uint64_t chunk_rows, struct err *e)
{
    p->writer = w;
    ensure((size_t)snprintf(p->name, sizeof p->name, "%s", name) < sizeof p->name);
    p->row_bytes = h5type_bytes(type);
    for (int i = 0; i < rank; i++)
        p->row_bytes *= i == axis ? 1 : dims[i];
    p->chunk_rows = chunk_rows;
    p->held = 0;
    p->data = malloc(p->chunk_rows * p->row_bytes);
    return p->data ? 0
                   : err_errno(e, EXIT_CODE_TEMPORARY, "cannot get memory for a chunk of %s", name);
}

int piece_begin(struct piece *p, struct h5writer *w, const char *name, enum h5type type, int rank,
                const uint64_t *dims, uint64_t chunk_rows, struct err *e)
{
    uint64_t rows = chunk_rows < dims[0] ? chunk_rows : dims[0];
    if (buffer_get(p, w, name, type, rank, dims, 0, rows, e) < 0)
        return -1;
    return h5writer_rows_begin(w, p->name, type, rank, dims, p->chunk_rows, GZIP_LEVEL, e);
}

int piece_begin_growing(struct piece *p, struct h5writer *w, const char *name, enum h5type type,
                        int rank, const uint64_t *dims, int axis, uint64_t chunk_rows,
                        struct err *e)
{
    if (buffer_get(p, w, name, type, rank, dims, axis, chunk_rows, e) < 0)
        return -1;
    return h5writer_growing_begin(w, p->name, type, rank, dims, axis, p->chunk_rows, GZIP_LEVEL, e);
}

void piece_close(struct piece *p)
{
    free(p->data);
    memset(p, 0, sizeof *p);
}

int piece_flush(struct piece *p, struct err *e)
{
    uint64_t rows = p->held;
    p->held = 0;
    return rows ? h5writer_rows_append(p->writer, p->name, p->data, rows, e) : 0;
}

unsigned char *piece_row(struct piece *p, struct err *e)
{
    if (p->held == p->chunk_rows && piece_flush(p, e) < 0)
        return NULL;
    return p->data + p->row_bytes * p->held++;
}

int piece_add(struct piece *p, const void *rows, uint64_t count, struct err *e)
{
    const unsigned char *from = rows;
    while (count > 0) {
        if (p->held == p->chunk_rows && piece_flush(p, e) < 0)
            return -1;
        uint64_t fit = p->chunk_rows - p->held;
        fit = count < fit ? count : fit;
        memcpy(p->data + p->held * p->row_bytes, from, fit * p->row_bytes);
        p->held += fit;
        from += fit * p->row_bytes;
        count -= fit;
    }
    return 0;
}
