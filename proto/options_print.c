/* options_print.c - the options as text: the effective file, --help, and docs/OPTIONS.md.
 */
#include <ctype.h>
#include <string.h>

#include "proto/options_parts.h"

static const char *const type_names[] = {"true/false", "whole number", "number",
                                         "text",       "word",         "list of names"};

/* ---- the effective file -------------------------------------------------------------------------
 */

/* Code point of the UTF-8 character at *text, which moves past it (values are valid UTF-8). */
static uint32_t character_take(const unsigned char **text)
{
    const unsigned char *t = *text;
    int more = t[0] >= 0xf0 ? 3 : t[0] >= 0xe0 ? 2 : t[0] >= 0xc0 ? 1 : 0;
    uint32_t code = more ? t[0] & (0x3fu >> more) : t[0];
    for (int i = 1; i <= more; i++)
        code = code << 6 | (t[i] & 0x3f);
    *text += more + 1;
    return code;
}

/* 1 if YAML 1.1 takes the character in double quotes as it is: no break, no byte order mark. */
static int character_is_plain(uint32_t code)
{
    return code != 0x2028 && code != 0x2029 && code != 0xfeff && (code < 0xfffe || code > 0xffff);
}

static void quoted_print(FILE *out, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    fputc('"', out);
    while (*at) {
        const unsigned char *start = at;
        uint32_t code = character_take(&at);
        if (code == '"' || code == '\\')
            fprintf(out, "\\%c", (int)code);
        else if (character_is_plain(code))
            fwrite(start, 1, (size_t)(at - start), out);
        else
            fprintf(out, "\\u%04X", (unsigned)code);
    }
    fputc('"', out);
}

static void list_print(FILE *out, const struct option_list *list)
{
    fputc('[', out);
    for (uint32_t i = 0; i < list->count; i++) {
        fputs(i ? ", " : "", out);
        quoted_print(out, list->name[i]);
    }
    fputc(']', out);
}

static void value_print(FILE *out, const struct option_row *row, const void *base)
{
    char text[OPTION_TEXT_MAX + 1];
    value_text(row, base, text, sizeof text);
    if (row->type == OPTION_TYPE_IS_STR ||
        (row->type == OPTION_TYPE_IS_CHOICE && strchr(text, ':')))
        quoted_print(out, text);
    else if (row->type == OPTION_TYPE_IS_LIST)
        list_print(out, (const struct option_list *)((const char *)base + row->offset));
    else
        fputs(text, out);
}

/* A word of a layer: plain where YAML reads it back as the same text. */
static void word_print(FILE *out, const char *word, int length)
{
    int plain = isalnum((unsigned char)word[0]) && strncmp(word, "null", (size_t)length) != 0;
    fprintf(out, plain ? "%.*s" : "\"%.*s\"", length, word);
}

/* "linear out=256" as {type: linear, out: 256}. */
static void layer_print(FILE *out, const char *layer)
{
    int length = (int)strcspn(layer, " ");
    fputs("    - {type: ", out);
    word_print(out, layer, length);
    for (layer += length; *layer; layer += length) {
        layer++;
        int key = (int)strcspn(layer, "=");
        length = (int)strcspn(layer, " ");
        fputs(", ", out);
        word_print(out, layer, key);
        fputs(": ", out);
        word_print(out, layer + key + 1, length - key - 1);
    }
    fputs("}\n", out);
}

static void layers_print(FILE *out, const struct options *o)
{
    fputs("  layers:\n", out);
    for (uint32_t i = 0; i < o->layer_count; i++)
        layer_print(out, o->layers[i]);
}

/* Open the sections of `key` that `previous` was not in; returns the depth of key's last word. */
static int sections_open(FILE *out, const char *key, const char *previous)
{
    int depth = 0, same = 1;
    for (const char *dot; (dot = strchr(key, '.')); key = dot + 1, depth++) {
        size_t length = (size_t)(dot - key) + 1;
        same = same && strncmp(key, previous, length) == 0;
        if (same)
            previous += length;
        else
            fprintf(out, "%*s%.*s:\n", 2 * depth, "", (int)length - 1, key);
    }
    return depth;
}

