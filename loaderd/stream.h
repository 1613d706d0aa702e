/* stream.h - all streams of a loaderd: server.h joined to consumers, doors and reader processes.
 *
 * The parent's whole work: it opens files and speaks; it never parses one. Requests come by
 * streams_request, everything else is looked for by streams_pump, which never waits.
 */
#ifndef LOADERD_STREAM_H
#define LOADERD_STREAM_H

#include "loaderd/hold.h"
#include "proto/daemon.h"

enum {
    STREAMS_MAX = 32,
    STREAM_DOOR_TIMEOUT_MS =
        10000, /* a consumer that asked must come through the door within this */
};

struct stream;

/* A file that faulted readers: the same content as far as fstat can tell. */
struct faulty_file {
    uint64_t device, inode, bytes, changed_ns;
    uint64_t last_ms; /* of the last fault; 0: free place */
    int faults;
};

struct streams {
    struct daemon *daemon;
    struct stream *stream[STREAMS_MAX]; /* NULL: free place */
    struct visitor {
        int connection; /* -1: free place */
        uint64_t since_ms;
    } visitor[STREAMS_MAX]; /* came through the door, have not said hello yet */
    struct faulty_file faulty[STREAMS_MAX];
    struct holds holds;
    int listener, wake; /* wake: an epoll of all that may have something to say */
    uint64_t opened, spans;
};

/* Listen at sockets/loader.door (the present directory is the run's) and hold the tasks' files. 0
 * or -1. */
int streams_open(struct streams *s, struct daemon *d, struct err *e);
void streams_close(struct streams *s); /* kills and reaps every reader; harmless twice */

/* A control message: open, grant, ping. 1: handled, 0: not ours. */
int streams_request(struct streams *s, const struct link_peer *peer, enum msg_type type,
                    const union msg *m);

/* Look at the door, the consumers' hang-ups and the readers' answers. */
void streams_pump(struct streams *s);

#endif
