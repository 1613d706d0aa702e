/* describe.c - see describe.h. The file is parsed by a reader process as always; this one only
 * prints.
 */
#include "loaderd/describe.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "loaderd/child.h"
#include "loaderd/layout.h"
#include "proto/epochs.h"
#include "proto/opened.h"

/* Spans of a window, as the consumer will hold them (proto/feed.h). */
static uint64_t window_spans(const struct options *o, int shuffled, uint64_t streams)
{
    return shuffled ? o->order_window_spans : streams ? streams : 1;
}

/* Largest span that a consumer of this split could take: its arena holds a window and one slot
 * more, each a whole number of pages (proto/feed.h). */
static uint64_t span_limit(const struct options *o, int shuffled, uint64_t streams)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t slots = window_spans(o, shuffled, streams) + 1;
    return (o->arena_limit_mb << 20) / slots / page * page;
}

/* Ask one reader. *fault: what it died of, or 0. */
static int reader_ask(const struct options *o, const char *split, int shuffled, uint64_t streams,
                      int rest, int file, struct reader_described *d, int *fault, struct err *e)
{
    struct child child = CHILD_NONE;
    struct reader_packet packet = {.kind = READER_OPEN};
    snprintf(packet.open.split, sizeof packet.open.split, "%s", split);
    MSG_STR(packet.open.features, o->data_features);
    MSG_STR(packet.open.targets, o->data_targets);
    MSG_STR(packet.open.weights, o->data_weights);
    packet.open.seed = epochs_seed(o);
    packet.open.streams = streams;
    packet.open.rest = rest;
    packet.open.span_rows = o->order_span_rows;
    packet.open.span_bytes_chosen = layout_span_bytes_chosen(window_spans(o, shuffled, streams));
    packet.open.span_bytes_limit = span_limit(o, shuffled, streams);
    packet.open.workers = 1;
    packet.open.shuffle = shuffled;
    packet.open.begins = o->data_stateful;
    packet.open.window = o->data_window;
    packet.open.window_spans = window_spans(o, shuffled, streams);
    packet.open.batch_rows = o->batch_size;
    packet.open.slice_rows = o->slice_rows;
    int digest_ms = packet.open.begins || packet.open.weights[0] ? READER_DIGEST_S_MAX * 1000 : 0;
    packet.open.epoch_count = epochs_of_run(o, packet.open.epochs);
    int failed = child_start(&child, ".", file, e) != 0 ||
                 child_send(&child, &packet, NULL, 0, e) != 0 ||
                 child_wait(&child, &packet, READER_ANSWER_MS + digest_ms, e) != 1;
    *fault = failed ? child_fault(&child) : 0;
    if (!failed && packet.kind == READER_REJECTED)
        failed = err_set(e, EXIT_CODE_PERMANENT, "%s: %.600s", o->data_file, packet.text);
    else if (!failed && packet.kind != READER_DESCRIBED)
        failed =
            err_set(e, EXIT_CODE_TEMPORARY, "%s: its reader answered something else", o->data_file);
    child_kill(&child);
    *d = packet.described;
    return failed ? -1 : 0;
}

static int split_ask(const struct options *o, const char *split, int shuffled, uint64_t streams,
                     int rest, int file, struct reader_described *d, struct err *e)
{
    int fault;
    for (int i = 0; i < CHILD_FAULTS_MAX; i++)
        if (reader_ask(o, split, shuffled, streams, rest, file, d, &fault, e) == 0)
            return 0;
        else if (!fault)
            return -1;
    return err_set(e, EXIT_CODE_PERMANENT, "%s: %d readers died over it, the last one of %s: %s",
                   o->data_file, CHILD_FAULTS_MAX, child_fault_name(fault),
                   child_fault_meaning(fault));
}

static void number_print(const char *prefix, const char *name, const char *key, uint64_t number)
{
    printf("%s.%s%s%s=%llu\n", prefix, name, name[0] ? "." : "", key, (unsigned long long)number);
}

static void field_print(const char *prefix, const struct msg_field_info *f)
{
    printf("%s.%s.type=%s\n", prefix, f->name, f->type);
    number_print(prefix, f->name, "values", f->values);
    number_print(prefix, f->name, "span_items_max", f->items_max);
    if (!f->pointer[0])
        return;
    printf("%s.%s.pointer=%s\n", prefix, f->name, f->pointer);
    number_print(prefix, f->name, "batch_items_max", f->batch_items_max);
    number_print(prefix, f->name, "slice_items_max", f->slice_items_max);
    number_print(prefix, f->name, "sample_items_max", f->sample_items_max);
}

