/* reader.h - the border between loaderd, which speaks, and its reader, which touches the file.
 *
 * A reader is `loaderd --reader` (fork and exec, close-on-exec everywhere), one a stream. It is
 * handed the file's descriptor (3) and one end of a SOCK_SEQPACKET pair (4); the arena and a copy
 * of the door's connection follow over the pair by SCM_RIGHTS. It parses and decodes; the parent
 * never does. What goes over the pair are the fixed structs below: both ends are the same binary. A
 * hostile file ends as READER_REJECTED, or as the death of the reader, never as a dead loaderd.
 */
#ifndef LOADERD_READER_H
#define LOADERD_READER_H

#include <stdint.h>

#include "proto/span.h"

enum { READER_FILE_FD = 3, READER_PAIR_FD = 4 };

/* Reads that it may be sent before it answers the first. They are answered in that order; what is
 * decoded for the next ones while one is finished is bounded by its threads (decoders.h). */
enum { READER_SPANS_MAX = 8 };

/* An answer that takes longer than this ends the reader (SIGALRM): a disk may be slow. So does one
 * that computes for longer (SIGPROF), a second more for each MiB of a span and for each
 * READER_CHUNKS_A_S chunks that it is read from: an endless loop over a damaged file. Its parent
 * waits a little longer before it kills one that did not end itself. */
enum {
    READER_REQUEST_LIMIT_S = 120,
    READER_REQUEST_CPU_S = 10,
    READER_CHUNKS_A_S = 10000, /* where each is a row, one takes some 10 us */
    READER_ANSWER_MS = (READER_REQUEST_LIMIT_S + 10) * 1000,
};

/* The walk over the batches of a ragged layout is our own work, and bounded: it has time of its own
 * (layout_batches.c). So has the digest of begins and weights, by both clocks, of as long as there
 * is of them: a core decodes and digests some 200 MB a second. The parent, which does not know how
 * much there is, waits for the most. */
enum {
    READER_WALK_CPU_S = 15,
    READER_DIGEST_BYTES_A_S = 32 << 20,
    READER_DIGEST_S_MAX = 3600,
};

enum reader_kind {
    READER_OPEN,      /* parent -> reader: describe this split */
    READER_DESCRIBED, /* reader -> parent */
    READER_ARENA,     /* parent -> reader, with two descriptors: memfd, door connection */
    READER_ARMED,     /* reader -> parent: mapped */
    READER_READ,      /* parent -> reader: put this span there */
    READER_DONE,      /* reader -> parent */
    READER_REJECTED,  /* reader -> parent: `text` says why; permanent for this file or request */
};

struct reader_open {
    char split[65], features[65], targets[65], weights[65];
    uint64_t seed, streams, span_rows, window;
    uint64_t span_bytes_chosen, span_bytes_limit; /* of a span: to choose its rows for, to refuse */
    uint64_t workers, readers;                    /* threads: decoders.h */
    uint64_t window_spans, batch_rows,
        slice_rows; /* for the largest batch and slice of these epochs */
    uint32_t epoch_count;
    struct msg_epoch_range epochs[64];
    int32_t shuffle, verify;
    int32_t begins;      /* deliver those of the rows */
    int32_t rest;        /* deliver those that do not fill the streams */
    int32_t singly;      /* no answer is held for the next ones of its window */
    int32_t receipt;     /* add the digest of each span's rows */
    int32_t drop_behind; /* give the page cache back what was read */
};

struct reader_described {
    char fingerprint[65], layout[9];
    uint64_t rows, streams, chunk_rows, spans, span_rows, span_bytes_max;
    uint64_t chunk_bytes_max, kept_bytes; /* of the reader's own memory: layout.c */
    uint32_t field_count;
    struct msg_field_info fields[SPAN_FIELDS_MAX];
};

struct reader_arena {
    uint64_t slots, slot_bytes;
};

struct reader_read {
    uint64_t epoch, span, slot, generation;
};

struct reader_done {
    uint64_t epoch, span, slot, generation, rows, offset, checksum; /* offset: as in ready */
    uint64_t digest; /* rowhash_sum of the span if a receipt is wanted, else 0 */
    uint64_t bytes_read, bytes_decoded, bytes_delivered;
    double read_s, decode_s, credit_s; /* credit_s: waited for this request */
};

struct reader_packet {
    enum reader_kind kind;
    union {
        struct reader_open open;
        struct reader_described described;
        struct reader_arena arena;
        struct reader_read read;
        struct reader_done done;
        char text[768];
    };
};

/* The reader's main loop: serves packets until the pair hangs up. Returns the exit code. */
int reader_main(void);

#endif
