/* fanout.h - every stage's stream, joined into monitor.pub.
 *
 * Users subscribe here and never at a stage: a slow or hostile subscriber can then hold up nothing
 * that matters. ZeroMQ finds a restarted stage again by itself. What is malformed is dropped and
 * counted.
 */
#ifndef MONITORD_FANOUT_H
#define MONITORD_FANOUT_H

#include <stdint.h>

#include "proto/err.h"
#include "proto/link.h"

enum { FANOUT_STREAMS = 3 };

struct fanout {
    struct link from[FANOUT_STREAMS];
    uint64_t forwarded, malformed;
};

int fanout_open(struct fanout *f, struct err *e);
void fanout_close(struct fanout *f); /* harmless twice */

/* Pass on what has come, a limited number of messages, and show each to visit. Returns 1 if there
 * may be more. */
typedef void fanout_visit(void *self, enum msg_type type, const union msg *m);
int fanout_turn(struct fanout *f, struct link *to, fanout_visit *visit, void *self);

/* Fill FANOUT_STREAMS poll items. */
int fanout_poll_items(struct fanout *f, struct link_poll_item *items);

#endif
