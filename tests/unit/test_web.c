/* test_web.c - the page's server without HTTP: curves, who may ask, which runs and files have a
 * name, figures for Prometheus. */
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "monitord/web_act.h"
#include "monitord/web_files.h"
#include "monitord/web_guard.h"
#include "monitord/web_metrics.h"
#include "monitord/web_pages.h"
#include "monitord/web_peer.h"
#include "monitord/web_runs.h"
#include "monitord/web_series.h"
#include "monitord/web_state.h"
#include "proto/journal.h"
#include "tests/test.h"

#define CHECK_TEXT(condition, ...)                                                                 \
    do {                                                                                           \
        if (!(condition))                                                                          \
            test_fail(__FILE__, __LINE__, __VA_ARGS__);                                            \
    } while (0)

/* ---- curves ---------------------------------------------------------------------------------- */

static struct web_series series;

TEST(web_series_keeps_the_largest_memory_and_the_mean_of_the_rest)
{
    web_series_open(&series, 1);
    CHECK(series.points == 0);
    for (int i = 0; i < 4; i++) { /* two of each point */
        web_series_put(&series, SAMPLE_SYSTEM, 100 + 0.5 * i, i % 2 ? 10 : 30);
        web_series_put(&series, WEB_LOSS, 100 + 0.5 * i, i % 2 ? 1 : 3);
    }
    CHECK(series.points == 2 && series.began_s == 100);
    for (int p = 0; p < 2; p++) {
        CHECK(web_series_value(&series, SAMPLE_SYSTEM, p) == 30);
        CHECK(web_series_value(&series, WEB_LOSS, p) == 2);
        CHECK(isnan(web_series_value(&series, WEB_RATE, p)));
    }
}

/* Ten times as long as the table holds: each value is in its place, and the largest is kept. */
TEST(web_series_of_any_length_is_whole)
{
    const int seconds = 10 * WEB_POINTS_MAX;
    web_series_open(&series, 1);
    for (int i = 0; i < seconds; i++) {
        web_series_put(&series, 0, i, i == 1234 ? 1e9 : 1);
        web_series_put(&series, WEB_LOSS, i, i);
    }
    CHECK(series.points <= WEB_POINTS_MAX && series.points > WEB_POINTS_MAX / 2);
    CHECK(series.point_s == 16 && series.points == (seconds + 15) / 16);
    for (int p = 0; p < series.points; p++) {
        int first = 16 * p, last = first + 15 < seconds ? first + 15 : seconds - 1;
        CHECK(web_series_value(&series, WEB_LOSS, p) == (first + last) / 2.0);
        CHECK(web_series_value(&series, 0, p) == (p == 1234 / 16 ? 1e9 : 1));
    }
}

TEST(web_series_takes_gaps_clocks_that_go_back_and_what_is_no_number)
{
    web_series_open(&series, 1);
    web_series_put(&series, WEB_LOSS, 1000, NAN);
    web_series_put(&series, WEB_LOSS, NAN, 1);
    CHECK(series.points == 0);
    web_series_put(&series, WEB_LOSS, 1000, 1);
    web_series_put(&series, WEB_LOSS, 1000.0 + 100 * WEB_POINTS_MAX, 5); /* asleep meanwhile */
    CHECK(series.points > 1 && series.points <= WEB_POINTS_MAX);
    int last = series.points - 1;
    CHECK(web_series_value(&series, WEB_LOSS, 0) == 1);
    CHECK(web_series_value(&series, WEB_LOSS, last) == 5);
    CHECK(isnan(web_series_value(&series, WEB_LOSS, last / 2)));
    web_series_put(&series, WEB_LOSS, 500, 7); /* before all: counts to the newest */
    CHECK(series.points == last + 1 && web_series_value(&series, WEB_LOSS, last) == 6);
}

TEST(web_series_have_names_of_their_own)
{
    for (int a = 0; a < WEB_CURVES; a++)
        for (int b = 0; b < a; b++)
            CHECK(strcmp(web_series_name(a), web_series_name(b)) != 0);
}

/* ---- who may ask ----------------------------------------------------------------------------- */

