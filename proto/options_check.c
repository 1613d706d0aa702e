/* options_check.c - what spans several options: required ones, names, and the order of the tasks.
 *
 * Comes after all sources are read; each value alone is already within its own range.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/options_parts.h"

enum {
    STREAMS_MAX = 1024,       /* spans of a window: FEED_WINDOW_SPANS_MAX */
    BATCH_ROWS_MAX = 1 << 30, /* of one optimizer step */
};

int task_name_valid(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && length < 64 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") ==
               length;
}

/* A run's name is a directory's name and a word of shell scripts. */
static int run_name_check(const struct options *o, const struct origins *at, struct err *e)
{
    char shown[SHOWN_BYTES];
    size_t length =
        strspn(o->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    if (o->name[length] == '\0' && o->name[0] != '.' && o->name[0] != '-')
        return 0;
    return origin_error(at->name, e,
                        "name is \"%s\"; accepted are letters, digits, -, _ and dots, and no dot "
                        "or - at the beginning",
                        text_show(o->name, shown));
}

/* An option is required when its default is empty and empty is out of its range. */
static int required_check(const struct option_row *rows, size_t count, const void *base,
                          const char *prefix, struct origin at, struct err *e)
{
    for (size_t i = 0; i < count; i++) {
        char text[OPTION_TEXT_MAX + 1];
        if (rows[i].type != OPTION_TYPE_IS_STR || rows[i].low < 1 || rows[i].value[0])
            continue;
        value_text(&rows[i], base, text, sizeof text);
        if (!text[0])
            return origin_error(at, e, "%s%s is missing: %s", prefix, rows[i].key, rows[i].meaning);
    }
    return 0;
}

/* Where task `index` has its option `key`; the entry itself when that is a default. */
static struct origin task_origin(const struct origins *at, uint32_t index, const char *key)
{
    size_t count;
    const struct option_row *rows = task_rows(&count);
    const struct option_row *row = row_find(rows, count, key);
    ensure(row && count <= OPTION_TASK_KEYS_MAX);
    const struct origin *found = &at->task[index][row - rows];
    return found->source ? *found : at->entry[index];
}

static int task_name_check(const struct options *o, uint32_t index, const struct origins *at,
                           struct err *e)
{
    const char *name = o->tasks[index].name;
    char shown[SHOWN_BYTES];
    struct origin place = task_origin(at, index, "name");
    if (!task_name_valid(name) || strcmp(name, "start") == 0 || strcmp(name, "previous") == 0 ||
        strcmp(name, "all") == 0)
        return origin_error(place, e,
                            "tasks.%u.name is \"%s\"; accepted are 1 to 63 letters, digits, - and "
                            "_, and none of the words start, previous and all",
                            index, text_show(name, shown));
    int first = options_task(o, name);
    if ((uint32_t)first != index)
        return origin_error(place, e,
                            "tasks.%u.name is \"%s\", as is tasks.%d.name; names are unique", index,
                            name, first);
    return 0;
}

/* `name`, found under `key` of task `index`, must be a task before it. */
static int earlier_check(const struct options *o, uint32_t index, const char *key, const char *name,
                         const struct origins *at, struct err *e)
{
    int task = options_task(o, name);
    char shown[SHOWN_BYTES];
    if (task >= 0 && (uint32_t)task < index)
        return 0;
    return origin_error(task_origin(at, index, key), e,
                        "tasks.%s.%s names \"%s\", which is %s; accepted is a task earlier in the "
                        "list%s",
                        o->tasks[index].name, key, text_show(name, shown),
                        task < 0                  ? "no task"
                        : (uint32_t)task == index ? "this task itself"
                                                  : "a later task",
                        strcmp(key, "from") == 0 ? ", or start" : "");
}

static int task_check(const struct options *o, uint32_t index, const struct origins *at,
                      struct err *e)
{
    const struct task_options *task = &o->tasks[index];
    if (strcmp(task->from, "start") != 0 && earlier_check(o, index, "from", task->from, at, e) < 0)
        return -1;
    for (uint32_t i = 0; i < task->ewc.count; i++)
        if (earlier_check(o, index, "ewc", task->ewc.name[i], at, e) < 0)
            return -1;
    if (task->comparison_of[0] &&
        earlier_check(o, index, "comparison_of", task->comparison_of, at, e) < 0)
        return -1;
    if (task->comparison_of[0] && task->ewc.count)
        return origin_error(task_origin(at, index, "ewc"), e,
                            "tasks.%s has both ewc and comparison_of; a comparison repeats a task "
                            "without EWC",
                            task->name);
    return 0;
}

static int classes_check(const struct options *o, uint32_t index, const struct origins *at,
                         struct err *e)
{
    const struct option_list *classes = &o->tasks[index].classes;
    for (uint32_t i = 0; i < classes->count; i++) {
        const char *name = classes->name[i];
        if (strspn(name, "0123456789") != strlen(name) || strlen(name) > 3 || atoi(name) > 255)
            return origin_error(task_origin(at, index, "classes"), e,
                                "tasks.%s.classes holds \"%s\"; accepted are whole numbers from 0 "
                                "to 255",
                                o->tasks[index].name, name);
    }
    return 0;
}

/* Of a task's data, or the run's: what is read, in which batches. */
static int data_check(const struct options *o, struct origin at, struct err *e)
{
    if (strcmp(o->data_prepare, "none") != 0 && !o->data_source[0])
        return origin_error(at, e,
                            "data.source is missing: data.prepare is %s and needs the source's "
                            "file or directory",
                            o->data_prepare);
    if (o->data_stateful && options_batch_rows(o) > STREAMS_MAX)
        return origin_error(at, e,
                            "training.batch_size times gradient_accumulation_steps is %llu; with "
                            "data.stateful, which makes each row of a batch a stream, at most %d "
                            "are accepted",
                            (unsigned long long)options_batch_rows(o), STREAMS_MAX);
    if (options_batch_rows(o) > BATCH_ROWS_MAX)
        return origin_error(at, e,
                            "training.batch_size times gradient_accumulation_steps is %llu; at "
                            "most %d are accepted",
                            (unsigned long long)options_batch_rows(o), BATCH_ROWS_MAX);
    return 0;
}

/* A file is made once: of one source, by the same options. */
static int file_shared_check(const struct options *o, uint32_t index, struct options *view,
                             const struct origins *at, struct err *e)
{
    const struct task_options *t = &o->tasks[index];
    options_of_task(o, index, view);
    const char *file = view->data_file, *source = view->data_source;
    const char *smiles = view->prepare_smiles, *inchikey = view->prepare_inchikey;
    uint64_t rows_max = view->prepare_rows_max;
    for (uint32_t i = 0; i < index && strcmp(o->data_prepare, "none") != 0; i++) {
        options_of_task(o, i, view);
        if (strcmp(view->data_file, file) != 0 ||
            (strcmp(view->data_source, source) == 0 && strcmp(view->prepare_smiles, smiles) == 0 &&
             strcmp(view->prepare_inchikey, inchikey) == 0 && view->prepare_rows_max == rows_max &&
             memcmp(&o->tasks[i].classes, &t->classes, sizeof t->classes) == 0))
            continue;
        char shown[SHOWN_BYTES];
        return origin_error(
            at->entry[index], e,
            "tasks.%s has the file %s, as has tasks.%s, but another source, other classes, columns "
            "or rows_max; give it a file of its own",
            t->name, text_show(file, shown), o->tasks[i].name);
    }
    return 0;
}

static int tasks_data_check(const struct options *o, const struct origins *at, struct err *e)
{
    struct options *view = malloc(sizeof *view); /* large */
    int result = view ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot check the tasks");
    for (uint32_t i = 0; result == 0 && i < o->task_count; i++) {
        result = classes_check(o, i, at, e);
        if (result == 0)
            result = file_shared_check(o, i, view, at, e);
        options_of_task(o, i, view);
        if (result == 0)
            result = data_check(view, o->tasks[i].batch_size ? at->entry[i] : at->file, e);
    }
    free(view);
    return result;
}

/* Options that only make sense together. */
static int pairs_check(const struct options *o, const struct origins *at, struct err *e)
{
    if (o->data_stateful && o->data_shuffle)
        return origin_error(at->file, e,
                            "data.stateful is true and so is data.shuffle; rows that go on from "
                            "batch to batch need data.shuffle: false");
    if (o->nesterov && (strcmp(o->optimizer, "sgd") != 0 || o->momentum == 0))
        return origin_error(at->file, e,
                            "training.nesterov is true; it goes with training.optimizer: sgd and a "
                            "training.momentum above 0");
    if (o->use_swa && strcmp(o->keep, "best") == 0)
        return origin_error(at->file, e,
                            "training.use_swa is true and training.keep is best; both say with "
                            "which weights a task ends, so accepted is one of them");
    if (o->warmup_epochs && strcmp(o->scheduler_type, "constant") != 0 &&
        strcmp(o->scheduler_type, "plateau") != 0)
        return origin_error(at->file, e,
                            "training.warmup_epochs is %llu and training.scheduler_type is %s, "
                            "which rises over training.warmup_pct of the steps; warmup_epochs go "
                            "with constant and plateau",
                            (unsigned long long)o->warmup_epochs, o->scheduler_type);
    if (!o->backbone_layers && (o->backbone_lr > 0 || o->freeze_backbone))
        return origin_error(at->file, e,
                            "training.%s is given, but no backbone: training.backbone_layers says "
                            "how many of model.layers are it",
                            o->freeze_backbone ? "freeze_backbone" : "backbone_lr");
    if (o->arena_slots != 0 && o->loader_prefetch_factor != 0)
        return origin_error(
            at->file, e,
            "arena.slots and loader.prefetch_factor are both given and both say how "
            "far is read ahead; accepted is one of them");
    if (o->arena_slots != 0 && o->arena_slots < o->order_window_spans + 1)
        return origin_error(at->file, e,
                            "arena.slots is %llu; with order.window_spans %llu at least %llu or "
                            "auto is accepted",
                            (unsigned long long)o->arena_slots,
                            (unsigned long long)o->order_window_spans,
                            (unsigned long long)o->order_window_spans + 1);
    return 0;
}

/* Backbone and rest are two groups of parameters: the rest has a layer at least. */
static int backbone_check(const struct options *o, const struct origins *at, struct err *e)
{
    if (o->backbone_layers < o->layer_count)
        return 0;
    return origin_error(at->file, e,
                        "training.backbone_layers is %llu, but model.layers has %u entries and one "
                        "at least must be behind the backbone; accepted are 0 to %u",
                        (unsigned long long)o->backbone_layers, o->layer_count, o->layer_count - 1);
}

int options_check(const struct options *o, const struct origins *at, struct err *e)
{
    size_t count;
    const struct option_row *rows = option_rows(&count);
    if (required_check(rows, count, o, "", at->file, e) < 0 || run_name_check(o, at, e) < 0 ||
        pairs_check(o, at, e) < 0)
        return -1;
    if (o->layer_count == 0)
        return origin_error(at->file, e, "model.layers is missing: at least one layer is needed");
    if (o->task_count == 0)
        return origin_error(at->file, e,
                            "tasks is missing: at least one task is needed, or "
                            "finetuning.epochs, which makes one");
    if (backbone_check(o, at, e) < 0)
        return -1;
    rows = task_rows(&count);
    for (uint32_t i = 0; i < o->task_count; i++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "tasks.%u.", i);
        if (required_check(rows, count, &o->tasks[i], prefix, at->entry[i], e) < 0 ||
            task_name_check(o, i, at, e) < 0)
            return -1;
    }
    for (uint32_t i = 0; i < o->task_count; i++)
        if (task_check(o, i, at, e) < 0)
            return -1;
    return tasks_data_check(o, at, e);
}
