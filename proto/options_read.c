/* options_read.c - all sources of options in their order: defaults, the preset, includes, the file,
 * --set.
 *
 * Each source overwrites what came before. A mistake is reported where it stands, even if a later
 * source would overwrite it. Keys that are in no section of ours are found by options_alias.c.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/options_parts.h"

struct reading {
    struct options *o;
    struct origins at;
    const char *path; /* of the file being applied ... */
    int effective;    /* ... which gives all options */
    struct option_files files;
    char *set_texts; /* "--set key=value" texts that origins point to */
    int batch_size_given, steps_given;
    int lines[OPTION_ROWS + 1];     /* of the file being applied, where options (and then
                                       finetuning.epochs) are set; 0: they are not */
    struct task_options finetuning; /* its epochs alone, */
    struct origin epochs_at;        /* given here; no source: not given */
    struct unknowns unknowns;
    struct err *e; /* NULL once there was a mistake */
};

/* ---- mistakes -----------------------------------------------------------------------------------
 */

/* The first mistake is told; what is behind it is read on for unknown keys, which come before it.
 */
static int mistake(struct reading *r)
{
    r->e = NULL;
    return -1;
}

static void unknown_option(struct reading *r, const char *key, struct origin at)
{
    size_t count;
    const struct option_row *rows = option_rows(&count);
    unknown_add(&r->unknowns, rows, count, "", key, at);
}

static void unknown_task_option(struct reading *r, const char *prefix, const char *key,
                                struct origin at)
{
    size_t count;
    const struct option_row *rows = task_rows(&count);
    unknown_add(&r->unknowns, rows, count, prefix, key, at);
}

static struct origin origin_of(const struct reading *r, const struct node *n)
{
    return (struct origin){r->path, n->line};
}

/* ---- tasks --------------------------------------------------------------------------------------
 */

static int task_apply(struct reading *r, const struct node *n, uint32_t index)
{
    size_t count;
    const struct option_row *rows = task_rows(&count);
    char prefix[32], name[OPTION_KEY_MAX + 1];
    if (n->kind != NODE_MAP)
        return origin_error(origin_of(r, n), r->e,
                            "tasks.%u is no map; accepted is for example {name: A, epochs: 3}",
                            index);
    snprintf(prefix, sizeof prefix, "tasks.%u.", index);
    int result = 0;
    for (const struct node *c = n->first; c; c = c->next) {
        const struct option_row *row = row_find(rows, count, c->key);
        struct origin at = origin_of(r, c);
        if (!row) {
            unknown_task_option(r, prefix, c->key, at);
            continue;
        }
        snprintf(name, sizeof name, "%s%s", prefix, row->key);
        if (node_set(row, &r->o->tasks[index], c, name, at, r->e) < 0)
            result = mistake(r);
        r->at.task[index][row - rows] = at;
    }
    return result;
}

static int tasks_apply(struct reading *r, const struct node *list)
{
    size_t count;
    const struct option_row *rows = task_rows(&count);
    if (list->kind != NODE_LIST || list->entries == 0 || list->entries > OPTION_TASKS_MAX)
        return origin_error(origin_of(r, list), r->e,
                            "tasks is a list of 1 to %d tasks, each for example {name: A, epochs: "
                            "3}",
                            OPTION_TASKS_MAX);
    while (r->o->task_count > 0)
        rows_free(rows, count, &r->o->tasks[--r->o->task_count]);
    memset(r->at.task, 0, sizeof r->at.task);
    int result = 0;
    for (const struct node *n = list->first; n; n = n->next) {
        uint32_t index = r->o->task_count++;
        r->at.entry[index] = origin_of(r, n);
        if (rows_default(rows, count, &r->o->tasks[index], r->e) < 0 || task_apply(r, n, index) < 0)
            result = mistake(r);
    }
    return result;
}

static const struct option_row *epochs_row(void)
{
    size_t count;
    const struct option_row *rows = task_rows(&count), *row = row_find(rows, count, "epochs");
    ensure(row);
    return row;
}

