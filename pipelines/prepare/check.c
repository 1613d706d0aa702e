/* check.c - `prepare check` (finetune.sh --check-data): reads the whole data file once and prints
 * what it holds, so that a long run does not end at a row that nobody looked at.
 *
 * Per split: shapes and types, range of the values, NaN and infinite ones, constant features, rows
 * of each class or range of the target values; then how many training rows stand in the validation
 * part as well, by a 64-bit hash of a row. features may be a group of timeframes. Memory is
 * bounded: a validation part with more different rows than HASHES_MAX is compared in part
 * (hashes.h), and the line says so. What targets weigh is read by check_weights.c, which rows begin
 * by check_begins.c; files of graphs and tokens are read by check_graphs.c and check_tokens.c.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/alike.h"
#include "pipelines/prepare/arguments.h"
#include "pipelines/prepare/check_begins.h"
#include "pipelines/prepare/check_graphs.h"
#include "pipelines/prepare/check_model.h"
#include "pipelines/prepare/check_tokens.h"
#include "pipelines/prepare/check_weights.h"
#include "pipelines/prepare/cuts.h"
#include "pipelines/prepare/hashes.h"
#include "pipelines/prepare/look.h"
#include "pipelines/prepare/prepare.h"
#include "proto/err.h"
#include "proto/h5file.h"
#include "proto/options.h"

enum {
    BLOCK_BYTES = 4 << 20,
    CLASSES_MAX = 65536,
    CLASSES_SHOWN = 20,
    HASHES_MAX = 8 << 20, /* 64 MiB of them */
};

struct split {
    const char *group;
    struct look features[H5NAMES_MAX]; /* one, one a timeframe, or none: of graphs */
    uint32_t feature_sets;
    struct look targets;
    int values;                    /* targets are values, else classes */
    int64_t class_low, class_high; /* low > high: no row has one */
    uint64_t *class_rows;          /* [CLASSES_MAX] */
    uint64_t missing;              /* rows without one (model.missing_targets) */
};

struct check {
    struct h5reader *reader;
    const struct options *options;
    struct split split[2]; /* train, validation */
    struct hashes hashes;  /* of the validation rows */
    uint64_t equal, compared;
    char wrong[700]; /* the first thing that makes training impossible */
};

static int loss_takes_classes(const struct options *o)
{
    return strcmp(o->model_loss, "softmax_cross_entropy") == 0;
}

static void wrong_note(struct check *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void wrong_note(struct check *c, const char *format, ...)
{
    va_list args;
    if (c->wrong[0])
        return;
    va_start(args, format);
    vsnprintf(c->wrong, sizeof c->wrong, format, args);
    va_end(args);
}

static void class_look(struct check *c, struct split *s, uint64_t row, const unsigned char *at)
{
    double v = look_value(s->targets.array.type, at);
    int64_t class = v >= 9e18 ? INT64_MAX : (int64_t)v;
    if (class < 0 && c->options->missing_targets) {
        s->missing++;
        return;
    }
    s->class_low = class < s->class_low ? class : s->class_low;
    s->class_high = class > s->class_high ? class : s->class_high;
    if (class >= 0 && class < CLASSES_MAX)
        s->class_rows[class]++;
    else
        wrong_note(c,
                   "%s has class %" PRId64 " in row %" PRIu64
                   "; classes are whole numbers from 0 to %d",
                   s->targets.array.name, class, row, CLASSES_MAX - 1);
}

/* ---- a split -------------------------------------------------------------------------------- */

static int set_open(struct check *c, const struct split *s, const char *name, struct look *l,
                    struct err *e)
{
    char path[H5FILE_NAME_MAX + 1];
    if (!h5reader_has(c->reader, check_path(s->group, name, path)))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has no data set %s (data.train and data.validation name the groups, "
                       "data.features and data.targets the sets)",
                       c->options->data_file, path);
    return look_open(l, c->reader, path, e) < 0 ? err_prefix(e, "%s", c->options->data_file) : 0;
}

/* One data set, or those of a group in the order of its attribute timeframes. */
static int features_open(struct check *c, struct split *s, struct err *e)
{
    const char *features = c->options->data_features;
    char path[H5FILE_NAME_MAX + 1];
    struct h5names names = {.count = 1};
    check_path(s->group, features, path);
    int is_group = h5reader_is_group(c->reader, path);
    if (is_group && h5reader_names(c->reader, path, "timeframes", &names, e) < 0)
        return err_prefix(e, "%s", c->options->data_file);
    for (int i = 0; i < names.count; i++) {
        const char *name = is_group ? check_path(features, names.name[i], path) : features;
        if (set_open(c, s, name, &s->features[s->feature_sets++], e) < 0)
            return -1;
    }
    return 0;
}

static int shapes_check(struct check *c, struct split *s, struct err *e)
{
    const struct h5array *y = &s->targets.array;
    int floats = y->type == H5TYPE_F16 || y->type == H5TYPE_F32 || y->type == H5TYPE_F64;
    s->values = floats || !loss_takes_classes(c->options);
    if (!s->values && s->targets.row_values != 1)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s in %s is not one whole number a row, the class, nor float values (type "
                       "%s, rank %d)",
                       y->name, c->options->data_file, h5type_name(y->type), y->rank);
    for (uint32_t i = 0; i < s->feature_sets; i++) {
        const struct h5array *x = &s->features[i].array;
        if (x->rank < 2)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s in %s has 1 dimension; expected [N, F] values", x->name,
                           c->options->data_file);
        if (x->dims[0] != y->dims[0])
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s in %s has %" PRIu64 " rows and %s %" PRIu64 "; expected as many",
                           x->name, c->options->data_file, x->dims[0], y->name, y->dims[0]);
    }
    return 0;
}

