/* reader_private.h - shared by reader.c and reader_spans.c only. */
#ifndef LOADERD_READER_PRIVATE_H
#define LOADERD_READER_PRIVATE_H

#include "loaderd/fetch.h"
#include "loaderd/reader.h"
#include "proto/arena.h"

/* A request that is not answered yet. */
struct reading {
    struct reader_read read;
    struct fetch_span fetched;
    double credit_s;             /* waited for it */
    struct reader_packet answer; /* once it has ended */
};

struct reader {
    struct source *source;
    struct decoders *decoders;
    struct reader_open open;
    struct reader_described described;
    struct layout layout;
    struct order order;
    struct fetch fetch;
    struct arena arena;
    struct reading reading[READER_SPANS_MAX]; /* a ring */
    uint32_t first, count, ended;             /* the oldest of them that have ended */
    uint64_t span_chunks;                     /* stored ones that a span is read from, about */
    double held_since_s;                      /* since when there is one */
    struct err broken; /* code 0; or why an answer could not be given: we must end */
    double credit_s;   /* waited since the last request */
    int door;          /* held, never used: its hang-up means that we are gone too */
};

/* What the file or the request made impossible, *e, as an answer. 0, or -1: it is neither's fault
 * and we must end. */
int reader_reject(struct reader_packet *answer, const struct err *e);

/* The time for one answer begins now. */
void reader_time_limit(const struct reader *r);

/* Begin what is asked; there is room for it (r->count < READER_SPANS_MAX). 0, or -1 and *e: it
 * cannot be. */
int reader_span_begin(struct reader *r, const struct reader_read *read, struct err *e);

/* End what is done or answer what is due. 1: there was something; 0; -1 and *e: we must end. */
int reader_spans_go_on(struct reader *r, struct err *e);

/* All of that, while a span begins: those that are ready do not wait for it. A failure is left in
 * r->broken. Seconds until an answer that is held becomes due; INFINITY: none is. */
double reader_spans_between(void *r);

/* Wait until there may be something, or an answer becomes due. At least one is on its way. */
void reader_spans_pause(struct reader *r);

#endif