/* Does the model take it, and not learn it? */
static int is_taken(const struct msg_field_info *f)
{
    return strncmp(f->name, "features", 8) == 0 || strcmp(f->name, "node_features") == 0 ||
           strcmp(f->name, "tokens") == 0;
}

/* What the model takes, in parts that are joined to a row; their type: where there are several, of
 * the first that is of no whole numbers. */
static void values_print(const char *prefix, const struct reader_described *d)
{
    uint64_t values = 0, parts = 0;
    const char *type = "";
    for (uint32_t i = 0; i < d->field_count; i++) {
        const struct msg_field_info *f = &d->fields[i];
        if (!is_taken(f))
            continue;
        values += f->values - (strcmp(f->name, "tokens") == 0); /* the last is only predicted */
        if (!parts++ || type[0] != 'f')
            type = f->type;
    }
    number_print(prefix, "", "values", values);
    number_print(prefix, "", "value_parts", parts);
    printf("%s.value_type=%s\n", prefix, type);
}

/* What it is to learn, where that is there. */
static void targets_print(const char *prefix, const struct reader_described *d)
{
    for (uint32_t i = 0; i < d->field_count; i++) {
        struct msg_field_info f = d->fields[i];
        int tokens = strcmp(f.name, "tokens") == 0;
        if (tokens)
            opened_following(&f);
        if (!tokens && strcmp(f.name, "targets") != 0)
            continue;
        number_print(prefix, "", "target_values", f.values);
        printf("%s.target_type=%s\n", prefix, f.type);
    }
}

static void split_print(const char *prefix, const struct reader_described *d)
{
    uint64_t row_bytes = 0;
    for (uint32_t i = 0; i < d->field_count; i++)
        row_bytes += d->fields[i].row_bytes;
    printf("%s.layout=%s\n", prefix, d->layout);
    number_print(prefix, "", "rows", d->rows);
    number_print(prefix, "", "spans", d->spans);
    number_print(prefix, "", "chunk_rows", d->chunk_rows);
    number_print(prefix, "", "span_rows", d->span_rows);
    number_print(prefix, "", "span_bytes_max", d->span_bytes_max);
    number_print(prefix, "", "chunk_bytes_max", d->chunk_bytes_max);
    number_print(prefix, "", "kept_bytes", d->kept_bytes);
    number_print(prefix, "", "row_bytes", row_bytes);
    values_print(prefix, d);
    targets_print(prefix, d);
    for (uint32_t i = 0; i < d->field_count; i++) {
        struct msg_field_info f = d->fields[i];
        if (strcmp(d->layout, "tokens") == 0 && strcmp(f.name, "weights") == 0)
            opened_following(&f); /* as who takes them does */
        field_print(prefix, &f);
    }
    printf("%s.fingerprint=%s\n", prefix, d->fingerprint);
}

static int describe(const char *config, const char *const *set, int set_count, struct err *e)
{
    static struct options o; /* large */
    struct reader_described train, validation;
    int result = -1, file = -1;
    if (options_read(&o, config, set, set_count, e) != 0)
        goto out;
    file = child_file_open(o.data_file, e);
    if (file < 0 ||
        split_ask(&o, o.data_train, o.data_shuffle, o.data_stateful ? options_batch_rows(&o) : 0, 0,
                  file, &train, e) != 0 ||
        split_ask(&o, o.data_validation, 0, o.data_stateful ? o.batch_size : 0, 1, file,
                  &validation, e) != 0)
        goto out;
    split_print("train", &train);
    split_print("validation", &validation);
    result = 0;
    if (fflush(stdout) != 0)
        result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot print the description");
out:
    if (file >= 0)
        close(file);
    options_free(&o);
    return result;
}

int describe_main(int argc, char **argv)
{
    const char *config, *set[OPTION_SETS_MAX];
    int set_count;
    struct err e = {0};
    if (options_arguments(argc, argv, 1, &config, set, &set_count, &e) == 0 &&
        describe(config, set, set_count, &e) == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "loaderd --describe: %s\n", e.text);
    return e.code;
}
