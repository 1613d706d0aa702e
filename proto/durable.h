/* durable.h - files that are either the old one or the new one, whatever dies when.
 *
 * Every write, fsync, rename and pre-allocation of durable state goes through this file, so that a
 * test can make the n-th one fail (durable_fail_after). A failed fsync is never retried: the caller
 * exits 111.
 */
#ifndef PROTO_DURABLE_H
#define PROTO_DURABLE_H

#include <stddef.h>
#include <stdint.h>

#include "proto/err.h"

/* Make `temporary` (a closed file in the same directory) become `path`: open, fsync, rename, fsync
 * the directory. On failure the temporary is removed and the old file stays. */
int durable_commit(const char *temporary, const char *path, struct err *e);

/* The same without any fsync: whole after a kill, but not after a power cut. For what is made again
 * when its digest is not right. */
int durable_place(const char *temporary, const char *path, struct err *e);

/* fsync the directory that `path` stands in, as after mkdir and symlink. */
int durable_entry_sync(const char *path, struct err *e);

/* Write `bytes` of `data` as `path` by way of path.tmp and durable_commit. */
int durable_write(const char *path, const void *data, size_t bytes, struct err *e);

/* Read a whole file of at most bytes_max; *data is malloc'ed with a NUL after it, the caller frees
 * it. Returns 0, or -1 (e->code permanent; a missing file says so). */
int durable_read(const char *path, size_t bytes_max, char **data, size_t *bytes, struct err *e);

/* Full write(2) loop with EINTR; short writes continued. For journal.c, lineage and others. */
int durable_pwrite_all(int fd, const void *data, size_t bytes, uint64_t offset, const char *path,
                       struct err *e);

/* fsync an open file. A failure is temporary (111) and must not be tried again: the kernel may have
 * dropped the pages. */
int durable_sync(int fd, const char *path, struct err *e);

/* Test hook, from the environment variable FINETUNED_FAIL="call:n:errno-name" with call one of
 * write, fsync, rename, memory (e.g. "write:3:ENOSPC": the third and later ones fail; with ":once"
 * behind it the third only), or "leak:n", with which durable_leak loses n bytes a call. Read once
 * by daemon.c; tests call it directly. NULL or "": nothing fails. */
int durable_fail_after(const char *text, struct err *e);

/* Ask before an operation of kind "write", "fsync" or "rename" done outside this file (libhdf5's
 * writes), or "memory" before the engine takes what a micro-batch needs: 0, or -1 with errno set
 * when the hook wants it to fail. */
int durable_may(const char *call);

/* Called by daemon.c after each turn of a stage: nothing, unless the hook wants it to leak. */
void durable_leak(void);

#endif
