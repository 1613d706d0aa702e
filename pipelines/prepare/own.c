/* own.c - `prepare csv`, `npy` and `molecules`: a user's source becomes an HDF5 file, once.
 *
 * The file is left alone while its stamp (the options of the section prepare; names, sizes and
 * times of the sources) is what it was. A file that prepare did not make is never replaced.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "pipelines/prepare/arguments.h"
#include "pipelines/prepare/molecules.h"
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

/* 1: `out` is what would be made; 0: make it; -1. */
static int up_to_date(const char *command, const char *stamp, const struct arguments *a,
                      struct err *e)
{
    int current = cache_is_current(a->out, stamp, e);
    if (current > 0 && !a->rebuild)
        fprintf(stderr, "prepare %s: %s is up to date\n", command, a->out);
    return current > 0 ? !a->rebuild : current;
}

/* The source is closed afterwards. */
static int table_make(struct table_source *s, const struct options *o, const struct arguments *a,
                      struct err *e)
{
    char stamp[TABLE_TEXT_MAX];
    int result = stamp_write(stamp, sizeof stamp, s, o, e);
    if (result == 0)
        result = up_to_date(s->command, stamp, a, e);
    if (result == 0)
        result = table_convert(s, o, a->out, stamp, e);
    s->close(s);
    return result < 0 ? -1 : 0;
}

static int csv_make(const struct options *o, const struct arguments *a, struct err *e)
{
    struct table_source *s;
    return table_csv_open(&s, o, e) < 0 ? -1 : table_make(s, o, a, e);
}

static int npy_make(const struct options *o, const struct arguments *a, struct err *e)
{
    struct table_source *s;
    return table_npy_open(&s, o, e) < 0 ? -1 : table_make(s, o, a, e);
}

static int molecules_make(const struct options *o, const struct arguments *a, struct err *e)
{
    char stamp[MOLECULES_STAMP_MAX];
    int result = molecules_stamp(o, stamp, e);
    if (result == 0)
        result = up_to_date("molecules", stamp, a, e);
    if (result == 0)
        result = molecules_convert(o, a->out, stamp, e);
    return result < 0 ? -1 : 0;
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
                   int (*make)(const struct options *, const struct arguments *, struct err *))
{
    static struct options o;
    struct arguments a;
    struct err e = {0};
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
            result = make(&o, &a, &e);
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
                   csv_make);
}

int prepare_npy(int argc, char **argv)
{
    return command(argc, argv, "npy",
                   "Turns features.npy [N, ...] and targets.npy [N] of the directory data.source "
                   "into one HDF5\nfile: groups train and validation, each with features [N, F] "
                   "and targets [N].",
                   npy_make);
}

int prepare_molecules(int argc, char **argv)
{
    return command(argc, argv, "molecules",
                   "Turns molecules into graphs: MassBank records (a file, also compressed with "
                   "zstd, or a directory\nof .txt files) with their spectra as targets, or a "
                   "table with a column of SMILES with numbers\nabout the molecule. Groups train "
                   "and validation, each with node_features, edge_index,\nedge_features, "
                   "node_ptr, edge_ptr and targets. No molecule is in both.",
                   molecules_make);
}
