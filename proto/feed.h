/* feed.h - a stream of rows for trainerd and fisherd: consumer.h joined to a link, a door and an
 * arena.
 *
 * Usage: feed_open; then, whenever convenient, feed_pump (never blocks); once feed_info is set,
 * feed_seek to where reading starts and ask feed_rows for the rows of positions. What was consumed
 * is released by seeking past it. A loader that dies is found again without the caller noticing
 * anything but time.
 */
#ifndef PROTO_FEED_H
#define PROTO_FEED_H

#include <stdint.h>

#include "proto/arena.h"
#include "proto/consumer.h"
#include "proto/err.h"
#include "proto/link.h"
#include "proto/options.h"
#include "proto/order.h"
#include "proto/span.h"

enum { FEED_WINDOW_SPANS_MAX = 1024, FEED_IDLE_MS = 60000 };

struct feed_config {
    const char *role;     /* "trainer.train": prefix of the routing id */
    uint64_t incarnation; /* of this process */
    const char *file;     /* absolute path */
    const char *split;
    uint64_t seed;
    int shuffle;
    uint64_t span_rows;    /* 0: the loader chooses */
    uint64_t window_spans; /* W; 1 is used when shuffle is off, `streams` when there are some */
    uint64_t streams;      /* of the order, shuffle off; 0: none */
    int rest;              /* with streams: bring the rows that do not fill them, too */
    uint64_t slots;        /* 0: as ahead_rows says */
    uint64_t ahead_rows; /* room for so many rows besides a window, at least a span; 0: 2 W slots in
                            all, fewer where an epoch has fewer spans or the limit
                            does not allow them, at least W + 1 */
    int pin;             /* lock the arena's pages in memory */
    /* For a device that copies from the arena by itself: its mapping is locked once, before rows
     * come, and unlocked before it is given back. Where lock fails the rows come all the same.
     * Slots are then being copied besides being filled and read: where nothing says how many there
     * are to be there are twice as many, at least 6. NULL: nobody does. */
    int (*lock)(void *at, uint64_t bytes, struct err *e);
    void (*unlock)(void *at);
    uint64_t arena_limit_bytes;
    uint64_t peer_timeout_ms;
    int verify; /* check every slot's CRC-32 on arrival; a mismatch fails the feed */
    const char *features, *targets; /* names of the data sets of a dense file; NULL: these words */
    const char *weights;            /* of what targets weigh; NULL or "": none */
    int begins;                     /* bring those of the rows, where they are known */
    uint64_t window;                /* of a file of tokens: a row is so many of them and one more */
    uint64_t batch_rows;            /* for the largest batch of ragged fields; 0: not wanted */
    uint64_t slice_rows;            /* and for the largest slice, if batch_rows is not 0 */
    const struct msg_epoch_range *epochs; /* that will be read, if batch_rows is not 0 */
    uint32_t epoch_count;
};

struct feed_info {                   /* what was opened */
    char fingerprint[65], layout[9]; /* dense, graph or tokens */
    struct order order;
    struct msg_field_info fields[SPAN_FIELDS_MAX]; /* all there are */
    uint32_t field_count;
    /* Of the dense layout: one part, or one a timeframe, in the order in which they are joined to a
     * row of feature_values values. */
    struct msg_field_info features[SPAN_FIELDS_MAX];
    uint32_t feature_parts;
    uint64_t feature_values;
    struct msg_field_info targets, weights, begins; /* name is empty if there are none */
    /* Of the tokens layout: features[0] are a row's tokens but the last, targets those but the
     * first: of each step the next one. */
    /* Of the graph layout: features[0] are the nodes', feature_values of them a node. */
    struct msg_field_info edge_source, edge_target, edge_features; /* the last: as targets */
    uint64_t slots, arena_bytes;
};

/* A row of the stream: the span that holds it, and which row of that span it is. Good until the
 * span's window is sought past. */
struct feed_row {
    const char *span;
    uint64_t row;
};

struct feed_window { /* the window whose rows were asked last, found once */
    int valid;
    uint64_t epoch, window, first_row, rows, key;
    const char *spans[FEED_WINDOW_SPANS_MAX]; /* where each span stands in the arena */
};

