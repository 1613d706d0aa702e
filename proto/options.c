/* options.c - the table of all options (options.def) and what follows from it alone: defaults,
 * freeing, finding. Reading is options_read.c, single values options_value.c, comparing
 * options_change.c, printing options_print.c.
 */
#include "proto/options.h"

#include <stdlib.h>
#include <string.h>

#include "proto/options_parts.h"

/* Instead of a least number: a word is accepted too (options.def). */
#define AUTO         (-1.0)
#define NONE         (-2.0)
#define AUTO_OR_ZERO (-3.0)

#define IS_NUMBER(type)                                                                            \
    (OPTION_TYPE_IS_##type == OPTION_TYPE_IS_U64 || OPTION_TYPE_IS_##type == OPTION_TYPE_IS_F64)
#define IS_WORD(low)     ((low) == AUTO || (low) == NONE || (low) == AUTO_OR_ZERO)
#define LEAST_AUTO(type) (OPTION_TYPE_IS_##type == OPTION_TYPE_IS_U64 ? 1.0 : 1e-6)
#define ROW(owner, type, field, key, value, low, high, unit, meaning)                              \
    {OPTION_TYPE_IS_##type,                                                                        \
     key,                                                                                          \
     value,                                                                                        \
     offsetof(struct owner, field),                                                                \
     !(IS_NUMBER(type) && IS_WORD(low)) ? (low)                                                    \
     : (low) == AUTO                    ? LEAST_AUTO(type)                                         \
                                        : 0.0,                                                                        \
     high,                                                                                         \
     !(IS_NUMBER(type) && IS_WORD(low)) ? NULL                                                     \
     : (low) == NONE                    ? "none"                                                   \
                                        : "auto",                                                                     \
     (low) == AUTO ? 0.0 : -1.0,                                                                   \
     unit,                                                                                         \
     meaning},

static const struct option_row rows_of_options[] = {
#define OPT(type, field, key, value, low, high, unit, meaning)                                     \
    ROW(options, type, field, key, value, low, high, unit, meaning)
#define TASK(type, field, key, value, low, high, unit, meaning)
#include "proto/options.def"
#undef OPT
#undef TASK
};

static const struct option_row rows_of_tasks[] = {
#define OPT(type, field, key, value, low, high, unit, meaning)
#define TASK(type, field, key, value, low, high, unit, meaning)                                    \
    ROW(task_options, type, field, key, value, low, high, unit, meaning)
#include "proto/options.def"
#undef OPT
#undef TASK
};

enum {
    OPTION_COUNT = sizeof rows_of_options / sizeof rows_of_options[0],
    TASK_COUNT = sizeof rows_of_tasks / sizeof rows_of_tasks[0],
};
_Static_assert((int)OPTION_COUNT == (int)OPTION_ROWS, "options.h counts the rows of options.def");

const struct option_row *option_rows(size_t *count)
{
    *count = OPTION_COUNT;
    return rows_of_options;
}

const struct option_row *task_rows(size_t *count)
{
    *count = TASK_COUNT;
    return rows_of_tasks;
}

const struct option_row *row_find(const struct option_row *rows, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].key, key) == 0)
            return &rows[i];
    return NULL;
}

int rows_default(const struct option_row *rows, size_t count, void *base, struct err *e)
{
    static const struct origin at = {"options.def", 0};
    for (size_t i = 0; i < count; i++) {
        /* A required option's default is empty and out of its own range: stored as it is. */
        struct option_row row = rows[i];
        if (row.value[0] == '\0')
            row.low = 0;
        if (value_set(&row, base, row.value, row.key, at, e) < 0)
            return -1;
    }
    return 0;
}

void rows_free(const struct option_row *rows, size_t count, void *base)
{
    for (size_t i = 0; i < count; i++) {
        if (rows[i].type != OPTION_TYPE_IS_STR && rows[i].type != OPTION_TYPE_IS_CHOICE)
            continue;
        char **text = (char **)((char *)base + rows[i].offset);
        free(*text);
        *text = NULL;
    }
}

void options_free(struct options *o)
{
    rows_free(rows_of_options, OPTION_COUNT, o);
    for (uint32_t i = 0; i < o->task_count; i++)
        rows_free(rows_of_tasks, TASK_COUNT, &o->tasks[i]);
    o->task_count = 0;
    o->layer_count = 0;
}

uint64_t options_batch_rows(const struct options *o)
{
    return o->batch_size * o->gradient_accumulation_steps;
}

int options_task(const struct options *o, const char *name)
{
    for (uint32_t i = 0; i < o->task_count; i++)
        if (o->tasks[i].name && strcmp(o->tasks[i].name, name) == 0)
            return (int)i;
    return -1;
}

int task_key_split(const struct options *o, const char *text, const char **key)
{
    *key = NULL;
    if (strncmp(text, "tasks.", 6) != 0)
        return -1;
    const char *name = text + 6, *dot = strchr(name, '.');
    char which[64];
    if (!dot || dot == name || (size_t)(dot - name) >= sizeof which)
        return -1;
    memcpy(which, name, (size_t)(dot - name));
    which[dot - name] = '\0';
    *key = dot + 1;
    int task = options_task(o, which);
    if (task >= 0)
        return task;
    char *end;
    unsigned long index = strtoul(which, &end, 10);
    return which[0] >= '0' && which[0] <= '9' && *end == '\0' && index < o->task_count ? (int)index
                                                                                       : -1;
}

int options_get(const struct options *o, const char *key, char *text, size_t bytes, struct err *e)
{
    const struct option_row *row = row_find(rows_of_options, OPTION_COUNT, key);
    const void *base = o;
    if (!row) {
        const char *task_key;
        int task = task_key_split(o, key, &task_key);
        if (task >= 0)
            row = row_find(rows_of_tasks, TASK_COUNT, task_key);
        if (row)
            base = &o->tasks[task];
    }
    if (!row)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "there is no option %.100s; section.key and tasks.<index or name>.key "
                       "are accepted, as docs/OPTIONS.md lists them",
                       key);
    value_text(row, base, text, bytes);
    return 0;
}

static void rows_each(const struct option_row *rows, size_t count, const void *base,
                      const char *prefix,
                      void (*see)(void *self, const char *key, const char *text), void *self)
{
    char key[OPTION_KEY_MAX + 80], text[OPTION_TEXT_MAX + 1];
    for (size_t i = 0; i < count; i++) {
        snprintf(key, sizeof key, "%s%s", prefix, rows[i].key);
        value_text(&rows[i], base, text, sizeof text);
        see(self, key, text);
    }
}

void options_each(const struct options *o,
                  void (*see)(void *self, const char *key, const char *text), void *self)
{
    char layers[OPTION_LAYERS_MAX * (OPTION_LAYER_TEXT_MAX + 3)];
    size_t used = 0;
    rows_each(rows_of_options, OPTION_COUNT, o, "", see, self);
    layers[0] = 0;
    for (uint32_t i = 0; i < o->layer_count; i++)
        used += (size_t)sprintf(layers + used, "%s%s", i ? "; " : "", o->layers[i]);
    see(self, "model.layers", layers);
    for (uint32_t i = 0; i < o->task_count; i++) {
        char prefix[80];
        snprintf(prefix, sizeof prefix, "tasks.%.63s.", o->tasks[i].name);
        rows_each(rows_of_tasks, TASK_COUNT, &o->tasks[i], prefix, see, self);
    }
}
