/* checkpoint_map.h - a checkpoint's parameters where they lie in its file, mapped read-only.
 *
 * For who reads them all along and never changes them: theta*. Their pages are those of the file:
 * clean, shared with whoever else reads it, and given back by the kernel where memory is short. A
 * committed file never changes and stays for as long as it is mapped, even if its name goes.
 */
#ifndef PROTO_CHECKPOINT_MAP_H
#define PROTO_CHECKPOINT_MAP_H

#include "proto/checkpoint.h"

struct checkpoint_map {
    void *at; /* NULL: nothing is mapped */
    uint64_t bytes;
    const float **parameters; /* [count]: each tensor's numbers, aligned to 64 bytes */
};

/* Map the parameters of the checkpoint at `path`, which must be those of `tensors` in names, order
 * and shapes (their pointers are not looked at), and verify what is mapped against
 * meta->parameters_sha256. 0, or -1 with nothing mapped. */
int checkpoint_map_open(struct checkpoint_map *m, const char *path, struct checkpoint_meta *meta,
                        const struct checkpoint_tensor *tensors, uint32_t count, struct err *e);
void checkpoint_map_close(struct checkpoint_map *m); /* harmless twice, and on zeroed storage */

#endif
