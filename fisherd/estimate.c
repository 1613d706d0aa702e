/* estimate.c - fisherd's one state machine.
 *
 *   state     what exists                    left when
 *   IDLE      nothing                        a job is queued                       -> OPENING
 *   OPENING   parameters, stream asked for   loaderd has opened it                 -> SUMMING
 *   SUMMING   as above, stream open, sums    all samples are in                    -> BLOCK
 *   BLOCK     sums, some parts               a block without a part: it is written -> BLOCK
 *                                            none                                  -> JOINING
 *   JOINING   all parts                      fisher/<task>.h5 is committed         -> IDLE
 *
 * A kill leaves the sums of some position and the finished parts in every state, and after JOINING
 * the file. Requests are idempotent: the answer to one is looked up by its job in the file first,
 * then in the queue. A permanent error ends the job
 * (`refused`) and not the process; a temporary one, a full disk for instance, ends the process with
 * its code, and the job is sent again to the next one.
 */
#include "fisherd/estimate.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "proto/fisherdir.h"
#include "proto/log.h"

static const double PUBLISH_EVERY_S = 0.1;

static void refused_reply(struct daemon *d, const struct link_peer *peer, const char *job,
                          const char *reason)
{
    struct msg_refused answer = {0};
    MSG_STR(answer.job, job);
    MSG_STR(answer.reason, reason);
    log_warn("job=%s refused: %s", job, reason);
    daemon_reply(d, peer, MSG_refused, &answer);
}

static void estimating_reply(const struct estimator *s, struct daemon *d,
                             const struct estimate_job *j)
{
    struct msg_estimating answer = {.samples = j->request.samples};
    MSG_STR(answer.job, j->request.job);
    if (j == &s->queue[0] && s->state > ESTIMATE_OPENING) {
        answer.samples_done = s->work.position;
        answer.samples = s->work.meta.samples;
    }
    daemon_reply(d, &j->peer, MSG_estimating, &answer);
}

static void estimated_reply(struct daemon *d, const struct link_peer *peer, const char *path,
                            const struct fisherfile_meta *meta)
{
    struct msg_estimated answer = {.samples = meta->samples, .trace = meta->trace};
    MSG_STR(answer.job, meta->job);
    MSG_STR(answer.path, path);
    MSG_STR(answer.digest, meta->digest);
    daemon_reply(d, peer, MSG_estimated, &answer);
}

/* Answer from the file, if it is that of the job. 1: answered. */
static int answered_from_file(struct daemon *d, const struct link_peer *peer,
                              const struct msg_estimate *m)
{
    char path[96], part_dir[96];
    struct fisherfile_meta meta;
    struct err why;
    work_paths(m, path, part_dir);
    if (access(path, F_OK) < 0)
        return 0;
    if (fisherfile_read_meta(path, &meta, &why) < 0) {
        log_warn("job=%s path=%s It is made again: %s", m->job, path, why.text);
        return 0;
    }
    if (strcmp(meta.job, m->job) != 0)
        return 0;
    work_clean(part_dir); /* a kill may have come between the commit and this */
    estimated_reply(d, peer, path, &meta);
    return 1;
}

/* Names become paths inside the run: nothing else is accepted. */
static int request_check(const struct msg_estimate *m, struct err *e)
{
    static const char names[] = " "
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const char *letters = names + 1; /* of one name: no space */
    size_t bytes = strlen(m->task);
    if (bytes == 0 || bytes != strspn(m->task, letters))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the task's name '%s' is not made of letters, digits, - and _", m->task);
    if (m->merge[strspn(m->merge, names)])
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the tasks to merge, '%.200s', are not names of tasks with a space between",
                       m->merge);
    if (!m->checkpoint[0] || m->checkpoint[0] == '/' || strstr(m->checkpoint, ".."))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the checkpoint '%.200s' is not a path inside the run", m->checkpoint);
    if (!m->job[0] || m->samples == 0)
        return err_set(e, EXIT_CODE_PERMANENT, "the job has %s",
                       m->job[0] ? "no samples" : "no name");
    return 0;
}

/* The queue's entry of that job, made if there is none. When the queue is full the youngest waiting
 * job makes room: whoever still wants it asks again. */
