/* options_complete.c - options that say something of other options, once all sources are read.
 *
 * A number that `auto` or a switch stands for becomes that number where it belongs to the result's
 * identity. What can be said of tasks as "the one before" or "all so far" is written as names, so
 * that everybody else, and the run's effective file, knows names only; the comparisons without EWC
 * are tasks like others, each of which begins where the comparison before it ended.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/options_parts.h"

enum { FISHER_BLOCK_WHOLE = 1000000000 }; /* the largest block_size there is */

/* ---- sequences ---- */

static const char word_previous[] = "previous", word_all[] = "all", suffix[] = "-without-ewc";

static int is_comparison(const struct task_options *t)
{
    return t->comparison_of[0] != '\0';
}

int options_comparison(const struct options *o, uint32_t task)
{
    for (uint32_t i = 0; i < o->task_count; i++)
        if (strcmp(o->tasks[i].comparison_of, o->tasks[task].name) == 0)
            return (int)i;
    return -1;
}

/* Does the comparison begin where its original does, or where that one's comparison ended? */
static int begins_alike(const struct options *o, const struct task_options *t,
                        const struct task_options *original)
{
    int from = options_task(o, t->from);
    return strcmp(t->from, original->from) == 0 ||
           (from >= 0 && strcmp(o->tasks[from].comparison_of, original->from) == 0);
}

const char *options_comparison_differs(const struct options *o, uint32_t task)
{
    /* lambda is of the penalty that a comparison has not */
    static const char *const own[] = {"name", "from", "ewc", "comparison_of", "lambda"};
    const struct task_options *t = &o->tasks[task];
    const struct task_options *original = &o->tasks[options_task(o, t->comparison_of)];
    size_t count;
    const struct option_row *rows = task_rows(&count);
    if (!begins_alike(o, t, original))
        return "from";
    for (size_t i = 0; i < count; i++) {
        int skipped = 0;
        for (size_t k = 0; k < sizeof own / sizeof *own; k++)
            skipped |= strcmp(rows[i].key, own[k]) == 0;
        if (!skipped && !value_equal(&rows[i], t, original))
            return rows[i].key;
    }
    return NULL;
}

/* The words of task `index`. */
static int words_replace(struct options *o, uint32_t index, const struct origins *at, struct err *e)
{
    struct task_options *t = &o->tasks[index];
    struct option_list all = {0};
    const char *previous = "start";
    for (uint32_t i = 0; i < index; i++) {
        if (is_comparison(&o->tasks[i]))
            continue;
        previous = o->tasks[i].name;
        if (all.count < OPTION_NAMES_MAX)
            snprintf(all.name[all.count], sizeof all.name[0], "%s", previous);
        all.count++;
    }
    if (strcmp(t->from, word_previous) == 0) {
        char *copy = strdup(previous);
        if (!copy)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read the tasks");
        free(t->from);
        t->from = copy;
    }
    if (t->ewc.count != 1 || strcmp(t->ewc.name[0], word_all) != 0)
        return 0;
    if (all.count > OPTION_NAMES_MAX)
        return origin_error(at->entry[index], e,
                            "tasks.%s protects all %u tasks before it; at most %d are accepted",
                            t->name, all.count, OPTION_NAMES_MAX);
    t->ewc = all;
    return 0;
}

/* Would EWC make the end of this task another one? */
static int ewc_matters(const struct options *o, uint32_t task)
{
    int from = options_task(o, o->tasks[task].from);
    return o->tasks[task].ewc.count || (from >= 0 && options_comparison(o, (uint32_t)from) >= 0);
}

/* All options of `from`, as texts, into a new task. */
static int task_copy(struct task_options *to, const struct task_options *from, struct err *e)
{
    size_t count;
    const struct option_row *rows = task_rows(&count);
    const struct origin at = {"tasks", 0};
    char text[OPTION_TEXT_MAX + 1];
    for (size_t i = 0; i < count; i++) {
        struct option_row row = rows[i];
        value_text(&row, from, text, sizeof text);
        if (!text[0])
            row.low = 0;
        if (value_set(&row, to, text, row.key, at, e) < 0)
            return -1;
    }
    return 0;
}

static int comparison_add(struct options *o, uint32_t task, struct origins *at, struct err *e)
{
    const struct task_options *original = &o->tasks[task];
    struct task_options *t = &o->tasks[o->task_count];
    int from = options_task(o, original->from);
    int before = from < 0 ? -1 : options_comparison(o, (uint32_t)from);
    char name[sizeof original->ewc.name[0]];
    if (o->task_count == OPTION_TASKS_MAX)
        return origin_error(at->entry[task], e,
                            "continual_learning.compare_without_ewc adds more tasks than the %d "
                            "that a run may have",
                            OPTION_TASKS_MAX);
    if (strlen(original->name) + sizeof suffix > sizeof name)
        return origin_error(at->entry[task], e,
                            "tasks.%s: the name of its comparison, with %s behind it, would be "
                            "longer than %zu bytes",
                            original->name, suffix, sizeof name - 1);
    snprintf(name, sizeof name, "%.*s%s", (int)(sizeof name - sizeof suffix), original->name,
             suffix);
    memset(t, 0, sizeof *t);
    at->entry[o->task_count++] = at->entry[task];
    if (task_copy(t, original, e) < 0)
        return -1;
    free(t->name);
    free(t->from);
    free(t->comparison_of);
    t->name = strdup(name);
    t->from = strdup(before < 0 ? original->from : o->tasks[before].name);
    t->comparison_of = strdup(original->name);
    t->ewc.count = 0;
    return t->name && t->from && t->comparison_of
               ? 0
               : err_errno(e, EXIT_CODE_TEMPORARY, "cannot read the tasks");
}

