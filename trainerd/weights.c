/* weights.c - see weights.h. */
#include "trainerd/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/model.h"
#include "engine/scalar.h"
#include "proto/checkpoint.h"

/* Groups of a checkpoint, in the order in which they are listed. */
static const char *const groups[] = {"parameters", "buffers"};
enum { GROUPS = sizeof groups / sizeof groups[0] };

/* Numbers that are converted at a time. */
enum { PIECE = 1 << 16 };

/* SHA-256 of the whole file, and its first 8 bytes. */
static int file_digest(const char *path, char sha256[65], unsigned char head[8], struct err *e)
{
    struct digest *d = NULL;
    ssize_t got = -1;
    uint64_t at = 0;
    char *piece = malloc(PIECE);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || !piece) {
        err_errno(e, EXIT_CODE_PERMANENT, "cannot open %s", path);
        goto out;
    }
    if (digest_open(&d, e) < 0)
        goto out;
    while ((got = pread(fd, piece, PIECE, (off_t)at)) > 0 || (got < 0 && errno == EINTR)) {
        if (got < 0)
            continue;
        if (!at)
            memcpy(head, piece, got < 8 ? (size_t)got : 8);
        digest_bytes(d, piece, (uint64_t)got);
        at += (uint64_t)got;
    }
    if (got < 0)
        err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", path);
    digest_close(&d, sha256);
out:
    if (fd >= 0)
        close(fd);
    free(piece);
    return got < 0 ? -1 : 0;
}

static int array_list(void *self, const struct h5array *array)
{
    struct weights *w = self;
    struct safetensors *s = &w->safetensors;
    if (s->count == s->room)
        return 0; /* CHECKPOINT_TENSORS_MAX: the house writes no more */
    struct safetensor *t = &s->tensors[s->count++];
    snprintf(t->name, sizeof t->name, "%s", strchr(array->name, '/') + 1);
    t->type = SAFETENSORS_F32;
    t->rank = array->rank;
    memcpy(t->dims, array->dims, (size_t)array->rank * sizeof t->dims[0]);
    t->end = array->bytes;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct safetensor *)a)->name, ((const struct safetensor *)b)->name);
}

static int checkpoint_open(struct weights *w, struct err *e)
{
    struct checkpoint_meta *meta = malloc(sizeof *meta);
    struct safetensors *s = &w->safetensors;
    int result = -1;
    w->model = malloc(CHECKPOINT_MODEL_MAX);
    s->tensors = calloc(CHECKPOINT_TENSORS_MAX, sizeof *s->tensors);
    s->room = CHECKPOINT_TENSORS_MAX;
    if (!meta || !w->model || !s->tensors) {
        err_set(e, EXIT_CODE_TEMPORARY, "no memory to read %s", w->path);
        goto out;
    }
    if (checkpoint_read_meta(w->path, meta, w->model, CHECKPOINT_MODEL_MAX, e) < 0 ||
        checkpoint_read(w->path, meta, NULL, 0, 1, e) < 0 ||
        h5reader_open(&w->reader, w->path, e) < 0)
        goto out;
    w->batches_tracked = meta->batches_tracked;
    result = 0;
    for (int i = 0; result == 0 && i < GROUPS; i++)
        if (h5reader_has(w->reader, groups[i]))
            result = h5reader_each(w->reader, groups[i], array_list, w, e);
    qsort(s->tensors, s->count, sizeof *s->tensors, by_name);
out:
    free(meta);
    return result;
}

static int foreign_open(struct weights *w, struct err *e)
{
    if (safetensors_open(&w->safetensors, w->path, e) < 0)
        return -1;
    const char *model = safetensors_metadata(&w->safetensors, "model");
    w->model = model ? strdup(model) : NULL;
    return model && !w->model ? err_set(e, EXIT_CODE_TEMPORARY, "no memory to read %s", w->path)
                              : 0;
}

