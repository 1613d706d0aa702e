/* table_npy.c - NumPy's features.npy and targets.npy as a source of rows.
 *
 * features [N, ...] of any number of dimensions become [N, F]; targets are whole numbers [N] or
 * [N, 1], or values [N, ...] that become [N, K] (prepare.task). New rows like those of another file
 * (prepare.like) need no targets.npy. Blocks of rows are read by pread.
 */
#include "pipelines/prepare/table.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipelines/prepare/npy.h"

enum { BLOCK_BYTES = 1 << 20 };

struct source {
    struct table_source base; /* first: what callers see */
    struct npy features, targets;
    struct digest *digest;
    uint64_t row, block_first, block_rows, block_rows_max;
    unsigned char *block, *block_targets;
    int drop;
    char label[24];
};

static int source_begin(struct table_source *base, struct digest *digest, struct err *e)
{
    struct source *s = (struct source *)base;
    (void)e;
    s->row = s->block_first = s->block_rows = 0;
    s->digest = digest;
    base->dropped = 0;
    if (digest) { /* equal bytes of another shape or type are other data */
        digest_array(digest, "features", H5TYPE_U8, 0, NULL, &s->features.kind);
        digest_bytes(digest, &s->features.size, sizeof s->features.size);
        digest_bytes(digest, s->features.dims, sizeof s->features.dims);
    }
    if (digest && !base->unlabelled) {
        digest_bytes(digest, &s->targets.kind, sizeof s->targets.kind);
        digest_bytes(digest, &s->targets.size, sizeof s->targets.size);
    }
    return 0;
}

static int block_read(struct source *s, struct err *e)
{
    s->block_first = s->row;
    s->block_rows = s->features.dims[0] - s->row;
    if (s->block_rows > s->block_rows_max)
        s->block_rows = s->block_rows_max;
    if (npy_read(&s->features, s->row, s->block_rows, s->block, e) < 0)
        return -1;
    if (s->digest)
        digest_bytes(s->digest, s->block, s->block_rows * s->features.row_bytes);
    if (s->base.unlabelled)
        return 0;
    if (npy_read(&s->targets, s->row, s->block_rows, s->block_targets, e) < 0)
        return -1;
    if (s->digest)
        digest_bytes(s->digest, s->block_targets, s->block_rows * s->targets.row_bytes);
    return 0;
}

/* What is accepted instead of a NaN. */
static const char *remedy(const struct source *s, int target)
{
    if (s->base.like.path)
        return "; new rows (prepare.like) are told apart by their number, so that none is left "
               "out: each needs all of its features";
    return target ? ", or prepare.missing: drop to leave such rows out, or model.missing_targets: "
                    "true to keep them"
                  : ", or prepare.missing: drop to leave such rows out";
}

/* Row `row` of an array whose block begins at `block`. 1; 0: the row is to be dropped; -1. A target
 * may be missing where that is said. */
static int values_convert(const struct source *s, const struct npy *n, const unsigned char *block,
                          uint64_t row, double *values, struct err *e)
{
    const unsigned char *at = block + (row - s->block_first) * n->row_bytes;
    for (uint64_t i = 0; i < n->row_values; i++, at += n->size) {
        values[i] = npy_value(n, at);
        int target = n == &s->targets;
        if (fabs(values[i]) <= FLT_MAX || (target && s->base.keeps_missing && isnan(values[i])))
            continue;
        if (s->drop && isnan(values[i]))
            return 0;
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: row %" PRIu64 ", value %" PRIu64 " is %s; expected a finite float32%s",
                       n->path, row, i, isnan(values[i]) ? "NaN" : "too large or infinite",
                       isnan(values[i]) ? remedy(s, target) : "");
    }
    return 1;
}

static int row_convert(const struct source *s, uint64_t row, double *values, struct err *e)
{
    int whole = values_convert(s, &s->features, s->block, row, values, e);
    if (whole == 1 && s->base.targets)
        whole = values_convert(s, &s->targets, s->block_targets, row, values + s->base.features, e);
    return whole;
}

/* NULL: a class below 0 where classes may be missing, unless the file that is followed has it. */
static const char *label_write(struct source *s, uint64_t row)
{
    const unsigned char *at = s->block_targets + (row - s->block_first) * s->targets.row_bytes;
    uint64_t raw = 0;
    memcpy(&raw, at, s->targets.size);
    unsigned unused = 64 - 8 * s->targets.size;
    if (s->targets.kind == 'i')
        snprintf(s->label, sizeof s->label, "%" PRId64, (int64_t)(raw << unused) >> unused);
    else
        snprintf(s->label, sizeof s->label, "%" PRIu64, raw);
    int none = s->base.keeps_missing && s->label[0] == '-';
    return none && !like_has_class(&s->base.like, s->label) ? NULL : s->label;
}

