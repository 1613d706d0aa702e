/* own.c - see own.h. */
#include "pipelines/prepare/own.h"

#include <stdio.h>
#include <string.h>

#include "pipelines/prepare/arguments.h"

/* 1: `out` was made so; 0: it is to be made; -1: it is something else, which stays. */
static int cache_is_current(const char *out, const char *stamp, struct err *e)
{
    struct h5reader *r = NULL;
    struct stat st;
    char old[OWN_STAMP_BYTES] = "";
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

static int file_make(const struct maker *m, void *self, const struct arguments *a, struct err *e)
{
    char stamp[OWN_STAMP_BYTES];
    if (m->stamp(self, stamp, sizeof stamp, e) < 0)
        return -1;
    int current = cache_is_current(a->out, stamp, e);
    if (current < 0)
        return -1;
    if (current && !a->rebuild) {
        fprintf(stderr, "prepare %s: %s is up to date\n", m->name, a->out);
        return 0;
    }
    return m->make(self, a->out, stamp, e);
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

int own_prepare(int argc, char **argv, const struct maker *m)
{
    static struct options o;
    struct arguments a;
    struct err e = {0};
    void *self = NULL;
    int result = arguments_parse(&a, argc, argv, 1, &e);
    if (result == 0 && a.help) {
        printf(help, m->name, m->does, m->name);
        return EXIT_CODE_DONE;
    }
    if (result == 0)
        result = options_read(&o, a.config, a.set, a.set_count, &e);
    if (result == 0) {
        if (!o.data_source[0])
            result = err_set(&e, EXIT_CODE_PERMANENT, "data.source is missing in %s", a.config);
        if (result == 0)
            result = m->open(&self, &o, &e);
        if (result == 0) {
            result = file_make(m, self, &a, &e);
            m->close(self);
        }
        options_free(&o);
    }
    if (result == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "prepare %s: %s\n", m->name, e.text);
    return e.code;
}

void own_stamp_file(char *line, size_t bytes, const char *path, const struct stat *st)
{
    const char *slash = strrchr(path, '/');
    snprintf(line, bytes, "%.300s %lld %lld.%09ld", slash ? slash + 1 : path,
             (long long)st->st_size, (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

void own_digest_options(struct digest *d, const char *version, const char *stamp)
{
    digest_bytes(d, version, strlen(version) + 1);
    digest_bytes(d, stamp, strcspn(stamp, "\n"));
}

int own_attributes(struct h5writer *w, struct digest **d_p, const char *source, const char *stamp,
                   const char *layout, struct err *e)
{
    char hex[65];
    digest_close(d_p, hex);
    return h5writer_text(w, "", "fingerprint", hex, e) < 0 ||
                   h5writer_text(w, "", "source", source, e) < 0 ||
                   h5writer_text(w, "", "source_stamp", stamp, e) < 0 ||
                   h5writer_text(w, "", "layout", layout, e) < 0
               ? -1
               : 0;
}
