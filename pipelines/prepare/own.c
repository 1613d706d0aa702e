/* own.c - see own.h. */
#include "pipelines/prepare/own.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/arguments.h"
#include "pipelines/prepare/place.h"

/* Is `out` empty, or does it begin as HDF5 files do? Then it may be ours, cut short or damaged. */
static int may_be_ours(const char *out)
{
    static const char signature[] = "\211HDF\r\n\032\n";
    char begin[sizeof signature - 1];
    FILE *f = fopen(out, "rb");
    if (!f)
        return 0;
    size_t bytes = fread(begin, 1, sizeof begin, f);
    int ours = !ferror(f) &&
               (bytes == 0 || (bytes == sizeof begin && memcmp(begin, signature, bytes) == 0));
    fclose(f);
    return ours;
}

/* `out` is there and cannot be read, for the reason in *e. */
static int unreadable_judge(const char *out, int rebuild, struct err *e)
{
    if (e->code != EXIT_CODE_PERMANENT)
        return -1;
    if (!may_be_ours(out))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is there and was not made by prepare, so it is not replaced; choose "
                       "another data.file, or remove it",
                       out);
    if (rebuild)
        return 0;
    struct err reason = *e;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s is damaged (%s); if prepare made it, --rebuild (of finetune.sh: "
                   "--rebuild-cache) replaces it, else choose another data.file",
                   out, reason.text);
}

/* Two sources may agree in what a stamp says of them; and a link may lead to another one. */
static const char *source_name(const char *source, char absolute[PATH_MAX])
{
    return realpath(source, absolute) ? absolute : source;
}

int own_is_current(const char *out, const char *source, const char *stamp, int rebuild,
                   struct err *e)
{
    struct h5reader *r = NULL;
    struct stat st;
    char old[OWN_STAMP_BYTES] = "", old_source[PATH_MAX], absolute[PATH_MAX];
    if (stat(out, &st) != 0)
        return 0;
    if (h5reader_open(&r, out, e) < 0)
        return unreadable_judge(out, rebuild, e);
    int ours = h5reader_text(r, "", "source_stamp", old, sizeof old, e) == 0;
    int same_source = ours &&
                      h5reader_text(r, "", "source", old_source, sizeof old_source, e) == 0 &&
                      strcmp(old_source, source_name(source, absolute)) == 0;
    h5reader_close(&r);
    if (!ours)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is there and was not made by prepare (it is HDF5 without the attribute "
                       "source_stamp), so it is not replaced; choose another data.file, or remove "
                       "it",
                       out);
    return !rebuild && same_source && strcmp(old, stamp) == 0;
}

static int file_make(const struct maker *m, void *self, const struct arguments *a,
                     const char *source, struct err *e)
{
    char stamp[OWN_STAMP_BYTES];
    int used = snprintf(stamp, sizeof stamp, "%s: ", m->version);
    if (m->stamp(self, stamp + used, sizeof stamp - (size_t)used, e) < 0)
        return -1;
    int current = own_is_current(a->out, source, stamp, a->rebuild, e);
    if (current < 0)
        return -1;
    if (current) {
        fprintf(stderr, "prepare %s: %s is up to date\n", m->name, a->out);
        return 0;
    }
    return place_ready(a->out, e) < 0 ? -1 : m->make(self, a->out, stamp, e);
}

static const char help[] =
    "usage: prepare %s --config FILE --out FILE [--task NAME] [--set SECTION.KEY=VALUE]...\n"
    "       [--rebuild]\n\n"
    "%s\n\n"
    "  --config FILE              pipeline file: data.source and the section prepare are used\n"
    "  --out FILE                 HDF5 file to make; left alone if it was made from the same\n"
    "                             source with the same options\n"
    "  --task NAME                make it of what this task says of its data (tasks[].source ...)\n"
    "                             where it differs from the run\n"
    "  --set SECTION.KEY=VALUE    change one option; repeatable, later ones win\n"
    "  --rebuild                  make it again in any case\n"
    "  --help                     this\n\n"
    "example: prepare %s --config mine.yaml --out runs/cache/mine.h5\n";

/* The options that count: the run's, or with --task those of that task. */
static int view_choose(const struct options *o, const struct arguments *a, struct options *view,
                       struct err *e)
{
    *view = *o;
    if (a->task) {
        int task = options_task(o, a->task);
        if (task < 0)
            return err_set(e, EXIT_CODE_PERMANENT, "%s has no task \"%.63s\"", a->config, a->task);
        options_of_task(o, (uint32_t)task, view);
    }
    return view->data_source[0]
               ? 0
               : err_set(e, EXIT_CODE_PERMANENT, "data.source is missing in %s", a->config);
}

int own_prepare(int argc, char **argv, const struct maker *m)
{
    static struct options o, view; /* large */
    struct arguments a;
    struct err e = {0};
    void *self = NULL;
    int result = arguments_parse(&a, argc, argv, ARGUMENTS_OUT, &e);
    if (result == 0 && a.help) {
        printf(help, m->name, m->does, m->name);
        return EXIT_CODE_DONE;
    }
    if (result == 0)
        result = options_read(&o, a.config, a.set, a.set_count, &e);
    if (result == 0) {
        result = view_choose(&o, &a, &view, &e);
        if (result == 0)
            result = m->open(&self, &view, &e);
        if (result == 0) {
            result = file_make(m, self, &a, view.data_source, &e);
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

void own_digest_options(struct digest *d, const char *stamp)
{
    digest_bytes(d, stamp, strcspn(stamp, "\n"));
}

int own_attributes(struct h5writer *w, struct digest **d_p, const char *source, const char *stamp,
                   const char *layout, struct err *e)
{
    char hex[65], absolute[PATH_MAX];
    digest_close(d_p, hex);
    return h5writer_text(w, "", "fingerprint", hex, e) < 0 ||
                   h5writer_text(w, "", "source", source_name(source, absolute), e) < 0 ||
                   h5writer_text(w, "", "source_stamp", stamp, e) < 0 ||
                   h5writer_text(w, "", "layout", layout, e) < 0
               ? -1
               : 0;
}
