/* predictions.c - see predictions.h. */
#include "trainerd/predictions.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/loss.h"
#include "engine/scores.h"
#include "proto/durable.h"
#include "proto/h5file.h"

enum {
    GZIP_LEVEL = 1,         /* numbers of a network hardly get smaller: what costs least */
    TEXT_BYTES = 1 << 20,   /* of CSV before it is written */
    NUMBER_TEXT_BYTES = 32, /* at most, with what separates it */
};

struct names {
    char *text; /* each with a NUL behind it; NULL: there are none */
    char **at;  /* [count], in it */
    uint64_t count;
};

struct predictions {
    const char *path;
    const struct model *model;
    int has_classes, has_probabilities, has_times;
    uint64_t steps, width; /* of a row; outputs of one of them */
    float *probabilities;  /* [batch_rows, steps, width] */
    uint32_t *classes;     /* [batch_rows, steps] */
    uint64_t row;          /* next */
    struct names classes_named, targets_named;
    struct h5writer *h5; /* NULL: CSV */
    int fd;
    char temporary[4096 + 32];
    char *text; /* TEXT_BYTES */
    size_t used;
    uint64_t written; /* bytes of the file */
};

static int ends_with(const char *path, const char *end)
{
    size_t length = strlen(path), tail = strlen(end);
    return length > tail && strcmp(path + length - tail, end) == 0;
}

int predictions_name_check(const char *path, struct err *e)
{
    if (ends_with(path, ".h5") || ends_with(path, ".hdf5") || ends_with(path, ".csv"))
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "predictions cannot be written as %.200s: accepted are names that end in .h5, "
                   ".hdf5 or .csv",
                   path);
}

/* ---- CSV --------------------------------------------------------------------------------------
 */

static int text_flush(struct predictions *p, struct err *e)
{
    if (durable_pwrite_all(p->fd, p->text, p->used, p->written, p->path, e) < 0)
        return -1;
    p->written += p->used;
    p->used = 0;
    return 0;
}

/* Room for so many bytes more. */
static int bytes_reserve(struct predictions *p, size_t bytes, struct err *e)
{
    return TEXT_BYTES - p->used < bytes ? text_flush(p, e) : 0;
}

/* Room for one more number. */
static int text_reserve(struct predictions *p, struct err *e)
{
    return bytes_reserve(p, NUMBER_TEXT_BYTES, e);
}

#define TEXT_ADD(p, ...)                                                                           \
    ((p)->used += (size_t)snprintf((p)->text + (p)->used, TEXT_BYTES - (p)->used, __VA_ARGS__))

/* One more field, quoted where it must be. */
static int csv_text(struct predictions *p, const char *text, struct err *e)
{
    int quoted = text[strcspn(text, ",\"\r\n")] != 0;
    if (bytes_reserve(p, 2 * strlen(text) + 4, e) < 0)
        return -1;
    p->text[p->used++] = ',';
    if (quoted)
        p->text[p->used++] = '"';
    for (; *text; text++) {
        if (*text == '"')
            p->text[p->used++] = '"';
        p->text[p->used++] = *text;
    }
    if (quoted)
        p->text[p->used++] = '"';
    return 0;
}

/* The name of output k's column where its target has one that no column before it has. */
static const char *column_name(const struct predictions *p, uint64_t k)
{
    const char *name = p->targets_named.text ? p->targets_named.at[k] : "";
    int taken = strcmp(name, "row") == 0 || (p->has_times && strcmp(name, "time") == 0);
    return *name && !taken ? name : NULL;
}

static int csv_header(struct predictions *p, struct err *e)
{
    TEXT_ADD(p, "row%s%s%s%s", p->has_times ? ",time" : "", p->steps > 1 ? ",step" : "",
             p->has_classes ? ",class" : "", p->classes_named.text ? ",name" : "");
    for (uint64_t k = 0; k < p->width; k++) {
        const char *name = column_name(p, k);
        if ((name ? csv_text(p, name, e) : text_reserve(p, e)) < 0)
            return -1;
        if (!name)
            TEXT_ADD(p, ",%c_%" PRIu64, p->has_probabilities ? 'p' : 'y', k);
    }
    if (text_reserve(p, e) < 0)
        return -1;
    TEXT_ADD(p, "\n");
    return 0;
}