static int targets_open(struct check *c, struct split *s, const char *name, struct err *e)
{
    if (set_open(c, s, name, &s->targets, e) < 0 || shapes_check(c, s, e) < 0)
        return -1;
    s->class_rows = calloc(CLASSES_MAX, sizeof *s->class_rows);
    if (!s->class_rows)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot check %s", c->options->data_file);
    s->class_low = INT64_MAX;
    s->class_high = INT64_MIN;
    return 0;
}

static int split_describe(struct check *c, struct split *s, struct err *e)
{
    return features_open(c, s, e) < 0 ? -1 : targets_open(c, s, c->options->data_targets, e);
}

/* A row whose features were read: is it in the other part, too? */
static void row_compare(struct check *c, const struct split *s, uint64_t index, int keep)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < s->feature_sets; i++)
        hash = look_hash(&s->features[i], index, hash);
    if (keep) {
        hashes_add(&c->hashes, hash);
    } else if (hashes_comparable(&c->hashes, hash)) {
        c->compared++;
        c->equal += (uint64_t)hashes_has(&c->hashes, hash);
    }
}

static int block_read(struct check *c, struct split *s, uint64_t first, uint64_t rows, int keep,
                      struct err *e)
{
    for (uint32_t i = 0; i < s->feature_sets; i++)
        if (look_read(&s->features[i], c->reader, first, rows, e) < 0)
            return -1;
    if (look_read(&s->targets, c->reader, first, rows, e) < 0)
        return -1;
    for (uint64_t i = 0; i < rows; i++) {
        if (s->feature_sets)
            row_compare(c, s, i, keep);
        if (!s->values)
            class_look(c, s, first + i, s->targets.block + i * s->targets.row_bytes);
    }
    return 0;
}

static int split_read(struct check *c, struct split *s, int keep, struct err *e)
{
    uint64_t row_bytes = s->targets.row_bytes, all = s->targets.array.dims[0];
    for (uint32_t i = 0; i < s->feature_sets; i++)
        row_bytes += s->features[i].row_bytes;
    uint64_t rows_max = row_bytes < BLOCK_BYTES ? BLOCK_BYTES / row_bytes : 1;
    for (uint32_t i = 0; i < s->feature_sets; i++)
        if (look_room(&s->features[i], rows_max, e) < 0)
            return -1;
    if (look_room(&s->targets, rows_max, e) < 0)
        return -1;
    for (uint64_t row = 0, rows; row < all; row += rows) {
        rows = all - row < rows_max ? all - row : rows_max;
        if (block_read(c, s, row, rows, keep, e) < 0)
            return -1;
    }
    return 0;
}

static void split_close(struct split *s)
{
    for (uint32_t i = 0; i < s->feature_sets; i++)
        look_close(&s->features[i]);
    look_close(&s->targets);
    free(s->class_rows);
}

/* ---- what is printed ------------------------------------------------------------------------ */

static void features_print(const struct split *s)
{
    for (uint32_t i = 0; i < s->feature_sets; i++) {
        look_print_shape(&s->features[i]);
        look_print_range(&s->features[i]);
        look_print_constant(&s->features[i]);
    }
}

