/* web_server.c - see web_server.h. */
#include "monitord/web_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitord/web_act.h"
#include "monitord/web_files.h"
#include "monitord/web_metrics.h"
#include "monitord/web_pages.h"
#include "proto/daemon.h"
#include "proto/log.h"

static const double look_s = 1, look_many_s = 10; /* of as many runs as are shown, and more */

/* ---- the runs -------------------------------------------------------------------------------- */

static const struct web_run *run_find(const struct web_server *s, const char *name)
{
    for (int i = 0; i < s->runs.count; i++)
        if (strcmp(s->runs.runs[i].name, name) == 0)
            return &s->runs.runs[i];
    return NULL;
}

static struct web_follow *follow_find(struct web_server *s, const char *name)
{
    for (int i = 0; i < WEB_FOLLOWS_MAX; i++)
        if (strcmp(s->follows[i].name, name) == 0)
            return &s->follows[i];
    return NULL;
}

/* Where a run may be followed: where it was before, else where nothing is, else where one that has
 * ended is still remembered. NULL: all are live. */
static struct web_follow *follow_place(struct web_server *s, const char *name)
{
    struct web_follow *place = follow_find(s, name);
    if (!place)
        place = follow_find(s, "");
    for (int i = 0; !place && i < WEB_FOLLOWS_MAX; i++)
        if (!web_follow_listens(&s->follows[i]))
            place = &s->follows[i];
    return place;
}

static void follow_begin(struct web_server *s, const char *name)
{
    struct web_follow *place = follow_place(s, name);
    struct err e = {0};
    if (!place && !s->left_out_told)
        log_warn("%d live runs are followed; of others there are no curves and no figures, another "
                 "page with --run has them",
                 WEB_FOLLOWS_MAX);
    s->left_out_told |= !place;
    if (!place || web_follow_listens(place) || web_run_enter(&s->runs, name) < 0)
        return;
    if (web_follow_open(place, name, &e) < 0)
        log_warn("The run %s is not followed: %s", name, e.text);
    web_run_leave(&s->runs);
}

/* Is the run that is followed still there, and the same? */
static int follow_stands(const struct web_server *s, const struct web_follow *f)
{
    struct web_place here = {0, 0};
    if (web_run_enter(&s->runs, f->name) < 0)
        return 0;
    here = web_place_here();
    web_run_leave(&s->runs);
    return memcmp(&here, &f->place, sizeof here) == 0;
}

/* Follow those that have begun to live, and no more those that have ended. */
static void runs_look(struct web_server *s)
{
    web_runs_look(&s->runs);
    for (int i = 0; i < WEB_FOLLOWS_MAX; i++) {
        struct web_follow *f = &s->follows[i];
        const struct web_run *run = f->name[0] ? run_find(s, f->name) : NULL;
        if (f->name[0] && !follow_stands(s, f))
            web_follow_close(f);
        else if (run && !run->live)
            web_follow_rest(f);
    }
    for (int i = 0; i < s->runs.count; i++)
        if (s->runs.runs[i].live)
            follow_begin(s, s->runs.runs[i].name);
    s->look_due_s = clock_monotonic_s() + (s->runs.left_out ? look_many_s : look_s);
}

/* The record of the run in whose directory one stands; NULL: there is no memory for it. */
static struct web_record *record_read(struct web_server *s, const struct web_follow *f)
{
    struct web_record **r = &s->records[f ? f - s->follows : WEB_FOLLOWS_MAX];
    if (!*r)
        *r = calloc(1, sizeof **r);
    if (*r)
        web_record_read(*r);
    return *r;
}

/* ---- answers --------------------------------------------------------------------------------- */

static void say(struct http_answer *a, unsigned status, const char *text)
{
    *a = (struct http_answer){.status = status, .type = "text/plain; charset=utf-8"};
    a->owned = strdup(text);
    a->bytes = a->owned ? strlen(a->owned) : 0;
    if (!a->owned)
        a->body = "";
}

static void give(struct http_answer *a, const char *type, char *owned, size_t bytes)
{
    if (!owned) {
        say(a, 404, "There is no such thing, or no memory for it.\n");
        return;
    }
    *a = (struct http_answer){.status = 200, .type = type, .owned = owned, .bytes = bytes};
}

