/* daemon_base.h - what a stage takes of memory before it has any work. Only daemon.c includes it.
 */
#ifndef PROTO_DAEMON_BASE_H
#define PROTO_DAEMON_BASE_H

#include "proto/daemon.h"

/* Opens what the skeleton opens, lets the stage use its libraries (spec->warm), and prints
 * "base.<stage>=<bytes>", the resident memory then, and
 * "base.<stage>_idle=<bytes>", that before. Everything happens in a directory of its own,
 * which is removed. Returns the exit code. */
int base_print(const struct daemon_spec *spec, void *self);

#endif
