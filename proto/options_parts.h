/* options_parts.h - what the options_*.c files share; nobody else includes it.
 *
 * A pipeline file goes through several of them: options_yaml.c turns bytes into a tree of nodes and
 * refuses what a pipeline file never needs, options_read.c walks trees and --set texts in order,
 * options_alias.c finds what a key of another file's sections is here, options_node.c,
 * options_layers.c and options_value.c turn each node or text into a checked value,
 * options_unknown.c collects the keys that are none, options_complete.c and options_weights.c
 * derive what follows from them, options_check.c looks at what spans several options. What was
 * given for nothing options_idle.c says, who is asked.
 */
#ifndef PROTO_OPTIONS_PARTS_H
#define PROTO_OPTIONS_PARTS_H

#include "proto/options.h"

enum { OPTION_KEY_MAX = 191 }; /* bytes of "section.key", with room for a mistaken one */

enum option_type {
    OPTION_TYPE_IS_BOOL,
    OPTION_TYPE_IS_U64,
    OPTION_TYPE_IS_F64,
    OPTION_TYPE_IS_STR,
    OPTION_TYPE_IS_CHOICE,
    OPTION_TYPE_IS_LIST,
};

/* One row of options.def. */
struct option_row {
    enum option_type type;
    const char *key, *value; /* value: the default's text */
    size_t offset;           /* in struct options or struct task_options */
    double low, high;
    const char *word;  /* accepted besides numbers: "auto" or "none"; NULL: no word is */
    double word_value; /* what it gives; OPTION_NONE where that is negative */
    const char *unit, *meaning;
};

/* The rows of OPT and of TASK, in the order of options.def. */
const struct option_row *option_rows(size_t *count);
const struct option_row *task_rows(size_t *count);

/* The row of that key among `count`, or NULL. */
const struct option_row *row_find(const struct option_row *rows, size_t count, const char *key);

/* What a resumed run may make of another value (changes.def). */
enum option_change { OPTION_CHANGE_MAY, OPTION_CHANGE_FROM_NOW, OPTION_CHANGE_REFUSED };
enum option_change row_change(const struct option_row *row);

/* Give `base` (a zeroed struct options or task_options) the defaults of its rows; free its strings.
 */
int rows_default(const struct option_row *rows, size_t count, void *base, struct err *e);
void rows_free(const struct option_row *rows, size_t count, void *base);

/* "tasks.<index or name>.<key>": the task's index and *key, or -1 (*key NULL: not such a text at
 * all). A name wins over an index. */
int task_key_split(const struct options *o, const char *text, const char **key);

/* ---- options_preset.c ---------------------------------------------------------------------------
 */

/* The values of that preset; a name that there is none of has no values. */
int preset_apply(struct options *o, const char *preset, struct err *e);

/* After all sources: batch_size and gradient_accumulation_steps make a step together. Where a
 * source gave one of them (or batch_size to a task) the preset gives neither: the other has its
 * default. */
int preset_pair_settle(struct options *o, int batch_size_given, int steps_given, struct err *e);

/* Has the option the value that o->preset gives it? */
int preset_has(const struct options *o, const struct option_row *row);

/* The section of docs/OPTIONS.md. */
void presets_print(FILE *out);

/* ---- options_nearest.c --------------------------------------------------------------------------
 */

/* The key among `rows` (and, for those of OPT, the names of lists and "tasks.NAME.key") that `key`
 * resembles most, or NULL: none does. Both have at most OPTION_KEY_MAX bytes. */
const char *key_nearest(const struct option_row *rows, size_t count, const char *key);

/* The last word of "section.key", which is the key's own. */
const char *key_word(const char *key);

/* ---- options_value.c ----------------------------------------------------------------------------
 */

/* Where a text stands: a file and its line, or (line 0) a whole file or a --set text. */
struct origin {
    const char *source;
    int line;
};

/* Fill *e (permanent) with "source:line: " and the formatted sentence. Returns -1. */
int origin_error(struct origin at, struct err *e, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum { SHOWN_BYTES = 84 };

/* `text` cut and made one printable line for a sentence. Returns `shown`. */
const char *text_show(const char *text, char shown[SHOWN_BYTES]);

/* Parse, check and store `text` as row's value in `base`; `name` is the option's full name for the
 * sentence. 0, or -1 and *e; the old value then stays. */
int value_set(const struct option_row *row, void *base, const char *text, const char *name,
              struct origin at, struct err *e);

/* The value as text that value_set reads back to the same. Needs OPTION_TEXT_MAX + 1 bytes. */
void value_text(const struct option_row *row, const void *base, char *text, size_t bytes);

int value_equal(const struct option_row *row, const void *a, const void *b);

/* "a whole number from 1 to 64, or auto" */
void value_accepted(const struct option_row *row, char *text, size_t bytes);

/* ---- options_idle.c -----------------------------------------------------------------------------
 */

/* One row of idle.def. */
struct idle_row {
    const char *key, *condition;
};
const struct idle_row *idle_rows(size_t *count);

/* Does the row speak of that option? */
int idle_row_fits(const struct idle_row *row, const char *key);

/* ---- options_yaml.c -----------------------------------------------------------------------------
 */

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
    enum node_kind kind;
    char *key;   /* of an entry of a map, else NULL */
    char *text;  /* of a scalar, else NULL */
    int quoted;  /* scalar: it was quoted */
    int line;    /* from 1; that of the key, if it has one */
    int entries; /* of a list or map */
    struct node *first, *last, *next;
};

