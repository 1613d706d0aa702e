/* test_profile.c - monitord: what /proc says of memory, the sampler, and the profile that keeps the
 * samples of a whole run and draws them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitord/profile.h"
#include "monitord/sample.h"
#include "proto/durable.h"
#include "proto/journal.h"
#include "proto/run.h"
#include "tests/test.h"

/* ---- /proc ---- */

TEST(proc_texts_are_parsed)
{
    uint64_t a, b;
    struct sample_meminfo i;
    double cpu_s;
    CHECK(sample_parse_statm("1000 200 30 4 0 500 0\n", 4096, &a, &b) == 0);
    CHECK_EQ(a, 200 * 4096);
    CHECK_EQ(b, 30 * 4096);
    CHECK(sample_parse_statm("1000 200", 4096, &a, &b) < 0);
    /* a process may call itself what it likes */
    CHECK(sample_parse_stat("42 (a) 1 (b c) S 1 2 3 4 5 6 7 8 9 10 100 20 3 1 20 0 1 0 99", 0.01,
                            &cpu_s) == 0);
    CHECK(fabs(cpu_s - 1.24) < 1e-9);
    CHECK(sample_parse_stat("42 (a) S 1 2", 0.01, &cpu_s) < 0);
    CHECK(sample_parse_stat("", 0.01, &cpu_s) < 0);
    CHECK(sample_parse_meminfo("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 60 kB\n"
                               "SwapCached: 7 kB\n",
                               &i) < 0); /* SwapCached is another line than Cached */
    CHECK(sample_parse_meminfo("MemTotal: 100 kB\nMemAvailable: 60 kB\nSwapCached: 7 kB\n"
                               "Cached: 5 kB\n",
                               &i) == 0);
    CHECK_EQ(i.total, 102400);
    CHECK_EQ(i.available, 61440);
    CHECK_EQ(i.cached, 5120);
    CHECK_EQ(i.swap_total - i.swap_free, 0); /* a kernel without swap */
    CHECK(sample_parse_meminfo("MemTotal: 100 kB\nMemAvailable: 60 kB\nCached: 5 kB\n"
                               "SwapTotal: 50 kB\nSwapFree: 20 kB\n",
                               &i) == 0);
    CHECK_EQ(i.swap_total - i.swap_free, 30 * 1024);
    CHECK(sample_parse_swap("Name:\tx\nRssShmem:\t 7 kB\nVmSwap:\t      12 kB\n", &a) == 0);
    CHECK_EQ(a, 12 * 1024);
    CHECK(sample_parse_swap("Name:\tx\nState:\tZ (zombie)\n", &a) < 0);
}

TEST(sampler_follows_a_stage_by_its_lock)
{
    static struct sampler s;
    static struct sample_round r;
    struct run_lock lock;
    struct err e;
    CHECK(mkdir("locks", 0700) == 0);
    sampler_open(&s);
    sampler_round(&s, &r);
    CHECK(!r.there[1]);
    CHECK_OK(run_lock_take(&lock, "trainerd", 0, &e), e);
    sampler_round(&s, &r);
    CHECK(r.there[1] && !r.there[0] && !r.there[2] && !r.there[SAMPLE_DEVICE]);
    CHECK_EQ(r.of[1].pid, getpid());
    CHECK_STR(r.of[1].stage, "trainerd");
    CHECK_EQ(r.of[1].processes, 1);
    CHECK(r.of[1].rss_bytes > 1 << 20 && r.of[1].peak_bytes >= r.of[1].rss_bytes);
    CHECK(r.there[SAMPLE_SYSTEM]);
    CHECK_STR(r.of[SAMPLE_SYSTEM].stage, "system");
    CHECK(r.of[SAMPLE_SYSTEM].rss_bytes < r.of[SAMPLE_SYSTEM].peak_bytes);
    run_lock_drop(&lock);
    sampler_round(&s, &r);
    CHECK(!r.there[1]);
    sampler_close(&s);
    sampler_close(&s);
}

/* ---- profile ---- */

static void add(struct profile *p, double t, uint64_t value)
{
    struct sample_round round = {.unix_s = 1000 + t};
    for (int i = 0; i < SAMPLE_SERIES; i++) {
        round.there[i] = 1;
        round.of[i].rss_bytes = value;
    }
    profile_add(p, &round);
}

