/* web_runs.h - the runs below one directory: which there are, whether they live, how they ended.
 *
 * A run is named by its directory's name, never by a path, and is a directory of this user's, or a
 * link to one, whose name is UTF-8: no other one is seen. Who looks into one stands in its
 * directory meanwhile: all that reads runs takes paths from there.
 */
#ifndef MONITORD_WEB_RUNS_H
#define MONITORD_WEB_RUNS_H

#include <limits.h>
#include <stdint.h>

#include "proto/err.h"
#include "proto/run.h"

enum { WEB_RUNS_MAX = 256, WEB_NAME_MAX = 255 };

struct web_run {
    char name[WEB_NAME_MAX + 1];
    int live;         /* its stages are supervised */
    int code;         /* of its verdict; -1: none */
    double changed_s; /* Unix time of the verdict, else of the last launch */
    char sentence[RUN_VERDICT_MAX];
};

struct web_runs {
    int root;                    /* the directory; -1: closed */
    char path[PATH_MAX];         /* of it: another one may come to stand there */
    char only[WEB_NAME_MAX + 1]; /* the one run that is shown; "": all */
    struct web_run runs[WEB_RUNS_MAX];
    int count, left_out; /* found by web_runs_look, the newest first; further ones */
};

/* One stands in the root afterwards. Of all runs below `root`, or of `run` alone (the other NULL).
 * -1 and *e (permanent): there is no such directory. */
int web_runs_open(struct web_runs *w, const char *root, const char *run, struct err *e);
void web_runs_close(struct web_runs *w); /* harmless twice */

void web_runs_look(struct web_runs *w);

/* Which directory one stands in: another one of the same name is another run. */
struct web_place {
    uint64_t device, inode;
};
struct web_place web_place_here(void);

/* Go into a run's directory, and out again into the root. -1: no run of that name. */
int web_run_enter(const struct web_runs *w, const char *name);
void web_run_leave(const struct web_runs *w);

#endif
