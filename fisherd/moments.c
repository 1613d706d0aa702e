/* moments.c - see moments.h: arrays that trainerd writes in one piece are read where they lie. */
#include "fisherd/moments.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/checkpoint.h"

static int offsets_find(struct moments *m, const char *path, struct err *e)
{
    struct h5reader *r = NULL;
    int found = 0, result = h5reader_open(&r, path, e);
    for (uint32_t i = 0; result == 0 && i < m->model->tensor_count; i++) {
        const struct tensor_info *t = &m->model->tensors[i];
        struct h5array a;
        char name[H5FILE_NAME_MAX + 1];
        snprintf(name, sizeof name, "moments/v/%s", t->name);
        if (!h5reader_has(r, "moments/v") || !h5reader_has(r, name))
            continue;
        result = h5reader_array(r, name, &a, e);
        if (result == 0 && (a.type != H5TYPE_F32 || a.bytes != t->count * sizeof(float) ||
                            a.file_offset == UINT64_MAX))
            result = err_set(e, EXIT_CODE_PERMANENT,
                             "%s of checkpoint %s is not what trainerd writes of this model", name,
                             path);
        m->offsets[i] = a.file_offset;
        found = 1;
    }
    h5reader_close(&r);
    if (result == 0 && !found)
        result = err_set(e, EXIT_CODE_PERMANENT,
                         "checkpoint %s has no second moments, which the estimator adam takes the "
                         "Fisher information from; accepted: one of a task trained with adamw",
                         path);
    return result;
}

static int factor_find(struct moments *m, const char *path, const char *sha256, double beta2,
                       uint64_t batch_rows, struct err *e)
{
    struct checkpoint_meta *meta = malloc(sizeof *meta);
    if (!meta)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read checkpoint %s", path);
    int result = checkpoint_read(path, meta, NULL, 0, 1, e);
    uint64_t steps = result == 0 ? meta->moment_steps : 0;
    if (result == 0 && strcmp(meta->parameters_sha256, sha256) != 0)
        result = err_set(e, EXIT_CODE_PERMANENT,
                         "checkpoint %s holds the parameters %s, the job is about %s", path,
                         meta->parameters_sha256, sha256);
    else if (result == 0 && steps == 0)
        result = err_set(
            e, EXIT_CODE_PERMANENT,
            "checkpoint %s is not of a task's end, or of one without a step of the optimizer; the "
            "estimator adam takes the Fisher information from its second moments",
            path);
    else if (result == 0)
        m->factor = (double)batch_rows / (1 - pow(beta2, (double)steps));
    free(meta);
    return result;
}

int moments_open(struct moments *m, const char *path, const char *sha256, const struct model *model,
                 double beta2, uint64_t batch_rows, struct err *e)
{
    *m = (struct moments){.model = model, .fd = -1};
    m->offsets = calloc(model->tensor_count, sizeof *m->offsets);
    if (!m->offsets)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read checkpoint %s", path);
    if (factor_find(m, path, sha256, beta2, batch_rows, e) < 0 || offsets_find(m, path, e) < 0)
        return -1;
    m->fd = open(path, O_RDONLY | O_CLOEXEC);
    return m->fd < 0 ? err_errno(e, EXIT_CODE_TEMPORARY, "cannot open checkpoint %s", path) : 0;
}

void moments_close(struct moments *m)
{
    if (m->offsets && m->fd >= 0)
        close(m->fd);
    free(m->offsets);
    memset(m, 0, sizeof *m);
}

static int bytes_read(int fd, char *to, uint64_t bytes, uint64_t at, struct err *e)
{
    while (bytes > 0) {
        ssize_t got = pread(fd, to, bytes, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            return err_set(e, EXIT_CODE_PERMANENT, "a checkpoint ends inside of its moments");
        if (got < 0)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read a checkpoint's moments");
        to += got;
        at += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return 0;
}

int moments_read(const struct moments *m, uint64_t first, uint64_t count, float *values,
                 struct err *e)
{
    memset(values, 0, count * sizeof *values);
    for (uint32_t i = 0; i < m->model->tensor_count; i++) {
        const struct tensor_info *t = &m->model->tensors[i];
        uint64_t from = t->first > first ? t->first : first;
        uint64_t to = t->first + t->count < first + count ? t->first + t->count : first + count;
        if (from >= to || !m->offsets[i])
            continue;
        if (bytes_read(m->fd, (char *)(values + (from - first)), (to - from) * sizeof *values,
                       m->offsets[i] + (from - t->first) * sizeof *values, e) < 0)
            return -1;
    }
    for (uint64_t i = 0; i < count; i++)
        values[i] = (float)(m->factor * (double)values[i]);
    return 0;
}
