/* options.h - the pipeline file as a struct. proto/options.c is the only file that includes yaml.h.
 *
 * Read in this order, later wins: defaults of options.def, the preset (presets.def), `include:
 * FILE` of the pipeline file (relative to it, at most 8 deep), the file, --set section.key=value in
 * order. Then everything is checked: unknown, repeated, missing, mistyped and out-of-range options
 * are errors with file:line (or the --set text) and, for an unknown key, the nearest valid one. The
 * first mistake is told; unknown keys come before others, and all of them in one sentence.
 * Options may stand below `finetuning:` and `gpu_optimization:`, too (proto/options_alias.c).
 * `tasks:` and `model.layers:` of a later source replace the whole list; --set tasks.<index or
 * name>.key=value changes one entry.
 */
#ifndef PROTO_OPTIONS_H
#define PROTO_OPTIONS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/err.h"

enum {
    OPTION_TEXT_MAX = 32768,
    OPTION_PATH_MAX = 4096, /* of a file's name */
    OPTION_TASKS_MAX = 64,
    OPTION_LAYERS_MAX = 256,
    OPTION_LAYER_TEXT_MAX = 255,
    OPTION_NAMES_MAX = 16, /* of a LIST */
};
#define OPTION_NONE UINT64_MAX

struct option_list {
    uint32_t count;
    char name[OPTION_NAMES_MAX][64];
};

#define OPTION_TYPE_BOOL   int
#define OPTION_TYPE_U64    uint64_t
#define OPTION_TYPE_F64    double
#define OPTION_TYPE_STR    char *
#define OPTION_TYPE_CHOICE char *
#define OPTION_TYPE_LIST   struct option_list

struct task_options {
#define OPT(type, field, key, value, low, high, unit, meaning)
#define TASK(type, field, key, value, low, high, unit, meaning) OPTION_TYPE_##type field;
#include "proto/options.def"
#undef OPT
#undef TASK
};

enum {
    OPTION_ROWS = 0
#define OPT(type, field, key, value, low, high, unit, meaning) +1
#define TASK(type, field, key, value, low, high, unit, meaning)
#include "proto/options.def"
#undef OPT
#undef TASK
};

struct options {
#define OPT(type, field, key, value, low, high, unit, meaning) OPTION_TYPE_##type field;
#define TASK(type, field, key, value, low, high, unit, meaning)
#include "proto/options.def"
#undef OPT
#undef TASK
    char layers[OPTION_LAYERS_MAX][OPTION_LAYER_TEXT_MAX + 1]; /* "linear out=256" */
    int layer_lines[OPTION_LAYERS_MAX];                        /* line in layers_source */
    uint32_t layer_count;
    struct task_options tasks[OPTION_TASKS_MAX];
    uint32_t task_count;
    uint8_t given[OPTION_ROWS]; /* in the order of options.def: by a pipeline file, other than an
                                   effective one, or --set */
    int epochs_idle;     /* finetuning.epochs was given, and each task has epochs of its own */
    int batch_size_auto; /* training.batch_size was auto: it is this machine's number now */
    char source[OPTION_PATH_MAX];        /* the file read last, for error messages */
    char layers_source[OPTION_PATH_MAX]; /* that or the included file that the layers are of */
};

/* Read `path` and apply `set_count` texts "section.key=value". All strings are owned by *o until
 * options_free. Also checks what spans options: task names unique, `from`, `ewc` and
 * `comparison_of` name earlier tasks, at least one layer and one task. 0 or -1 and *e (permanent).
 */
int options_read(struct options *o, const char *path, const char *const *set, int set_count,
                 struct err *e);
void options_free(struct options *o); /* harmless twice */

enum { OPTION_SETS_MAX = 256 };

/* A command line of `--config FILE [--set section.key=value]...` from argv[first] on, as
 * options_read takes it. set has OPTION_SETS_MAX places; all texts stay argv's. 0, or -1 and *e
 * (permanent) naming the word that cannot be used. */
int options_arguments(int argc, char **argv, int first, const char **config, const char **set,
                      int *set_count, struct err *e);

/* The one of `words` (one at least, of at most 191 bytes; NULL ends them) that `word`
 * resembles most: what an unknown one probably meant. */
const char *options_nearest(const char *const *words, const char *word);

/* Rows of one optimizer step: batch_size times gradient_accumulation_steps. */
uint64_t options_batch_rows(const struct options *o);

/* What the preset has of both; 0 where there is no preset. They count where none is given. */
int options_preset_batch(const struct options *o, uint64_t *batch_size, uint64_t *steps);

/* Index of the task of that name, or -1. */
int options_task(const struct options *o, const char *name);

/* The run's options with those of task `task` in their places (data.file, data.source and
 * others of the sections data and prepare, training.batch_size, training.learning_rate,
 * ewc_config.lambda): what counts while that task's
 * data are read. *view borrows all of *o; it is not to be freed. */
void options_of_task(const struct options *o, uint32_t task, struct options *view);

/* Index of the first task that reads the same data as `task` (file and batch size). */
uint32_t options_data_task(const struct options *o, uint32_t task);

/* Rows of the largest micro-batch of all tasks, for room that lasts the whole run. */
uint64_t options_batch_size_max(const struct options *o);

/* Index of the task that is a comparison of `task`, or -1. */
int options_comparison(const struct options *o, uint32_t task);

/* A comparison repeats its original without EWC, from the same weights or, where the original goes
 * on from a task that has a comparison itself, from that one's. Key of the first option in which
 * the comparison `task` differs beyond that; NULL: none. */
const char *options_comparison_differs(const struct options *o, uint32_t task);

/* Write the effective file: every option with its value, in the order of options.def, read back by
 * options_read to the same values (a test proves it). */
int options_write(const struct options *o, FILE *out, struct err *e);

/* Was the file at `path` written by options_write? Its first line says so. */
int options_is_effective(const char *path);

/* Call see(self, sentence) for each option that was given and does nothing beside the others, as
 * idle.def has it: "training.momentum is set and does nothing: training.optimizer is adamw; ...".
 */
void options_idle(const struct options *o, void (*see)(void *self, const char *sentence),
                  void *self);

/* --help: one line an option with key, default, range, meaning. */
void options_print_help(FILE *out);

/* The reference page docs/OPTIONS.md. */
void options_print_docs(FILE *out);

/* The effective value of "section.key" or "tasks.<index or name>.key" as text (names of a list
 * separated by commas; auto and none as words). `bytes` at least OPTION_TEXT_MAX + 1. 0 or -1 and
 * *e. */
int options_get(const struct options *o, const char *key, char *text, size_t bytes, struct err *e);

/* Call see(self, key, text) for every option, in the order of options.def: "training.batch_size",
 * "tasks.A.epochs", and "model.layers" with its layers separated by "; ". */
void options_each(const struct options *o,
                  void (*see)(void *self, const char *key, const char *text), void *self);

/* Name of the first option whose value differs ("training.batch_size"), or NULL when all are equal.
 * Valid until the next call in this thread. */
const char *options_difference(const struct options *a, const struct options *b);

/* As options_difference, the first one that a run made with `was` cannot be resumed with
 * (changes.def), and *reason why. */
const char *options_conflict(const struct options *was, const struct options *is,
                             const char **reason);

/* How many options differ that count from the newest checkpoint on: "key was -> is, ..." in text,
 * cut to its bytes. */
int options_changes(const struct options *was, const struct options *is, char *text, size_t bytes);

#endif
