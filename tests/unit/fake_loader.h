/* fake_loader.h - for the tests of proto/feed: a loader in processes of its own, made of server.c
 * and a pattern instead of a file, that is killed, stops and lies.
 *
 * Rows are dense (VALUES bytes and a target) or graphs: row r has r mod 5 nodes of a byte, and an
 * edge, from its first node to its last, if it has nodes.
 */
#ifndef TESTS_FAKE_LOADER_H
#define TESTS_FAKE_LOADER_H

#include <stdint.h>

enum {
    ROWS = 1003,
    CHUNK_ROWS = 8,
    SPAN_ROWS = 64,
    SPANS = 16,
    VALUES = 24,
};

/* How the loader behaves. */
struct manner {
    int kills;         /* it dies that many times: once in the middle of a span, then is killed at
                          random moments */
    int slow_ms;       /* a span takes at least that long */
    uint64_t stops_at; /* the first loader stops itself (SIGSTOP) after that many spans; 0: never */
    uint64_t
        changes_at;   /* the first loader dies after that many spans, the next has another file */
    uint64_t lies_at; /* the checksum of that span is wrong */
    uint64_t span_bytes;   /* announced instead of SPAN_BYTES */
    uint64_t rows;         /* announced instead of ROWS */
    int graphs;            /* the rows are graphs */
    uint64_t cuts_at;      /* a pointer of that span points beyond its field */
    const char *rejection; /* answer to open */
};

/* What stands in the pretended file. */
unsigned char fake_feature(uint64_t row, int j);
uint32_t fake_target(uint64_t row);

/* A process that keeps a loader running, and kills it as often as its manner says. To be called
 * before this process touches a socket, since a fork must not inherit ZeroMQ's threads. */
void fake_loader_supervise(const struct manner *manner);

#endif