TEST(web_guard_answers_this_machine_only)
{
    static const struct {
        const char *host, *origin;
        int answered;
    } cases[] = {
        {"127.0.0.1:8650", NULL, 1},
        {"localhost:9000", NULL, 1}, /* through ssh */
        {"LocalHost", NULL, 1},
        {"[::1]:8650", NULL, 1},
        {"localhost:8650", "http://localhost:8650", 1},
        {NULL, NULL, 0},
        {"", NULL, 0},
        {"evil.example:8650", NULL, 0}, /* a name that leads here */
        {"localhost.evil.example", NULL, 0},
        {"127.0.0.1.evil.example:8650", NULL, 0},
        {"localhost:8650", "http://evil.example", 0},
        {"localhost:8650", "http://localhost:9999", 0}, /* another server's page */
        {"localhost:8650", "https://localhost:8650", 0},
        {"localhost:8650", "null", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_request q = {.host = cases[i].host, .origin = cases[i].origin};
        const char *refusal = guard_host_refuses(&q);
        CHECK_TEXT((refusal == NULL) == cases[i].answered, "host %s, origin %s",
                   cases[i].host ? cases[i].host : "none",
                   cases[i].origin ? cases[i].origin : "none");
    }
}

TEST(web_guard_wants_the_token_of_this_start)
{
    struct guard g, other;
    struct err e;
    char text[128];
    CHECK_OK(guard_open(&g, NULL, &e), e);
    CHECK_OK(guard_open(&other, NULL, &e), e);
    CHECK(strlen(g.token) == GUARD_TOKEN_CHARS && strcmp(g.token, other.token) != 0);
    struct http_request q = {.authorization = text};
    for (int lower = 0; lower < 2; lower++) {
        snprintf(text, sizeof text, "%s %s", lower ? "bearer" : "Bearer", g.token);
        CHECK(!guard_token_refuses(&g, &q));
        CHECK(guard_token_refuses(&other, &q));
    }
    snprintf(text, sizeof text, "Bearer %s", g.reading); /* good for looking, not for doing */
    CHECK(!guard_token_refuses(&g, &q));
    q.post = 1;
    CHECK(guard_token_refuses(&g, &q));
    snprintf(text, sizeof text, "Bearer %s", g.token);
    CHECK(!guard_token_refuses(&g, &q));
    q.post = 0;
    snprintf(text, sizeof text, "Bearer %s0", g.token);
    CHECK(guard_token_refuses(&g, &q));
    snprintf(text, sizeof text, "Bearer %.31s", g.token);
    CHECK(guard_token_refuses(&g, &q));
    snprintf(text, sizeof text, "Bearer %s", g.token);
    text[sizeof "Bearer " - 1 + 7] ^= 1; /* one character differs */
    CHECK(guard_token_refuses(&g, &q));
    snprintf(text, sizeof text, "Basic %s", g.token);
    CHECK(guard_token_refuses(&g, &q));
    snprintf(text, sizeof text, "Bearer ");
    CHECK(guard_token_refuses(&g, &q));
    q.authorization = NULL;
    CHECK(guard_token_refuses(&g, &q));
}

TEST(web_guard_writes_its_token_for_this_user_alone)
{
    struct guard g;
    struct err e;
    struct stat st;
    char text[64] = "";
    umask(0);
    CHECK_OK(guard_open(&g, "token", &e), e);
    CHECK(stat("token", &st) == 0 && (st.st_mode & 0777) == 0600);
    FILE *in = fopen("token", "r");
    CHECK(in && fgets(text, sizeof text, in));
    fclose(in);
    CHECK(strlen(text) == GUARD_TOKEN_CHARS + 1 &&
          strncmp(text, g.reading, GUARD_TOKEN_CHARS) == 0);
    CHECK(umask(0) == 0); /* as it was */
    CHECK(guard_open(&g, "no/such/place", &e) < 0 && strstr(e.text, "no/such/place"));
}

/* ---- runs and their files -------------------------------------------------------------------- */

static struct web_runs runs;

static void run_make_small(const char *name, const char *verdict)
{
    char path[512];
    CHECK(mkdir(name, 0700) == 0);
    snprintf(path, sizeof path, "%s/pipeline.yaml", name);
    test_file_write(path, "name: x\n");
    if (verdict) {
        snprintf(path, sizeof path, "%s/verdict", name);
        test_file_write(path, verdict);
    }
}

TEST(web_runs_are_told_with_how_they_ended)
{
    struct err e;
    CHECK(mkdir("runs", 0700) == 0 && mkdir("runs/cache", 0700) == 0);
    test_file_write("runs/notes", "");
    run_make_small("runs/done", "0 tasks trained: 3\n");
    run_make_small("runs/broken", "100 trainerd: no such file\n");
    run_make_small("runs/stopped", NULL);
    run_make_small("runs/torn", "1");
    CHECK_OK(web_runs_open(&runs, "runs", NULL, &e), e);
    web_runs_look(&runs);
    CHECK(runs.count == 4 && runs.left_out == 0);
    for (int i = 0; i < 4; i++) {
        const struct web_run *r = &runs.runs[i];
        int code = strcmp(r->name, "done") == 0 ? 0 : strcmp(r->name, "broken") == 0 ? 100 : -1;
        CHECK_TEXT(r->code == code && !r->live && r->changed_s > 0, "%s: %d", r->name, r->code);
        if (code == 100)
            CHECK(strcmp(r->sentence, "trainerd: no such file") == 0);
    }
    web_runs_close(&runs);
}

TEST(web_runs_have_names_and_no_paths)
{
    static const char *const refused[] = {
        "",     ".",       "..",    "../secret", "runs", "in/../in", "in/",
        "/etc", ".hidden", "empty", "file",      "none", "caf\xe9",
    };
    struct err e;
    char here[4096], there[4096];
    CHECK(mkdir("root", 0700) == 0);
    run_make_small("secret", NULL);
    run_make_small("root/in", NULL);
    run_make_small("root/.hidden", NULL);
    CHECK(mkdir("root/empty", 0700) == 0);
    test_file_write("root/file", "");
    run_make_small("root/caf\xe9", NULL); /* no UTF-8 */
    run_make_small("root/other", NULL);
    CHECK(geteuid() != 0 || chown("root/other", 12345, 12345) == 0);
    CHECK_OK(web_runs_open(&runs, "root", NULL, &e), e);
    CHECK((web_run_enter(&runs, "other") < 0) == (geteuid() == 0)); /* somebody else's */
    web_run_leave(&runs);
    CHECK(getcwd(here, sizeof here) && strcmp(strrchr(here, '/'), "/root") == 0);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        CHECK_TEXT(web_run_enter(&runs, refused[i]) < 0, "%s", refused[i]);
    CHECK(getcwd(there, sizeof there) && strcmp(here, there) == 0);
    CHECK(web_run_enter(&runs, "in") == 0);
    CHECK(getcwd(there, sizeof there) && strcmp(strrchr(there, '/'), "/in") == 0);
    web_run_leave(&runs);
    CHECK(getcwd(there, sizeof there) && strcmp(here, there) == 0);
    web_runs_close(&runs);
}

TEST(web_shows_one_run_alone_when_asked)
{
    struct err e;
    CHECK(mkdir("root", 0700) == 0);
    run_make_small("root/one", NULL);
    run_make_small("root/two", NULL);
    CHECK(web_runs_open(&runs, NULL, "root", &e) < 0 && strstr(e.text, "no run of yours"));
    web_runs_close(&runs);
    CHECK(web_runs_open(&runs, NULL, "nothing", &e) < 0 && e.code == EXIT_CODE_PERMANENT);
    web_runs_close(&runs);
}

TEST(web_shows_one_run_and_not_its_neighbour)
{
    struct err e;
    CHECK(mkdir("root", 0700) == 0);
    run_make_small("root/one", NULL);
    run_make_small("root/two", NULL);
    CHECK_OK(web_runs_open(&runs, NULL, "root/one/", &e), e);
    web_runs_look(&runs);
    CHECK(runs.count == 1 && strcmp(runs.runs[0].name, "one") == 0);
    CHECK(web_run_enter(&runs, "two") < 0);
    web_runs_close(&runs);
}

/* Another directory in the root's place is looked at from then on. */
TEST(web_follows_its_root)
{
    struct err e;
    CHECK(mkdir("root", 0700) == 0);
    run_make_small("root/old", NULL);
    CHECK_OK(web_runs_open(&runs, "root", NULL, &e), e);
    web_runs_look(&runs);
    CHECK(runs.count == 1 && strcmp(runs.runs[0].name, "old") == 0);
    CHECK(chdir("..") == 0 && rename("root", "was") == 0 && mkdir("root", 0700) == 0);
    run_make_small("root/new", NULL);
    web_runs_look(&runs);
    CHECK(runs.count == 1 && strcmp(runs.runs[0].name, "new") == 0);
    web_runs_close(&runs);
}

/* A pipe in a verdict's place is not waited for. */
TEST(web_is_not_held_up_by_a_pipe)
{
    struct err e;
    CHECK(mkdir("root", 0700) == 0);
    run_make_small("root/piped", NULL);
    CHECK(mkfifo("root/piped/verdict", 0600) == 0);
    CHECK_OK(web_runs_open(&runs, "root", NULL, &e), e);
    web_runs_look(&runs);
    CHECK(runs.count == 1 && runs.runs[0].code == -1);
    web_runs_close(&runs);
}

/* More than there is room for: the newest are kept. */
TEST(web_leaves_the_oldest_runs_out)
{
    struct err e;
    struct timespec when[2] = {{.tv_nsec = UTIME_OMIT}, {0}};
    CHECK(mkdir("root", 0700) == 0);
    for (int i = 0; i < WEB_RUNS_MAX + 5; i++) {
        char path[64];
        snprintf(path, sizeof path, "root/r%d", i);
        run_make_small(path, NULL);
        strcat(path, "/pipeline.yaml");
        when[1].tv_sec = 1000000 + (i * 7919) % 1000; /* in no order of names */
        CHECK(utimensat(AT_FDCWD, path, when, 0) == 0);
    }
    CHECK_OK(web_runs_open(&runs, "root", NULL, &e), e);
    web_runs_look(&runs);
    CHECK(runs.count == WEB_RUNS_MAX && runs.left_out == 5);
    for (int i = 1; i < runs.count; i++)
        CHECK(runs.runs[i - 1].changed_s >= runs.runs[i].changed_s);
    int older = 0;
    for (int i = 0; i < WEB_RUNS_MAX + 5; i++)
        older += 1000000 + (i * 7919) % 1000 < runs.runs[WEB_RUNS_MAX - 1].changed_s;
    CHECK(older <= 5);
    web_runs_close(&runs);
}

TEST(web_files_are_those_that_are_shown)
{
    static const char *const there[] = {"report/report.md", "report/curve.png",
                                        "logs/memory_profile/memory_profile_1.json",
                                        "logs/metrics.csv", "logs/metrics.csv.old"};
    static const char *const refused[] = {
        "pipeline.yaml",
        "report/report.md/",
        "report/../pipeline.yaml",
        "report/.hidden.md",
        "logs/trainerd/current",
        "report",
        "/etc/passwd",
        "report/none.md",
        "report/fifo.md",
        "",
        "logs/memory_profile",
        "report/x.txt",
    };
    char *text = NULL;
    size_t bytes;
    const char *type = NULL;
    CHECK(mkdir("report", 0700) == 0 && mkdir("logs", 0700) == 0 &&
          mkdir("logs/memory_profile", 0700) == 0);
    test_file_write("pipeline.yaml", "secret");
    test_file_write("report/.hidden.md", "secret");
    test_file_write("report/x.txt", "secret");
    CHECK(mkfifo("report/fifo.md", 0600) == 0);
    for (size_t i = 0; i < sizeof there / sizeof *there; i++) {
        test_file_write(there[i], "hello");
        int fd = web_file_open(there[i], &bytes, &type);
        CHECK_TEXT(fd >= 0 && bytes == 5 && type, "%s", there[i]);
        close(fd);
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        CHECK_TEXT(web_file_open(refused[i], &bytes, &type) < 0, "%s", refused[i]);
    size_t size;
    FILE *out = open_memstream(&text, &size);
    struct json j;
    json_begin(&j, out);
    json_object(&j, NULL);
    web_files_write(&j);
    json_end(&j);
    json_finish(&j);
    fclose(out);
    for (size_t i = 0; i < sizeof there / sizeof *there; i++)
        CHECK_TEXT(strstr(text, there[i]), "%s is not in %s", there[i], text);
    CHECK(!strstr(text, "hidden") && !strstr(text, "x.txt") && !strstr(text, "pipeline"));
    free(text);
}

/* Whole lines, from a log that is longer than what is shown. */
TEST(web_logs_end_with_whole_lines)
{
    size_t bytes;
    CHECK(mkdir("logs", 0700) == 0 && mkdir("logs/trainerd", 0700) == 0);
    CHECK(!web_log_read("trainerd", &bytes) && !web_log_read("../logs/trainerd", &bytes));
    FILE *out = fopen("logs/trainerd/current", "w");
    for (int i = 0; i < 10000; i++)
        fprintf(out, "line %d\n", i);
    fclose(out);
    char *text = web_log_read("trainerd", &bytes);
    CHECK(text && bytes == strlen(text) && bytes > WEB_LOG_BYTES - 16 && bytes < WEB_LOG_BYTES);
    CHECK(strncmp(text, "line ", 5) == 0 && strcmp(text + bytes - 10, "line 9999\n") == 0);
    free(text);
}

TEST(web_page_is_inside_the_program)
{
    static const char *const paths[] = {"/", "/web.css", "/web.js"};
    for (size_t i = 0; i < 3; i++) {
        const struct web_page *page = web_page_find(paths[i]);
        CHECK(page && page->end - page->begin > 1000 && *page->end == '\0');
    }
    CHECK(!web_page_find("/web.html") && !web_page_find("") && !web_page_find("/web.js/"));
}

/* ---- what may be done ------------------------------------------------------------------------ */

TEST(web_act_refuses_what_it_does_not_know)
{
    static const struct {
        const char *verb, *stage, *text, *says;
    } cases[] = {
        {"restart", "init", "", "not a stage"},
        {"restart", "../x", "", "not a stage"},
        {"kill", "trainerd", "", "start, stop and restart"},
        {"end", "trainerd", "", "start, stop and restart"},
        {"restart", NULL, "", "end, checkpoint, release and mark"},
        {"stop", NULL, "", "end, checkpoint, release and mark"},
        {"mark", NULL, "", ""},
        {"mark", NULL, "two\nlines", ""},
    };
    static struct web_follow f = {.directory = -1};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = {0};
        CHECK(web_act(&f, cases[i].verb, cases[i].stage, cases[i].text, &e) < 0);
        CHECK_TEXT(e.code == EXIT_CODE_PERMANENT && strstr(e.text, cases[i].says), "%s", e.text);
    }
}

/* ---- Prometheus ------------------------------------------------------------------------------ */

TEST(web_metrics_are_what_is_known_and_escaped)
{
    static struct web_follow f = {.name = "a\"b\\c", .directory = -1};
    static struct web_figures g = {.follow = &f,
                                   .speaks = 1,
                                   .pids = {7, 8, 0, 9},
                                   .restarts = {0, 2},
                                   .validation_loss = NAN};
    char *text;
    size_t size;
    f.step_heard = f.sample_heard[0] = f.sample_heard[2] = 1;
    f.step.loss = NAN;
    f.step.penalty = INFINITY;
    f.step.learning_rate = 0.1;
    f.step.steps = 1ull << 60;
    f.samples[0].rss_bytes = 12345;
    f.samples[2].rss_bytes = 99; /* of a stage that does not run any more */
    FILE *out = open_memstream(&text, &size);
    web_metrics_write(&g, 1, &runs, out);
    fclose(out);
#define RUN_LABEL "{run=\"a\\\"b\\\\c\""
    CHECK(strstr(text, "finetuned_stage_up" RUN_LABEL ",stage=\"loaderd\"} 1\n"));
    CHECK(strstr(text, "finetuned_stage_up" RUN_LABEL ",stage=\"fisherd\"} 0\n"));
    CHECK(strstr(text, "finetuned_stage_restarts_total" RUN_LABEL ",stage=\"trainerd\"} 2\n"));
    CHECK(strstr(text, "finetuned_stage_resident_bytes" RUN_LABEL ",stage=\"loaderd\"} 12345\n"));
    CHECK(!strstr(text, "finetuned_stage_resident_bytes" RUN_LABEL ",stage=\"fisherd\"}"));
    CHECK(strstr(text, "finetuned_learning_rate" RUN_LABEL "} 0.1\n"));
    CHECK(strstr(text, "finetuned_penalty" RUN_LABEL "} +Inf\n"));
    CHECK(strstr(text, "finetuned_steps" RUN_LABEL "} 1.152921504606847e+18\n"));
    CHECK(!strstr(text, "finetuned_loss{") && !strstr(text, "finetuned_gpu_power_watts{"));
    CHECK(!strstr(text, "finetuned_system_used_bytes{") && !strstr(text, "nan"));
    free(text);
    /* what monitord does not measure any more is not told, what is known without it is */
    g.speaks = 0;
    out = open_memstream(&text, &size);
    web_metrics_write(&g, 1, &runs, out);
    fclose(out);
    CHECK(strstr(text, "finetuned_stage_up" RUN_LABEL ",stage=\"loaderd\"} 1\n"));
    CHECK(!strstr(text, "finetuned_stage_resident_bytes{") && !strstr(text, "finetuned_steps{"));
    free(text);
}

TEST(web_metrics_tell_how_runs_ended)
{
    static struct web_runs ended;
    char *text;
    size_t size;
    time_t now = time(NULL);
    const struct web_run of[] = {
        {.name = "good", .code = 0, .changed_s = (double)now},
        {.name = "bad", .code = 100, .changed_s = (double)now - 60},
        {.name = "long ago", .code = 100, .changed_s = (double)now - 7200},
        {.name = "stopped", .code = -1, .changed_s = (double)now},
        {.name = "again", .code = 75, .live = 1, .changed_s = (double)now},
    };
    memcpy(ended.runs, of, sizeof of);
    ended.count = sizeof of / sizeof *of;
    FILE *out = open_memstream(&text, &size);
    web_metrics_write(NULL, 0, &ended, out);
    fclose(out);
    CHECK(strstr(text, "finetuned_run_exit_code{run=\"good\"} 0\n"));
    CHECK(strstr(text, "finetuned_run_exit_code{run=\"bad\"} 100\n"));
    CHECK(!strstr(text, "long ago") && !strstr(text, "stopped") && !strstr(text, "\"again\""));
    free(text);
}

/* ---- the other end of a connection ----------------------------------------------------------- */

TEST(web_peer_is_found_in_the_kernels_table)
{
    static const char table[] = "  sl  local_address rem_address   st tx_queue rx_queue tr "
                                "tm->when retrnsmt   uid  timeout "
                                "inode\n"
                                "   0: 0100007F:21CA 00000000:0000 0A 00000000:00000000 "
                                "00:00000000 00000000     0        0 "
                                "1 1 0 100 0 0 10 0\n"
                                "   1: 0100007F:21CA 0100007F:C350 01 00000000:00000000 "
                                "00:00000000 00000000     0        0 "
                                "2 1 0 20 4 30 10 -1\n"
                                "  12: 0100007F:C350 0100007F:21CA 01 00000000:00000000 02:000A "
                                "00000000  1234        0 3 1\n"
                                "  13: 0200007F:C351 0100007F:21CA 01 00000000:00000000 "
                                "00:00000000 00000000  1235        0 "
                                "4 1\n";
    uid_t user = 0;
    FILE *in = fmemopen((void *)table, sizeof table - 1, "r");
    CHECK(in && web_peer_find(in, 0xc350, 0x21ca, &user) == 0 && user == 1234);
    rewind(in);
    CHECK(web_peer_find(in, 0xc351, 0x21ca, &user) < 0); /* of another address */
    rewind(in);
    CHECK(web_peer_find(in, 0xc350, 0x21cb, &user) < 0);
    fclose(in);
}

/* ---- a run's record -------------------------------------------------------------------------- */

static void epoch_append(struct journal *j, uint64_t epoch)
{
    struct err e;
    struct msg_event_task m = {
        .epoch = epoch, .step = epoch, .rows = 10, .seconds = 1, .loss = 0.5};
    MSG_STR(m.what, "epoch-end");
    MSG_STR(m.task, "A");
    CHECK_OK(journal_append(j, MSG_event_task, &m, &e), e);
}

/* What has been appended is read, and all of it when it is another run. */
TEST(web_record_follows_its_run)
{
    static const char pipeline[] = "name: x\ndata: {file: x.h5}\nmodel:\n  layers: [{type: linear, "
                                   "out: 2}]\ntasks: [{name: A}]\n";
    static struct web_record record;
    struct journal j;
    struct err e;
    test_file_write("pipeline.yaml", pipeline);
    CHECK(mkdir("journals", 0700) == 0);
    CHECK_OK(journal_open(&j, "trainerd", &e), e);
    for (uint64_t epoch = 1; epoch <= 3; epoch++) {
        epoch_append(&j, epoch);
        web_record_read(&record);
        CHECK_TEXT(record.unread.code == 0, "%s", record.unread.text);
        CHECK_EQ(record.history.epoch_count, epoch);
        CHECK_EQ(record.history.epoch_rows, 10 * epoch); /* each was read once */
    }
    journal_close(&j);
    CHECK(unlink("journals/trainerd") == 0);
    CHECK_OK(journal_open(&j, "trainerd", &e), e);
    epoch_append(&j, 9);
    web_record_read(&record);
    CHECK(record.history.epoch_count == 1 && record.history.epochs[0].epoch == 9);
    journal_close(&j);
    test_file_write("pipeline.yaml", "nonsense: [\n");
    web_record_read(&record);
    CHECK(record.unread.code == EXIT_CODE_PERMANENT && record.history.epoch_count == 0);
    web_record_close(&record);
}
