/* selection.c - see selection.h. */
#include "trainerd/selection.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/checkpoint.h"
#include "trainerd/retention.h"

const char selection_help[] =
    "  --run DIR          directory of a run; the weights at the end of its task are meant\n"
    "  --task NAME        which task's; may be left out where the run has one\n"
    "  --best             the task's best epoch instead of its end\n"
    "  --last             the run's newest checkpoint, also in the middle of a task\n"
    "  --checkpoint FILE  a checkpoint or a safetensors file instead\n";

int selection_value(int argc, char **argv, int *i, const char **value, struct err *e)
{
    if (*i + 1 >= argc)
        return err_set(e, EXIT_CODE_PERMANENT, "%s lacks its value (see --help)", argv[*i]);
    if (*value)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is given twice", argv[*i]);
    *value = argv[++*i];
    return 0;
}

int selection_argument(struct selection *s, int argc, char **argv, int *i, struct err *e)
{
    const struct {
        const char *word;
        const char **value;
        int *flag;
    } known[] = {{"--run", &s->run, NULL},
                 {"--task", &s->task, NULL},
                 {"--checkpoint", &s->checkpoint, NULL},
                 {"--best", NULL, &s->best},
                 {"--last", NULL, &s->last}};
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
        if (strcmp(argv[*i], known[k].word) != 0)
            continue;
        if (known[k].flag)
            return *known[k].flag = 1;
        return selection_value(argc, argv, i, known[k].value, e) < 0 ? -1 : 1;
    }
    return 0;
}

/* The task that is meant: the one named, or the only one that is no comparison. */
static int task_find(struct selection *s, const struct options *o, struct err *e)
{
    char known[512] = "";
    uint32_t count = 0;
    const char *only = NULL;
    for (uint32_t i = 0; i < o->task_count; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", o->tasks[i].name);
        if (s->task || o->tasks[i].comparison_of[0])
            continue;
        only = o->tasks[i].name;
        count++;
    }
    if (s->task ? options_task(o, s->task) >= 0 : count == 1) {
        s->task = s->task ? s->task : only;
        return 0;
    }
    if (s->task)
        return err_set(e, EXIT_CODE_PERMANENT, "the run in %s has no task %.63s; it has %s", s->run,
                       s->task, known);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "the run in %s has several tasks (%s); --task NAME says which is meant, --last "
                   "takes the newest checkpoint",
                   s->run, known);
}

static int newest_find(const struct selection *s, char *path, size_t path_bytes, struct err *e)
{
    char directory[4096];
    snprintf(directory, sizeof directory, "%s/checkpoints", s->run);
    int found = checkpoint_newest(directory, path, path_bytes, e);
    if (found)
        return found < 0 ? -1 : 0;
    return err_set(e, EXIT_CODE_PERMANENT, "the run in %s has no checkpoint yet", s->run);
}

static int choice_check(const struct selection *s, struct err *e)
{
    if (!s->run && !s->checkpoint)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "--run DIR or --checkpoint FILE is missing (see --help)");
    if (s->checkpoint && (s->task || s->best || s->last))
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "--checkpoint names the file; --task, --best and --last choose one of a run");
    if (s->last && (s->task || s->best))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "--last is the run's newest checkpoint; --task and --best choose another");
    return 0;
}

static int path_set(char *path, size_t path_bytes, const char *directory, const char *name,
                    struct err *e)
{
    int used = snprintf(path, path_bytes, "%s/%s", directory, name);
    return used >= 0 && (size_t)used < path_bytes
               ? 0
               : err_set(e, EXIT_CODE_PERMANENT, "the path %.60s... is too long", directory);
}

static int options_load(const struct selection *s, struct options *o, struct err *e)
{
    char config[4096];
    if (path_set(config, sizeof config, s->run, "pipeline.yaml", e) < 0)
        return -1;
    if (access(config, R_OK) != 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot read the run in %s", s->run);
    return options_read(o, config, NULL, 0, e);
}

int selection_find(struct selection *s, struct options *o, char *path, size_t path_bytes,
                   struct err *e)
{
    char name[CHECKPOINT_PATH_BYTES];
    if (choice_check(s, e) < 0 || (s->run && options_load(s, o, e) < 0))
        return -1;
    if (s->checkpoint) {
        int used = snprintf(path, path_bytes, "%s", s->checkpoint);
        return (size_t)used < path_bytes ? 0
                                         : err_set(e, EXIT_CODE_PERMANENT,
                                                   "the path %.60s... is too long", s->checkpoint);
    }
    if (s->last)
        return newest_find(s, path, path_bytes, e);
    if (task_find(s, o, e) < 0)
        return -1;
    (s->best ? retention_best_path : retention_task_path)(name, s->task);
    if (path_set(path, path_bytes, s->run, name, e) < 0)
        return -1;
    if (access(path, R_OK) == 0)
        return 0;
    if (errno != ENOENT)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", path);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "task %s of the run in %s has no %s yet; --last takes the newest checkpoint",
                   s->task, s->run, s->best ? "finished epoch" : "end");
}
