/* alike.c - see alike.h. */
#include "pipelines/prepare/alike.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipelines/prepare/like.h"
#include "proto/h5file.h"

static const struct {
    const char *attribute; /* NULL: what windows_list says */
    const char *word, *accepted;
    int always; /* a file without the list has another one: its classes are numbers */
} lists[] = {
    {"timeframe", "bars", "bars of the same timeframe", 0},
    {NULL, "windows", "the same prepare.timeframes", 0},
    {"columns", "features", "the same columns in the same order", 0},
    {"target_columns", "targets", "the same columns in the same order", 0},
    {"classes", "classes",
     "the same texts in each file, whose classes are numbered by themselves, or numbers from 0 in "
     "the sources, which stay as they are",
     1},
};
enum { LISTS = sizeof lists / sizeof lists[0] };

struct names {
    const char *task;         /* that reads it; NULL: new rows */
    char *file, *list[LISTS]; /* one name a line, or NULL */
    int has_targets;          /* new rows may be without, and then of no classes */
};

static void names_free(struct names *n)
{
    free(n->file);
    for (int i = 0; i < LISTS; i++)
        free(n->list[i]);
    *n = (struct names){0};
}

static int window_add(void *self, const struct h5array *a)
{
    char **list = self, *longer;
    const char *name = strrchr(a->name, '/');
    if (a->rank != 3 || !name ||
        asprintf(&longer, "%s%s%s:%llu", *list ? *list : "", *list ? "\n" : "", name + 1,
                 (unsigned long long)a->dims[1]) < 0)
        return 0;
    free(*list);
    *list = longer;
    return 0;
}

/* Of bars, "M1:8" and so on, one a line, in new memory; NULL: of anything else. */
static char *windows_list(struct h5reader *r)
{
    char *list = NULL, *timeframe = h5reader_text_new(r, "timeframe");
    struct err none;
    if (timeframe)
        h5reader_each(r, "validation/features", window_add, &list, &none);
    free(timeframe);
    return list;
}

/* 1; 0: there is no such file, or prepare did not make it; -1. */
static int names_read(struct names *n, const char *file, const char *task, struct err *e)
{
    struct h5reader *r = NULL;
    *n = (struct names){.task = task, .file = strdup(file)};
    if (!n->file)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", file);
    if (access(file, F_OK) != 0) /* by hand a run may be made before its data */
        return 0;
    if (h5reader_open(&r, file, e) < 0)
        return -1;
    char *made = h5reader_text_new(r, "fingerprint");
    for (int i = 0; made && i < LISTS; i++)
        n->list[i] =
            lists[i].attribute ? h5reader_text_new(r, lists[i].attribute) : windows_list(r);
    n->has_targets = h5reader_has(r, "validation/targets");
    h5reader_close(&r);
    free(made);
    return made != NULL;
}

/* "task B (b.h5)", or the file alone. */
static const char *names_show(const struct names *n, char *text, size_t bytes)
{
    snprintf(text, bytes, n->task ? "task %s (%s)" : "%s%s", n->task ? n->task : "", n->file);
    return text;
}

static int names_compare(const struct names *first, const struct names *n, struct err *e)
{
    char a[CSV_SHOWN_BYTES], b[CSV_SHOWN_BYTES], here[400], there[400];
    for (int i = 0; i < LISTS; i++) {
        const char *theirs = first->list[i], *ours = n->list[i];
        int always = lists[i].always && first->has_targets && n->has_targets;
        if ((!theirs || !ours) && !(always && theirs != ours))
            continue;
        if (theirs && ours && strcmp(theirs, ours) == 0)
            continue;
        uint32_t place = like_names_differ(theirs ? theirs : "", ours ? ours : "", a, b);
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the %s of %s are not those of %s: the one with number %u is %s%s%s and "
                       "there %s%s%s; accepted are %s",
                       lists[i].word, names_show(n, here, sizeof here),
                       names_show(first, there, sizeof there), place, b[0] ? "\"" : "none by name",
                       b, b[0] ? "\"" : "", a[0] ? "\"" : "none by name", a, a[0] ? "\"" : "",
                       lists[i].accepted);
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
    static struct options view; /* large */
    struct names first = {0}, next = {0};
    int result = 0;
    for (uint32_t i = 0; has_several_files(o) && result == 0 && i < o->task_count; i++) {
        if (options_data_task(o, i) != i)
            continue;
        options_of_task(o, i, &view);
        int there = names_read(&next, view.data_file, o->tasks[i].name, e);
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

/* ---- new rows ------------------------------------------------------------------------------- */

/* 1: the array is in both files and the same, or in neither; 0; -1. */
static int array_is_same(struct h5reader *a, struct h5reader *b, const char *name, struct err *e)
{
    struct h5array one, other;
    if (!h5reader_has(a, name) || !h5reader_has(b, name))
        return h5reader_has(a, name) == h5reader_has(b, name);
    if (h5reader_array(a, name, &one, e) < 0 || h5reader_array(b, name, &other, e) < 0)
        return -1;
    if (one.type != other.type || one.bytes != other.bytes)
        return 0;
    char *data = malloc(2 * one.bytes + 1);
    int same = data ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot compare %s", name);
    if (data &&
        (h5reader_read(a, &one, data, e) < 0 || h5reader_read(b, &other, data + one.bytes, e) < 0))
        same = -1;
    else if (data)
        same = memcmp(data, data + one.bytes, one.bytes) == 0;
    free(data);
    return same;
}

/* Were both normalised by the same numbers, or by none? */
static int normalise_compare(const char *rows, const char *file, struct err *e)
{
    struct h5reader *a = NULL, *b = NULL;
    int same = h5reader_open(&a, rows, e) < 0 || h5reader_open(&b, file, e) < 0 ? -1 : 1;
    if (same > 0)
        same = array_is_same(a, b, "normalise/mean", e);
    if (same > 0)
        same = array_is_same(a, b, "normalise/standard_deviation", e);
    h5reader_close(&a);
    h5reader_close(&b);
    if (same)
        return same < 0 ? -1 : 0;
    return err_set(
        e, EXIT_CODE_PERMANENT,
        "the features of %s are normalised otherwise, or not (normalise/), than those of "
        "%s, so that the model would be told something else; accepted is the file that "
        "it was prepared from (--data), which is then prepared as the run's data were",
        rows, file);
}

int alike_rows_check(const char *rows, const char *file, struct err *e)
{
    struct names first = {0}, next = {0};
    int there = names_read(&first, file, NULL, e), made = -1;
    if (there >= 0)
        made = names_read(&next, rows, NULL, e);
    int result = made < 0 ? -1 : 0;
    if (there > 0 && made > 0)
        result = names_compare(&first, &next, e) < 0 ? -1 : normalise_compare(rows, file, e);
    names_free(&first);
    names_free(&next);
    return result;
}