/* What was written to a stream of open_memstream's. */
static void give_stream(struct http_answer *a, const char *type, FILE *out, char **text,
                        size_t *bytes)
{
    int failed = fclose(out);
    give(a, type, failed ? NULL : *text, *bytes);
}

static const char json_type[] = "application/json";

static void answer_runs(struct web_server *s, const struct http_request *q, struct http_answer *a)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    (void)q;
    if (!out)
        return;
    web_runs_write(&s->runs, out);
    give_stream(a, json_type, out, &text, &bytes);
}

/* The run that is asked for, and one stands in its directory; NULL: answered. */
static const struct web_run *run_asked(struct web_server *s, const struct http_request *q,
                                       struct http_answer *a)
{
    const char *name = http_argument(q, "run");
    const struct web_run *run = name ? run_find(s, name) : NULL;
    if (run && web_run_enter(&s->runs, run->name) == 0)
        return run;
    say(a, name ? 404 : 400, name ? "There is no such run.\n" : "Which run? Add ?run=NAME.\n");
    return NULL;
}

static void answer_run(struct web_server *s, const struct http_request *q, struct http_answer *a)
{
    char *text = NULL;
    size_t bytes = 0;
    const struct web_run *run = run_asked(s, q, a);
    if (!run)
        return;
    const struct web_follow *f = follow_find(s, run->name);
    const struct web_record *record = record_read(s, f);
    FILE *out = record ? open_memstream(&text, &bytes) : NULL;
    if (out) {
        web_state_write(run, record, f, out);
        give_stream(a, json_type, out, &text, &bytes);
    }
    web_run_leave(&s->runs);
}

static void answer_file(struct web_server *s, const struct http_request *q, struct http_answer *a)
{
    const char *name = http_argument(q, "name"), *type = NULL;
    size_t bytes = 0;
    if (!run_asked(s, q, a))
        return;
    int file = name ? web_file_open(name, &bytes, &type) : -1;
    if (file < 0)
        say(a, 404, "There is no such file, or it is none that is shown.\n");
    else
        *a = (struct http_answer){.status = 200, .type = type, .file = file, .bytes = bytes};
    web_run_leave(&s->runs);
}

static void answer_log(struct web_server *s, const struct http_request *q, struct http_answer *a)
{
    const char *stage = http_argument(q, "stage");
    size_t bytes = 0;
    if (!run_asked(s, q, a))
        return;
    char *data = stage ? web_log_read(stage, &bytes) : NULL;
    give(a, "text/plain; charset=utf-8", data, bytes);
    web_run_leave(&s->runs);
}

static void act(struct web_server *s, const struct http_request *q, const struct web_run *run,
                struct http_answer *a)
{
    const char *verb = http_argument(q, "verb"), *stage = http_argument(q, "stage");
    struct web_follow *f = follow_find(s, run->name);
    char text[sizeof(struct err) + 2];
    struct err e = {0};
    if (!verb) {
        say(a, 400, "What is to be done? Add &verb=VERB.\n");
    } else if (!run->live) {
        say(a, 409, "The run is not live: there is nothing that could be asked.\n");
    } else if (web_act(f && web_follow_listens(f) ? f : NULL, verb, stage, q->body, &e) < 0) {
        snprintf(text, sizeof text, "%s\n", e.text);
        say(a, e.code == EXIT_CODE_PERMANENT ? 400 : 409, text);
    } else {
        log_info("run=%s verb=%.32s%s%.32s Asked for over HTTP.", run->name, verb,
                 stage ? " stage=" : "", stage ? stage : "");
        say(a, 200, "asked\n");
    }
}

static void answer_act(struct web_server *s, const struct http_request *q, struct http_answer *a)
{
    const struct web_run *run = run_asked(s, q, a);
    if (!run)
        return;
    act(s, q, run, a);
    web_run_leave(&s->runs);
}