static struct estimate_job *job_enqueue(struct estimator *s, const struct msg_estimate *m)
{
    for (uint32_t i = 0; i < s->queued; i++)
        if (strcmp(s->queue[i].request.job, m->job) == 0)
            return &s->queue[i];
    if (s->queued == ESTIMATE_QUEUE_MAX)
        s->queued--;
    struct estimate_job *j = &s->queue[s->queued++];
    *j = (struct estimate_job){.request = *m};
    return j;
}

void estimate_request(struct estimator *s, struct daemon *d, const struct link_peer *peer,
                      const struct msg_estimate *m)
{
    struct err why;
    if (request_check(m, &why) < 0) {
        refused_reply(d, peer, m->job, why.text);
        return;
    }
    if (answered_from_file(d, peer, m))
        return;
    struct estimate_job *j = job_enqueue(s, m);
    j->peer = *peer;
    estimating_reply(s, d, j);
}

static double eta_s(const struct estimator *s, double now_s)
{
    uint64_t done = s->work.position, total = s->work.meta.samples;
    uint64_t ours = done - s->samples_skipped;
    return ours > 0 ? (now_s - s->began_s) / (double)ours * (double)(total - done) : 0;
}

/* finished: the block has just been written. */
static void progress_publish(struct estimator *s, struct daemon *d, int finished)
{
    const struct work *w = &s->work;
    double now_s = clock_monotonic_s();
    snprintf(d->doing, sizeof d->doing,
             "Fisher information of task %s: %" PRIu64 " of %" PRIu64 " samples, %" PRIu64
             " of %" PRIu64 " blocks written",
             w->job.task, w->position, w->meta.samples, w->block + (uint64_t)finished,
             w->meta.blocks);
    work_device_measure(w, &d->highwater);
    if (!finished && now_s - s->published_s < PUBLISH_EVERY_S)
        return;
    struct msg_fisher_block m = {.block = w->block + (uint64_t)finished,
                                 .blocks = w->meta.blocks,
                                 .samples_done = w->position,
                                 .samples = w->meta.samples,
                                 .bytes = finished ? w->range.bytes : 0,
                                 .error = finished ? w->range.error : 0,
                                 .eta_s = eta_s(s, now_s)};
    MSG_STR(m.job, w->job.job);
    MSG_STR(m.task, w->job.task);
    daemon_publish(d, MSG_fisher_block, &m);
    s->published_s = now_s;
}

/* The job in work is over, well or badly. */
static void job_end(struct estimator *s, struct daemon *d)
{
    work_close(&s->work);
    highwater_device(&d->highwater, 0, 0, 0);
    s->queued--;
    memmove(&s->queue[0], &s->queue[1], s->queued * sizeof s->queue[0]);
    s->state = ESTIMATE_IDLE;
}

static int turn_idle(struct estimator *s, struct daemon *d, int *sleep_ms, struct err *e)
{
    if (s->queued == 0) {
        snprintf(d->doing, sizeof d->doing, "waiting for a job");
        *sleep_ms = 1000;
        return 0;
    }
    const struct msg_estimate *m = &s->queue[0].request;
    log_info("job=%s task=%s checkpoint=%s samples=%" PRIu64 " The estimate begins.", m->job,
             m->task, m->checkpoint, m->samples);
    snprintf(d->doing, sizeof d->doing, "Fisher information of task %s: waiting for loaderd",
             m->task);
    s->state = ESTIMATE_OPENING; /* before it can fail: then there is something to end */
    s->began_s = clock_monotonic_s();
    return work_open(&s->work, &d->options, d->lock.incarnation, ++s->jobs, m, e);
}

/* Sleep until the stream has something new. */
static void stream_wait(struct estimator *s, struct daemon *d, int *sleep_ms)
{
    d->extra_count = feed_poll_items(s->work.feed, d->extra);
    *sleep_ms = feed_timeout_ms(s->work.feed);
}

/* Nothing is summed any more. */
static int blocks_begin(struct estimator *s, struct daemon *d, struct err *e)
{
    s->state = ESTIMATE_BLOCK;
    highwater_device(&d->highwater, 0, 0, 0);
    return work_samples_end(&s->work, e);
}

