/* table_command.c - `prepare csv` and `prepare npy`: a user's table becomes the dense HDF5 file. */
#include <stdio.h>

#include "pipelines/prepare/own.h"
#include "pipelines/prepare/prepare.h"
#include "pipelines/prepare/table.h"

static int csv_open_source(void **self_p, const struct options *o, struct err *e)
{
    return table_csv_open((struct table_source **)self_p, o, e);
}

static int npy_open_source(void **self_p, const struct options *o, struct err *e)
{
    return table_npy_open((struct table_source **)self_p, o, e);
}

static int stamp_write(void *self, char *stamp, size_t bytes, struct err *e)
{
    const struct table_source *s = self;
    const struct options *o = s->options;
    int used = snprintf(stamp, bytes,
                        "%s target=%s task=%s header=%s delimiter=%s missing=%s fraction=%.17g "
                        "split=%s seed=%llu normalise=%s%s%s%s\n%s",
                        s->command, o->prepare_target, o->prepare_task, o->prepare_header,
                        o->prepare_delimiter, o->prepare_missing, o->prepare_validation_fraction,
                        o->prepare_split, (unsigned long long)o->prepare_split_seed,
                        o->prepare_normalise, s->keeps_missing ? " targets=missing" : "",
                        s->like.path ? " like=" : "", s->like.fingerprint, s->stamp);
    return used < (int)bytes ? 0
                             : err_set(e, EXIT_CODE_PERMANENT,
                                       "prepare.target and the sources' names are too long");
}

static int table_make(void *self, const char *out, const char *stamp, struct err *e)
{
    return table_convert(self, out, stamp, e);
}

static void source_close(void *self)
{
    struct table_source *s = self;
    s->close(s);
}

static const struct maker csv = {
    .name = "csv",
    .does = "Turns a table as text (data.source) into one HDF5 file: groups train and validation, "
            "each\nwith features [N, F] and targets: class numbers [N], or values [N, K] "
            "(prepare.task).",
    .version = TABLE_CSV_VERSION,
    .open = csv_open_source,
    .stamp = stamp_write,
    .make = table_make,
    .close = source_close,
};

static const struct maker npy = {
    .name = "npy",
    .does = "Turns features.npy [N, ...] and targets.npy of the directory data.source into one "
            "HDF5 file:\ngroups train and validation, each with features [N, F] and targets: class "
            "numbers [N], or\nvalues [N, K] (prepare.task).",
    .version = TABLE_NPY_VERSION,
    .open = npy_open_source,
    .stamp = stamp_write,
    .make = table_make,
    .close = source_close,
};

int prepare_csv(int argc, char **argv)
{
    return own_prepare(argc, argv, &csv);
}

int prepare_npy(int argc, char **argv)
{
    return own_prepare(argc, argv, &npy);
}