TEST(profile_keeps_the_whole_run_and_its_peak)
{
    struct profile *p = calloc(1, sizeof *p);
    int samples = 5 * PROFILE_ROWS_MAX + 3;
    profile_open(p, "x", 0.5, 1000);
    for (int i = 0; i < samples; i++)
        add(p, i, i == samples / 3 ? 1000000 : 5);
    CHECK(p->row_count <= PROFILE_ROWS_MAX && p->row_count > PROFILE_ROWS_MAX / 2);
    CHECK_EQ(p->row_samples, 8);
    CHECK_EQ(profile_peak(p, 0), 1000000);
    CHECK_EQ(profile_peak(p, SAMPLE_SERIES), 4000000);
    CHECK(p->rows[0].time_s == 0);
    for (uint32_t i = 1; i < p->row_count; i++)
        CHECK(p->rows[i].time_s == p->rows[i - 1].time_s + 8);
    CHECK(!profile_due(p, 1009) && profile_due(p, 1010));
    free(p);
}

/* What peaks at different moments was never there together, and the last samples count. */
TEST(profile_peaks_are_true)
{
    struct profile *p = calloc(1, sizeof *p);
    profile_open(p, "x", 0.5, 1000);
    for (int i = 0; i <= 2 * PROFILE_ROWS_MAX; i++)
        add(p, i, 0);
    CHECK(p->row_samples == 2 && profile_rows(p) == PROFILE_ROWS_MAX + 1);
    struct sample_round round = {.unix_s = 1e4, .there = {1, 1}};
    round.of[0].rss_bytes = 70, round.of[1].rss_bytes = 10;
    profile_add(p, &round);
    round.of[0].rss_bytes = 10, round.of[1].rss_bytes = 80;
    round.of[2].rss_bytes = 1000; /* left over from when it ran */
    profile_add(p, &round);
    CHECK_EQ(profile_peak(p, 0), 70);
    CHECK_EQ(profile_peak(p, 1), 80);
    CHECK_EQ(profile_peak(p, SAMPLE_SERIES), 90);
    free(p);
}

static const char *script_of(struct profile *p, char *text, size_t room);

/* Of joined rows it is the mean, since there it is nearly always at its peak. */
TEST(profile_shows_how_busy_the_gpu_was)
{
    static char text[1 << 20];
    struct profile *p = calloc(1, sizeof *p);
    struct sample_round round = {.unix_s = 1000, .there = {1, 1, 1, 1}};
    profile_open(p, "x", 0.5, 1000);
    profile_add(p, &round);
    CHECK(!profile_has_gpu(p) && !strstr(script_of(p, text, sizeof text), "GPU"));
    round.gpu_there = 1;
    for (int i = 1; i <= PROFILE_ROWS_MAX + 1; i++) {
        round.unix_s = 1000 + i;
        round.gpu.utilisation = i % 4 == 3 ? NAN : i % 4 ? 1 : 0.5;
        profile_add(p, &round);
    }
    CHECK_EQ(p->row_samples, 2);
    CHECK(profile_gpu(&p->rows[0]) == 1); /* of one sample, before which there was none */
    CHECK(profile_gpu(&p->rows[1]) == 1);
    CHECK(profile_gpu(&p->rows[2]) == 0.75);
    CHECK_HAS(script_of(p, text, sizeof text), "axes x1y2 with lines lw 1 lc rgb '#888888' title "
                                               "'GPU utilisation'");
    CHECK_HAS(text, "set y2range [0:130]");
    free(p);
}

static void epochs_journal(const char *const *tasks, int epochs)
{
    struct journal j;
    struct err e;
    double time_s = 1001;
    CHECK_OK(journal_open(&j, "trainerd", &e), e);
    for (int i = 0; tasks[i]; i++)
        for (int k = 0; k <= epochs; k++) {
            struct msg_event_task m = {.head = {.incarnation = 1, .seq = 1, .time_s = time_s++},
                                       .epoch = (uint64_t)k};
            MSG_STR(m.task, tasks[i]);
            MSG_STR(m.what, k ? "epoch-end" : "task-start");
            CHECK_OK(journal_append(&j, MSG_event_task, &m, &e), e);
        }
    journal_close(&j);
}

static void marks_journal(const char *stage, const char *text, int count)
{
    struct journal j;
    struct err e;
    CHECK_OK(journal_open(&j, stage, &e), e);
    for (int i = 0; i < count; i++) {
        struct msg_event_mark m = {.head = {.incarnation = 1, .seq = 1, .time_s = 1003 + i}};
        MSG_STR(m.stage, stage);
        MSG_STR(m.text, text);
        CHECK_OK(journal_append(&j, MSG_event_mark, &m, &e), e);
    }
    journal_close(&j);
}

