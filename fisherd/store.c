/* store.c - see store.h. Memory is that of one block in its stored form, whatever the model's size.
 */
#include "fisherd/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Elements of a chunk: large enough for its tables to cost nothing, small enough to be shared out
 * among threads. */
enum { CHUNK = 65536 };

const char *store_form(const struct options *o)
{
    return o->fisher_use_compression ? o->fisher_compression : fisher_form_name(FISHER_FLOAT32);
}

static struct fisher_coding coding_of(const struct options *o)
{
    int form = fisher_form_of(store_form(o));
    ensure(form >= 0); /* the option's choices are forms */
    return (struct fisher_coding){.form = (enum fisher_form)form,
                                  .ratio = o->fisher_compression_ratio,
                                  .step = o->fisher_compression_step};
}

/* Cut [first, end) of a tensor: up to a row's end, whole rows, the rest. */
static uint64_t tensor_pieces(const struct tensor_info *t, uint64_t first, uint64_t end,
                              struct fisher_piece *pieces)
{
    uint64_t columns = t->rank == 2 ? t->dims[1] : t->count, made = 0, at = first - t->first;
    uint64_t left = end - first, head = at % columns ? columns - at % columns : 0;
    head = head < left ? head : left;
    if (head)
        pieces[made++] = (struct fisher_piece){1, head};
    left -= head;
    if (left >= columns)
        pieces[made++] = (struct fisher_piece){left / columns, columns};
    if (left % columns)
        pieces[made++] = (struct fisher_piece){1, left % columns};
    return made;
}

uint64_t store_pieces(const struct model *m, uint64_t first, uint64_t count,
                      struct fisher_piece **pieces_p)
{
    uint64_t made = 0, end = first + count;
    *pieces_p = malloc(3 * (uint64_t)m->tensor_count * sizeof **pieces_p);
    for (uint32_t i = 0; *pieces_p && i < m->tensor_count; i++) {
        const struct tensor_info *t = &m->tensors[i];
        uint64_t from = t->first > first ? t->first : first;
        uint64_t to = t->first + t->count < end ? t->first + t->count : end;
        if (from < to)
            made += tensor_pieces(t, from, to, *pieces_p + made);
    }
    return made;
}

/* The chunks of all arrays of a block, numbered one array after the other. */
struct packing {
    struct h5packed array[FISHERFILE_ARRAYS_MAX];
    int arrays;
    struct err *why; /* one for each chunk */
};

static void pack_item(void *argument, uint64_t item, int thread)
{
    struct packing *p = argument;
    uint64_t index = item;
    int i = 0;
    (void)thread;
    while (index >= p->array[i].chunks)
        index -= p->array[i++].chunks;
    if (h5packed_chunk(&p->array[i], index, &p->why[item]) < 0)
        ensure(p->why[item].code);
}

/* The bytes of log_rank1 lie so that what is alike is together; those of int8 and int4 lie as they
 * come, and gzip may find rows that repeat. */
static enum h5packing packing_of(const struct fisher_code *c, const struct fisher_part *part)
{
    if (c->form == FISHER_FLOAT32)
        return H5PACK_NONE;
    int bytes = strcmp(part->type, h5type_name(H5TYPE_U8)) == 0;
    return bytes && c->form == FISHER_LOG_RANK1 ? H5PACK_CODES : H5PACK_GZIP;
}

/* The arrays of the block, named in *block. */
static int packing_open(struct packing *p, const struct fisher_code *c, int level,
                        struct fisherfile_block *block, struct err *e)
{
    memset(p, 0, sizeof *p);
    for (int i = 0; i < c->parts; i++) {
        const struct fisher_part *part = &c->part[i];
        enum h5packing packing = packing_of(c, part);
        snprintf(block->array[i].name, sizeof block->array[i].name, "%s", part->name);
        if (h5packed_open(&p->array[i], packing, (enum h5type)h5type_of(part->type), level,
                          part->count, CHUNK, part->data, e) < 0)
            return -1;
        block->arrays = ++p->arrays;
    }
    return 0;
}

static int packing_run(struct packing *p, struct pool *pool, struct err *e)
{
    uint64_t chunks = 0;
    for (int i = 0; i < p->arrays; i++)
        chunks += p->array[i].chunks;
    p->why = calloc(chunks + 1, sizeof *p->why);
    if (!p->why)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot pack a block of the Fisher information");
    pool_run(pool, pack_item, p, chunks);
    for (uint64_t i = 0; i < chunks; i++)
        if (p->why[i].code) {
            *e = p->why[i];
            return -1;
        }
    return 0;
}

static void packing_close(struct packing *p)
{
    for (int i = 0; i < p->arrays; i++)
        h5packed_free(&p->array[i]);
    free(p->why);
}

static int code_write(const struct fisher_code *c, int level, struct pool *pool,
                      const char *part_dir, uint64_t index, const char *job,
                      struct fisherfile_block *block, struct err *e)
{
    struct packing p;
    snprintf(block->form, sizeof block->form, "%s", fisher_form_name(c->form));
    block->sum = c->sum;
    block->norm = c->norm;
    block->error = c->error;
    int result = packing_open(&p, c, level, block, e);
    if (result == 0)
        result = packing_run(&p, pool, e);
    if (result == 0)
        result = fisherfile_write_part(part_dir, index, job, block, p.array, e);
    packing_close(&p);
    block->arrays = 0; /* what they named is released */
    return result;
}

int store_block(struct fisher_code *code, const struct options *o, const struct model *m,
                struct pool *pool, const char *part_dir, uint64_t index, const char *job,
                struct fisherfile_block *block, const float *values, struct err *e)
{
    const struct fisher_coding coding = coding_of(o);
    struct fisher_piece *pieces;
    uint64_t count = store_pieces(m, block->first, block->count, &pieces);
    int result = pieces ? fisher_encode(code, &coding, pieces, count, values, pool, e)
                        : err_errno(e, EXIT_CODE_TEMPORARY,
                                    "cannot store a block of the Fisher information");
    free(pieces);
    return result < 0 ? -1
                      : code_write(code, (int)o->fisher_compression_level, pool, part_dir, index,
                                   job, block, e);
}
