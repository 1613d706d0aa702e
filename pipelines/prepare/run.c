/* run.c - `prepare run` and `prepare get`: a pipeline file and --set texts become a run's
 * directory, or values on standard output.
 *
 * File names are made absolute here, against the present directory, because daemons stand in the
 * run's.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipelines/prepare/alike.h"
#include "pipelines/prepare/bases.h"
#include "pipelines/prepare/kept.h"
#include "pipelines/prepare/prepare.h"
#include "proto/err.h"
#include "proto/options.h"
#include "proto/run.h"

struct arguments {
    const char *config, *run, *rows;
    char **keys; /* in argv, the front of it */
    int key_count;
    const char *set[OPTION_SETS_MAX];
    int set_count, help;
};

static const char run_help[] =
    "usage: prepare run --config FILE --run DIR [--set SECTION.KEY=VALUE]...\n\n"
    "  --config FILE              pipeline file\n"
    "  --run DIR                  directory of the run; made, or resumed\n"
    "  --rows FILE                data file of all tasks, in place of their own: predict.sh's "
    "rows\n"
    "  --set SECTION.KEY=VALUE    change one option; repeatable, later ones win\n"
    "  --help                     this\n\n"
    "Prints errors, that a run without a checkpoint begins anew with other options, and that a\n"
    "finished one was trained on other data.\n"
    "data.file, data.source, model.pretrained and continual_learning.fisher_dir are taken "
    "relative\n"
    "to the present directory.\n\n"
    "example: prepare run --config pipelines/fashion.yaml --run runs/fashion --set seed=2\n";

static const char get_help[] =
    "usage: prepare get --config FILE [--set SECTION.KEY=VALUE]... KEY...\n\n"
    "  --config FILE              pipeline file\n"
    "  --set SECTION.KEY=VALUE    change one option first; repeatable, later ones win\n"
    "  KEY                        option to print: SECTION.KEY or tasks.NAME.KEY; between the "
    "values\n"
    "                             of several stands the byte 0x1f (unit separator)\n"
    "  --help                     this\n\n"
    "example: prepare get --config pipelines/fashion.yaml data.file\n";

/* The value of argv[*i], in the next argument. */
static int value_take(int argc, char **argv, int *i, const char **value, struct err *e)
{
    if (*i + 1 >= argc)
        return err_set(e, EXIT_CODE_PERMANENT, "%s lacks its value (see --help)", argv[*i]);
    if (*value)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is given twice", argv[*i]);
    *value = argv[++*i];
    return 0;
}

static int argument_read(struct arguments *a, int argc, char **argv, int *i, int get, struct err *e)
{
    const char *set = NULL;
    if (strcmp(argv[*i], "--help") == 0)
        return a->help = 1, 0;
    if (strcmp(argv[*i], "--config") == 0)
        return value_take(argc, argv, i, &a->config, e);
    if (strcmp(argv[*i], "--run") == 0 && !get)
        return value_take(argc, argv, i, &a->run, e);
    if (strcmp(argv[*i], "--rows") == 0 && !get)
        return value_take(argc, argv, i, &a->rows, e);
    if (strcmp(argv[*i], "--set") == 0 && a->set_count < OPTION_SETS_MAX) {
        int result = value_take(argc, argv, i, &set, e);
        a->set[a->set_count++] = set;
        return result;
    }
    if (argv[*i][0] != '-' && get) {
        a->keys[a->key_count++] = argv[*i];
        return 0;
    }
    return err_set(e, EXIT_CODE_PERMANENT,
                   "argument \"%.100s\" is unknown or one too many (see --help)", argv[*i]);
}

static int arguments_read(struct arguments *a, int argc, char **argv, int get, struct err *e)
{
    *a = (struct arguments){.keys = argv + 1};
    for (int i = 1; i < argc && !a->help; i++)
        if (argument_read(a, argc, argv, &i, get, e) < 0)
            return -1;
    if (a->help || (a->config && (get ? a->key_count > 0 : a->run != NULL)))
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT, "%s is missing (see --help)",
                   !a->config ? "--config FILE"
                   : get      ? "KEY"
                              : "--run DIR");
}

