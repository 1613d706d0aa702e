/* door.h - AF_UNIX SOCK_SEQPACKET beside a control socket: descriptors pass through it, and its
 * hang-up is the proof of death.
 *
 * loaderd listens on sockets/loader.door. A consumer connects once a stream and sends one packet,
 * struct door_hello with the arena's memfd; loaderd answers one struct door_welcome once its reader
 * has mapped it. Both the loader's parent and its reader hold the loader's end, so hang-up at the
 * consumer means that nobody can write the arena any more (the parent kills and reaps its reader
 * before closing). The peer's user must be ours (SO_PEERCRED).
 */
#ifndef PROTO_DOOR_H
#define PROTO_DOOR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/err.h"

enum { DOOR_MAGIC = 0x66744401, DOOR_FDS_MAX = 4 };

struct door_hello {
    uint32_t magic;
    uint32_t reserved; /* 0 */
    uint64_t stream;   /* as opened */
    uint64_t slots, slot_bytes;
};

struct door_welcome {
    uint32_t magic;
    int32_t ok; /* 1; or 0: text says why */
    char text[256];
};

/* Listen on `path` (an old socket file there is replaced: the caller holds the stage's lock).
 * Non-blocking, close-on-exec, mode 0600. Returns the descriptor or -1. */
int door_listen(const char *path, struct err *e);

/* Accept one connection. Returns it (non-blocking, close-on-exec) with *pid the peer's process id;
 * -1 with e->code 0 if none is waiting; -1 and *e if the peer's user is not ours (it is closed). */
int door_accept(int listener, pid_t *pid, struct err *e);

/* Connect; *pid is the listener's process id. Returns the connection or -1. */
int door_connect(const char *path, pid_t *pid, struct err *e);

/* Send one packet with up to DOOR_FDS_MAX descriptors. 0 or -1. */
int door_send(int connection, const void *data, size_t bytes, const int *fds, int fd_count,
              struct err *e);

/* Receive one packet without waiting. Returns its bytes (> 0), 0 on hang-up, -1 with e->code 0 when
 * nothing is there, -1 and *e on error (too large, too many descriptors: those are closed).
 * Received descriptors are close-on-exec and the caller's. *fd_count is how many (fds has
 * DOOR_FDS_MAX places). */
ssize_t door_recv(int connection, void *data, size_t capacity, int *fds, int *fd_count,
                  struct err *e);

#endif
