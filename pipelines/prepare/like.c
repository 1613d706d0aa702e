/* like.c - see like.h. */
#include "pipelines/prepare/like.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/csv.h"
#include "proto/h5file.h"

enum { FEATURES_MAX = 1 << 20 }; /* as table.h's TABLE_VALUES_MAX */

/* One of normalise/'s arrays in new memory. */
static int numbers_read(struct like *l, struct h5reader *r, const char *name, double **numbers,
                        struct err *e)
{
    struct h5array a;
    if (h5reader_array(r, name, &a, e) < 0)
        return -1;
    if (a.type != H5TYPE_F64 || a.rank != 1 || a.dims[0] != l->features)
        return err_set(e, EXIT_CODE_PERMANENT, "%s of %s is not a number for each of %u features",
                       name, l->path, l->features);
    *numbers = malloc(l->features * sizeof **numbers);
    if (!*numbers)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", l->path);
    return h5reader_read(r, &a, *numbers, e);
}

/* The shapes of the rows that evaluate: every file of these commands has some. */
static int shapes_read(struct like *l, struct h5reader *r, struct err *e)
{
    struct h5array features, targets;
    uint64_t classes = 0;
    if (h5reader_array(r, "validation/features", &features, e) < 0 ||
        h5reader_array(r, "validation/targets", &targets, e) < 0)
        return -1;
    if (features.rank != 2 || features.dims[1] > FEATURES_MAX || targets.rank > 2 ||
        (targets.rank == 2 && targets.dims[1] > FEATURES_MAX))
        return err_set(e, EXIT_CODE_PERMANENT, "its features or targets are of another shape");
    l->features = (uint32_t)features.dims[1];
    l->targets = targets.rank == 2 ? (uint32_t)targets.dims[1] : 0;
    if (!l->targets && h5reader_u64(r, "", "class_count", &classes, e) < 0)
        return -1;
    l->classes = (uint32_t)classes;
    return h5reader_text(r, "", "fingerprint", l->fingerprint, sizeof l->fingerprint, e);
}

int like_read(struct like *l, const char *path, struct err *e)
{
    struct h5reader *r = NULL;
    int result = -1;
    *l = (struct like){0};
    if (!*path)
        return 0;
    l->path = strdup(path);
    if (!l->path)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", path);
    if (h5reader_open(&r, path, e) < 0 || shapes_read(l, r, e) < 0)
        goto out;
    l->class_names = h5reader_text_new(r, "classes");
    l->columns = h5reader_text_new(r, "columns");
    result = 0;
    if (h5reader_has(r, "normalise"))
        result = numbers_read(l, r, "normalise/mean", &l->mean, e) < 0 ||
                         numbers_read(l, r, "normalise/standard_deviation", &l->deviation, e) < 0
                     ? -1
                     : 0;
out:
    h5reader_close(&r);
    return result == 0
               ? 0
               : err_prefix(e, "prepare.like: %s is no file of `prepare csv` or `npy`", path);
}

void like_close(struct like *l)
{
    free(l->path);
    free(l->class_names);
    free(l->columns);
    free(l->mean);
    free(l->deviation);
    *l = (struct like){0};
}

int like_has_class(const struct like *l, const char *text)
{
    size_t bytes = strlen(text);
    for (const char *at = l->class_names; at && *at;) {
        size_t length = strcspn(at, "\n");
        if (length == bytes && memcmp(at, text, bytes) == 0)
            return 1;
        at += length + (at[length] == '\n');
    }
    return 0;
}

/* 1 and the line at *at, which becomes the next one, NULL behind the last; 0: there was none. */
static int line_take(const char **at, char *line, size_t bytes)
{
    *line = 0;
    if (!*at)
        return 0;
    size_t length = strcspn(*at, "\n");
    snprintf(line, bytes, "%.*s", (int)(length < bytes ? length : bytes - 1), *at);
    *at = (*at)[length] ? *at + length + 1 : NULL;
    return 1;
}

uint32_t like_names_differ(const char *ours, const char *theirs, char a[CSV_SHOWN_BYTES],
                           char b[CSV_SHOWN_BYTES])
{
    char name_a[256], name_b[256];
    uint32_t i = 0;
    while (line_take(&ours, name_a, sizeof name_a) == line_take(&theirs, name_b, sizeof name_b) &&
           strcmp(name_a, name_b) == 0 && (ours || theirs))
        i++;
    csv_show(name_a, a);
    csv_show(name_b, b);
    return i;
}

static int count_refuse(const struct like *l, const char *source, uint32_t features,
                        const char *names, struct err *e)
{
    char a[CSV_SHOWN_BYTES], b[CSV_SHOWN_BYTES], first[160] = "";
    if (l->columns && names) {
        uint32_t i = like_names_differ(l->columns, names, a, b);
        snprintf(first, sizeof first, "; feature %u is \"%s\" there%s%s%s", i, a,
                 b[0] ? " and \"" : " and not here", b, b[0] ? "\" here" : "");
        if (!a[0])
            snprintf(first, sizeof first, "; \"%s\" is none of those", b);
    }
    return err_set(e, EXIT_CODE_PERMANENT, "%s has %u features a row, %s (prepare.like) has %u%s",
                   source, features, l->path, l->features, first);
}

int like_check(const struct like *l, const char *source, uint32_t features, const char *names,
               struct err *e)
{
    char a[CSV_SHOWN_BYTES], b[CSV_SHOWN_BYTES];
    if (!l->path)
        return 0;
    if (features != l->features)
        return count_refuse(l, source, features, names, e);
    if (!l->columns || !names || strcmp(l->columns, names) == 0)
        return 0;
    uint32_t i = like_names_differ(l->columns, names, a, b);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "feature %u of %s is \"%s\", of %s (prepare.like) \"%s\"; the columns must be "
                   "the same, in the same order",
                   i, source, b, l->path, a);
}