/* The file at `path` as a tree whose root is a map (an empty file is an empty map). Refused
 * (permanent, with file:line): not YAML, more than 1 MiB, nesting, entries or nodes beyond the
 * limits of options_yaml.c, anchors, aliases, tags, a second document, repeated keys, keys that are
 * no words. The caller frees *root. */
int node_read(const char *path, struct node **root, struct err *e);
void node_free(struct node *n); /* NULL allowed */

/* ---- options_files.c ----------------------------------------------------------------------------
 */

enum { INCLUDE_DEPTH_MAX = 8 };

struct option_files {
    char *paths[INCLUDE_DEPTH_MAX + 1]; /* origins point to them */
    struct node *trees[INCLUDE_DEPTH_MAX + 1];
    int depth; /* files, from the main one inwards */
};

/* Read the file at `path` and what it includes into *f, which is zeroed; files_free frees what was
 * read, also after a failure. */
int files_read(struct option_files *f, const char *path, struct err *e);
void files_free(struct option_files *f);

/* ---- options_node.c -----------------------------------------------------------------------------
 */

/* value_set with what the node holds; one that is a list or section where one word is wanted, or
 * the other way round, is refused likewise. */
int node_set(const struct option_row *row, void *base, const struct node *n, const char *name,
             struct origin at, struct err *e);

/* ---- options_layers.c ---------------------------------------------------------------------------
 */

/* Replace o's layers with those of the file at `path`. 0, or -1 and *e; some may be replaced then.
 */
int layers_set(struct options *o, const struct node *list, const char *path, struct err *e);

/* ---- options_alias.c ----------------------------------------------------------------------------
 */

/* Is it one of the sections whose keys are aliases? Is `key` below one, known or not? */
int alias_section(const char *section);
int alias_below(const char *key);

/* The option that "finetuning.learning_rate" or "gpu_optimization.loading.num_workers" is, or NULL.
 */
const struct option_row *alias_row(const char *key);

/* "finetuning.epochs" or "finetuning.any.epochs": the epochs of tasks that say none. */
int alias_of_epochs(const char *key);

/* Is `key` the section pretraining or below it? Does a node or a --set of it say that it is off?
 * The refusal of one that is not (-1). */
int pretraining_key(const char *key);
int pretraining_off_node(const struct node *n);
int pretraining_off_text(const char *key, const char *text);
int pretraining_error(struct origin at, struct err *e);

/* The section of docs/OPTIONS.md. */
void aliases_print(FILE *out);

/* ---- options_unknown.c --------------------------------------------------------------------------
 */

struct unknowns {
    const char *file; /* its lines need no file's name */
    uint32_t count, listed;
    struct err first;                         /* the sentence of one alone */
    char list[sizeof((struct err *)0)->text]; /* of several, as far as there is room */
    size_t used, room;
    int full;
};

/* `file` stays the caller's, and has to last. */
void unknowns_begin(struct unknowns *u, const char *file);

/* A key that is none of `rows`, whose names begin with `prefix`. */
void unknown_add(struct unknowns *u, const struct option_row *rows, size_t count,
                 const char *prefix, const char *key, struct origin at);

/* The sentence (permanent) of all that were added, one at least. Returns -1. */
int unknowns_error(const struct unknowns *u, struct err *e);

/* ---- options_check.c ----------------------------------------------------------------------------
 */

enum { OPTION_TASK_KEYS_MAX = 16 }; /* rows of TASK */

/* Where values were last set, so that a complaint can point there. */
struct origins {
    struct origin file; /* to blame for what is missing */
    struct origin name;
    struct origin entry[OPTION_TASKS_MAX]; /* of tasks: */
    struct origin task[OPTION_TASKS_MAX][OPTION_TASK_KEYS_MAX];
};

/* Required options, names, references between tasks. */
int options_check(const struct options *o, const struct origins *at, struct err *e);

/* ---- options_complete.c
 * ----------------------------------------------------------------------------
 */

/* What options say of others: batch_size that is auto, blocks of the whole model; in tasks the
 * words previous and all become names, and the comparisons of
 * continual_learning.compare_without_ewc are added. Done again it changes nothing. Before
 * options_check: of tasks that are not right nothing is made. -1 when there are too many. */
int options_complete(struct options *o, struct origins *at, struct err *e);

/* Of that, in options_weights.c: model.target_weights that is a file's name becomes its numbers. */
int weights_complete(struct options *o, const struct origins *at, struct err *e);

/* 1 if `name` has 1 to 63 letters, digits, - and _, and no other. */
int task_name_valid(const char *name);

#endif
