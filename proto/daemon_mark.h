/* daemon_mark.h - a user's own mark, which every stage takes: the verb `mark`.
 *
 * A mark is a fact: event.mark, in the journal of the stage that was asked before it is published.
 * A stage takes DAEMON_MARKS_MAX of them a start, so that a script which marks every step fills
 * neither the disk nor those who read journals.
 */
#ifndef PROTO_DAEMON_MARK_H
#define PROTO_DAEMON_MARK_H

#include "proto/daemon.h"

enum { DAEMON_MARKS_MAX = 1000 };

/* Make it a fact. 0, or -1 and *e (one sentence for whoever asked); the stage goes on in any case.
 */
int daemon_mark(struct daemon *d, const char *text, struct err *e);

#endif
