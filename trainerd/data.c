/* data.c - which task's rows the two streams bring.
 *
 * Tasks may have files and batch sizes of their own. Those that share both read one set of data. At
 * the start every set is opened once, the present task's last: what is not right is said before
 * hours of work, and rows, largest batches and fingerprints are known for the whole run. From then
 * on a stream is opened anew where the next rows are of another set: training rows when a task
 * begins, validation rows for each task that is evaluated. One set of each split is held at a time,
 * so a run takes no more memory for many files than for its largest.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { NO_SET = UINT32_MAX };

struct split { /* of the trainer: what belongs to one of its streams */
    struct feed *feed;
    struct megabatch *rows;
    struct gather_config *gather;
    struct data_stream *stream;
};

static struct split split_of(struct trainer *t, int validation)
{
    if (validation)
        return (struct split){&t->validation, &t->validation_rows, &t->gather_validation,
                              &t->data.stream[1]};
    return (struct split){&t->train, &t->train_rows, &t->gather_train, &t->data.stream[0]};
}

/* Closes the stream's feed if there is one, and opens it for the set. */
static void stream_open(struct trainer *t, int validation, uint32_t set)
{
    static const char *const roles[] = {"trainer.train", "trainer.validation"};
    struct split s = split_of(t, validation);
    struct feed_config c = setup_feed_config(t->options, validation);
    struct msg_epoch_range epochs[OPTION_TASKS_MAX] = {{.count = 1}}; /* in file order */
    uint64_t attempts = s.feed->attempt; /* no routing id is used twice */
    megabatch_close(s.rows);
    t->batch.ahead.count = 0;
    feed_close(s.feed);
    c.role = roles[validation];
    c.incarnation = t->daemon->lock.incarnation;
    compute_feed_config(&c, t->options, t->device);
    c.file = t->data.set[set].file;
    c.batch_rows = t->data.set[set].batch_size;
    if (validation && c.streams)
        c.streams = c.batch_rows;
    c.epochs = epochs;
    c.epoch_count = validation ? 1 : epochs_of_run(t->options, epochs);
    feed_open(s.feed, &c);
    s.feed->attempt = attempts;
    *s.stream = (struct data_stream){.set = set};
}

void data_sets_find(struct data *d, const struct options *o, struct options *view)
{
    d->set_count = 0;
    for (uint32_t i = 0; i < o->task_count; i++) {
        uint32_t first = options_data_task(o, i);
        d->set_of[i] = first < i ? d->set_of[first] : d->set_count;
        if (first < i)
            continue;
        options_of_task(o, i, view);
        d->set[d->set_count++] =
            (struct data_set){.task = i, .file = view->data_file, .batch_size = view->batch_size};
    }
}

/* The set that is described next: all others before that of the present task. */
static uint32_t set_next(const struct trainer *t)
{
    const struct data *d = &t->data;
    /* that of a checkpoint which turns out to be another run's: any will do */
    uint64_t task = t->meta.task < t->options->task_count ? t->meta.task : 0;
    return (d->set_of[task] + 1 + d->known) % d->set_count;
}

static int set_open(struct trainer *t, struct err *e)
{
    uint32_t set = set_next(t);
    options_of_task(&t->daemon->options, t->data.set[set].task, &t->present);
    if (t->present.data_file[0] != '/')
        return err_set(e, EXIT_CODE_PERMANENT,
                       "data.file is \"%s\"; in a run's effective pipeline file it is absolute, as "
                       "`prepare run` "
                       "writes it",
                       t->present.data_file);
    stream_open(t, 0, set);
    stream_open(t, 1, set);
    return 0;
}

int data_begin(struct trainer *t, struct err *e)
{
    t->data.stream[0].set = t->data.stream[1].set = NO_SET;
    data_sets_find(&t->data, &t->daemon->options, &t->present);
    return set_open(t, e);
}

