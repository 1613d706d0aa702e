/* main.c - monitord: what everybody does to memory, now and over time.
 *
 * A turn passes the stages' streams on to monitor.pub, and every monitor.sample_s seconds measures
 * all stages (sample.c) and looks at the GPU (gpu.c), publishes memory.sample and gpu.sample, and
 * feeds the profile (profile.c), the table (metrics.c) and what gives advice (advisor.c), which
 * also hears the streams. It keeps nothing that the run needs: killing it at any moment costs some
 * samples. `monitord --report RUN`
 * is another program in the same binary: it reads a run that is down and writes its report
 * (report.c).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitord/advisor.h"
#include "monitord/fanout.h"
#include "monitord/gpu.h"
#include "monitord/metrics.h"
#include "monitord/profile.h"
#include "monitord/report.h"
#include "monitord/sample.h"
#include "proto/daemon.h"
#include "proto/log.h"

struct monitord {
    struct fanout fanout;
    struct sampler sampler;
    struct advisor advisor;
    struct gpu gpu;
    uint64_t log_every;        /* steps */
    struct sample_round round; /* the newest */
    struct profile *profile;   /* NULL: not wanted */
    int tabulates;             /* metrics are wanted */
    struct metrics metrics;
    struct msg_trainer_step step; /* the newest of trainerd_pid, where there is one (stepped) */
    int stepped;
    uint64_t trainerd_pid;
    double sample_due_s; /* monotonic */
};

static const double draw_limit_s = 6; /* less than a supervisor waits before it kills */

static int start(void *self, struct daemon *d, struct err *e)
{
    struct monitord *m = self;
    if (fanout_open(&m->fanout, e) < 0)
        return -1;
    if (d->options.monitor_profile) {
        m->profile = malloc(sizeof *m->profile);
        if (!m->profile) {
            fanout_close(&m->fanout);
            return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the memory profile (%zu bytes)",
                           sizeof *m->profile);
        }
        profile_open(m->profile, d->options.name, d->options.monitor_sample_s, clock_unix_s());
    }
    m->tabulates = d->options.monitor_csv;
    metrics_open(&m->metrics, d->options.monitor_csv_limit_mb << 20);
    sampler_open(&m->sampler);
    gpu_open(&m->gpu);
    m->log_every = d->options.log_gpu_stats_every_n_batches;
    advisor_open(&m->advisor, d);
    return 0;
}

static void message_heed(void *self, enum msg_type type, const union msg *message)
{
    struct monitord *m = self;
    char line[GPU_LINE_BYTES];
    advisor_message(&m->advisor, type, message);
    gpu_message(&m->gpu, type, message);
    if (type != MSG_trainer_step)
        return;
    if (gpu_line(&m->gpu, &message->trainer_step, m->log_every, clock_monotonic_s(), line))
        log_info("%s", line);
    m->step = message->trainer_step;
    m->stepped = 1;
}

/* What a trainerd that is gone has told counts no more. */
static void trainerd_follow(struct monitord *m)
{
    int trainerd = stage_index("trainerd");
    uint64_t pid = m->round.there[trainerd] ? m->round.of[trainerd].pid : 0;
    if (pid != m->trainerd_pid)
        m->stepped = 0;
    m->trainerd_pid = pid;
}

static void gpu_take(struct monitord *m, struct daemon *d)
{
    if (gpu_look(&m->gpu, m->trainerd_pid != 0, clock_monotonic_s())) {
        gpu_count(d->highwater.page, &m->gpu.sample);
        daemon_publish(d, MSG_gpu_sample, &m->gpu.sample);
    }
    m->round.gpu_there = m->gpu.there;
    m->round.gpu = m->gpu.sample;
}

static void samples_take(struct monitord *m, struct daemon *d)
{
    sampler_round(&m->sampler, &m->round);
    trainerd_follow(m);
    gpu_take(m, d);
    for (int i = 0; i < SAMPLE_SERIES; i++)
        if (m->round.there[i])
            daemon_publish(d, MSG_memory_sample, &m->round.of[i]);
    advisor_samples(&m->advisor, &m->round);
    if (m->profile)
        profile_add(m->profile, &m->round);
    if (m->tabulates)
        metrics_row(&m->metrics, &m->round, m->stepped ? &m->step : NULL);
}

/* A profile that cannot be written is no reason to stop measuring. */
static void profile_save(struct monitord *m)
{
    struct err e = {0};
    if (profile_write(m->profile, clock_unix_s(), &e) < 0)
        log_warn("The memory profile was not written: %s", e.text);
}

static int turn(void *self, struct daemon *d, int *sleep_ms, struct err *e)
{
    struct monitord *m = self;
    double now_s = clock_monotonic_s();
    (void)e;
    int more = fanout_turn(&m->fanout, &d->pub, message_heed, m);
    if (now_s >= m->sample_due_s) {
        samples_take(m, d);
        m->sample_due_s = now_s + d->options.monitor_sample_s;
        if (m->profile && profile_due(m->profile, clock_unix_s()))
            profile_save(m);
    }
    snprintf(d->doing, sizeof d->doing, "%llu messages passed on, %llu malformed ones dropped",
             (unsigned long long)m->fanout.forwarded, (unsigned long long)m->fanout.malformed);
    double left_s = m->sample_due_s - clock_monotonic_s();
    *sleep_ms = more || left_s <= 0 ? 0 : (int)(1000 * left_s) + 1;
    d->extra_count = fanout_poll_items(&m->fanout, d->extra);
    return DAEMON_GO_ON;
}

static void stop(void *self, struct daemon *d)
{
    struct monitord *m = self;
    struct err e = {0};
    fanout_turn(&m->fanout, &d->pub, message_heed, m);
    if (m->profile || m->tabulates)
        samples_take(m, d);
    if (m->profile) {
        profile_save(m);
        if (profile_draw(m->profile, draw_limit_s, &e) < 0)
            log_warn("The memory profile was not drawn: %s", e.text);
        else
            log_info("path=%s.png The memory profile is drawn.", m->profile->base);
    }
    free(m->profile);
    m->profile = NULL;
    metrics_close(&m->metrics);
    gpu_close(&m->gpu);
    sampler_close(&m->sampler);
    fanout_close(&m->fanout);
}

static int command(void *self, int argc, char **argv)
{
    (void)self;
    if (argc > 1 && strcmp(argv[1], "--compare") == 0)
        return compare_command(argc - 2, argv + 2);
    if (argc < 2 || strcmp(argv[1], "--report") != 0)
        return -1;
    if (argc != 3) {
        fprintf(stderr, "monitord: --report needs one run directory; see --help\n");
        return EXIT_CODE_PERMANENT;
    }
    return report_command(argv[2]);
}

int main(int argc, char **argv)
{
    static struct monitord self;
    static const char *const help_of[] = {"--compare", NULL};
    static const struct daemon_spec spec = {
        .stage = "monitord",
        .purpose = "passes all streams on, samples the memory of every stage, makes the report",
        .example = "monitord --run runs/fashion",
        .deadline_s = 30,
        .start = start,
        .turn = turn,
        .stop = stop,
        .command = command,
        .help_of = help_of,
        .extra_help =
            "  --report RUN    write RUN/report/report.json and report.md of a run that is "
            "down, print the short table\n"
            "  --compare RUN...  print what several runs have in common and what not; see\n"
            "                  pipelines/compare.sh --help\n",
    };
    return daemon_run(argc, argv, &spec, &self);
}