static void answer_metrics(struct web_server *s, const struct http_request *q,
                           struct http_answer *a)
{
    static struct web_figures figures[WEB_FOLLOWS_MAX];
    char *text = NULL;
    size_t bytes = 0;
    int count = 0;
    FILE *out = open_memstream(&text, &bytes);
    (void)q;
    if (!out)
        return;
    for (int i = 0; i < WEB_FOLLOWS_MAX; i++) {
        struct web_follow *f = &s->follows[i];
        if (!web_follow_listens(f) || web_run_enter(&s->runs, f->name) < 0)
            continue;
        const struct web_record *record = record_read(s, f);
        if (record)
            web_figures_take(&figures[count++], record, f);
        web_run_leave(&s->runs);
    }
    web_metrics_write(figures, count, &s->runs, out);
    give_stream(a, "text/plain; version=0.0.4; charset=utf-8", out, &text, &bytes);
}

static const struct route {
    const char *path;
    int post;
    void (*answer)(struct web_server *s, const struct http_request *q, struct http_answer *a);
} routes[] = {
    {"/api/runs", 0, answer_runs}, {"/api/run", 0, answer_run},     {"/api/file", 0, answer_file},
    {"/api/log", 0, answer_log},   {"/metrics", 0, answer_metrics}, {"/api/act", 1, answer_act},
};

static void request_answer(void *self, const struct http_request *q, struct http_answer *a)
{
    struct web_server *s = self;
    const struct web_page *page = web_page_find(q->path);
    const struct route *route = NULL;
    const char *refusal = guard_host_refuses(q);
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (strcmp(q->path, routes[i].path) == 0)
            route = &routes[i];
    if (!refusal && !page)
        refusal = guard_token_refuses(&s->guard, q);
    if (refusal)
        say(a, 403, refusal);
    else if (q->post != (route && route->post))
        say(a, 405,
            route ? "This is asked for otherwise: /api/act by POST, all else by GET.\n"
                  : "There is nothing that could be done here.\n");
    else if (page)
        *a = (struct http_answer){.status = 200,
                                  .type = page->type,
                                  .body = page->begin,
                                  .bytes = (size_t)(page->end - page->begin)};
    else if (route)
        route->answer(s, q, a);
    else
        say(a, 404, "There is no such page.\n");
}

/* ---- open, turn, close ----------------------------------------------------------------------- */

int web_server_open(struct web_server *s, const char *root, const char *run, uint16_t port,
                    const char *token_file, struct err *e)
{
    memset(s, 0, sizeof *s);
    s->runs.root = -1;
    /* The file's name is relative to where the server was started, which web_runs_open leaves; and
     * one that finds its port taken must not write over the other's token. */
    if (http_open(&s->http, port, request_answer, s, e) < 0)
        return -1;
    if (guard_open(&s->guard, token_file, e) < 0 || web_runs_open(&s->runs, root, run, e) < 0) {
        web_server_close(s);
        return -1;
    }
    runs_look(s);
    return 0;
}

void web_server_close(struct web_server *s)
{
    http_close(&s->http);
    for (int i = 0; i < WEB_FOLLOWS_MAX; i++)
        web_follow_close(&s->follows[i]);
    for (int i = 0; i <= WEB_FOLLOWS_MAX; i++) {
        if (s->records[i])
            web_record_close(s->records[i]);
        free(s->records[i]);
        s->records[i] = NULL;
    }
    web_runs_close(&s->runs);
}

void web_server_turn(struct web_server *s, int timeout_ms)
{
    struct link_poll_item items[1 + WEB_FOLLOWS_MAX] = {{.fd = s->http.fd}};
    int count = 1;
    for (int i = 0; i < WEB_FOLLOWS_MAX; i++)
        if (web_follow_listens(&s->follows[i]))
            items[count++].link = &s->follows[i].stream;
    link_poll(items, count, s->more ? 0 : timeout_ms);
    for (int i = 0; i < WEB_FOLLOWS_MAX; i++)
        if (web_follow_listens(&s->follows[i]))
            web_follow_turn(&s->follows[i]);
    s->more = http_turn(&s->http);
    if (clock_monotonic_s() >= s->look_due_s)
        runs_look(s);
}
