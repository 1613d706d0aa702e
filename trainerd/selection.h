/* selection.h - which checkpoint a command means: the end of a task, its best epoch, the newest one
 * of a run, or a file by name. */
#ifndef TRAINERD_SELECTION_H
#define TRAINERD_SELECTION_H

#include <stddef.h>

#include "proto/err.h"
#include "proto/options.h"

/* What the command line says; all borrowed from argv. With a checkpoint the run only tells the
 * options. */
struct selection {
    const char *run, *task, *checkpoint;
    int best, last;
};

/* For --help of the commands that take one. */
extern const char selection_help[];

/* Take argv[*i] if it is one of --run DIR, --task NAME, --best, --last, --checkpoint FILE, and move
 * *i to its last word. 1: taken; 0: it is something else; -1: it lacks its value or is there
 * twice. */
int selection_argument(struct selection *s, int argc, char **argv, int *i, struct err *e);

/* The value of argv[*i], which becomes the next word. -1: it has none, or *value is set already. */
int selection_value(int argc, char **argv, int *i, const char **value, struct err *e);

/* Path of the file it means. *o gets the options of the run where one is named (options_free is
 * the caller's), and s->task, unless a file or the newest checkpoint is meant, the task's name
 * there. -1 (permanent) when there is no such checkpoint; the sentence says what there is. */
int selection_find(struct selection *s, struct options *o, char *path, size_t path_bytes,
                   struct err *e);

#endif
