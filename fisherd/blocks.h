/* blocks.h - how the parameters of a model are cut into the blocks that fisherd works through.
 *
 * A block is a range of the flat vector of at most block_size parameters. It takes whole tensors of
 * consecutive layers while they fit; a layer that fits a block is not divided; a tensor larger than
 * a block is cut after whole output rows, and a row larger than a block wherever the block is full.
 * The cut is a pure function of the model and block_size, so that a restart finds the blocks made
 * before.
 */
#ifndef FISHERD_BLOCKS_H
#define FISHERD_BLOCKS_H

#include <stdint.h>

#include "engine/model.h"
#include "proto/fisherfile.h"

uint64_t blocks_count(const struct model *m, uint64_t block_size);

/* Block number `index` (0 .. blocks_count - 1): range, and the names of the tensors it touches. */
void blocks_at(const struct model *m, uint64_t block_size, uint64_t index,
               struct fisherfile_block *block);

#endif