static int source_next(struct table_source *base, double *values, const char **label, struct err *e)
{
    struct source *s = (struct source *)base;
    for (; s->row < s->features.dims[0]; base->dropped++) {
        if (s->row == s->block_first + s->block_rows && block_read(s, e) < 0)
            return -1;
        uint64_t row = s->row++;
        int whole = row_convert(s, row, values, e);
        if (whole < 0)
            return -1;
        if (!whole)
            continue;
        if (!base->unlabelled)
            *label = label_write(s, row);
        base->share = (double)s->row / (double)s->features.dims[0];
        return 1;
    }
    if (seen_check(&s->features.seen, s->features.path, e) < 0)
        return -1;
    return base->unlabelled ? 0 : seen_check(&s->targets.seen, s->targets.path, e);
}

static void source_where(const struct table_source *base, char *text, size_t bytes)
{
    const struct source *s = (const struct source *)base;
    snprintf(text, bytes, "row %" PRIu64, s->row - 1);
}

static void source_close(struct table_source *base)
{
    struct source *s = (struct source *)base;
    npy_close(&s->features);
    npy_close(&s->targets);
    like_close(&s->base.like);
    free(s->block);
    free(s->block_targets);
    free(s);
}

static int shapes_check(struct source *s, struct err *e)
{
    const struct npy *x = &s->features, *y = &s->targets;
    int values = strcmp(s->base.options->prepare_task, "values") == 0;
    if (x->row_values < 1 || x->row_values > TABLE_VALUES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %" PRIu64 " values a row; accepted are 1 to %d", x->path,
                       x->row_values, TABLE_VALUES_MAX);
    if (s->base.unlabelled)
        return 0;
    if (values && (y->row_values < 1 || y->row_values > TABLE_VALUES_MAX))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %" PRIu64 " values a row; accepted are 1 to %d", y->path,
                       y->row_values, TABLE_VALUES_MAX);
    if (!values && (y->kind == 'f' || y->row_values != 1))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %" PRIu64
                       " values of type %c%u a row; expected one whole number, the class (or "
                       "prepare.task: values)",
                       y->path, y->row_values, y->kind, y->size);
    if (x->dims[0] != y->dims[0])
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %" PRIu64 " rows and targets.npy %" PRIu64 "; expected as many",
                       x->path, x->dims[0], y->dims[0]);
    return 0;
}

static int array_path(const char *directory, const char *name, char path[PATH_MAX], struct err *e)
{
    if (snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT, "data.source has more than %d bytes", PATH_MAX - 32);
}

static int array_open(struct source *s, struct npy *n, const char *directory, const char *name,
                      struct err *e)
{
    char path[PATH_MAX];
    struct stat st;
    if (array_path(directory, name, path, e) < 0 || npy_open(n, path, e) < 0)
        return -1;
    if (fstat(n->fd, &st) != 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", path);
    size_t used = strlen(s->base.stamp);
    if (used)
        s->base.stamp[used++] = '\n';
    own_stamp_file(s->base.stamp + used, sizeof s->base.stamp - used, name, &st);
    return 0;
}

static int arrays_open(struct source *s, const struct options *o, struct err *e)
{
    char targets[PATH_MAX];
    if (array_path(o->data_source, "targets.npy", targets, e) < 0 ||
        array_open(s, &s->features, o->data_source, "features.npy", e) < 0)
        return -1;
    s->base.unlabelled = s->base.like.path && access(targets, F_OK) != 0;
    if (!s->base.unlabelled && array_open(s, &s->targets, o->data_source, "targets.npy", e) < 0)
        return -1;
    return shapes_check(s, e);
}

static int blocks_make(struct source *s, struct err *e)
{
    s->block_rows_max = BLOCK_BYTES / s->features.row_bytes;
    if (s->block_rows_max < 1)
        s->block_rows_max = 1;
    s->block = malloc(s->block_rows_max * s->features.row_bytes);
    if (!s->base.unlabelled)
        s->block_targets = malloc(s->block_rows_max * s->targets.row_bytes);
    return s->block && (s->block_targets || s->base.unlabelled)
               ? 0
               : err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", s->base.path);
}

int table_npy_open(struct table_source **s_p, const struct options *o, struct err *e)
{
    struct source *s = calloc(1, sizeof *s);
    *s_p = NULL;
    if (!s)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", o->data_source);
    s->base = (struct table_source){.command = "npy",
                                    .path = o->data_source,
                                    .options = o,
                                    .keeps_missing = table_keeps_missing(o),
                                    .begin = source_begin,
                                    .next = source_next,
                                    .where = source_where,
                                    .close = source_close};
    s->drop = table_drops(o);
    if (like_read(&s->base.like, o->prepare_like, e) < 0 || arrays_open(s, o, e) < 0 ||
        like_check(&s->base.like, s->features.path, (uint32_t)s->features.row_values, NULL, e) <
            0 ||
        blocks_make(s, e) < 0) {
        source_close(&s->base);
        return -1;
    }
    s->base.features = (uint32_t)s->features.row_values;
    if (strcmp(o->prepare_task, "values") == 0 && !s->base.unlabelled)
        s->base.targets = (uint32_t)s->targets.row_values;
    *s_p = &s->base;
    return 0;
}
