/* alike.c - see alike.h. */
#include "pipelines/prepare/alike.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipelines/prepare/like.h"
#include "proto/h5file.h"

static const struct {
    const char *attribute, *word, *accepted;
    int always; /* a file without the list has another one: its classes are numbers */
} lists[] = {
    {"columns", "features", "the same columns in the same order", 0},
    {"target_columns", "targets", "the same columns in the same order", 0},
    {"classes", "classes",
     "the same texts in each file, whose classes are numbered by themselves, or numbers from 0 in "
     "the sources, which stay as they are",
     1},
};
enum { LISTS = sizeof lists / sizeof lists[0] };

struct names {
    const char *task;
    char *file, *list[LISTS]; /* one name a line, or NULL */
};

static void names_free(struct names *n)
{
    free(n->file);
    for (int i = 0; i < LISTS; i++)
        free(n->list[i]);
    *n = (struct names){0};
}

/* 1; 0: there is no such file, or prepare did not make it; -1. */
static int names_read(struct names *n, const struct options *o, uint32_t task, struct err *e)
{
    static struct options view; /* large */
    struct h5reader *r = NULL;
    options_of_task(o, task, &view);
    *n = (struct names){.task = o->tasks[task].name, .file = strdup(view.data_file)};
    if (!n->file)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", view.data_file);
    if (access(n->file, F_OK) != 0) /* by hand a run may be made before its data */
        return 0;
    if (h5reader_open(&r, n->file, e) < 0)
        return -1;
    char *stamp = like_attribute(r, "source_stamp");
    for (int i = 0; stamp && i < LISTS; i++)
        n->list[i] = like_attribute(r, lists[i].attribute);
    h5reader_close(&r);
    free(stamp);
    return stamp != NULL;
}

static int names_compare(const struct names *first, const struct names *n, struct err *e)
{
    char a[CSV_SHOWN_BYTES], b[CSV_SHOWN_BYTES];
    for (int i = 0; i < LISTS; i++) {
        const char *theirs = first->list[i], *ours = n->list[i];
        if ((!theirs || !ours) && !(lists[i].always && theirs != ours))
            continue;
        if (theirs && ours && strcmp(theirs, ours) == 0)
            continue;
        uint32_t place = like_names_differ(theirs ? theirs : "", ours ? ours : "", a, b);
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the %s of task %s (%s) are not those of task %s (%s): the one with number "
                       "%u is %s%s%s and there %s%s%s; accepted are %s",
                       lists[i].word, n->task, n->file, first->task, first->file, place,
                       b[0] ? "\"" : "none by name", b, b[0] ? "\"" : "",
                       a[0] ? "\"" : "none by name", a, a[0] ? "\"" : "", lists[i].accepted);
    }
    return 0;
}

/* One file needs no look: what is wrong with it loaderd says, whom none can harm. */
static int has_several_files(const struct options *o)
{
    uint32_t files = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        files += options_data_task(o, i) == i;
    return files > 1;
}

int alike_check(const struct options *o, struct err *e)
{
    struct names first = {0}, next = {0};
    int result = 0;
    for (uint32_t i = 0; has_several_files(o) && result == 0 && i < o->task_count; i++) {
        if (options_data_task(o, i) != i)
            continue;
        int there = names_read(&next, o, i, e);
        if (there > 0 && first.task)
            result = names_compare(&first, &next, e);
        if (there > 0 && !first.task) {
            first = next;
            next = (struct names){0};
        }
        result = there < 0 ? -1 : result;
        names_free(&next);
    }
    names_free(&first);
    return result;
}
