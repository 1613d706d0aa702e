/* daemon_mark.c - see daemon_mark.h. */
#include "proto/daemon_mark.h"

#include "proto/mark.h"

int daemon_mark(struct daemon *d, const char *text, struct err *e)
{
    struct msg_event_mark m = {0};
    if (mark_check(text, e) < 0)
        return -1;
    if (d->marks == DAEMON_MARKS_MAX)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "%s has taken %d marks since it was started, the most that is accepted until "
            "it is started again",
            d->stage, DAEMON_MARKS_MAX);
    MSG_STR(m.stage, d->stage);
    MSG_STR(m.text, text);
    if (daemon_fact(d, MSG_event_mark, &m, e) < 0)
        return err_prefix(e, "the mark is not taken");
    d->marks++;
    return 0;
}
