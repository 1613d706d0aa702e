/* store.h - a finished block on its way to disk: values -> stored form -> chunks packed in threads
 * -> a durable part. */
#ifndef FISHERD_STORE_H
#define FISHERD_STORE_H

#include "engine/fisher_code.h"
#include "engine/model.h"
#include "proto/fisherfile.h"
#include "proto/options.h"

/* Name of the form that the options ask for; an unknown one cannot be. */
const char *store_form(const struct options *o);

/* The pieces of a block: what it takes of each tensor, as whole rows where it takes whole rows, any
 * rest as a row of what there is. Returns how many; *pieces_p is the caller's to free, NULL without
 * memory. */
uint64_t store_pieces(const struct model *m, uint64_t first, uint64_t count,
                      struct fisher_piece **pieces_p);

/* Write values[block->count] as part `index` of the job. Of *block first, count and tensors are
 * given; form, sum, norm, error and bytes are filled. *code is zero the first time and keeps memory
 * for the next; fisher_code_free is due. */
int store_block(struct fisher_code *code, const struct options *o, const struct model *m,
                struct pool *pool, const char *part_dir, uint64_t index, const char *job,
                struct fisherfile_block *block, const float *values, struct err *e);

#endif
