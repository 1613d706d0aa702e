/* safetensors_private.h - what safetensors.c and safetensors_header.c share; nobody else includes
 * it. */
#ifndef PROTO_SAFETENSORS_PRIVATE_H
#define PROTO_SAFETENSORS_PRIVATE_H

#include "proto/safetensors.h"

/* Fill s->tensors (sorted by name) and s->metadata from a header of `bytes` bytes; s->data_bytes is
 * set. On -1 the caller closes *s. */
int safetensors_header_parse(struct safetensors *s, const char *text, uint64_t bytes,
                             struct err *e);

/* The header of such a file, NUL-terminated, padded with spaces so that the data part begins at a
 * multiple of 64; the caller frees it. NULL: no memory. */
char *safetensors_header_make(const struct safetensors_source *sources, uint32_t count,
                              const struct safetensors_text *metadata, uint32_t metadata_count,
                              size_t *bytes);

#endif
