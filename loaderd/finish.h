/* finish.h - the last step of a span: what is made of its decoded items, and what they must be.
 *
 * Pointers are written, tokens spread to windows, starts of documents marked, and the ends of edges
 * checked to be nodes of their graph.
 */
#ifndef LOADERD_FINISH_H
#define LOADERD_FINISH_H

#include "loaderd/fetch.h"

/* 0, or -1 and a permanent *e that names the graph with an impossible edge. */
int finish_span(const struct fetch *f, uint64_t epoch, uint64_t span, char *slot, struct err *e);

/* The tokens of `rows` windows are decoded this many tokens behind where the first window begins:
 * at the end of the windows' place, so that they can be spread from there in one pass. */
uint64_t finish_windows_shift(uint64_t rows);

#endif
