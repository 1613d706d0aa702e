/* feed_private.h - what the files of the feed share: feed.c (events), feed_act.c (actions) and
 * feed_rows.c (rows of positions). For nobody else.
 */
#ifndef PROTO_FEED_PRIVATE_H
#define PROTO_FEED_PRIVATE_H

#include "proto/feed.h"

uint64_t feed_clock_ms(void); /* CLOCK_MONOTONIC */

/* Door, pidfd and DEALER. Harmless twice. */
void feed_links_close(struct feed *f);

/* The stream has failed for good: nothing is sent or received any more; what is READY can be read.
 */
void feed_fail(struct feed *f, const struct err *e);

/* One event through the consumer's table, and its actions out into the world. */
void feed_step(struct feed *f, const struct consumer_event *event);

/* Largest span that leaves room for a window and one more in the arena's limit. */
uint64_t feed_span_bytes_limit(const struct feed *f);

/* Where the span stands that was delivered into that slot. */
static inline const char *feed_slot_span(const struct feed *f, uint64_t slot)
{
    return (const char *)arena_slot(&f->arena, slot) + f->consumer.slots[slot].offset;
}

/* Carry out one action. 0; or -1 and *e: with a permanent code the feed has failed, with a
 * temporary one the loader cannot be reached at present. */
int feed_act(struct feed *f, const struct consumer_action *a, struct err *e);

/* While a stream is being opened nothing is granted, and a loader may close a door that stays
 * silent while it reads a slow file: as long as its process lives, come again. 0 or -1. */
int feed_door_reopen(struct feed *f);

#endif