static int csv_open(struct predictions *p, struct err *e)
{
    int used = snprintf(p->temporary, sizeof p->temporary, "%s.tmp-%d", p->path, (int)getpid());
    if ((size_t)used >= sizeof p->temporary)
        return err_set(e, EXIT_CODE_PERMANENT, "the path %.60s... is too long", p->path);
    p->text = malloc(TEXT_BYTES);
    if (!p->text)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory to write %s", p->path);
    p->fd = open(p->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (p->fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot make %s", p->path);
    return csv_header(p, e);
}

/* Seconds since 1970, a number where there is no such year. */
static void csv_time(struct predictions *p, int64_t seconds)
{
    struct tm tm;
    time_t moment = (time_t)seconds;
    if (gmtime_r(&moment, &tm))
        p->used += strftime(p->text + p->used, TEXT_BYTES - p->used, ",%Y-%m-%d %H:%M:%S", &tm);
    else
        TEXT_ADD(p, ",%" PRId64, seconds);
}

/* time: NULL without. */
static int csv_row(struct predictions *p, const int64_t *time, uint64_t step, const float *numbers,
                   uint32_t class, struct err *e)
{
    if (text_reserve(p, e) < 0)
        return -1;
    TEXT_ADD(p, "%" PRIu64, p->row);
    if (time && text_reserve(p, e) < 0)
        return -1;
    if (time)
        csv_time(p, *time);
    if (p->steps > 1 && text_reserve(p, e) < 0)
        return -1;
    if (p->steps > 1)
        TEXT_ADD(p, ",%" PRIu64, step);
    if (p->has_classes && text_reserve(p, e) < 0)
        return -1;
    if (p->has_classes)
        TEXT_ADD(p, ",%u", class);
    const struct names *named = &p->classes_named;
    if (named->text && csv_text(p, class < named->count ? named->at[class] : "", e) < 0)
        return -1;
    for (uint64_t k = 0; k < p->width; k++) {
        if (text_reserve(p, e) < 0)
            return -1;
        TEXT_ADD(p, ",%.9g", (double)numbers[k]);
    }
    if (text_reserve(p, e) < 0)
        return -1;
    TEXT_ADD(p, "\n");
    return 0;
}

/* ---- both -------------------------------------------------------------------------------------
 */

/* Cut the list into names; none of it where there is no list. */
static int names_keep(struct names *n, const char *list)
{
    uint64_t count = 1;
    if (!list)
        return 0;
    for (const char *at = list; *at; at++)
        count += *at == '\n';
    n->text = strdup(list);
    n->at = calloc(count, sizeof *n->at);
    for (char *rest = n->text; n->at && rest;)
        n->at[n->count++] = strsep(&rest, "\n");
    return n->text && n->at ? 0 : -1;
}

static void names_free(struct names *n)
{
    free(n->text);
    free(n->at);
    *n = (struct names){0};
}

/* Classes have names, or else targets, if as many as there are outputs. */
static int all_names_keep(struct predictions *p, const struct predictions_known *known)
{
    if (p->has_classes)
        return names_keep(&p->classes_named, known->class_names);
    if (names_keep(&p->targets_named, known->target_names) < 0)
        return -1;
    if (p->targets_named.count != p->width)
        names_free(&p->targets_named);
    return 0;
}

static int h5_names(struct predictions *p, const struct predictions_known *known, struct err *e)
{
    return (p->classes_named.text &&
            h5writer_text(p->h5, "", "class_names", known->class_names, e) < 0) ||
                   (p->targets_named.text &&
                    h5writer_text(p->h5, "", "target_names", known->target_names, e) < 0)
               ? -1
               : 0;
}

static int h5_open(struct predictions *p, const struct predictions_known *known, uint64_t rows,
                   uint64_t batch_rows, struct err *e)
{
    const uint64_t dims[3] = {rows, p->steps > 1 ? p->steps : p->width, p->width};
    int rank = p->steps > 1 ? 3 : 2;
    uint64_t chunk = batch_rows < rows ? batch_rows : rows;
    if (h5writer_open(&p->h5, p->path, e) < 0 || h5_names(p, known, e) < 0 ||
        (p->has_times &&
         h5writer_rows_begin(p->h5, "times", H5TYPE_I64, 1, dims, chunk, GZIP_LEVEL, e) < 0) ||
        h5writer_rows_begin(p->h5, "outputs", H5TYPE_F32, rank, dims, chunk, GZIP_LEVEL, e) < 0)
        return -1;
    if (p->has_probabilities && h5writer_rows_begin(p->h5, "probabilities", H5TYPE_F32, rank, dims,
                                                    chunk, GZIP_LEVEL, e) < 0)
        return -1;
    if (!p->has_classes)
        return 0;
    return h5writer_rows_begin(p->h5, "classes", H5TYPE_U32, rank - 1, dims, chunk, GZIP_LEVEL, e);
}

int predictions_open(struct predictions **p_p, const char *path, const struct model *m,
                     const struct predictions_known *known, uint64_t rows, uint64_t batch_rows,
                     struct err *e)
{
    struct predictions *p = *p_p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory to write %s", path);
    p->path = path;
    p->model = m;
    p->fd = -1;
    p->has_classes = !loss_type_named(m->loss)->values;
    p->has_probabilities = scores_has_probabilities(m);
    p->has_times = known->has_times;
    p->steps = m->target_steps;
    p->width = m->outputs / m->target_steps;
    p->classes = calloc(batch_rows, p->steps * sizeof *p->classes);
    p->probabilities = calloc(batch_rows, m->outputs * sizeof *p->probabilities);
    int result = p->classes && p->probabilities && all_names_keep(p, known) == 0
                     ? predictions_name_check(path, e)
                     : err_set(e, EXIT_CODE_TEMPORARY, "no memory to write %s", path);
    if (result == 0)
        result = ends_with(path, ".csv") ? csv_open(p, e) : h5_open(p, known, rows, batch_rows, e);
    if (result < 0)
        predictions_abandon(p_p);
    return result;
}

static int h5_add(struct predictions *p, const float *outputs, const int64_t *times, uint64_t rows,
                  struct err *e)
{
    if (p->has_times && h5writer_rows_append(p->h5, "times", times, rows, e) < 0)
        return -1;
    if (h5writer_rows_append(p->h5, "outputs", outputs, rows, e) < 0)
        return -1;
    if (p->has_probabilities &&
        h5writer_rows_append(p->h5, "probabilities", p->probabilities, rows, e) < 0)
        return -1;
    return p->has_classes ? h5writer_rows_append(p->h5, "classes", p->classes, rows, e) : 0;
}

int predictions_add(struct predictions *p, const float *outputs, const int64_t *times,
                    uint64_t rows, struct err *e)
{
    const float *shown = p->has_probabilities ? p->probabilities : outputs;
    for (uint64_t i = 0; i < rows * p->steps; i++) {
        p->classes[i] = scores_class(outputs + i * p->width, p->width);
        if (p->has_probabilities)
            scores_probabilities(p->model, outputs + i * p->width, p->probabilities + i * p->width);
    }
    if (p->h5)
        return h5_add(p, outputs, times, rows, e);
    for (uint64_t i = 0; i < rows * p->steps; i++) {
        const int64_t *time = p->has_times ? &times[i / p->steps] : NULL;
        if (csv_row(p, time, i % p->steps, shown + i * p->width, p->classes[i], e) < 0)
            return -1;
        p->row += i % p->steps == p->steps - 1;
    }
    return 0;
}

int predictions_text(struct predictions *p, const char *name, const char *text, struct err *e)
{
    return p->h5 ? h5writer_text(p->h5, "", name, text, e) : 0;
}

int predictions_number(struct predictions *p, const char *name, double value, struct err *e)
{
    return p->h5 ? h5writer_f64(p->h5, "", name, value, e) : 0;
}

static int csv_commit(struct predictions *p, struct err *e)
{
    if (text_flush(p, e) < 0)
        return -1;
    int failed = close(p->fd) < 0;
    p->fd = -1;
    if (failed)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", p->path);
    int result = durable_commit(p->temporary, p->path, e);
    p->temporary[0] = 0; /* it is gone either way */
    return result;
}

int predictions_commit(struct predictions **p_p, struct err *e)
{
    struct predictions *p = *p_p;
    int result = p->h5 ? h5writer_commit(&p->h5, e) : csv_commit(p, e);
    predictions_abandon(p_p);
    return result;
}

void predictions_abandon(struct predictions **p_p)
{
    struct predictions *p = *p_p;
    if (!p)
        return;
    h5writer_abandon(&p->h5);
    if (p->fd >= 0)
        close(p->fd);
    if (p->temporary[0])
        unlink(p->temporary);
    free(p->classes);
    free(p->probabilities);
    free(p->text);
    names_free(&p->classes_named);
    names_free(&p->targets_named);
    free(p);
    *p_p = NULL;
}
