/* predictions.c - see predictions.h. */
#include "trainerd/predictions.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

struct predictions {
    const char *path;
    const struct model *model;
    int has_classes, has_probabilities;
    uint64_t steps, width; /* of a row; outputs of one of them */
    float *probabilities;  /* [batch_rows, steps, width] */
    uint32_t *classes;     /* [batch_rows, steps] */
    uint64_t row;          /* next */
    char *names;           /* of classes, each with a NUL behind it; NULL: they have none */
    const char **name;     /* [name_count], in it */
    uint32_t name_count;
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

static int csv_header(struct predictions *p, struct err *e)
{
    TEXT_ADD(p, "row%s%s%s", p->steps > 1 ? ",step" : "", p->has_classes ? ",class" : "",
             p->names ? ",name" : "");
    for (uint64_t k = 0; k < p->width; k++) {
        if (text_reserve(p, e) < 0)
            return -1;
        TEXT_ADD(p, ",%c_%" PRIu64, p->has_probabilities ? 'p' : 'y', k);
    }
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

/* The class's name as one more field. */
static int csv_name(struct predictions *p, uint32_t class, struct err *e)
{
    const char *name = class < p->name_count ? p->name[class] : "";
    int quoted = name[strcspn(name, ",\"\r\n")] != 0;
    if (bytes_reserve(p, 2 * strlen(name) + 4, e) < 0)
        return -1;
    p->text[p->used++] = ',';
    if (quoted)
        p->text[p->used++] = '"';
    for (; *name; name++) {
        if (*name == '"')
            p->text[p->used++] = '"';
        p->text[p->used++] = *name;
    }
    if (quoted)
        p->text[p->used++] = '"';
    return 0;
}

static int csv_row(struct predictions *p, uint64_t step, const float *numbers, uint32_t class,
                   struct err *e)
{
    if (text_reserve(p, e) < 0)
        return -1;
    TEXT_ADD(p, "%" PRIu64, p->row);
    if (p->steps > 1 && text_reserve(p, e) < 0)
        return -1;
    if (p->steps > 1)
        TEXT_ADD(p, ",%" PRIu64, step);
    if (p->has_classes && text_reserve(p, e) < 0)
        return -1;
    if (p->has_classes)
        TEXT_ADD(p, ",%u", class);
    if (p->names && csv_name(p, class, e) < 0)
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

/* Cut the list into names. */
static int names_keep(struct predictions *p, const char *list)
{
    uint32_t count = 1;
    for (const char *at = list; *at; at++)
        count += *at == '\n';
    p->names = strdup(list);
    p->name = calloc(count, sizeof *p->name);
    char *rest = p->names;
    while (p->name && rest)
        p->name[p->name_count++] = strsep(&rest, "\n");
    return p->names && p->name ? 0 : -1;
}

static int h5_open(struct predictions *p, const char *names, uint64_t rows, uint64_t batch_rows,
                   struct err *e)
{
    const uint64_t dims[3] = {rows, p->steps > 1 ? p->steps : p->width, p->width};
    int rank = p->steps > 1 ? 3 : 2;
    uint64_t chunk = batch_rows < rows ? batch_rows : rows;
    if (h5writer_open(&p->h5, p->path, e) < 0 ||
        (names && h5writer_text(p->h5, "", "class_names", names, e) < 0) ||
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
                     const char *class_names, uint64_t rows, uint64_t batch_rows, struct err *e)
{
    struct predictions *p = *p_p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory to write %s", path);
    p->path = path;
    p->model = m;
    p->fd = -1;
    p->has_classes = !loss_type_named(m->loss)->values;
    p->has_probabilities = scores_has_probabilities(m);
    p->steps = m->target_steps;
    p->width = m->outputs / m->target_steps;
    p->classes = calloc(batch_rows, p->steps * sizeof *p->classes);
    p->probabilities = calloc(batch_rows, m->outputs * sizeof *p->probabilities);
    const char *names = p->has_classes ? class_names : NULL;
    int result = p->classes && p->probabilities && (!names || names_keep(p, names) == 0)
                     ? predictions_name_check(path, e)
                     : err_set(e, EXIT_CODE_TEMPORARY, "no memory to write %s", path);
    if (result == 0)
        result = ends_with(path, ".csv") ? csv_open(p, e) : h5_open(p, names, rows, batch_rows, e);
    if (result < 0)
        predictions_abandon(p_p);
    return result;
}

static int h5_add(struct predictions *p, const float *outputs, uint64_t rows, struct err *e)
{
    if (h5writer_rows_append(p->h5, "outputs", outputs, rows, e) < 0)
        return -1;
    if (p->has_probabilities &&
        h5writer_rows_append(p->h5, "probabilities", p->probabilities, rows, e) < 0)
        return -1;
    return p->has_classes ? h5writer_rows_append(p->h5, "classes", p->classes, rows, e) : 0;
}

int predictions_add(struct predictions *p, const float *outputs, uint64_t rows, struct err *e)
{
    const float *shown = p->has_probabilities ? p->probabilities : outputs;
    for (uint64_t i = 0; i < rows * p->steps; i++) {
        p->classes[i] = scores_class(outputs + i * p->width, p->width);
        if (p->has_probabilities)
            scores_probabilities(p->model, outputs + i * p->width, p->probabilities + i * p->width);
    }
    if (p->h5)
        return h5_add(p, outputs, rows, e);
    for (uint64_t i = 0; i < rows * p->steps; i++) {
        if (csv_row(p, i % p->steps, shown + i * p->width, p->classes[i], e) < 0)
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
    free(p->names);
    free(p->name);
    free(p);
    *p_p = NULL;
}
