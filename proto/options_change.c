/* options_change.c - two sets of options compared: what differs, and what a run that is resumed may
 * make of it (changes.def).
 */
#include <string.h>

#include "proto/options_parts.h"

struct change_row {
    const char *key;
    enum option_change change;
    const char *reason; /* of a refusal */
};

static const struct change_row rows_of_changes[] = {
#define MAY(key)             {key, OPTION_CHANGE_MAY, NULL},
#define FROM_NOW(key)        {key, OPTION_CHANGE_FROM_NOW, NULL},
#define REFUSED(key, reason) {key, OPTION_CHANGE_REFUSED, reason},
#include "proto/changes.def"
#undef MAY
#undef FROM_NOW
#undef REFUSED
};

/* Of tasks that have not ended. */
static const struct change_row task_from_now = {"", OPTION_CHANGE_FROM_NOW, NULL};
static const char *const task_keys_from_now[] = {"epochs", "learning_rate", "lambda"};
static const struct change_row task_other = {"", OPTION_CHANGE_REFUSED,
                                             "the tasks so far would have been others"};

static int key_fits(const char *key, const char *pattern)
{
    size_t length = strlen(pattern);
    int section = length > 0 && pattern[length - 1] == '.';
    return section ? strncmp(key, pattern, length) == 0 : strcmp(key, pattern) == 0;
}

/* NULL: the table forgot it. */
static const struct change_row *change_of(const char *key)
{
    for (size_t i = 0; i < sizeof rows_of_changes / sizeof rows_of_changes[0]; i++)
        if (key_fits(key, rows_of_changes[i].key))
            return &rows_of_changes[i];
    return NULL;
}

enum option_change row_change(const struct option_row *row)
{
    const struct change_row *c = change_of(row->key);
    ensure(c);
    return c->change;
}

/* Options that must go together. */
static const char *refusal_of_pairs(const struct options *was, const struct options *is,
                                    const char *key)
{
    int batch = strcmp(key, "training.batch_size") == 0 ||
                strcmp(key, "training.gradient_accumulation_steps") == 0;
    if (batch && options_batch_rows(was) != options_batch_rows(is))
        return "the steps so far took as many rows as batch_size times "
               "gradient_accumulation_steps, which must stay the same";
    if (is->data_drop_last && strcmp(key, "training.batch_size") == 0)
        return "data.drop_last leaves out what is no whole one at an epoch's end, so the epochs so "
               "far would have had other rows";
    if (strcmp(key, "training.momentum") == 0 && (was->momentum > 0) != (is->momentum > 0))
        return "the checkpoint holds moments with a momentum above 0, and none without";
    if (strcmp(key, "training.adam_beta2") == 0 && strcmp(is->fisher_estimator, "adam") == 0)
        return "the estimator adam makes Fisher information of second moments, which decayed by "
               "the old one";
    return NULL;
}

static int layers_equal(const struct options *a, const struct options *b)
{
    int same = a->layer_count == b->layer_count;
    for (uint32_t i = 0; same && i < a->layer_count; i++)
        same = strcmp(a->layers[i], b->layers[i]) == 0;
    return same;
}

/* Place `i` of what there is to compare: the options, then the layers, the number of tasks, and if
 * that is the same the tasks' options. Its key if it differs, with *row, which says what becomes of
 * it; else NULL. */
static const char *difference_at(const struct options *was, const struct options *is, size_t i,
                                 const struct change_row **row)
{
    static _Thread_local char name[OPTION_KEY_MAX + 1];
    size_t options, keys;
    const struct option_row *rows = option_rows(&options), *of_task = task_rows(&keys);
    if (i < options) {
        *row = change_of(rows[i].key);
        return value_equal(&rows[i], was, is) ? NULL : rows[i].key;
    }
    *row = change_of("model.layers");
    if (i == options)
        return layers_equal(was, is) ? NULL : "model.layers";
    *row = &task_other;
    if (i == options + 1)
        return was->task_count == is->task_count ? NULL : "tasks";
    size_t task = (i - options - 2) / keys, key = (i - options - 2) % keys;
    if (value_equal(&of_task[key], &was->tasks[task], &is->tasks[task]))
        return NULL;
    for (size_t k = 0; k < sizeof task_keys_from_now / sizeof *task_keys_from_now; k++)
        if (strcmp(of_task[key].key, task_keys_from_now[k]) == 0)
            *row = &task_from_now;
    snprintf(name, sizeof name, "tasks.%zu.%s", task, of_task[key].key);
    return name;
}

/* The first difference from place *at on, which moves past it; NULL: there is none. */
static const char *difference_next(const struct options *was, const struct options *is, size_t *at,
                                   const struct change_row **row)
{
    size_t options, keys, places;
    option_rows(&options);
    task_rows(&keys);
    places = options + 2 + (was->task_count == is->task_count ? keys * was->task_count : 0);
    const char *key = NULL;
    while (!key && *at < places)
        key = difference_at(was, is, (*at)++, row);
    return key;
}

const char *options_difference(const struct options *was, const struct options *is)
{
    const struct change_row *row;
    size_t at = 0;
    return difference_next(was, is, &at, &row);
}

const char *options_conflict(const struct options *was, const struct options *is,
                             const char **reason)
{
    const struct change_row *row;
    const char *key;
    for (size_t at = 0; (key = difference_next(was, is, &at, &row));) {
        *reason =
            row->change == OPTION_CHANGE_REFUSED ? row->reason : refusal_of_pairs(was, is, key);
        if (*reason)
            return key;
    }
    return NULL;
}

int options_changes(const struct options *was, const struct options *is, char *text, size_t bytes)
{
    const struct change_row *row;
    const char *key;
    int count = 0;
    size_t used = 0;
    text[0] = '\0';
    for (size_t at = 0; (key = difference_next(was, is, &at, &row));) {
        char before[OPTION_TEXT_MAX + 1], now[OPTION_TEXT_MAX + 1];
        if (row->change != OPTION_CHANGE_FROM_NOW)
            continue;
        ensure(options_get(was, key, before, sizeof before, NULL) == 0 &&
               options_get(is, key, now, sizeof now, NULL) == 0);
        if (used < bytes)
            used += (size_t)snprintf(text + used, bytes - used, "%s%s %.40s -> %.40s",
                                     count ? ", " : "", key, before, now);
        count++;
    }
    return count;
}