static void journal_make(const char *stage, int starts, int checkpoints)
{
    struct journal j;
    struct err e;
    CHECK_OK(journal_open(&j, stage, &e), e);
    for (int i = 0; i < starts; i++) {
        struct msg_event_stage m = {.head = {.incarnation = 1, .seq = 1, .time_s = 1001 + i},
                                    .launch = 1};
        MSG_STR(m.stage, stage);
        MSG_STR(m.what, "start");
        CHECK_OK(journal_append(&j, MSG_event_stage, &m, &e), e);
    }
    for (int i = 0; i < checkpoints; i++) {
        struct msg_trainer_checkpoint m = {.head = {.incarnation = 1, .seq = 1, .time_s = 1002 + i},
                                           .step = (uint64_t)i};
        CHECK_OK(journal_append(&j, MSG_trainer_checkpoint, &m, &e), e);
    }
    journal_close(&j);
}

TEST(profile_takes_events_from_journals_and_bounds_them)
{
    struct profile *p = calloc(1, sizeof *p);
    struct err e;
    CHECK(mkdir("journals", 0700) == 0 && mkdir("logs", 0700) == 0 &&
          mkdir("logs/memory_profile", 0700) == 0);
    journal_make("trainerd", 2, 3 * PROFILE_EVENTS_MAX);
    profile_open(p, "x", 0.5, 1000);
    add(p, 1, 5);
    CHECK_OK(profile_write(p, 1010, &e), e);
    CHECK(p->event_count <= PROFILE_EVENTS_MAX && p->event_count > PROFILE_EVENTS_MAX / 4);
    CHECK_EQ(p->event_count + p->events_dropped, 3 * PROFILE_EVENTS_MAX + 2);
    CHECK_STR(p->events[0].what, "start");
    CHECK_STR(p->events[1].what, "restart");
    CHECK(!profile_due(p, 1019) && profile_due(p, 2000)); /* later where writing took long */
    free(p);
}

TEST(profile_keeps_tasks_and_restarts_of_many_epochs)
{
    static const char *const tasks[] = {"A", "B", "C", NULL};
    struct profile *p = calloc(1, sizeof *p);
    struct err e;
    CHECK(mkdir("journals", 0700) == 0 && mkdir("logs", 0700) == 0 &&
          mkdir("logs/memory_profile", 0700) == 0);
    epochs_journal(tasks, PROFILE_EVENTS_MAX);
    journal_make("loaderd", 3, PROFILE_EVENTS_MAX / 2);
    profile_open(p, "x", 0.5, 1000);
    add(p, 1, 5);
    CHECK_OK(profile_write(p, 1010, &e), e);
    CHECK(p->event_count <= PROFILE_EVENTS_MAX && p->event_count > PROFILE_EVENTS_MAX / 4);
    CHECK_EQ(profile_events(p, "task-start"), 3);
    CHECK_EQ(profile_events(p, "restart"), 2);
    CHECK(profile_events(p, "epoch-end") > 100 && profile_events(p, "checkpoint") > 100);
    free(p);
}

/* Its text is whole in the file, and marks without end leave room for all else. */
TEST(profile_shows_marks)
{
    static const char text[] = "gr\303\266\303\237er \"x\", as long as a mark may be: "
                               "........................................";
    static const char *const tasks[] = {"A", NULL};
    struct profile *p = calloc(1, sizeof *p);
    struct err e;
    char path[160], *data, line[160];
    size_t bytes;
    CHECK_EQ(strlen(text), 80);
    CHECK(mkdir("journals", 0700) == 0 && mkdir("logs", 0700) == 0 &&
          mkdir("logs/memory_profile", 0700) == 0);
    epochs_journal(tasks, 100);
    marks_journal("fisherd", text, 1);
    profile_open(p, "x", 0.5, 1000);
    add(p, 1, 5);
    CHECK_OK(profile_write(p, 1010, &e), e);
    CHECK_EQ(profile_events(p, "mark"), 1);
    snprintf(path, sizeof path, "%s.json", p->base);
    CHECK_OK(durable_read(path, 1 << 20, &data, &bytes, &e), e);
    snprintf(line, sizeof line, "\"stage\": \"fisherd\", \"what\": \"mark\", \"label\": \"%.9s%s",
             text, "\\\"x\\\", as long");
    CHECK_HAS(data, line);
    CHECK_HAS(data, "......\"}");
    free(data);
    marks_journal("loaderd", "again", 3 * PROFILE_EVENTS_MAX);
    CHECK_OK(profile_write(p, 1020, &e), e);
    CHECK(profile_events(p, "mark") > 100);
    CHECK_EQ(profile_events(p, "task-start"), 1);
    CHECK_EQ(profile_events(p, "epoch-end"), 100);
    free(p);
}

