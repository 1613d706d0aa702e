/* layout.h - how many rows a span has and where its fields lie in a slot: pure arithmetic.
 *
 * A slot holds the fields one after the other, each with its rows contiguous, at offsets that are
 * multiples of 64 and the same for every span of the stream, the shorter last one included.
 */
#ifndef LOADERD_LAYOUT_H
#define LOADERD_LAYOUT_H

#include "loaderd/h5source.h"
#include "loaderd/reader.h"

/* Fill *d (all but the fingerprint) for `source` opened as `open` asks. Refuses, with figures, a
 * span or a chunk larger than open->span_bytes_limit. */
int layout_make(const struct reader_open *open, const struct source *source,
                struct reader_described *d, struct err *e);

#endif
