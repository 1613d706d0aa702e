/* stream_private.h - shared by stream*.c only. */
#ifndef LOADERD_STREAM_PRIVATE_H
#define LOADERD_STREAM_PRIVATE_H

#include "loaderd/child.h"
#include "loaderd/receipt.h"
#include "loaderd/stream.h"
#include "proto/server.h"

enum {
    STREAM_FILE_SHOWN_BYTES = 160,
    STREAM_PACKETS_MAX = 256, /* of one reader taken in one turn: one taken over never ends */
};

struct stream {
    struct server server;
    struct link_peer peer;
    char file[STREAM_FILE_SHOWN_BYTES + 4]; /* for sentences: a long path keeps its end */
    char split[65];
    struct child child;
    struct faulty_file identity; /* of the file: faults 0 */
    int door, arena;             /* the consumer's connection; its memfd until the reader has it */
    uint64_t slots, slot_bytes;
    struct receipt receipt;
    uint32_t in_flight;
    uint32_t first, waiting; /* ring of slots whose grants wait for the reader */
    uint16_t ring[ARENA_SLOTS_MAX];
    uint8_t queued[ARENA_SLOTS_MAX];
    struct msg_grant grant[ARENA_SLOTS_MAX];
};

uint64_t stream_now_ms(void);

/* Wake the daemon's loop when fd has something to say. 0 or -1. */
int streams_wake_add(struct streams *s, int fd);

/* The place of the stream of that number, or NULL. */
struct stream **stream_find(struct streams *s, uint64_t id);

/* Kill and reap the reader, then close the door, then forget the stream; *st_p is NULL after. */
void stream_close(struct streams *s, struct stream **st_p);

/* Give one event to the server of *st_p and do what it says; *st_p is NULL afterwards if that was
 * the stream's end. */
void stream_step(struct streams *s, struct stream **st_p, const struct server_event *event);

void stream_reject(struct streams *s, const struct link_peer *peer, int permanent,
                   const char *reason);

/* The file that is open at `fd`, for struct stream's identity (stream_faults.c). */
struct faulty_file stream_file_identity(int fd);

/* One more reader of that file died of a fault. How many did within the last hour, this included.
 */
int stream_fault_count(struct streams *s, const struct faulty_file *identity, uint64_t now_ms);

/* Everything that the stream's reader has said; the end of one that was stopped and says nothing
 * (stream_step.c). */
void stream_reader_hear(struct streams *s, struct stream **st_p);
void stream_reader_watch(struct streams *s, struct stream **st_p);

/* Whoever stands in the door, and who waits before it if somebody knocked; what a stream's consumer
 * said there (stream_door.c). */
void streams_visitors_hear(struct streams *s, int knocked);
void stream_door_hear(struct streams *s, struct stream **st_p);
void stream_door_answer(int connection, int ok, const char *reason);

#endif