/* finetuning.epochs without tasks makes one. */
static int task_imply(struct reading *r)
{
    size_t count;
    const struct option_row *rows = task_rows(&count);
    struct task_options *t = &r->o->tasks[0];
    if (r->o->task_count || !r->epochs_at.source)
        return 0;
    r->o->task_count = 1;
    r->at.entry[0] = r->epochs_at;
    return rows_default(rows, count, t, r->e) < 0
               ? -1
               : value_set(row_find(rows, count, "name"), t, "finetuning", "finetuning",
                           r->epochs_at, r->e);
}

/* After all sources: tasks that say no epochs have those of finetuning. */
static void epochs_settle(struct reading *r)
{
    size_t count, row = (size_t)(epochs_row() - task_rows(&count));
    r->o->epochs_idle = r->epochs_at.source != NULL;
    for (uint32_t i = 0; r->epochs_at.source && i < r->o->task_count; i++) {
        if (r->at.task[i][row].source)
            continue;
        r->o->tasks[i].epochs = r->finetuning.epochs;
        r->at.task[i][row] = r->epochs_at;
        r->o->epochs_idle = 0;
    }
}

/* ---- one file -----------------------------------------------------------------------------------
 */

/* 1 if some option's key begins with "section.", or aliases do. */
static int section_known(const char *section)
{
    size_t count, length = strlen(section);
    const struct option_row *rows = option_rows(&count);
    if (alias_section(section))
        return 1;
    for (size_t i = 0; i < count; i++)
        if (strncmp(rows[i].key, section, length) == 0 && rows[i].key[length] == '.')
            return 1;
    return 0;
}

/* What a later look at all sources asks for. */
static void given_note(struct reading *r, const struct option_row *row, struct origin at)
{
    size_t count;
    r->o->given[row - option_rows(&count)] |= !r->effective;
    if (strcmp(row->key, "name") == 0)
        r->at.name = at;
    r->batch_size_given |= row->offset == offsetof(struct options, batch_size);
    r->steps_given |= row->offset == offsetof(struct options, gradient_accumulation_steps);
}

/* An option by its own name or by an alias, or NULL. */
static const struct option_row *option_find(const char *name)
{
    size_t count;
    const struct option_row *rows = option_rows(&count), *row = row_find(rows, count, name);
    return row ? row : alias_row(name);
}

/* Of the lines of one file that set an option, in whatever sections, there is one. */
static int line_take(struct reading *r, size_t option, const char *key, const char *name,
                     const struct node *n)
{
    int first = r->lines[option];
    r->lines[option] = n->line;
    return !first ? 0
                  : origin_error(origin_of(r, n), r->e,
                                 "%s is set twice, here as %s; the first one, in another section, "
                                 "is in line %d",
                                 key, name, first);
}

static int option_apply(struct reading *r, const struct option_row *row, const struct node *n,
                        const char *name)
{
    size_t count;
    struct origin at = origin_of(r, n);
    if (line_take(r, (size_t)(row - option_rows(&count)), row->key, name, n) < 0)
        return -1;
    given_note(r, row, at);
    return node_set(row, r->o, n, name, at, r->e);
}

static int epochs_apply(struct reading *r, const struct node *n, const char *name)
{
    if (line_take(r, OPTION_ROWS, "finetuning.epochs", name, n) < 0)
        return -1;
    r->epochs_at = origin_of(r, n);
    return node_set(epochs_row(), &r->finetuning, n, name, r->epochs_at, r->e);
}

/* What is neither an option nor a section with entries. */
static int rest_apply(struct reading *r, const struct node *n, const char *name)
{
    if (!section_known(name)) {
        unknown_option(r, name, origin_of(r, n));
        return 0;
    }
    if (n->kind == NODE_MAP || (n->kind == NODE_SCALAR && !n->text[0] && !n->quoted))
        return 0; /* a section whose lines are all commented out */
    return origin_error(origin_of(r, n), r->e,
                        "%s is a section; accepted are key: value lines below it, indented", name);
}

static int map_apply(struct reading *r, const struct node *map, const char *section);