static int fingerprint_make(struct data *d, struct err *e)
{
    char each[OPTION_TASKS_MAX][65];
    for (uint32_t i = 0; i < d->set_count; i++)
        memcpy(each[i], d->set[i].fingerprint, sizeof each[i]);
    return checkpoint_fingerprint((const char(*)[65])each, d->set_count, d->fingerprint, e);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void data_shapes_join(struct split_shape *most, const struct split_shape *s)
{
    if (!most->rows) {
        *most = *s;
        return;
    }
    most->rows = larger(most->rows, s->rows);
    most->spans = larger(most->spans, s->spans);
    most->span_rows = larger(most->span_rows, s->span_rows);
    most->span_bytes_max = larger(most->span_bytes_max, s->span_bytes_max);
    most->row_bytes = larger(most->row_bytes, s->row_bytes);
    most->chunk_bytes_max = larger(most->chunk_bytes_max, s->chunk_bytes_max);
    most->kept_bytes = larger(most->kept_bytes, s->kept_bytes);
    most->batch_nodes = larger(most->batch_nodes, s->batch_nodes);
    most->batch_edges = larger(most->batch_edges, s->batch_edges);
    most->slice_nodes = larger(most->slice_nodes, s->slice_nodes);
    most->sample_nodes = larger(most->sample_nodes, s->sample_nodes);
}

int data_shapes_agree(const struct split_shape *a, const struct split_shape *b, const char *file_a,
                      const char *file_b, struct err *e)
{
    if (strcmp(a->layout, b->layout) == 0 && a->values == b->values &&
        a->edge_values == b->edge_values && a->weights == b->weights)
        return 0;
    if (a->weights != b->weights)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the tasks' files do not hold rows of one kind: %s has %" PRIu64
                       " weights a row and %s %" PRIu64 "; one model takes them all",
                       file_a, a->weights, file_b, b->weights);
    return err_set(
        e, EXIT_CODE_PERMANENT,
        "the tasks' files do not hold rows of one kind: %s is in the %s layout with "
        "%" PRIu64 " values a row or node and %" PRIu64
        " an edge, %s in the %s layout with %" PRIu64 " and %" PRIu64 "; one model takes them all",
        file_a, a->layout, a->values, a->edge_values, file_b, b->layout, b->values, b->edge_values);
}

/* 1: all sets are described; 0: the next one is being opened; -1. */
int data_describe(struct trainer *t, struct err *e)
{
    struct data *d = &t->data;
    struct data_set *s = &d->set[set_next(t)];
    const struct data_set *first = d->known ? &d->set[d->first] : s;
    s->train = shape_of(&t->train);
    s->validation = shape_of(&t->validation);
    snprintf(s->fingerprint, sizeof s->fingerprint, "%s", t->train.info.fingerprint);
    snprintf(s->of_validation, sizeof s->of_validation, "%s", t->validation.info.fingerprint);
    if (!d->known)
        d->first = (uint32_t)(s - d->set);
    if (data_shapes_agree(&first->train, &s->train, first->file, s->file, e) < 0)
        return -1;
    data_shapes_join(&d->train, &s->train);
    data_shapes_join(&d->validation, &s->validation);
    if (++d->known < d->set_count)
        return set_open(t, e);
    return fingerprint_make(d, e) < 0 ? -1 : 1;
}

/* How the rows of the feed are kept, where the plan has room for those of the largest set. */
static struct megabatch_size size_of(const struct megabatch_size *planned, const struct feed *f)
{
    const struct order *o = &f->info.order;
    if (planned->kind != MEGABATCH_WHOLE)
        return *planned;
    struct megabatch_size size =
        megabatch_size_make(order_spans(o), f->consumer.opened.span_bytes_max, 1, planned->bytes);
    ensure(size.kind == MEGABATCH_WHOLE);
    size.device = planned->device;
    size.mark = planned->mark;
    return size;
}

/* 1: the stream brings rows of the task's data; 0: it is being opened; -1. */
static int stream_follow(struct trainer *t, int validation, uint32_t task, struct err *e)
{
    struct split s = split_of(t, validation);
    if (s.stream->set != t->data.set_of[task])
        stream_open(t, validation, t->data.set_of[task]);
    if (s.stream->ready)
        return 1;
    if (!feed_ready(s.feed))
        return 0;
    const struct data_set *set = &t->data.set[t->data.set_of[task]];
    const char *known = validation ? set->of_validation : set->fingerprint;
    if (strcmp(s.feed->info.fingerprint, known) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has changed since the run went on from here (fingerprint %.12s, now "
                       "%.12s); bring the old file back",
                       set->file, known, s.feed->info.fingerprint);
    struct megabatch_size size = size_of(&t->data.sizes[validation], s.feed);
    if (megabatch_open(s.rows, s.feed, &size, e) < 0)
        return -1;
    *s.gather = setup_gather(s.feed, t->options->data_scale);
    s.stream->ready = 1;
    return 1;
}

int data_train(struct trainer *t, uint32_t task, struct err *e)
{
    return stream_follow(t, 0, task, e);
}

int data_validation(struct trainer *t, uint32_t task, struct err *e)
{
    return stream_follow(t, 1, task, e);
}

int data_wait(int there, int *sleep_ms)
{
    if (there < 0)
        return DAEMON_FAILED;
    *sleep_ms = 1000;
    return DAEMON_GO_ON;
}

int data_holds(const struct trainer *t, const struct feed *f, uint32_t task)
{
    const struct data_stream *stream = &t->data.stream[f == &t->validation];
    return stream->ready && stream->set == t->data.set_of[task];
}

void data_give_back(struct trainer *t, int all)
{
    for (int validation = 0; validation < 2; validation++) {
        struct split s = split_of(t, validation);
        if (!s.rows->size.device && !(all && s.rows->size.bytes))
            continue;
        megabatch_close(s.rows);
        t->batch.ahead.count = 0;
        s.stream->ready = 0; /* it is filled again when rows are asked for */
    }
}

void data_task(struct trainer *t)
{
    options_of_task(&t->daemon->options, (uint32_t)t->meta.task, &t->present);
}