/* ---- tasks with options of their own ---- */

/* Rows of TASK that stand for an option of the run, of the same type. */
static const struct {
    const char *task, *option;
} overrides[] = {{"file", "data.file"},
                 {"source", "data.source"},
                 {"smiles", "prepare.smiles"},
                 {"inchikey", "prepare.inchikey"},
                 {"rows_max", "prepare.rows_max"},
                 {"batch_size", "training.batch_size"},
                 {"learning_rate", "training.learning_rate"},
                 {"lambda", "continual_learning.ewc_config.lambda"}};

/* Bytes of a value that is copied as it is, a text's pointer included. */
static size_t value_bytes(const struct option_row *row)
{
    return row->type == OPTION_TYPE_IS_U64   ? sizeof(uint64_t)
           : row->type == OPTION_TYPE_IS_F64 ? sizeof(double)
                                             : sizeof(char *);
}

void options_of_task(const struct options *o, uint32_t task, struct options *view)
{
    size_t count, task_count;
    const struct option_row *rows = option_rows(&count), *own = task_rows(&task_count);
    char text[OPTION_TEXT_MAX + 1];
    *view = *o;
    for (size_t i = 0; i < sizeof overrides / sizeof *overrides; i++) {
        const struct option_row *from = row_find(own, task_count, overrides[i].task);
        const struct option_row *to = row_find(rows, count, overrides[i].option);
        ensure(from && to && from->type == to->type && from->type != OPTION_TYPE_IS_LIST);
        value_text(from, &o->tasks[task], text, sizeof text);
        if (strcmp(text, from->value) != 0)
            memcpy((char *)view + to->offset, (const char *)&o->tasks[task] + from->offset,
                   value_bytes(from));
    }
}

static const char *file_of(const struct options *o, uint32_t task)
{
    return o->tasks[task].file[0] ? o->tasks[task].file : o->data_file;
}

static uint64_t batch_size_of(const struct options *o, uint32_t task)
{
    return o->tasks[task].batch_size ? o->tasks[task].batch_size : o->batch_size;
}

uint64_t options_batch_size_max(const struct options *o)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        most = batch_size_of(o, i) > most ? batch_size_of(o, i) : most;
    return most;
}

uint32_t options_data_task(const struct options *o, uint32_t task)
{
    uint32_t i = 0;
    while (i < task && (strcmp(file_of(o, i), file_of(o, task)) != 0 ||
                        batch_size_of(o, i) != batch_size_of(o, task)))
        i++;
    return i;
}

/* The file of a task with classes and no file of its own: "x.h5" gives "x-classes-0-1.h5". */
static int classes_file_name(struct options *o, uint32_t task, const struct origins *at,
                             struct err *e)
{
    struct task_options *t = &o->tasks[task];
    size_t length = strlen(o->data_file), used, suffix_bytes = 0;
    char *name;
    if (!t->classes.count || t->file[0])
        return 0;
    if (strcmp(o->data_prepare, "idx") != 0)
        return origin_error(at->entry[task], e,
                            "tasks.%s.classes goes with data.prepare: idx, and that is %s; give "
                            "the task a file of its own",
                            t->name, o->data_prepare);
    name = calloc(1, length + sizeof "-classes" + sizeof t->classes.name + OPTION_NAMES_MAX);
    if (!name)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read the tasks");
    if (length > 3 && strcmp(o->data_file + length - 3, ".h5") == 0)
        suffix_bytes = 3;
    used = (size_t)sprintf(name, "%.*s-classes", (int)(length - suffix_bytes), o->data_file);
    for (uint32_t i = 0; i < t->classes.count; i++)
        used += (size_t)sprintf(name + used, "-%s", t->classes.name[i]);
    memcpy(name + used, o->data_file + length - suffix_bytes, suffix_bytes);
    free(t->file);
    t->file = name;
    return 0;
}

/* `auto` becomes a number at once where that number belongs to the result's identity; a run that is
 * resumed keeps the one it began with (proto/run.c). */
static void numbers_complete(struct options *o)
{
    char source[64];
    if (!o->use_memory_efficient)
        o->fisher_block_size = FISHER_BLOCK_WHOLE;
    o->batch_size_auto = !o->batch_size;
    int on_gpu = o->device_limit_mb && strcmp(o->device, "cpu") != 0;
    if (!o->batch_size)
        o->batch_size =
            limits_batch_rows(on_gpu ? o->device_limit_mb << 20
                                     : limits_host("", o->host_limit_mb, source, sizeof source));
}

int options_complete(struct options *o, struct origins *at, struct err *e)
{
    uint32_t given = o->task_count;
    numbers_complete(o);
    if (weights_complete(o, at, e) < 0)
        return -1;
    for (uint32_t i = 0; i < given; i++)
        if (!task_name_valid(o->tasks[i].name))
            return 0;
    for (uint32_t i = 0; i < given; i++)
        if (words_replace(o, i, at, e) < 0 || classes_file_name(o, i, at, e) < 0)
            return -1;
    for (uint32_t i = 0; o->compare_without_ewc && i < given; i++)
        if (!is_comparison(&o->tasks[i]) && ewc_matters(o, i) && options_comparison(o, i) < 0 &&
            comparison_add(o, i, at, e) < 0)
            return -1;
    return 0;
}