static void classes_print(const struct split *s)
{
    uint64_t present = 0;
    for (int i = 0; i < CLASSES_MAX; i++)
        present += s->class_rows[i] > 0;
    look_print_shape(&s->targets);
    if (s->class_low <= s->class_high)
        printf(", values %" PRId64 " to %" PRId64, s->class_low, s->class_high);
    if (s->missing)
        printf(", missing %" PRIu64, s->missing);
    printf(", %" PRIu64 " classes\n    rows a class:", present);
    for (int i = 0, shown = 0; i < CLASSES_MAX && shown < CLASSES_SHOWN; i++)
        if (s->class_rows[i])
            printf("%s %d: %" PRIu64, shown++ ? "," : "", i, s->class_rows[i]);
    printf("%s\n", present > CLASSES_SHOWN ? ", ..." : "");
}

static void targets_print(const struct split *s)
{
    if (!s->values) {
        classes_print(s);
        return;
    }
    look_print_shape(&s->targets);
    look_print_range(&s->targets);
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

/* ---- together ------------------------------------------------------------------------------- */

static void finite_judge(struct check *c, const struct look *l)
{
    if (l->nan + l->infinite)
        wrong_note(c,
                   "%s has values that are no finite float32, first in row %" PRIu64
                   "; training stops at such a row",
                   l->array.name, l->first_bad);
}

static void probabilities_judge(struct check *c, const struct look *l)
{
    for (uint64_t k = 0; k < l->row_values; k++)
        if (l->low[k] < 0 || l->high[k] > 1)
            wrong_note(c,
                       "%s has values from %g to %g in column %" PRIu64
                       ", and the loss of model.loss, %s, takes 0 to 1",
                       l->array.name, l->low[k], l->high[k], k, c->options->model_loss);
}

static void targets_judge(struct check *c, const struct split *s)
{
    uint64_t outputs = check_model_outputs(c->options);
    int classes = loss_takes_classes(c->options);
    if (s->targets.infinite || !c->options->missing_targets)
        finite_judge(c, &s->targets);
    if (s->values && classes)
        wrong_note(c, "%s has float values, and the loss of model.loss, %s, needs classes",
                   s->targets.array.name, c->options->model_loss);
    if (!classes && outputs && s->targets.row_values != outputs)
        wrong_note(c,
                   "%s has %" PRIu64 " values a row and the model %" PRIu64
                   " outputs; with the loss of model.loss, %s, its last layer needs out: %" PRIu64,
                   s->targets.array.name, s->targets.row_values, outputs, c->options->model_loss,
                   s->targets.row_values);
    if (strcmp(c->options->model_loss, "binary_cross_entropy") == 0)
        probabilities_judge(c, &s->targets);
    if (classes && !s->values && outputs && s->class_high >= (int64_t)outputs)
        wrong_note(c,
                   "%s has classes up to %" PRId64 " and the model %" PRIu64
                   " outputs; its last layer needs out: %" PRId64,
                   s->targets.array.name, s->class_high, outputs, s->class_high + 1);
}

static void splits_judge(struct check *c)
{
    const struct split *train = &c->split[0], *other = &c->split[1];
    for (int i = 0; i < 2; i++) {
        for (uint32_t k = 0; k < c->split[i].feature_sets; k++)
            finite_judge(c, &c->split[i].features[k]);
        targets_judge(c, &c->split[i]);
    }
    if (train->feature_sets != other->feature_sets)
        wrong_note(c, "%s has %u timeframes and %s %u; expected as many", train->group,
                   train->feature_sets, other->group, other->feature_sets);
    for (uint32_t k = 0; k < train->feature_sets && k < other->feature_sets; k++) {
        const struct look *x = &train->features[k], *y = &other->features[k];
        if (x->row_values != y->row_values)
            wrong_note(c, "%s has %" PRIu64 " values a row and %s %" PRIu64 "; expected as many",
                       x->array.name, x->row_values, y->array.name, y->row_values);
    }
}

/* Of graphs: their targets are looked at and judged as those of rows. */
static int graphs_read(struct check *c, struct split *s, struct err *wrong, struct err *e)
{
    char path[H5FILE_NAME_MAX + 1];
    if (check_graphs(c->reader, s->group, wrong, e) < 0)
        return -1;
    if (!h5reader_has(c->reader, check_path(s->group, "targets", path)))
        return 0; /* which *wrong says */
    if (targets_open(c, s, "targets", e) < 0 || split_read(c, s, 0, e) < 0)
        return -1;
    targets_print(s);
    targets_judge(c, s);
    return 0;
}

static int tokens_read(struct check *c, const struct split *s, struct err *wrong, struct err *e)
{
    const struct options *o = c->options;
    const struct tokens_wanted wanted = {
        .window = o->data_window,
        .stateful = o->data_stateful,
        .tokens = check_model_tokens(o),
        .outputs = loss_takes_classes(o) ? check_model_outputs(o) : 0,
    };
    return check_tokens(c->reader, s->group, &wanted, wrong, e);
}

/* Files of another layout than dense. */
static int ragged_run(struct check *c, int graphs, struct err *e)
{
    struct err wrong = {0};
    const struct options *o = c->options;
    printf("%s\n", o->data_file);
    for (int i = 0; i < 2; i++) {
        struct split *s = &c->split[i];
        if ((graphs ? graphs_read(c, s, &wrong, e) : tokens_read(c, s, &wrong, e)) < 0 ||
            check_weights(c->reader, o, s->group, graphs ? "targets" : "tokens",
                          graphs ? 0 : o->data_window, &wrong, e) < 0)
            return err_prefix(e, "%s", o->data_file);
    }
    fflush(stdout);
    if (wrong.code)
        return err_set(e, EXIT_CODE_PERMANENT, "%s", wrong.text);
    return c->wrong[0] ? err_set(e, EXIT_CODE_PERMANENT, "%s", c->wrong) : 0;
}

static int check_run(struct check *c, struct err *e)
{
    struct err wrong = {0};
    if (hashes_open(&c->hashes, HASHES_MAX, e) < 0 ||
        h5reader_open(&c->reader, c->options->data_file, e) < 0)
        return -1;
    if (check_tokens_has(c->reader, c->split[0].group))
        return ragged_run(c, 0, e);
    if (check_graphs_has(c->reader, c->split[0].group))
        return ragged_run(c, 1, e);
    if (split_describe(c, &c->split[0], e) < 0 || split_describe(c, &c->split[1], e) < 0 ||
        split_read(c, &c->split[1], 1, e) < 0)
        return -1;
    hashes_seal(&c->hashes);
    if (split_read(c, &c->split[0], 0, e) < 0)
        return -1;
    printf("%s\n", c->options->data_file);
    for (int i = 0; i < 2; i++) {
        features_print(&c->split[i]);
        targets_print(&c->split[i]);
        if (check_weights(c->reader, c->options, c->split[i].group, c->options->data_targets, 0,
                          &wrong, e) < 0 ||
            check_begins(c->reader, c->options, c->split[i].group,
                         c->split[i].targets.array.dims[0], e) < 0)
            return err_prefix(e, "%s", c->options->data_file);
    }
    equal_print(c);
    fflush(stdout);
    splits_judge(c);
    if (wrong.code)
        wrong_note(c, "%s", wrong.text);
    return c->wrong[0] ? err_set(e, EXIT_CODE_PERMANENT, "%s", c->wrong) : 0;
}

static const char help[] =
    "usage: prepare check --config FILE [--set SECTION.KEY=VALUE]...\n\n"
    "Reads data.file once and prints per split: shapes, types, ranges, NaN and infinite values,\n"
    "constant features, rows of each class or range of the target values, range of the weights,\n"
    "rows that begin (data.stateful), and how many training rows are in the validation part too;\n"
    "of graphs and tokens how large they are. Ends with 100 and a sentence if training is\n"
    "impossible, or if the files of the tasks have other columns or classes.\n\n"
    "  --config FILE              pipeline file\n"
    "  --set SECTION.KEY=VALUE    change one option; repeatable, later ones win\n"
    "  --help                     this\n\n"
    "example: prepare check --config mine.yaml\n";

int prepare_check(int argc, char **argv)
{
    static struct options o;
    static struct check c;
    struct arguments a;
    struct err e = {0};
    int result = arguments_parse(&a, argc, argv, ARGUMENTS_PLAIN, &e);
    if (result == 0 && a.help) {
        fputs(help, stdout);
        return EXIT_CODE_DONE;
    }
    if (result == 0)
        result = options_read(&o, a.config, a.set, a.set_count, &e);
    if (result == 0) {
        memset(&c, 0, sizeof c);
        c.options = &o;
        c.split[0].group = o.data_train;
        c.split[1].group = o.data_validation;
        result = check_run(&c, &e) < 0 ? -1 : alike_check(&o, &e);
        h5reader_close(&c.reader);
        for (int i = 0; i < 2; i++)
            split_close(&c.split[i]);
        hashes_close(&c.hashes);
        options_free(&o);
    }
    if (result == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "prepare check: %s\n", e.text);
    return e.code;
}
