/* arguments.c - see arguments.h. */
#include "pipelines/prepare/arguments.h"

#include <string.h>

static int value_take(int argc, char **argv, int *i, const char **value, struct err *e)
{
    if (*i + 1 >= argc || !argv[*i + 1][0])
        return err_set(e, EXIT_CODE_PERMANENT, "%s lacks its value (see --help)", argv[*i]);
    if (*value)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is given twice", argv[*i]);
    *value = argv[++*i];
    return 0;
}

int arguments_parse(struct arguments *a, int argc, char **argv, enum arguments_kind kind,
                    struct err *e)
{
    memset(a, 0, sizeof *a);
    for (int i = 1; i < argc; i++) {
        int result = 0;
        if (strcmp(argv[i], "--help") == 0) {
            a->help = 1;
            return 0;
        }
        if (strcmp(argv[i], "--config") == 0)
            result = value_take(argc, argv, &i, &a->config, e);
        else if (strcmp(argv[i], "--out") == 0 && kind == ARGUMENTS_OUT)
            result = value_take(argc, argv, &i, &a->out, e);
        else if (strcmp(argv[i], "--task") == 0 && kind != ARGUMENTS_PLAIN)
            result = value_take(argc, argv, &i, &a->task, e);
        else if (strcmp(argv[i], "--rows") == 0 && kind == ARGUMENTS_TASK)
            result = value_take(argc, argv, &i, &a->rows, e);
        else if (strcmp(argv[i], "--set") == 0 && a->set_count < OPTION_SETS_MAX)
            result = value_take(argc, argv, &i, &a->set[a->set_count++], e);
        else if (strcmp(argv[i], "--rebuild") == 0 && kind == ARGUMENTS_OUT)
            a->rebuild = 1;
        else
            result =
                err_set(e, EXIT_CODE_PERMANENT,
                        "argument \"%.100s\" is unknown or one too many (see --help)", argv[i]);
        if (result < 0)
            return -1;
    }
    if (a->config && (a->out || kind != ARGUMENTS_OUT))
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT, "%s is missing (see --help)",
                   a->config ? "--out FILE" : "--config FILE");
}