static int entry_apply(struct reading *r, const struct node *n, const char *section)
{
    char name[OPTION_KEY_MAX + 1];
    snprintf(name, sizeof name, "%s%s%s", section, section[0] ? "." : "", n->key);
    const struct option_row *row = option_find(name);
    if (strcmp(name, "include") == 0)
        return 0; /* applied before this file */
    if (strchr(n->key, '.') && (row || alias_of_epochs(name) || section_known(name)))
        return origin_error(origin_of(r, n), r->e,
                            "write %s as sections: %.*s:, and below it, indented, the rest", name,
                            (int)strcspn(n->key, "."), n->key);
    if (strcmp(name, "tasks") == 0)
        return tasks_apply(r, n);
    if (strcmp(name, "model.layers") == 0)
        return layers_set(r->o, n, r->path, r->e);
    if (strcmp(name, "pretraining") == 0)
        return pretraining_off_node(n) ? 0 : pretraining_error(origin_of(r, n), r->e);
    if (alias_of_epochs(name))
        return epochs_apply(r, n, name);
    if (row)
        return option_apply(r, row, n, name);
    if (n->kind == NODE_MAP && n->entries > 0)
        return map_apply(r, n, name);
    return rest_apply(r, n, name);
}

static int map_apply(struct reading *r, const struct node *map, const char *section)
{
    int result = 0;
    for (const struct node *n = map->first; n; n = n->next)
        if (entry_apply(r, n, section) < 0)
            result = mistake(r);
    return result;
}

/* ---- sources ------------------------------------------------------------------------------------
 */

static int no_memory(struct reading *r)
{
    return err_errno(r->e, EXIT_CODE_TEMPORARY, "cannot read options");
}

static int task_set_apply(struct reading *r, const char *key, const char *value, struct origin at)
{
    size_t count;
    const struct option_row *rows = task_rows(&count);
    const char *task_key;
    char prefix[OPTION_KEY_MAX + 1];
    int task = task_key_split(r->o, key, &task_key);
    if (task < 0 && task_key)
        return origin_error(at, r->e, "there is no task %.*s; the pipeline has %u tasks",
                            (int)strcspn(key + 6, "."), key + 6, r->o->task_count);
    if (task < 0) {
        unknown_option(r, key, at);
        return 0;
    }
    const struct option_row *row = row_find(rows, count, task_key);
    snprintf(prefix, sizeof prefix, "%.*s", (int)(task_key - key), key);
    if (!row) {
        unknown_task_option(r, prefix, task_key, at);
        return 0;
    }
    r->at.task[task][row - rows] = at;
    return value_set(row, &r->o->tasks[task], value, key, at, r->e);
}

static int epochs_set_apply(struct reading *r, const char *key, const char *value, struct origin at)
{
    r->epochs_at = at;
    return value_set(epochs_row(), &r->finetuning, value, key, at, r->e) < 0 ? -1 : task_imply(r);
}

static int set_apply(struct reading *r, const char *text, struct origin at)
{
    char key[OPTION_KEY_MAX + 1];
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || (size_t)(equals - text) > OPTION_KEY_MAX)
        return origin_error(at, r->e, "accepted is --set section.key=value");
    snprintf(key, sizeof key, "%.*s", (int)(equals - text), text);
    const struct option_row *row = option_find(key);
    if (row)
        given_note(r, row, at);
    if (row)
        return value_set(row, r->o, equals + 1, key, at, r->e);
    if (alias_of_epochs(key))
        return epochs_set_apply(r, key, equals + 1, at);
    if (pretraining_key(key))
        return pretraining_off_text(key, equals + 1) ? 0 : pretraining_error(at, r->e);
    if (strcmp(key, "tasks") == 0 || strcmp(key, "model.layers") == 0 ||
        strcmp(key, "include") == 0)
        return origin_error(at, r->e, "%s can only be given in a pipeline file", key);
    return task_set_apply(r, key, equals + 1, at);
}

static int is_preset(const char *key)
{
    const struct option_row *row = option_find(key);
    return row && strcmp(row->key, "preset") == 0;
}

/* The last preset that a file names, in whatever section, or NULL. */
static const char *preset_find(const struct node *map, const char *section)
{
    char name[OPTION_KEY_MAX + 1];
    const char *preset = NULL;
    for (const struct node *n = map->first; n; n = n->next) {
        const char *found = NULL;
        snprintf(name, sizeof name, "%s%s%s", section, section[0] ? "." : "", n->key);
        if (n->kind == NODE_MAP)
            found = preset_find(n, name);
        else if (n->kind == NODE_SCALAR && is_preset(name))
            found = n->text;
        preset = found ? found : preset;
    }
    return preset;
}