struct feed {
    struct feed_config config;
    struct link dealer;
    struct arena arena;
    int door, pidfd; /* connection to the loader's door, and the process behind it */
    uint64_t door_since_ms;
    struct consumer consumer;
    struct feed_info info;
    int info_set;
    int resting;               /* since feed_rest */
    int locked;                /* the arena is, by config.lock */
    char role[4097];           /* own copy */
    struct msg_open request;   /* what is asked of the loader; has the copies of the other texts */
    uint64_t attempt;          /* openings so far */
    struct feed_window window; /* the one read last */
    struct err failure;        /* code 0: none */
};

/* What the options say of every feed; role, incarnation, file, split, seed, order and slots are the
 * caller's. The texts are borrowed from *o. */
struct feed_config feed_config_of(const struct options *o);

/* How many slots of how many bytes (whole pages) the arena of such a feed gets for spans of
 * span_rows rows and at most span_bytes_max bytes, `spans` of them an epoch. -1 (permanent) when
 * the limit cannot hold what is asked for, at least a window and one span more. */
int feed_arena(const struct feed_config *c, uint64_t spans, uint64_t span_rows,
               uint64_t span_bytes_max, uint64_t *slots, uint64_t *slot_bytes, struct err *e);

/* Prepare; sends nothing yet. The struct is large (allocate it, do not put it on a thread's stack).
 */
void feed_open(struct feed *f, const struct feed_config *config);
void feed_close(struct feed *f); /* gives the arena back; harmless twice */

/* Nothing is wanted for a while: end the stream at the loader and give the arena back; f->info
 * stays. The next feed_seek opens the stream again (the file must still be the same). Harmless
 * twice. */
void feed_rest(struct feed *f);

/* Do what can be done now: send, receive, notice deaths. What it brought in is there for feed_rows
 * at once: look before waiting on the poll items. 0, or -1 and *e when the stream has failed for
 * good (permanent or temporary as e->code says). */
int feed_pump(struct feed *f, struct err *e);

/* Fill up to 3 poll items that wake the caller when feed_pump has something to do. Returns how
 * many. */
int feed_poll_items(struct feed *f, struct link_poll_item *items);

/* Milliseconds until feed_pump wants to be called even if nothing happens (retries, pings); 0 ..
 * FEED_IDLE_MS. */
int feed_timeout_ms(const struct feed *f);

/* 1 once opened and f->info is valid. */
int feed_ready(const struct feed *f);

/* Begin (or go on) at `position` of `epoch`; spans of windows before it are released; read-ahead
 * goes on into later epochs up to last_epoch. Needs feed_ready. */
void feed_seek(struct feed *f, uint64_t epoch, uint64_t position, uint64_t last_epoch);

/* The same for whoever takes spans one by one (feed_span) and not rows: from that span on; those
 * before it are released. */
void feed_seek_span(struct feed *f, uint64_t epoch, uint64_t span, uint64_t last_epoch);

/* The rows at positions [position, position + count) of `epoch` into rows[count]. Returns how many
 * leading positions are resident and were filled: `count`, or fewer when a window is still missing
 * (0 .. count-1). With fewer than 2 W slots two windows are never resident together: a caller that
 * gets fewer uses those, seeks past them and asks for the rest. Never crosses the end of the epoch:
 * position + count <= rows is the caller's duty. */
uint64_t feed_rows(struct feed *f, uint64_t epoch, uint64_t position, uint64_t count,
                   struct feed_row *rows);

/* Where the loader has put that span, or NULL if it is not there. Good until its window is sought
 * past. */
const char *feed_span(const struct feed *f, uint64_t epoch, uint64_t span);

/* Where the row's values of one of f->info's data sets stand, field->row_bytes long. The field is
 * not ragged. */
static inline const void *feed_field(const struct msg_field_info *field, struct feed_row row)
{
    return row.span + field->offset + row.row * field->row_bytes;
}

/* Where the row's items of a ragged field of f->info stand; *count of them, field->row_bytes each.
 * What the pointer in the slot says is read once and believed only within the field: else NULL, and
 * *count is 0. */
const void *feed_items(const struct feed *f, const struct msg_field_info *field,
                       struct feed_row row, uint64_t *count);

/* A row of the graph layout. Edge k goes from node sources[k] to node targets[k] of the graph:
 * these are another process's words, to be read once and looked at. edge_features: NULL if there
 * are none.
 */
struct feed_graph {
    const void *nodes, *sources, *targets, *edge_features;
    uint64_t node_count, edge_count; /* 0 and 0 if the slot's pointers cannot be true */
};
struct feed_graph feed_graph(const struct feed *f, struct feed_row row);

#endif
