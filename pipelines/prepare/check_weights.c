/* check_weights.c - see check_weights.h. The targets are read a second time, beside their weights:
 * they are little next to the features. */
#include "pipelines/prepare/check_weights.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "pipelines/prepare/cuts.h"
#include "pipelines/prepare/look.h"
#include "proto/weighing.h"

enum { BLOCK_BYTES = 4 << 20 };

struct weighed {
    struct look targets, weights;
    int weighted, missing, classes; /* missing: a NaN, or with classes one below 0, is none */
    uint64_t window;                /* targets are tokens, and a row so many of them; else 0 */
    uint64_t counted;
    int refused; /* a weight is refused_weight, in row refused_row first */
    uint64_t refused_row;
    double refused_weight;
};

static double value_at(const struct look *l, uint64_t row, uint64_t k)
{
    return look_value(l->array.type,
                      l->block + row * l->row_bytes + k * h5type_bytes(l->array.type));
}

static int weights_open(struct weighed *w, struct h5reader *r, const struct options *o,
                        const char *group, struct err *e)
{
    char path[H5FILE_NAME_MAX + 1];
    const struct h5array *a = &w->weights.array, *y = &w->targets.array;
    if (weighing_name_check(o->data_weights, e) < 0)
        return -1;
    if (!h5reader_has(r, check_path(group, o->data_weights, path))) {
        weighing_absent(o->data_weights, e);
        return err_prefix(e, "%s", group);
    }
    if (look_open(&w->weights, r, path, e) < 0 ||
        weighing_count_check(a->name, a->dims[0], y->dims[0], w->window > 0, e) < 0)
        return -1;
    if (a->rank > (w->window ? 1 : 2))
        return err_set(e, EXIT_CODE_PERMANENT, "%s has %d dimensions; expected %s", a->name,
                       a->rank, w->window ? WEIGHING_OF_TOKENS : WEIGHING_OF_ROWS);
    w->weighted = 1;
    return weighing_width_check(w->weights.row_values, w->targets.row_values, e) < 0
               ? err_prefix(e, "%s", group)
               : 0;
}

/* Is number `row` of the targets one that is predicted, so that its weight is looked at? Of tokens
 * the first is only read, and those behind the last whole row are neither. */
static int is_target(const struct weighed *w, uint64_t row)
{
    uint64_t all = w->targets.array.dims[0];
    return !w->window || (row > 0 && row <= (all - 1) / w->window * w->window);
}

static void row_count(struct weighed *w, uint64_t row, uint64_t index)
{
    uint64_t width = w->weighted ? w->weights.row_values : 0;
    if (!is_target(w, row))
        return;
    for (uint64_t k = 0; k < width && !w->refused; k++) {
        double weight = value_at(&w->weights, index, k);
        if (weight >= 0 && isfinite(weight))
            continue;
        w->refused = 1;
        w->refused_row = row;
        w->refused_weight = weight;
    }
    for (uint64_t k = 0; k < w->targets.row_values; k++) {
        double y = value_at(&w->targets, index, k);
        int there = !w->missing || (w->classes ? y >= 0 : !isnan(y));
        w->counted += there && (!width || value_at(&w->weights, index, width > 1 ? k : 0) > 0);
    }
}

static int rows_read(struct weighed *w, struct h5reader *r, struct err *e)
{
    uint64_t row_bytes = w->targets.row_bytes + w->weights.row_bytes;
    uint64_t all = w->targets.array.dims[0];
    uint64_t most = row_bytes < BLOCK_BYTES ? BLOCK_BYTES / row_bytes : 1;
    if (look_room(&w->targets, most, e) < 0 || (w->weighted && look_room(&w->weights, most, e) < 0))
        return -1;
    for (uint64_t row = 0, rows; row < all; row += rows) {
        rows = all - row < most ? all - row : most;
        if (look_read(&w->targets, r, row, rows, e) < 0 ||
            (w->weighted && look_read(&w->weights, r, row, rows, e) < 0))
            return -1;
        for (uint64_t i = 0; i < rows; i++)
            row_count(w, row + i, i);
    }
    return 0;
}

static void weighed_judge(const struct weighed *w, const char *group, struct err *wrong)
{
    const struct look *l = &w->weights;
    if (wrong->code)
        return;
    if (w->refused)
        err_set(wrong, EXIT_CODE_PERMANENT,
                "%s has a weight in %s %" PRIu64 " that is %s; accepted: finite numbers from 0 on",
                l->array.name, w->window ? "token" : "row", w->refused_row,
                isfinite(w->refused_weight) ? "negative" : "no finite float32");
    else if (!w->counted) {
        uint64_t all = w->targets.array.dims[0];
        weighing_nothing(w->window ? (all - 1) / w->window : all, wrong);
        err_prefix(wrong, "%s", group);
    }
}

int check_weights(struct h5reader *r, const struct options *o, const char *group,
                  const char *targets, uint64_t window, struct err *wrong, struct err *e)
{
    struct weighed w = {.missing = o->missing_targets,
                        .window = window,
                        .classes = strcmp(o->model_loss, "softmax_cross_entropy") == 0};
    char path[H5FILE_NAME_MAX + 1];
    if ((!o->data_weights[0] && !o->missing_targets) ||
        !h5reader_has(r, check_path(group, targets, path)))
        return 0;
    int result = look_open(&w.targets, r, path, e) < 0 ||
                         (o->data_weights[0] && weights_open(&w, r, o, group, e) < 0) ||
                         rows_read(&w, r, e) < 0
                     ? -1
                     : 0;
    if (result == 0 && w.weighted) {
        look_print_shape(&w.weights);
        look_print_range(&w.weights);
    }
    if (result == 0)
        weighed_judge(&w, group, wrong);
    look_close(&w.targets);
    look_close(&w.weights);
    return result;
}
