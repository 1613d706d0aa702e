/* web_state.h - what the page is told, as JSON: of all runs a line each, of one run everything. */
#ifndef MONITORD_WEB_STATE_H
#define MONITORD_WEB_STATE_H

#include "monitord/history.h"
#include "monitord/web_follow.h"
#include "monitord/web_runs.h"
#include "proto/options.h"

/* A run as its directory tells it. What has been appended to its journals is read when it is looked
 * at again, and all of it when its options or its directory are other ones. */
struct web_record {
    struct web_place place; /* of its directory; 0, 0: none has been read */
    int64_t options_time_ns;
    struct options options;
    struct history history;
    struct err unread; /* why it could not be read; code 0: it was */
};

/* Make `r` the record of the run in whose directory one stands. */
void web_record_read(struct web_record *r);
void web_record_close(struct web_record *r); /* harmless twice */

/* Does monitord measure? What a run has said may be old else. */
int web_speaks(const struct web_record *r, const struct web_follow *f);

/* Memory that a stage's plan says, the total; 0: not known. sample: as in sample.h. */
uint64_t web_planned_bytes(const struct web_record *r, int sample);

void web_runs_write(const struct web_runs *w, FILE *out);

/* One stands in its directory. f: what it has said, NULL: it is not followed. */
void web_state_write(const struct web_run *run, const struct web_record *r,
                     const struct web_follow *f, FILE *out);

#endif
