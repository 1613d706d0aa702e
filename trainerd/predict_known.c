/* predict_known.c - `trainerd --predict`: what is known of rows and outputs beside the numbers. The
 * names of classes and targets are those of the data that the model was trained on (--like); the
 * moments of the rows come from where the rows come from, by way of `prepare times` (--times).
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/h5file.h"
#include "trainerd/predict_private.h"

/* One output that tells two classes apart is the probability of class 1, and not p_0. */
static char *one_of_two(const struct predictor *p, struct h5reader *r)
{
    uint64_t classes;
    struct err none;
    const struct model *m = &p->t.model;
    if (strcmp(m->loss, "binary_cross_entropy") != 0 || m->outputs != 1 ||
        h5reader_u64(r, "", "class_count", &classes, &none) < 0)
        return NULL;
    const char *second = p->class_names ? strchr(p->class_names, '\n') : NULL;
    return second ? strndup(second + 1, strcspn(second + 1, "\n")) : strdup("p_1");
}

static int names_read(struct predictor *p, struct err *e)
{
    struct h5reader *r = NULL;
    int result = h5reader_open(&r, p->like, e);
    if (result == 0) {
        p->class_names = h5reader_text_new(r, "classes");
        p->target_names = h5reader_text_new(r, "target_columns"); /* of a table */
        if (!p->target_names)
            p->target_names = h5reader_text_new(r, "target_names"); /* of molecules and bars */
        if (!p->target_names)
            p->target_names = one_of_two(p, r);
    }
    h5reader_close(&r);
    return result;
}

static int times_open(struct predictor *p, uint64_t batch_rows, struct err *e)
{
    struct stat st;
    const struct feed *f = &p->t.validation;
    uint64_t rows = f->info.order.rows;
    p->times_fd = open(p->times, O_RDONLY | O_CLOEXEC);
    if (p->times_fd < 0 || fstat(p->times_fd, &st) < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read the times of the rows in %s",
                         p->times);
    if ((uint64_t)st.st_size != rows * sizeof *p->moments)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s of %s has %" PRIu64 " rows and %" PRIu64 " times; expected one for each",
                       f->config.split, f->config.file, rows,
                       (uint64_t)st.st_size / sizeof *p->moments);
    p->moments = malloc(batch_rows * sizeof *p->moments);
    return p->moments ? 0 : err_set(e, EXIT_CODE_TEMPORARY, "no memory for the times of a batch");
}

/* What prepare names is its data set `targets`; a run may learn another one of the file. */
int known_open(struct predictor *p, uint64_t batch_rows, struct err *e)
{
    int named = p->like && strcmp(p->of_run.data_targets, "targets") == 0;
    if ((named && names_read(p, e) < 0) || (p->times && times_open(p, batch_rows, e) < 0))
        return -1;
    p->known = (struct predictions_known){p->class_names, p->target_names, p->times != NULL};
    return 0;
}

int known_add(struct predictor *p, const float *outputs, uint64_t first, uint64_t rows,
              struct err *e)
{
    uint64_t bytes = rows * sizeof *p->moments, at = first * sizeof *p->moments;
    if (p->times && pread(p->times_fd, p->moments, bytes, (off_t)at) != (ssize_t)bytes)
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot read the times of the rows in %s", p->times);
    return predictions_add(p->predictions, outputs, p->moments, rows, e);
}

void known_close(struct predictor *p)
{
    if (p->times_fd >= 0)
        close(p->times_fd);
    p->times_fd = -1;
    free(p->class_names);
    free(p->target_names);
    free(p->moments);
    p->class_names = p->target_names = NULL;
    p->moments = NULL;
}