static const char *script_of(struct profile *p, char *text, size_t room)
{
    FILE *out = fmemopen(text, room, "w");
    CHECK(out);
    profile_script(p, out);
    CHECK(fclose(out) == 0);
    return text;
}

TEST(profile_shows_where_memory_was_short)
{
    static char text[1 << 18];
    struct profile *p = calloc(1, sizeof *p);
    struct journal j;
    struct err e;
    struct msg_memory_advice advice = {.head = {1, 1, 1004}, .what = "swap"};
    struct msg_event_training smaller = {.head = {1, 1, 1003}, .what = "micro-batch"};
    struct msg_event_training other = {.head = {1, 1, 1003}, .what = "plateau"};
    CHECK(mkdir("journals", 0700) == 0 && mkdir("logs", 0700) == 0 &&
          mkdir("logs/memory_profile", 0700) == 0);
    CHECK_OK(journal_open(&j, "monitord", &e), e);
    CHECK_OK(journal_append(&j, MSG_memory_advice, &advice, &e), e);
    CHECK_OK(journal_append(&j, MSG_event_training, &smaller, &e), e);
    CHECK_OK(journal_append(&j, MSG_event_training, &other, &e), e);
    journal_close(&j);
    profile_open(p, "x", 0.5, 1000);
    add(p, 10, 5);
    CHECK_OK(profile_write(p, 1010, &e), e);
    CHECK_EQ(p->event_count, 2);
    CHECK_HAS(script_of(p, text, sizeof text), "set label 'advice: swap' at 4,");
    CHECK_HAS(text, "set arrow from 3, graph 0");
    free(p);
}

TEST(picture_labels_marks_as_long_as_they_can_be_read)
{
    static char text[1 << 18];
    struct profile *p = calloc(1, sizeof *p);
    struct err e;
    CHECK(mkdir("journals", 0700) == 0 && mkdir("logs", 0700) == 0 &&
          mkdir("logs/memory_profile", 0700) == 0);
    profile_open(p, "x", 0.5, 1000);
    add(p, 0, 5);
    add(p, 10, 5);
    CHECK_OK(profile_write(p, 1010, &e), e);
    CHECK(!strstr(script_of(p, text, sizeof text), "your mark"));
    marks_journal("fisherd", "it's mine", 1);
    CHECK_OK(profile_write(p, 1010, &e), e);
    CHECK_HAS(script_of(p, text, sizeof text), "set label 'it''s mine' at 3,");
    CHECK_HAS(text, "set arrow from 3, graph 0 to 3, graph 1 nohead back lw 1 dt 4");
    CHECK_HAS(text, "title 'your mark'");
    marks_journal("loaderd", "again", 60);
    CHECK_OK(profile_write(p, 1010, &e), e);
    CHECK(!strstr(script_of(p, text, sizeof text), "set label"));
    CHECK_HAS(text, "title 'your mark'");
    free(p);
}

TEST(profile_is_drawn)
{
    struct profile *p = calloc(1, sizeof *p);
    struct err e;
    char head[8] = "", path[160];
    if (system("command -v gnuplot >/dev/null") != 0)
        test_skip("gnuplot is not installed");
    CHECK(mkdir("logs", 0700) == 0 && mkdir("logs/memory_profile", 0700) == 0);
    profile_open(p, "it's \"a\"\n`run`", 0.5, 1000);
    CHECK(profile_draw(p, 10, &e) < 0); /* no samples */
    for (int i = 0; i < 20; i++)
        add(p, i, 1 << 24);
    CHECK_OK(profile_draw(p, 10, &e), e);
    snprintf(path, sizeof path, "%s.png", p->base);
    FILE *f = fopen(path, "r");
    CHECK(f && fread(head, 1, 8, f) == 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0);
    fclose(f);
    snprintf(path, sizeof path, "%s.gnuplot", p->base);
    CHECK(access(path, F_OK) < 0);
    free(p);
}