static const char effective_head[] = "# made by `prepare run`: every option with its value\n";

int options_is_effective(const char *path)
{
    char line[sizeof effective_head] = "";
    FILE *in = fopen(path, "re");
    if (!in)
        return 0;
    int is = fgets(line, sizeof line, in) && strcmp(line, effective_head) == 0;
    fclose(in);
    return is;
}

int options_write(const struct options *o, FILE *out, struct err *e)
{
    size_t count;
    const struct option_row *rows = option_rows(&count);
    const char *previous = "";
    fputs(effective_head, out);
    for (size_t i = 0; i < count; i++) {
        int depth = sections_open(out, rows[i].key, previous);
        const char *dot = strrchr(rows[i].key, '.');
        fprintf(out, "%*s%s: ", 2 * depth, "", dot ? dot + 1 : rows[i].key);
        value_print(out, &rows[i], o);
        if (preset_has(o, &rows[i]))
            fprintf(out, " # as preset %s has it", o->preset);
        fputc('\n', out);
        previous = rows[i].key;
        int model_ends = strncmp(previous, "model.", 6) == 0 &&
                         (i + 1 == count || strncmp(rows[i + 1].key, "model.", 6) != 0);
        if (model_ends)
            layers_print(out, o);
    }
    rows = task_rows(&count);
    fputs("tasks:\n", out);
    for (uint32_t t = 0; t < o->task_count; t++)
        for (size_t i = 0; i < count; i++) {
            fprintf(out, "  %s %s: ", i ? " " : "-", rows[i].key);
            value_print(out, &rows[i], &o->tasks[t]);
            fputc('\n', out);
        }
    if (fflush(out) != 0 || ferror(out))
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write the effective pipeline file");
    return 0;
}

/* ---- for people ---------------------------------------------------------------------------------
 */

static void range_text(const struct option_row *row, char *text, size_t bytes)
{
    if (row->type == OPTION_TYPE_IS_BOOL || row->type == OPTION_TYPE_IS_CHOICE)
        value_accepted(row, text, bytes);
    else
        snprintf(text, bytes, "%.10g to %.10g%s%s%s%s", row->low, row->high,
                 row->type == OPTION_TYPE_IS_STR    ? " bytes"
                 : row->type == OPTION_TYPE_IS_LIST ? " names"
                 : row->unit[0]                     ? " "
                                                    : "",
                 row->type == OPTION_TYPE_IS_U64 || row->type == OPTION_TYPE_IS_F64 ? row->unit
                                                                                    : "",
                 row->word ? ", " : "", row->word ? row->word : "");
}

static void help_row(FILE *out, const char *prefix, const struct option_row *row)
{
    char range[256];
    range_text(row, range, sizeof range);
    int required = row->type == OPTION_TYPE_IS_STR && row->low >= 1 && !row->value[0];
    fprintf(out, "  %s%s = %s  (%s)\n      %s\n", prefix, row->key,
            required        ? "<required>"
            : row->value[0] ? row->value
                            : "<empty>",
            range, row->meaning);
}

void options_print_help(FILE *out)
{
    size_t count;
    const struct option_row *rows = option_rows(&count);
    fputs("Options of the pipeline file (key = default  (range)):\n", out);
    for (size_t i = 0; i < count; i++)
        help_row(out, "", &rows[i]);
    fputs("  model.layers  (list)\n      layers in order, each a map: {type: linear, out: 256}\n",
          out);
    rows = task_rows(&count);
    for (size_t i = 0; i < count; i++)
        help_row(out, "tasks[].", &rows[i]);
}

/* Text of one cell of a Markdown table. */
static void cell_print(FILE *out, const char *text)
{
    for (; *text; text++)
        fprintf(out, *text == '|' ? "\\%c" : "%c", *text);
    fputs(" | ", out);
}

static const char *const change_words[] = {[OPTION_CHANGE_MAY] = "may",
                                           [OPTION_CHANGE_FROM_NOW] = "from then on",
                                           [OPTION_CHANGE_REFUSED] = ""};

