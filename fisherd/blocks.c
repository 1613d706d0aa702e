/* blocks.c - see blocks.h: one cursor that steps from block to block. */
#include "fisherd/blocks.h"

#include <stdio.h>
#include <string.h>

struct cursor {
    const struct model *model;
    uint64_t size;   /* of a block, at most */
    uint32_t tensor; /* next to be taken */
    uint64_t taken;  /* parameters of it that are in earlier blocks */
};

/* Bytes of a tensor's name up to the dot: what it shares with the other tensors of its layer. */
static size_t layer_bytes(const struct tensor_info *t)
{
    return strcspn(t->name, ".");
}

static int layer_same(const struct tensor_info *a, const struct tensor_info *b)
{
    size_t bytes = layer_bytes(a);
    return bytes == layer_bytes(b) && memcmp(a->name, b->name, bytes) == 0;
}

/* Parameters of the layer that begins with tensor `first`, or 0 if another tensor of it came
 * before. */
static uint64_t layer_parameters(const struct model *m, uint32_t first)
{
    uint64_t count = 0;
    if (first > 0 && layer_same(&m->tensors[first - 1], &m->tensors[first]))
        return 0;
    for (uint32_t i = first; i < m->tensor_count && layer_same(&m->tensors[first], &m->tensors[i]);
         i++)
        count += m->tensors[i].count;
    return count;
}

/* How much of the next tensor a block with `room` left takes; 0: none, the block ends here. */
static uint64_t piece_count(const struct cursor *c, uint64_t room)
{
    const struct tensor_info *t = &c->model->tensors[c->tensor];
    uint64_t left = t->count - c->taken, row = t->rank == 2 ? t->dims[1] : 1;
    int empty = room == c->size;
    uint64_t layer = c->taken == 0 ? layer_parameters(c->model, c->tensor) : 0;
    if (!empty && layer > room && layer <= c->size)
        return 0;
    if (left <= room)
        return left;
    if (!empty)
        return 0;
    if (row <= room)
        return room / row * row;
    uint64_t row_left = row - c->taken % row;
    return row_left < room ? row_left : room;
}

/* Add the tensor's name; 0 if there is no room for it. */
static int name_add(struct fisherfile_block *block, const char *name)
{
    size_t used = strlen(block->tensors);
    int wanted = snprintf(block->tensors + used, sizeof block->tensors - used, "%s%s",
                          used ? " " : "", name);
    if ((size_t)wanted < sizeof block->tensors - used)
        return 1;
    block->tensors[used] = 0;
    return 0;
}

/* Fill *block with the next one; 0 after the last. */
static int cursor_next(struct cursor *c, struct fisherfile_block *block)
{
    block->count = 0;
    block->tensors[0] = 0;
    if (c->tensor == c->model->tensor_count)
        return 0;
    block->first = c->model->tensors[c->tensor].first + c->taken;
    while (c->tensor < c->model->tensor_count) {
        const struct tensor_info *t = &c->model->tensors[c->tensor];
        uint64_t count = piece_count(c, c->size - block->count);
        if (count == 0 || !name_add(block, t->name))
            break;
        block->count += count;
        c->taken += count;
        if (c->taken < t->count)
            break;
        c->tensor++;
        c->taken = 0;
    }
    return 1;
}

uint64_t blocks_count(const struct model *m, uint64_t block_size)
{
    struct cursor c = {.model = m, .size = block_size};
    struct fisherfile_block block;
    uint64_t count = 0;
    ensure(block_size > 0);
    while (cursor_next(&c, &block))
        count++;
    return count;
}

void blocks_at(const struct model *m, uint64_t block_size, uint64_t index,
               struct fisherfile_block *block)
{
    struct cursor c = {.model = m, .size = block_size};
    ensure(block_size > 0);
    for (uint64_t i = 0; i <= index; i++)
        ensure(cursor_next(&c, block));
}