/* *path, if it is not empty, as an absolute name in new memory. */
static int path_absolute(char **path, const char *key, struct err *e)
{
    char directory[PATH_MAX], *absolute;
    if (!**path || **path == '/')
        return 0;
    if (!getcwd(directory, sizeof directory))
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot name the present directory");
    if (asprintf(&absolute, "%s/%s", directory, *path) < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot make %s absolute", key);
    if (strlen(absolute) > OPTION_PATH_MAX) {
        free(absolute);
        return err_set(e, EXIT_CODE_PERMANENT, "%s is longer than %d bytes as an absolute name",
                       key, OPTION_PATH_MAX);
    }
    free(*path);
    *path = absolute;
    return 0;
}

/* All names of files and directories. */
static int paths_absolute(struct options *o, struct err *e)
{
    if (path_absolute(&o->data_file, "data.file", e) < 0 ||
        path_absolute(&o->data_source, "data.source", e) < 0 ||
        path_absolute(&o->prepare_like, "prepare.like", e) < 0 ||
        path_absolute(&o->pretrained, "model.pretrained", e) < 0 ||
        path_absolute(&o->fisher_dir, "continual_learning.fisher_dir", e) < 0)
        return -1;
    for (uint32_t i = 0; i < o->task_count; i++)
        if (path_absolute(&o->tasks[i].file, "a task's file", e) < 0 ||
            path_absolute(&o->tasks[i].source, "a task's source", e) < 0)
            return -1;
    return 0;
}

/* All tasks read the file: what those of their own have become is no matter. */
static int rows_replace(struct options *o, const char *rows, struct err *e)
{
    free(o->data_file);
    o->data_file = strdup(rows);
    int there = o->data_file != NULL;
    for (uint32_t i = 0; i < o->task_count; i++) {
        free(o->tasks[i].file);
        o->tasks[i].file = strdup(rows);
        there = there && o->tasks[i].file;
    }
    return there ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot read the pipeline file");
}

static int complain(const char *command, const struct err *e)
{
    fprintf(stderr, "prepare %s: %s\n", command, e->text);
    return e->code;
}

/* Read arguments, answer --help, read options. Returns -1 to go on, else the exit code. */
static int begin(struct arguments *a, struct options *o, int argc, char **argv, int get)
{
    struct err e;
    if (arguments_read(a, argc, argv, get, &e) < 0)
        return complain(argv[0], &e);
    if (a->help) {
        fputs(get ? get_help : run_help, stdout);
        return EXIT_CODE_DONE;
    }
    if (options_read(o, a->config, a->set, a->set_count, &e) < 0)
        return complain(argv[0], &e);
    return -1;
}

int prepare_run(int argc, char **argv)
{
    static struct options o;
    struct arguments a;
    struct err e;
    int code = begin(&a, &o, argc, argv, 0);
    if (code != -1)
        return code;
    int alike = (!a.rows || rows_replace(&o, a.rows, &e) == 0) && paths_absolute(&o, &e) == 0 &&
                alike_check(&o, &e) == 0;
    int anew = alike ? run_prepare(a.run, &o, &e) : -1;
    if (anew < 0 || kept_write(a.run, &o, &e) < 0 || bases_write(a.run, &e) < 0)
        code = complain(argv[0], &e);
    else
        code = EXIT_CODE_DONE;
    if (code == EXIT_CODE_DONE && anew)
        printf("run: begins anew with these options; there is no checkpoint yet in %s\n", a.run);
    if (code == EXIT_CODE_DONE && run_is_finished(a.run) && kept_data_changed(a.run, &o))
        printf("run: the data are others now than the run in %s was trained on, which is finished "
               "with the old ones; to train on these choose another --run\n",
               a.run);
    options_free(&o);
    return code;
}

static int values_print(const struct options *o, char *const *keys, int count, struct err *e)
{
    char text[OPTION_TEXT_MAX + 1];
    for (int i = 0; i < count; i++) {
        if (options_get(o, keys[i], text, sizeof text, e) < 0)
            return -1;
        if (printf("%s%c", text, i + 1 < count ? 0x1f : '\n') < 0)
            break;
    }
    if (fflush(stdout) != 0 || ferror(stdout))
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write to standard output");
    return 0;
}

int prepare_get(int argc, char **argv)
{
    static struct options o;
    struct arguments a;
    struct err e;
    int code = begin(&a, &o, argc, argv, 1);
    if (code != -1)
        return code;
    code = values_print(&o, a.keys, a.key_count, &e) < 0 ? complain(argv[0], &e) : EXIT_CODE_DONE;
    options_free(&o);
    return code;
}
