/* own.c - `prepare csv` and `prepare npy`: a user's table becomes the dense HDF5 file, once.
 *
 * The file is left alone while its stamp (the options of the section prepare; names, sizes and
 * times of the sources) is what it was. A file that prepare did not make is never replaced.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "pipelines/prepare/arguments.h"
#include "pipelines/prepare/prepare.h"
#include "pipelines/prepare/table.h"
#include "proto/err.h"
#include "proto/h5file.h"
#include "proto/options.h"

/* What must differ for a rebuild: a line of options, then the source's own. */
static int stamp_write(char *stamp, size_t bytes, const struct table_source *s,
                       const struct options *o, struct err *e)
{
    int used = snprintf(stamp, bytes,
                        "%s target=%s header=%s delimiter=%s missing=%s fraction=%.17g split=%s "
                        "seed=%llu normalise=%s\n%s",
                        s->command, o->prepare_target, o->prepare_header, o->prepare_delimiter,
                        o->prepare_missing, o->prepare_validation_fraction, o->prepare_split,
                        (unsigned long long)o->prepare_split_seed, o->prepare_normalise, s->stamp);
    return used < (int)bytes ? 0
                             : err_set(e, EXIT_CODE_PERMANENT, "the sources' names are too long");
}

/* 1: `out` was made so; 0: it is to be made; -1: it is something else, which stays. */
static int cache_is_current(const char *out, const char *stamp, struct err *e)
{
    struct h5reader *r = NULL;
    struct stat st;
    char old[TABLE_TEXT_MAX] = "";
    if (stat(out, &st) != 0)
        return 0;
    int ours = h5reader_open(&r, out, e) == 0 &&
               h5reader_text(r, "", "source_stamp", old, sizeof old, e) == 0;
    h5reader_close(&r);
    if (!ours)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is there and was not made by prepare, so it is not replaced; choose "
                       "another data.file, or remove it",
                       out);
    return strcmp(old, stamp) == 0;
}

static int table_make(struct table_source *s, const struct options *o, const struct arguments *a,
                      struct err *e)
{
    char stamp[TABLE_TEXT_MAX];
    if (stamp_write(stamp, sizeof stamp, s, o, e) < 0)
        return -1;
    int current = cache_is_current(a->out, stamp, e);
    if (current < 0)
        return -1;
    if (current && !a->rebuild) {
        fprintf(stderr, "prepare %s: %s is up to date\n", s->command, a->out);
        return 0;
    }
    return table_convert(s, o, a->out, stamp, e);
}

static const char help[] =
    "usage: prepare %s --config FILE --out FILE [--set SECTION.KEY=VALUE]... [--rebuild]\n\n"
    "%s\n\n"
    "  --config FILE              pipeline file: data.source and the section prepare are used\n"
    "  --out FILE                 HDF5 file to make; left alone if it was made from the same\n"
    "                             source with the same options\n"
    "  --set SECTION.KEY=VALUE    change one option; repeatable, later ones win\n"
    "  --rebuild                  make it again in any case\n"
    "  --help                     this\n\n"
    "example: prepare %s --config mine.yaml --out runs/cache/mine.h5\n";

static int command(int argc, char **argv, const char *name, const char *does,
                   int (*open)(struct table_source **, const struct options *, struct err *))
{
    static struct options o;
    struct arguments a;
    struct err e = {0};
    struct table_source *s = NULL;
    int result = arguments_parse(&a, argc, argv, 1, &e);
    if (result == 0 && a.help) {
        printf(help, name, does, name);
        return EXIT_CODE_DONE;
    }
    if (result == 0)
        result = options_read(&o, a.config, a.set, a.set_count, &e);
    if (result == 0) {
        if (!o.data_source[0])
            result = err_set(&e, EXIT_CODE_PERMANENT, "data.source is missing in %s", a.config);
        if (result == 0)
            result = open(&s, &o, &e);
        if (result == 0)
            result = table_make(s, &o, &a, &e);
        if (s)
            s->close(s);
        options_free(&o);
    }
    if (result == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "prepare %s: %s\n", name, e.text);
    return e.code;
}

int prepare_csv(int argc, char **argv)
{
    return command(argc, argv, "csv",
                   "Turns a table as text (data.source) into one HDF5 file: groups train and "
                   "validation, each\nwith features [N, F] and targets [N], the class numbers.",
                   table_csv_open);
}

int prepare_npy(int argc, char **argv)
{
    return command(argc, argv, "npy",
                   "Turns features.npy [N, ...] and targets.npy [N] of the directory data.source "
                   "into one HDF5\nfile: groups train and validation, each with features [N, F] "
                   "and targets [N].",
                   table_npy_open);
}
