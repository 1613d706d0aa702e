/* options_preset.c - the table of presets (presets.def): values that stand between the defaults and
 * what a pipeline file or --set gives.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/options_parts.h"

struct preset_row {
    const char *preset, *key, *value;
};

static const struct preset_row rows_of_presets[] = {
#define PRESET(name, key, value) {#name, key, value},
#include "proto/presets.def"
#undef PRESET
};

enum { PRESET_ROWS = sizeof rows_of_presets / sizeof rows_of_presets[0] };

static const char batch_size_key[] = "training.batch_size";
static const char steps_key[] = "training.gradient_accumulation_steps";

/* Its text, or NULL where the preset leaves the option alone. */
static const char *preset_value(const char *preset, const char *key)
{
    for (int i = 0; i < PRESET_ROWS; i++)
        if (strcmp(rows_of_presets[i].preset, preset) == 0 &&
            strcmp(rows_of_presets[i].key, key) == 0)
            return rows_of_presets[i].value;
    return NULL;
}

/* Decoding threads are no more than the cores: who wants more says so. */
static const char *value_here(const struct preset_row *p, char text[24])
{
    int cores = limits_threads("");
    if (strcmp(p->key, "loader.num_workers") != 0 || strtoul(p->value, NULL, 10) <= (size_t)cores)
        return p->value;
    snprintf(text, 24, "%d", cores);
    return text;
}

int preset_apply(struct options *o, const char *preset, struct err *e)
{
    static const struct origin at = {"presets.def", 0};
    size_t count;
    const struct option_row *rows = option_rows(&count);
    char text[24];
    for (int i = 0; i < PRESET_ROWS; i++) {
        const struct preset_row *p = &rows_of_presets[i];
        if (strcmp(p->preset, preset) != 0)
            continue;
        const struct option_row *row = row_find(rows, count, p->key);
        ensure(row);
        if (value_set(row, o, value_here(p, text), p->key, at, e) < 0)
            return -1;
    }
    return 0;
}

static int row_settle(struct options *o, const char *key, struct err *e)
{
    static const struct origin at = {"options.def", 0};
    size_t count;
    const struct option_row *rows = option_rows(&count), *row = row_find(rows, count, key);
    ensure(row);
    return preset_value(o->preset, key) ? value_set(row, o, row->value, key, at, e) : 0;
}

int preset_pair_settle(struct options *o, int batch_size_given, int steps_given, struct err *e)
{
    int of_task = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        of_task |= o->tasks[i].batch_size != 0;
    if (!batch_size_given && !steps_given && !of_task)
        return 0;
    if (!batch_size_given && row_settle(o, batch_size_key, e) < 0)
        return -1;
    return steps_given ? 0 : row_settle(o, steps_key, e);
}

int options_preset_batch(const struct options *o, uint64_t *batch_size, uint64_t *steps)
{
    const char *rows = preset_value(o->preset, batch_size_key);
    const char *batches = preset_value(o->preset, steps_key);
    if (!rows || !batches)
        return 0;
    *batch_size = strtoull(rows, NULL, 10);
    *steps = strtoull(batches, NULL, 10);
    return 1;
}

int preset_has(const struct options *o, const struct option_row *row)
{
    char text[24], value[OPTION_TEXT_MAX + 1];
    for (int i = 0; i < PRESET_ROWS; i++) {
        const struct preset_row *p = &rows_of_presets[i];
        if (strcmp(p->preset, o->preset) != 0 || strcmp(p->key, row->key) != 0)
            continue;
        value_text(row, o, value, sizeof value);
        return strcmp(value, value_here(p, text)) == 0;
    }
    return 0;
}

void presets_print(FILE *out)
{
    const char *before = "";
    fputs("\n## Presets\n\n`preset: NAME` gives these values instead of the defaults; whatever a "
          "pipeline file or `--set`\ngives overrides them, and the effective file says which came "
          "from the preset. `batch_size` and\n`gradient_accumulation_steps` make a step together: "
          "where one of them is given, or a task has a\n`batch_size`, the preset gives neither, "
          "and `--plan` says so. `num_workers` is never more than the\ncores unless it is "
          "given.\n\n"
          "| preset | values |\n|---|---|\n",
          out);
    for (int i = 0; i < PRESET_ROWS; i++) {
        const struct preset_row *p = &rows_of_presets[i];
        int same = strcmp(p->preset, before) == 0;
        if (!same)
            fprintf(out, "%s| `%s` | ", i ? " |\n" : "", p->preset);
        fprintf(out, "%s`%s: %s`", same ? ", " : "", p->key, p->value);
        before = p->preset;
    }
    fputs(" |\n", out);
}