static int turn_opening(struct estimator *s, struct daemon *d, int *sleep_ms, struct err *e)
{
    int ready = work_ready(&s->work, e);
    if (ready < 0)
        return -1;
    if (!ready) {
        stream_wait(s, d, sleep_ms);
        return 0;
    }
    struct highwater_page *page = d->highwater.page;
    if (page && s->work.feed && s->work.feed->info.arena_bytes > page->arena_peak_bytes)
        page->arena_peak_bytes = s->work.feed->info.arena_bytes;
    s->samples_skipped = s->work.position;
    if (s->samples_skipped)
        log_info("job=%s samples=%" PRIu64 " The estimate goes on behind so many samples.",
                 s->work.job.job, s->samples_skipped);
    if (s->work.summed)
        return blocks_begin(s, d, e);
    s->state = ESTIMATE_SUMMING;
    return 0;
}

static int turn_summing(struct estimator *s, struct daemon *d, int *sleep_ms, struct err *e)
{
    int summed = work_batch(&s->work, e);
    if (summed < 0)
        return -1;
    if (!summed) {
        stream_wait(s, d, sleep_ms);
        return 0;
    }
    progress_publish(s, d, 0);
    return s->work.summed ? blocks_begin(s, d, e) : 0;
}

static int turn_block(struct estimator *s, struct daemon *d, struct err *e)
{
    int found = work_block(&s->work, e);
    if (found < 0 || (found && work_finish(&s->work, e) < 0))
        return -1;
    if (!found) {
        s->state = ESTIMATE_JOINING;
        return 0;
    }
    progress_publish(s, d, 1);
    s->work.block++;
    return 0;
}

static int turn_joining(struct estimator *s, struct daemon *d, struct err *e)
{
    int joined = work_join(&s->work, e);
    if (joined <= 0)
        return joined;
    const struct fisherfile_meta *meta = &s->work.meta;
    log_info("job=%s path=%s samples=%" PRIu64 " blocks=%" PRIu64
             " trace=%.6g noise=%.4f form=%s bytes=%" PRIu64
             " error=%.4f seconds=%.2f The estimate is done.",
             meta->job, s->work.path, meta->samples, meta->blocks, meta->trace, meta->noise,
             meta->compression, meta->bytes, meta->error, clock_monotonic_s() - s->began_s);
    estimated_reply(d, &s->queue[0].peer, s->work.path, meta);
    job_end(s, d);
    return 0;
}

static int state_turn(struct estimator *s, struct daemon *d, int *sleep_ms, struct err *e)
{
    switch (s->state) {
    case ESTIMATE_IDLE:
        s->samples_skipped = 0;
        return turn_idle(s, d, sleep_ms, e);
    case ESTIMATE_OPENING:
        return turn_opening(s, d, sleep_ms, e);
    case ESTIMATE_BLOCK:
        return turn_block(s, d, e);
    case ESTIMATE_SUMMING:
        return turn_summing(s, d, sleep_ms, e);
    case ESTIMATE_JOINING:
        return turn_joining(s, d, e);
    }
    ensure(!"a state");
}

int estimate_turn(struct estimator *s, struct daemon *d, int *sleep_ms, struct err *e)
{
    char apart[PATH_MAX]; /* whose disk it is may be what is wrong */
    *sleep_ms = 0;
    d->extra_count = 0;
    if (state_turn(s, d, sleep_ms, e) == 0)
        return DAEMON_GO_ON;
    if (e->code == EXIT_CODE_TEMPORARY) {
        fisherdir_link(".", apart);
        err_prefix(e, "cannot estimate the Fisher information %s%s%.200s", s->queue[0].request.job,
                   apart[0] ? " into " : "", apart);
        return DAEMON_FAILED;
    }
    refused_reply(d, &s->queue[0].peer, s->queue[0].request.job, e->text);
    job_end(s, d);
    return DAEMON_GO_ON;
}

void estimate_close(struct estimator *s)
{
    work_close(&s->work);
    s->queued = 0;
    s->state = ESTIMATE_IDLE;
}
