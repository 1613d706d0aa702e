/* files.c - `prepare files`: the data files of a pipeline file's tasks, for the scripts that make
 * them.
 *
 * A line for each task. Between the words stands the control character 31, which no option can
 * hold: name, file, source, classes separated by commas, rows of a micro-batch; and "first", or
 * nothing if an earlier task reads the same file in batches of the same size.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "pipelines/prepare/arguments.h"
#include "pipelines/prepare/prepare.h"
#include "proto/options.h"

enum { SEPARATOR = 31 };

static const char help[] =
    "usage: prepare files --config FILE [--set SECTION.KEY=VALUE]...\n\n"
    "Prints a line for each task with its data file; between its words stands the control "
    "character 31.\n\n"
    "  --config FILE              pipeline file\n"
    "  --set SECTION.KEY=VALUE    change one option first; repeatable\n"
    "  --help                     this\n\n"
    "example: prepare files --config pipelines/split.yaml\n";

static void line_print(const struct options *view, const struct task_options *task, int first)
{
    printf("%s%c%s%c%s%c", task->name, SEPARATOR, view->data_file, SEPARATOR, view->data_source,
           SEPARATOR);
    for (uint32_t i = 0; i < task->classes.count; i++)
        printf("%s%s", i ? "," : "", task->classes.name[i]);
    printf("%c%" PRIu64 "%c%s\n", SEPARATOR, view->batch_size, SEPARATOR, first ? "first" : "");
}

int prepare_files(int argc, char **argv)
{
    static struct options o, view; /* large */
    struct arguments a;
    struct err e = {0};
    int result = arguments_parse(&a, argc, argv, ARGUMENTS_PLAIN, &e);
    if (result == 0 && a.help) {
        fputs(help, stdout);
        return EXIT_CODE_DONE;
    }
    if (result == 0)
        result = options_read(&o, a.config, a.set, a.set_count, &e);
    if (result < 0) {
        fprintf(stderr, "prepare files: %s\n", e.text);
        return e.code;
    }
    for (uint32_t i = 0; i < o.task_count; i++) {
        options_of_task(&o, i, &view);
        line_print(&view, &o.tasks[i], options_data_task(&o, i) == i);
    }
    options_free(&o);
    return fflush(stdout) == 0 ? EXIT_CODE_DONE : EXIT_CODE_TEMPORARY;
}
