/* check_print.c - see check.h: what `prepare check` says of what check.c has found, and which of it
 * makes training impossible.
 */
#include "pipelines/prepare/check.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLASSES_SHOWN = 20, COLUMNS_SHOWN = 8 };

void check_wrong(struct check *c, const char *format, ...)
{
    va_list args;
    if (c->wrong[0])
        return;
    va_start(args, format);
    vsnprintf(c->wrong, sizeof c->wrong, format, args);
    va_end(args);
}

void check_path(char path[H5FILE_NAME_MAX + 1], const char *group, const char *name)
{
    snprintf(path, H5FILE_NAME_MAX + 1, "%s%s%s", group, group[0] ? "/" : "", name);
}

static void shape_print(const struct h5array *a)
{
    printf("  %s: %s [", a->name, h5type_name(a->type));
    for (int i = 0; i < a->rank; i++)
        printf("%s%" PRIu64, i ? ", " : "", a->dims[i]);
    printf("]");
}

static void features_print(const struct split *s)
{
    double low = INFINITY, high = -INFINITY;
    uint64_t constant = 0;
    for (uint64_t i = 0; i < s->row_values; i++) {
        low = fmin(low, s->low[i]);
        high = fmax(high, s->high[i]);
        constant += s->low[i] == s->high[i];
    }
    for (int i = 0; i < s->part_count; i++) {
        shape_print(&s->part[i]);
        if (i + 1 < s->part_count)
            putchar('\n');
    }
    if (low <= high)
        printf(", values %.6g to %.6g", low, high);
    printf(", NaN %" PRIu64 ", infinite %" PRIu64 "\n", s->nan, s->infinite);
    printf("    constant features: %" PRIu64, constant);
    for (uint64_t i = 0, shown = 0; i < s->row_values && shown < COLUMNS_SHOWN; i++)
        if (s->low[i] == s->high[i])
            printf("%s%" PRIu64, shown++ ? ", " : " (column ", i);
    printf("%s\n", constant == 0 ? "" : constant > COLUMNS_SHOWN ? ", ...)" : ")");
}

static void classes_print(const struct split *s)
{
    uint64_t present = 0;
    for (int i = 0; i < CHECK_CLASSES_MAX; i++)
        present += s->class_rows[i] > 0;
    shape_print(&s->targets);
    printf(", values %" PRId64 " to %" PRId64 ", %" PRIu64 " classes\n    rows a class:",
           s->class_low, s->class_high, present);
    for (int i = 0, shown = 0; i < CHECK_CLASSES_MAX && shown < CLASSES_SHOWN; i++)
        if (s->class_rows[i])
            printf("%s %d: %" PRIu64, shown++ ? "," : "", i, s->class_rows[i]);
    printf("%s\n", present > CLASSES_SHOWN ? ", ..." : "");
}

static void equal_print(const struct check *c)
{
    if (c->hashes.mask == 0)
        printf("equal rows: %" PRIu64 " of %" PRIu64 " training rows stand in %s as well\n",
               c->equal, c->compared, c->split[1].group);
    else
        printf("equal rows: %" PRIu64 " of %" PRIu64 " training rows compared (1 in %" PRIu64
               ") stand in %s as well\n",
               c->equal, c->compared, c->hashes.mask + 1, c->split[1].group);
}

void check_print(const struct check *c)
{
    printf("%s\n", c->options->data_file);
    for (int i = 0; i < 2; i++) {
        features_print(&c->split[i]);
        classes_print(&c->split[i]);
    }
    equal_print(c);
    fflush(stdout);
}

int check_other_layout(const struct check *c, struct err *e)
{
    static const char *const names[] = {"node_features", "edge_index", "edge_features", "node_ptr",
                                        "edge_ptr",      "targets",    "tokens",        "doc_ptr"};
    char path[H5FILE_NAME_MAX + 1];
    struct h5array a;
    check_path(path, c->split[0].group, c->options->data_features);
    int dense = h5reader_has(c->reader, path), found = 0;
    for (int i = 0; i < 2 && !dense; i++)
        for (size_t j = 0; j < sizeof names / sizeof *names; j++) {
            check_path(path, c->split[i].group, names[j]);
            if (!h5reader_has(c->reader, path))
                continue;
            if (h5reader_foreign(c->reader, path, &a, e) < 0)
                return -1;
            found |= strcmp(names[j], "targets") != 0;
            shape_print(&a);
            putchar('\n');
        }
    if (found)
        printf(
            "graphs or tokens: their values are not looked at here (loaderd refuses pointers and "
            "edges that cannot be)\n");
    fflush(stdout);
    return found;
}

/* Outputs of the last layer that says them, or 0. */
static uint64_t model_outputs(const struct options *o)
{
    uint64_t outputs = 0;
    for (uint32_t i = 0; i < o->layer_count; i++) {
        const char *at = strstr(o->layers[i], " out=");
        if (at)
            outputs = strtoull(at + 5, NULL, 10);
    }
    return outputs;
}

void check_judge(struct check *c)
{
    uint64_t outputs = model_outputs(c->options);
    for (int i = 0; i < 2; i++) {
        const struct split *s = &c->split[i];
        if (s->nan + s->infinite)
            check_wrong(c,
                        "%s has values that are no finite float32, first in row %" PRIu64
                        "; training stops at such a row",
                        s->part[0].name, s->first_bad);
        if (outputs && s->class_high >= (int64_t)outputs)
            check_wrong(c,
                        "%s has classes up to %" PRId64 " and the model %" PRIu64
                        " outputs; its last layer needs out: %" PRId64,
                        s->targets.name, s->class_high, outputs, s->class_high + 1);
    }
    if (c->split[0].row_values != c->split[1].row_values)
        check_wrong(c, "%s has %" PRIu64 " values a row and %s %" PRIu64 "; expected as many",
                    c->split[0].part[0].name, c->split[0].row_values, c->split[1].part[0].name,
                    c->split[1].row_values);
}
