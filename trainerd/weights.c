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

static const char parameters[] = "parameters/";

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
    snprintf(t->name, sizeof t->name, "%s", array->name + strlen(parameters));
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
        checkpoint_read(w->path, meta, NULL, 0, 0, e) < 0 ||
        h5reader_open(&w->reader, w->path, e) < 0)
        goto out;
    result = h5reader_each(w->reader, "parameters", array_list, w, e);
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
        uint16_t u16;
        uint32_t u32;
        float f32;
        double f64;
    } v = {0};
    memcpy(&v, at, safetensors_type_bytes(type));
    switch (type) {
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
    snprintf(name, sizeof name, "%s%.*s", parameters, (int)(sizeof name - sizeof parameters),
             t->name);
    if (h5reader_array(w->reader, name, &array, e) < 0)
        return -1;
    if (array.type != H5TYPE_F32 || array.bytes != t->end)
        return err_set(e, EXIT_CODE_PERMANENT, "%s of %s changed while it was read", name, w->path);
    return h5reader_read(w->reader, &array, out, e);
}

int weights_read(const struct weights *w, const struct safetensor *t, float *out, struct err *e)
{
    enum safetensors_type type = t->type;
    if (type != SAFETENSORS_F16 && type != SAFETENSORS_BF16 && type != SAFETENSORS_F32 &&
        type != SAFETENSORS_F64)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "tensor %s of %s is of type %s; accepted: F16, BF16, F32, F64", t->name,
                       w->path, safetensors_type_name(type));
    if ((w->reader ? checkpoint_array_read(w, t, out, e) : foreign_read(w, t, out, e)) < 0)
        return -1;
    for (uint64_t i = 0; i < safetensor_items(t); i++)
        if (!isfinite(out[i]))
            return err_set(e, EXIT_CODE_PERMANENT,
                           "tensor %s of %s holds %g at place %" PRIu64
                           ", which is no weight of float32",
                           t->name, w->path, (double)out[i], i);
    return 0;
}
