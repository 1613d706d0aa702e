/* web_server.h - the runs that are followed, and the answers to requests.
 *
 *   GET  /  /web.css  /web.js             the page, for anybody
 *   GET  /api/runs                        all runs, the live ones first (web_state.h)
 *   GET  /api/run?run=NAME                everything of one
 *   GET  /api/file?run=NAME&name=FILE     a file of its report or memory (web_files.h)
 *   GET  /api/log?run=NAME&stage=STAGE    the end of a stage's log
 *   POST /api/act?run=NAME&verb=VERB[&stage=STAGE]   web_act.h; the body is a mark's text
 *   GET  /metrics                         for Prometheus (web_metrics.h)
 *
 * All but the page need the token (web_guard.h). What is wrong is answered with one sentence: 400
 * what is no such request, 403 without the token, 404 what is not there, 409 what cannot be done
 * now.
 */
#ifndef MONITORD_WEB_SERVER_H
#define MONITORD_WEB_SERVER_H

#include "monitord/web_follow.h"
#include "monitord/web_guard.h"
#include "monitord/web_http.h"
#include "monitord/web_runs.h"
#include "monitord/web_state.h"
#include "proto/link.h"

enum { WEB_FOLLOWS_MAX = 8 };

struct web_server {
    struct http http;
    int more; /* http_turn's */
    struct guard guard;
    struct web_runs runs;
    struct web_follow follows[WEB_FOLLOWS_MAX]; /* of live runs, and some that have ended since */
    /* of each that is followed, and behind them of another run that was looked at; NULL: none yet
     */
    struct web_record *records[WEB_FOLLOWS_MAX + 1];
    double look_due_s; /* monotonic; for runs that begin and end */
    int left_out_told; /* that there are more live runs than can be followed */
};

/* root, run: web_runs_open's; token_file: guard_open's. */
int web_server_open(struct web_server *s, const char *root, const char *run, uint16_t port,
                    const char *token_file, struct err *e);
void web_server_close(struct web_server *s); /* harmless twice */

/* Wait for what comes, at most timeout_ms, and answer it. */
void web_server_turn(struct web_server *s, int timeout_ms);

#endif