/* The values of the preset that the last of all sources names, before any of them. */
static int sources_preset(struct reading *r, const char *const *set, int set_count)
{
    const char *preset = "none";
    for (int i = r->files.depth - 1; i >= 0; i--) {
        const char *found = preset_find(r->files.trees[i], "");
        preset = found ? found : preset;
    }
    for (int i = 0; i < set_count; i++) {
        char key[OPTION_KEY_MAX + 1];
        size_t length = strcspn(set[i], "=");
        snprintf(key, sizeof key, "%.*s", (int)length, set[i]);
        if (set[i][length] && length <= OPTION_KEY_MAX && is_preset(key))
            preset = set[i] + length + 1;
    }
    return preset_apply(r->o, preset, r->e);
}

static int sets_apply(struct reading *r, const char *const *set, int set_count)
{
    size_t bytes = 1;
    int result = 0;
    for (int i = 0; i < set_count; i++)
        bytes += strlen(set[i]) + sizeof "--set ";
    char *at = r->set_texts = malloc(bytes);
    if (!at)
        return no_memory(r);
    for (int i = 0; i < set_count; i++) {
        const char *source = at;
        at = stpcpy(stpcpy(at, "--set "), set[i]) + 1;
        if (set_apply(r, set[i], (struct origin){source, 0}) < 0)
            result = mistake(r);
    }
    return result;
}

static int sources_apply(struct reading *r, const char *const *set, int set_count)
{
    struct err *e = r->e;
    int result = 0;
    for (int i = r->files.depth - 1; i >= 0; i--) {
        r->path = r->files.paths[i];
        r->effective = options_is_effective(r->path);
        memset(r->lines, 0, sizeof r->lines);
        if (map_apply(r, r->files.trees[i], "") < 0)
            result = -1;
    }
    r->effective = 0;
    if (task_imply(r) < 0 || sets_apply(r, set, set_count) < 0)
        result = -1;
    epochs_settle(r);
    r->e = e;
    int told = result < 0 && e && e->code == EXIT_CODE_TEMPORARY;
    return r->unknowns.count && !told ? unknowns_error(&r->unknowns, e) : result;
}

int options_read(struct options *o, const char *path, const char *const *set, int set_count,
                 struct err *e)
{
    size_t count;
    const struct option_row *rows = option_rows(&count);
    struct reading *r = calloc(1, sizeof *r);
    memset(o, 0, sizeof *o);
    if (!r)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", path);
    snprintf(o->source, sizeof o->source, "%s", path);
    r->o = o;
    r->e = e;
    r->at.file = (struct origin){path, 0};
    r->at.name = r->at.file;
    unknowns_begin(&r->unknowns, path);
    int result = rows_default(rows, count, o, e);
    if (result == 0)
        result = files_read(&r->files, path, e);
    if (result == 0)
        result = sources_preset(r, set, set_count);
    if (result == 0)
        result = sources_apply(r, set, set_count);
    if (result == 0)
        result = preset_pair_settle(o, r->batch_size_given, r->steps_given, e);
    if (result == 0)
        result = options_complete(o, &r->at, e);
    if (result == 0)
        result = options_check(o, &r->at, e);
    files_free(&r->files);
    free(r->set_texts);
    free(r);
    if (result < 0)
        options_free(o);
    return result;
}

int options_arguments(int argc, char **argv, int first, const char **config, const char **set,
                      int *set_count, struct err *e)
{
    *config = NULL;
    *set_count = 0;
    for (int i = first; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--config") == 0 && value && !*config)
            *config = value;
        else if (strcmp(argv[i], "--set") == 0 && value && *set_count < OPTION_SETS_MAX)
            set[(*set_count)++] = value;
        else
            return err_set(e, EXIT_CODE_PERMANENT,
                           "cannot use %s; expected --config FILE [--set section.key=value]...",
                           argv[i]);
    }
    return *config ? 0 : err_set(e, EXIT_CODE_PERMANENT, "--config FILE is missing");
}
