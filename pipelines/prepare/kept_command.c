/* kept_command.c - `prepare like`: which file new rows of a run follow, for predict.sh. */
#include <stdio.h>
#include <string.h>

#include "pipelines/prepare/alike.h"
#include "pipelines/prepare/arguments.h"
#include "pipelines/prepare/kept.h"
#include "pipelines/prepare/prepare.h"

static const char help[] =
    "usage: prepare like --config RUN/pipeline.yaml [--task NAME] [--rows FILE]\n\n"
    "Prints the file that new rows of the run are prepared like (prepare.like): what the run keeps "
    "of the data\nthat it was trained on, or of a run that keeps nothing its data file, so long as "
    "that is the same.\n\n"
    "  --config FILE              effective pipeline file, in the run's directory\n"
    "  --task NAME                a task of it; default: the first\n"
    "  --rows FILE                refuse this file if prepare made it of other columns or classes "
    "than those\n                             of every task, or normalised it otherwise\n"
    "  --help                     this\n\n"
    "example: prepare like --config runs/mine/pipeline.yaml\n";

/* The model was trained on the rows of every task; `path` is what new ones of the task follow, of
 * which the sentence tells. */
static int rows_check(const char *rows, const char *run, const struct options *o, const char *path,
                      struct err *e)
{
    char other[PATH_MAX];
    struct err unlike;
    int result = alike_rows_check(rows, path, e);
    for (uint32_t i = 0; result < 0 && i < o->task_count; i++)
        if (options_data_task(o, i) == i && kept_find(run, o, i, other, &unlike) == 0 &&
            alike_rows_check(rows, other, &unlike) == 0)
            result = 0;
    return result;
}

static int path_print(const struct arguments *a, const struct options *o, struct err *e)
{
    char run[PATH_MAX], path[PATH_MAX];
    const char *slash = strrchr(a->config, '/');
    int task = a->task ? options_task(o, a->task) : 0;
    if (task < 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s has no task \"%.63s\"", a->config, a->task);
    snprintf(run, sizeof run, "%.*s", slash ? (int)(slash - a->config) : 1,
             slash ? a->config : ".");
    if (kept_find(run, o, (uint32_t)task, path, e) < 0 ||
        (a->rows && rows_check(a->rows, run, o, path, e) < 0))
        return -1;
    puts(path);
    return fflush(stdout) == 0
               ? 0
               : err_errno(e, EXIT_CODE_TEMPORARY, "cannot write to standard output");
}

int prepare_like(int argc, char **argv)
{
    static struct options o; /* large */
    struct arguments a;
    struct err e = {0};
    int result = arguments_parse(&a, argc, argv, ARGUMENTS_TASK, &e);
    if (result == 0 && a.help) {
        fputs(help, stdout);
        return EXIT_CODE_DONE;
    }
    if (result == 0 && (result = options_read(&o, a.config, a.set, a.set_count, &e)) == 0) {
        result = path_print(&a, &o, &e);
        options_free(&o);
    }
    if (result == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "prepare like: %s\n", e.text);
    return e.code;
}
