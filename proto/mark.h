/* mark.h - what a user's mark (the verb `mark`) may be called: for the stages, which must not trust
 * whoever asks, and for tap, which asks.
 */
#ifndef PROTO_MARK_H
#define PROTO_MARK_H

#include "proto/err.h"

/* 0 if `text` may be a mark's: UTF-8 without control characters, of as many bytes as the message
 * holds, one at least; else -1 and *e (permanent). */
int mark_check(const char *text, struct err *e);

#endif
