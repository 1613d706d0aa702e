/* web_act.h - what may be done to a live run from the page: its stages stopped, started and
 * restarted by their supervisor, the whole run stopped, and the verbs of trainerd and monitord that
 * a user has (tap --ask).
 *
 * One stands in the run's directory. A stage that is stopped stays so until it is started, and the
 * others wait for it.
 */
#ifndef MONITORD_WEB_ACT_H
#define MONITORD_WEB_ACT_H

#include "monitord/web_follow.h"

/* f: NULL, the run is not followed, and its stages hear no verbs. verb: start, stop or restart of
 * `stage`; end, checkpoint, release or mark of the run (stage NULL; text: what to call the mark).
 * -1 and *e: permanent if it is none of these, else why it was not done. */
int web_act(struct web_follow *f, const char *verb, const char *stage, const char *text,
            struct err *e);

#endif