static void docs_row(FILE *out, const struct option_row *row, int with_resume)
{
    char range[256];
    const char *dot = strrchr(row->key, '.');
    int required = row->type == OPTION_TYPE_IS_STR && row->low >= 1 && !row->value[0];
    range_text(row, range, sizeof range);
    fprintf(out, "| `%s` | ", dot ? dot + 1 : row->key);
    cell_print(out, type_names[row->type]);
    cell_print(out, required ? "required" : row->value[0] ? row->value : "empty");
    cell_print(out, range);
    if (with_resume)
        cell_print(out, change_words[row_change(row)]);
    fprintf(out, "%s |\n", row->meaning);
}

static void docs_section(FILE *out, const char *key, int length)
{
    if (length == 0)
        fputs("\n## Top of the file\n\n", out);
    else
        fprintf(out, "\n## `%.*s`\n\n", length, key);
    fputs("| option | type | default | range | change on resume | meaning |\n"
          "|---|---|---|---|---|---|\n",
          out);
}

static const char docs_head[] =
    "# Options of a pipeline file\n\n"
    "Made from `proto/options.def` by `make docs`; a test fails when this page is stale.\n\n"
    "A pipeline file is YAML: sections hold options, one `key: value` a line. Later sources win:\n"
    "defaults, the `preset`, the file named by `include:` (relative to it, at most 8 deep), the\n"
    "file itself, then `--set section.key=value` in order. `tasks:` and `model: layers:` of a "
    "later\n"
    "source replace the whole list; `--set tasks.NAME.key=value` changes one entry (NAME is a "
    "task's\n"
    "name, or its index from 0). Unknown, repeated, missing, mistyped and out-of-range options "
    "are\n"
    "errors that name file and line; unknown ones are named together. `True` and `False` are "
    "`true` "
    "and\n"
    "`false`. Anchors, aliases, tags, several documents and files over 1 MiB are refused. An "
    "option that is given but does nothing, since "
    "another\n"
    "one has not the value that it counts with (`proto/idle.def`), is warned of when a run is "
    "launched,\n"
    "planned or its data are checked.\n\n"
    "A run directory keeps the effective file as `pipeline.yaml`. When a run is resumed, options "
    "marked\n"
    "*may* can have another value; those marked *from then on* can, too, and count from the "
    "newest\n"
    "checkpoint on, which is told: the weights at the end are then those of no one pipeline file. "
    "`epochs`\n"
    "of tasks that have not ended are such, if more than are behind them. The others are refused, "
    "with\n"
    "the reason (`proto/changes.def`); of a finished run so are those: nothing is trained any "
    "more. A run\n"
    "that has no checkpoint yet has nothing to lose: it begins anew, with whatever options.\n";

static const char docs_layers[] =
    "\n`model.layers` is a list of 1 to 256 layers in order, each a map with its `type` and that\n"
    "type's own keys (words of letters, digits and `_ . + -`): `{type: linear, out: 256}`,\n"
    "`{type: relu}`, `{type: dropout, p: 0.15}`.\n";

static const char docs_tasks[] =
    "\n## `tasks`\n\nA list of 1 to 64 tasks, trained in order; one entry has:\n\n"
    "| option | type | default | range | meaning |\n|---|---|---|---|---|\n";

void options_print_docs(FILE *out)
{
    size_t count;
    const struct option_row *rows = option_rows(&count);
    const char *section = "?";
    int length = -1;
    fputs(docs_head, out);
    for (size_t i = 0; i < count; i++) {
        const char *dot = strrchr(rows[i].key, '.');
        int this_length = dot ? (int)(dot - rows[i].key) : 0;
        if (this_length != length || strncmp(section, rows[i].key, (size_t)length) != 0) {
            if (length == 5 && strncmp(section, "model", 5) == 0)
                fputs(docs_layers, out);
            docs_section(out, rows[i].key, this_length);
        }
        section = rows[i].key;
        length = this_length;
        docs_row(out, &rows[i], 1);
    }
    rows = task_rows(&count);
    fputs(docs_tasks, out);
    for (size_t i = 0; i < count; i++)
        docs_row(out, &rows[i], 0);
    aliases_print(out);
    presets_print(out);
}