int weights_open(struct weights *w, const char *path, struct err *e)
{
    static const unsigned char hdf5[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    unsigned char head[8] = {0};
    *w = (struct weights){.path = strdup(path), .safetensors.fd = -1};
    if (!w->path)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory to read %s", path);
    int result = file_digest(path, w->sha256, head, e);
    if (result == 0)
        result = memcmp(head, hdf5, sizeof hdf5) == 0 ? checkpoint_open(w, e) : foreign_open(w, e);
    if (result < 0)
        weights_close(w);
    return result;
}

void weights_close(struct weights *w)
{
    safetensors_close(&w->safetensors);
    h5reader_close(&w->reader);
    free(w->model);
    free(w->path);
    *w = (struct weights){.safetensors.fd = -1};
}

const struct safetensor *weights_find(const struct weights *w, const char *name)
{
    return safetensors_find(&w->safetensors, name);
}

static float number_of(enum safetensors_type type, const char *at)
{
    union {
        int8_t i8;
        uint16_t u16;
        uint32_t u32;
        float f32;
        double f64;
    } v = {0};
    memcpy(&v, at, safetensors_type_bytes(type));
    switch (type) {
    case SAFETENSORS_I8:
        return v.i8;
    case SAFETENSORS_F16:
        return scalar_half(v.u16);
    case SAFETENSORS_BF16: /* the upper half of a float32 */
        v.u32 = (uint32_t)v.u16 << 16;
        return v.f32;
    case SAFETENSORS_F64:
        return (float)v.f64;
    default:
        return v.f32;
    }
}

static int foreign_read(const struct weights *w, const struct safetensor *t, float *out,
                        struct err *e)
{
    uint32_t width = safetensors_type_bytes(t->type);
    uint64_t count = safetensor_items(t);
    char *piece = malloc((size_t)PIECE * width);
    int result = piece ? 0 : err_set(e, EXIT_CODE_TEMPORARY, "no memory to read %s", w->path);
    for (uint64_t at = 0; result == 0 && at < count; at += PIECE) {
        uint64_t n = count - at < PIECE ? count - at : PIECE;
        result = safetensors_read(&w->safetensors, t, at * width, n * width, piece, e);
        for (uint64_t i = 0; result == 0 && i < n; i++)
            out[at + i] = number_of(t->type, piece + i * width);
    }
    free(piece);
    return result;
}

static int checkpoint_array_read(const struct weights *w, const struct safetensor *t, float *out,
                                 struct err *e)
{
    char name[H5FILE_NAME_MAX + 1];
    struct h5array array;
    for (int i = 0; i < GROUPS; i++) {
        snprintf(name, sizeof name, "%s/%.200s", groups[i], t->name);
        if (h5reader_has(w->reader, name))
            break;
    }
    if (h5reader_array(w->reader, name, &array, e) < 0)
        return -1;
    if (array.type != H5TYPE_F32 || array.bytes != t->end)
        return err_set(e, EXIT_CODE_PERMANENT, "%s of %s changed while it was read", name, w->path);
    return h5reader_read(w->reader, &array, out, e);
}

static const char scale_suffix[] = ".scale";

/* The scales that belong to an I8 matrix, or NULL. */
static const struct safetensor *scales_find(const struct weights *w, const struct safetensor *t)
{
    char name[SAFETENSORS_NAME_MAX + sizeof scale_suffix];
    snprintf(name, sizeof name, "%s%s", t->name, scale_suffix);
    const struct safetensor *s = t->type == SAFETENSORS_I8 ? weights_find(w, name) : NULL;
    int fits =
        s && s->type == SAFETENSORS_F32 && s->rank == 1 && t->rank == 2 && s->dims[0] == t->dims[0];
    return fits ? s : NULL;
}

int weights_is_scale(const struct weights *w, const struct safetensor *t)
{
    char name[SAFETENSORS_NAME_MAX + 1];
    size_t length = strlen(t->name), tail = sizeof scale_suffix - 1;
    if (length <= tail || strcmp(t->name + length - tail, scale_suffix) != 0)
        return 0;
    snprintf(name, sizeof name, "%.*s", (int)(length - tail), t->name);
    const struct safetensor *of = weights_find(w, name);
    return of && scales_find(w, of) == t;
}

/* Rows of whole numbers times their scales. */
static int scales_apply(const struct weights *w, const struct safetensor *t,
                        const struct safetensor *s, float *out, struct err *e)
{
    uint64_t rows = t->dims[0], columns = t->dims[1];
    float *scales = malloc((rows ? rows : 1) * sizeof *scales);
    int result = scales ? foreign_read(w, s, scales, e)
                        : err_set(e, EXIT_CODE_TEMPORARY, "no memory to read %s", w->path);
    for (uint64_t r = 0; result == 0 && r < rows; r++)
        for (uint64_t k = 0; k < columns; k++)
            out[r * columns + k] *= scales[r];
    free(scales);
    return result;
}

int weights_read(const struct weights *w, const struct safetensor *t, float *out, struct err *e)
{
    enum safetensors_type type = t->type;
    const struct safetensor *scales = scales_find(w, t);
    if (type != SAFETENSORS_F16 && type != SAFETENSORS_BF16 && type != SAFETENSORS_F32 &&
        type != SAFETENSORS_F64 && !scales)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "tensor %s of %s is of type %s; accepted: F16, BF16, F32, F64, and I8 with "
                       "a tensor %s.scale, F32, one number a row",
                       t->name, w->path, safetensors_type_name(type), t->name);
    if ((w->reader ? checkpoint_array_read(w, t, out, e) : foreign_read(w, t, out, e)) < 0 ||
        (scales && scales_apply(w, t, scales, out, e) < 0))
        return -1;
    for (uint64_t i = 0; i < safetensor_items(t); i++)
        if (!isfinite(out[i]))
            return err_set(e, EXIT_CODE_PERMANENT,
                           "tensor %s of %s holds %g at place %" PRIu64
                           ", which is no weight of float32",
                           t->name, w->path, (double)out[i], i);
    return 0;
}

uint32_t weights_count(const struct model *m)
{
    return m->tensor_count + m->buffer_count;
}

const struct tensor_info *weights_info(const struct model *m, uint32_t i)
{
    return i < m->tensor_count ? &m->tensors[i] : &m->buffers[i - m->tensor_count];
}

float *weights_place(const struct model *m, uint32_t i, float *parameters, float *buffers)
{
    return (i < m->tensor_count ? parameters : buffers) + weights_info(m, i)->first;
}

int weights_fits(const struct safetensor *t, const struct tensor_info *info)
{
    return t->rank == info->rank &&
           memcmp(t->dims, info->dims, (size_t)info->rank * sizeof t->dims[0]) == 0;
}

int weights_load(const struct weights *w, const struct model *m, float *parameters, float *buffers,
                 struct err *e)
{
    for (uint32_t i = 0; i < weights_count(m); i++) {
        const struct tensor_info *info = weights_info(m, i);
        const struct safetensor *t = weights_find(w, info->name);
        if (!t || !weights_fits(t, info))
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s has no tensor %s of the model's shape; pipelines/weights.sh list "
                           "shows what it has",
                           w->path, info->name);
        if (weights_read(w, t, weights_place(m, i, parameters, buffers), e) < 0)
            return -1;
    }
    return 0;
}
