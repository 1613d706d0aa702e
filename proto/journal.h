/* journal.h - a stage's own list of facts, appended before they are published.
 *
 * A record is u32 bytes, u32 CRC-32 of what follows, u16 message type's name length, the name, the
 * MessagePack map. A torn tail (kill, power loss) is cut off at the next open. Facts are few (stage
 * events, epochs, evaluations, checkpoints); measurements never go here.
 */
#ifndef PROTO_JOURNAL_H
#define PROTO_JOURNAL_H

#include "proto/err.h"
#include "proto/msg.h"

struct journal {
    int fd; /* -1: closed */
    char path[128];
};

/* Open journals/<stage> below the present directory for appending; cuts a torn tail. */
int journal_open(struct journal *j, const char *stage, struct err *e);
void journal_close(struct journal *j);

/* Append one message (its head filled by the caller). Not fsynced: it survives the process, and
 * what must survive the machine stands in checkpoints. */
int journal_append(struct journal *j, enum msg_type type, const void *m, struct err *e);

/* Read all whole records of `path` in order; a torn tail or a missing file ends the list quietly.
 * visit returns 0 to go on; anything else ends the reading. A whole record that this version does
 * not know is logged and passed over. */
int journal_read(const char *path, int (*visit)(void *self, enum msg_type type, const union msg *m),
                 void *self, struct err *e);

/* The same from byte *at on, where a record begins; *at follows what has been read, so that the
 * next call reads what has been appended since. */
int journal_read_on(const char *path, uint64_t *at,
                    int (*visit)(void *self, enum msg_type type, const union msg *m), void *self,
                    struct err *e);

#endif
