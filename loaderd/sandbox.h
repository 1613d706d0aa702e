/* sandbox.h - what a reader may still do once it begins to parse: compute, read its file, talk over
 * its pair, map the arena that comes over it.
 */
#ifndef LOADERD_SANDBOX_H
#define LOADERD_SANDBOX_H

#include <stdint.h>

#include "proto/err.h"

/* For good and for every thread of this process: no new privileges, few descriptors, no core, no
 * more than `memory_bytes` of own memory beyond what it has now, and a seccomp filter that ends the
 * process at any system call it does not need (opening a file is answered with EACCES). The arena
 * counts nothing. 0, or -1 and *e (temporary). A kernel without seccomp: a line in the log, then 0.
 */
int sandbox_enter(uint64_t memory_bytes, struct err *e);

/* End this process by SIGALRM in wall_s seconds and by SIGPROF once it has computed for cpu_s
 * seconds more, all threads together. Replaces what was set before; 0: never. */
void sandbox_time_limit(uint64_t wall_s, uint64_t cpu_s);

/* Lower the bound on memory further, now that more is known. */
void sandbox_memory_lower(uint64_t memory_bytes);

#endif
