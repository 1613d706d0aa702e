/* link.h - ZeroMQ sockets that carry messages.def. proto/link.c is the only file that includes
 * zmq.h.
 *
 * Endpoints are names inside the run ("loader.ctl"); a process stands in the run's directory and
 * the name becomes ipc://sockets/loader.ctl. Whoever binds holds the stage's lock first (a second
 * bind on a live ipc path steals it silently). No call here blocks but link_poll.
 */
#ifndef PROTO_LINK_H
#define PROTO_LINK_H

#include <stddef.h>
#include <stdint.h>

#include "proto/err.h"
#include "proto/msg.h"

enum {
    LINK_PEER_BYTES_MAX = 64, /* a routing id */
    LINK_QUEUE_MAX = 1000,    /* messages queued a peer before PUB drops and DEALER says full */
    LINK_POLL_ITEMS_MAX = 32,
};

/* Set the number every message of this process carries. Called once by proto/daemon.c (tools use
 * 0). */
void link_incarnation_set(uint64_t incarnation);

enum link_kind {
    LINK_ROUTER, /* binds; each message comes from and goes to a peer */
    LINK_DEALER, /* connects; routing id is given */
    LINK_PUB,    /* binds; never blocks, drops at the high-water mark */
    LINK_SUB,    /* connects; subscribes to topic prefixes */
    LINK_XPUB,   /* binds; like PUB for frames that others have encoded */
};

struct link {
    void *socket; /* NULL: closed; zeroed storage is a closed link */
    enum link_kind kind;
    char endpoint[128];
    uint64_t seq[MSG_COUNT];
    uint64_t malformed; /* messages refused since the link was opened */
};

struct link_peer {
    uint32_t bytes;
    unsigned char id[LINK_PEER_BYTES_MAX];
};

/* Open `l` on the name `endpoint` ("loader.ctl") below `run` ("." inside a daemon). routing_id is
 * for LINK_DEALER (role, incarnation and attempt: never used twice), else NULL. A path over 107
 * bytes is refused with its length. 0 or -1 and *e. */
int link_open(struct link *l, enum link_kind kind, const char *run, const char *endpoint,
              const char *routing_id, struct err *e);
void link_close(struct link *l); /* harmless twice; unsent messages are given 200 ms */

/* LINK_SUB: subscribe to every topic that begins with `prefix` ("" for all). */
int link_subscribe(struct link *l, const char *prefix, struct err *e);

/* Send *m (struct of `type`); fills its head (incarnation, seq, time_s). peer only for LINK_ROUTER.
 * 0: handed to ZeroMQ (which is not delivery); -1: the peer is gone or its queue is full (PUB
 * never). */
int link_send(struct link *l, const struct link_peer *peer, enum msg_type type, void *m);

/* Take one message, without waiting. 1: *type, *m (and *peer for ROUTER, may be NULL otherwise) are
 * set; 0: none there; -1: one was malformed and dropped, *e says why, *peer is still set for
 * ROUTER. */
int link_recv(struct link *l, struct link_peer *peer, enum msg_type *type, union msg *m,
              struct err *e);

/* Forward for monitord: take one message as raw frames, checked like link_recv, and send them on
 * unchanged. Returns as link_recv; *type and *m let the forwarder look at it. */
int link_forward(struct link *from, struct link *to, enum msg_type *type, union msg *m,
                 struct err *e);

struct link_poll_item {
    struct link *link; /* or NULL: then fd */
    int fd;            /* polled for reading and hang-up */
    int ready;         /* out: 1 if readable or hung up */
};

/* Wait at most timeout_ms (-1: for ever) until an item is ready. Returns how many are; EINTR gives
 * 0. */
int link_poll(struct link_poll_item *items, int count, int timeout_ms);

/* Close ZeroMQ's context at the end of the process (all links closed before). */
void link_shutdown(void);

#endif
