/* child.h - a reader process as its parent sees it: start, ask, hear, kill.
 *
 * The reader may have been taken over by the file it parses: nothing it says is believed before it
 * was checked here (packet sizes, terminated texts, ranges of messages.def).
 */
#ifndef LOADERD_CHILD_H
#define LOADERD_CHILD_H

#include <sys/types.h>

#include "loaderd/reader.h"
#include "proto/err.h"

struct child {
    pid_t pid; /* 0: none */
    int pair;  /* our end; -1: closed */
};
#define CHILD_NONE ((struct child){.pair = -1})

/* Open a data file for a reader. The descriptor, or -1 and *e (missing, not a regular file ...). */
int child_file_open(const char *path, struct err *e);

/* Start a reader on `file` (borrowed). `run` only shows in its arguments, for people. */
int child_start(struct child *c, const char *run, int file, struct err *e);

/* Kill it, wait until it is dead, close the pair. After this nobody writes to its arena. Harmless
 * twice. */
void child_kill(struct child *c);

/* What a reader that stopped answering died of: the signal that its own doing drew (a fault, a
 * forbidden system call, its time limit), or 0: it ended itself, or somebody killed it. Ends it if
 * it lives. */
int child_fault(struct child *c);

/* "a system call that its sandbox forbids (SIGSYS)": for sentences. */
const char *child_fault_name(int fault);

/* What it says of the file when that happened CHILD_FAULTS_MAX times. */
const char *child_fault_meaning(int fault);

/* Has it been stopped (SIGSTOP) and not been continued? It will say nothing, not even by its alarm.
 */
int child_is_stopped(const struct child *c);

/* A file that faults its reader this often is at fault itself. */
enum { CHILD_FAULTS_MAX = 3 };

/* Send one packet with descriptors (borrowed). 0 or -1. */
int child_send(struct child *c, const struct reader_packet *packet, const int *fds, int fd_count,
               struct err *e);

/* Take one packet without waiting. 1: *packet is set and checked; 0: none; -1: the reader is dead
 * or said something impossible, *e says what. */
int child_recv(struct child *c, struct reader_packet *packet, struct err *e);

/* As child_recv for the answer to an open, but waits for it at most timeout_ms. */
int child_wait(struct child *c, struct reader_packet *packet, int timeout_ms, struct err *e);

/* Decoding threads for the option loader.num_workers (LIMITS_AUTO: 1 for each 2 cores). */
uint64_t child_workers(uint64_t asked);

#endif
