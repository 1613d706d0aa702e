/* checkpoint.c - see checkpoint.h: from the state of training to a durable HDF5 file.
 *
 * One table lists the attributes, so writing, reading (checkpoint_read.c) and the digest cannot
 * disagree. What the digest is over, checkpoint_private.h says. The arrays that it is over, twice
 * as many bytes as the parameters, are digested by a thread of their own while the file is written.
 */
#include "proto/checkpoint_private.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/thread.h"

/* clang-format off */
#define FIELD(kind, name)                                              \
    {#name, CHECKPOINT_FIELD_##kind, offsetof(struct checkpoint_meta, name), \
     sizeof(((struct checkpoint_meta *)0)->name), 0, 0}
#define FIELD_SINCE(version, kind, name)                               \
    {#name, CHECKPOINT_FIELD_##kind, offsetof(struct checkpoint_meta, name), \
     sizeof(((struct checkpoint_meta *)0)->name), version, 0}
#define MEASURED_SINCE(version, kind, name)                            \
    {#name, CHECKPOINT_FIELD_##kind, offsetof(struct checkpoint_meta, name), \
     sizeof(((struct checkpoint_meta *)0)->name), version, 1}
static const struct checkpoint_field fields[] = {
    FIELD(U64, version),
    FIELD(U64, seed),
    FIELD(U64, task),
    FIELD(TEXT, task_name),
    FIELD(U64, epoch),
    FIELD(U64, position),
    FIELD(U64, step),
    FIELD(U64, task_step),
    FIELD(U64, slice_rows),
    FIELD(U64, micro_batch_rows),
    FIELD(U64, threads),
    FIELD(F64, epoch_loss_sum),
    FIELD(F64, best_value),
    FIELD(TEXT, metric),
    FIELD(F64, plateau_best),
    FIELD(F64, plateau_scale),
    FIELD(U64, plateau_bad),
    FIELD(U64, plateau_cooldown),
    FIELD(F64, stop_best),
    FIELD(U64, stop_bad),
    FIELD(U64, average_count),
    FIELD(TEXT, average_sha256),
    FIELD(U64, steps_skipped),
    FIELD(U64, restores),
    FIELD(F64, restore_scale),
    FIELD_SINCE(5, U64, bad_steps),
    FIELD_SINCE(5, U64, epoch_rows_bad),
    FIELD(TEXT, fingerprint),
    FIELD(TEXT, cpu),
    FIELD(TEXT, pretrained_sha256),
    FIELD(TEXT, parameters_sha256),
    FIELD(TEXT, buffers_sha256),
    FIELD(F64, loss_scale),
    FIELD(U64, scale_tracker),
    FIELD(U64, task_skipped),
    FIELD(U64, moment_steps),
    FIELD(U64, batches_tracked),
    MEASURED_SINCE(6, U64, epoch_rows_timed),
    MEASURED_SINCE(6, F64, epoch_seconds),
    MEASURED_SINCE(6, F64, epoch_wait_seconds),
};
#undef FIELD
#undef MEASURED_SINCE
#undef FIELD_SINCE
/* clang-format on */

const struct checkpoint_field *checkpoint_field_next(size_t *i, uint64_t version)
{
    while (*i < sizeof fields / sizeof fields[0]) {
        const struct checkpoint_field *f = &fields[(*i)++];
        if (f->since <= version)
            return f;
    }
    return NULL;
}

/* All results, a line each, fields separated by tabs; the caller frees it. */
static char *results_text(const struct checkpoint_meta *meta)
{
    char *text = malloc(CHECKPOINT_RESULTS_BYTES_MAX + 1);
    size_t used = 0;
    ensure(meta->result_count <= CHECKPOINT_RESULTS_MAX);
    for (uint32_t i = 0; text && i < meta->result_count; i++) {
        const struct checkpoint_result *r = &meta->results[i];
        ensure(!strpbrk(r->task, "\t\n") && !strpbrk(r->after, "\t\n") &&
               !strpbrk(r->metric, "\t\n"));
        int n = snprintf(text + used, CHECKPOINT_RESULTS_BYTES_MAX + 1 - used,
                         "%s\t%s\t%s\t%.17g\t%.17g\t%s\n", r->task, r->after, r->metric, r->value,
                         r->loss, r->weights_sha256);
        ensure(n > 0 && (size_t)n <= CHECKPOINT_RESULTS_BYTES_MAX - used);
        used += (size_t)n;
    }
    if (text)
        text[used] = 0;
    return text;
}

static void digest_text(struct digest *d, const char *name, const char *text)
{
    digest_bytes(d, name, strlen(name));
    digest_bytes(d, "=", 1);
    digest_bytes(d, text, strlen(text));
    digest_bytes(d, "\n", 1);
}

void checkpoint_digest_meta(struct digest *d, const struct checkpoint_meta *meta, const char *model,
                            const char *results)
{
    const struct checkpoint_field *f;
    for (size_t i = 0; (f = checkpoint_field_next(&i, meta->version));) {
        const char *at = (const char *)meta + f->offset;
        char number[32];
        uint64_t bits;
        if (f->measured)
            continue;
        if (f->kind == CHECKPOINT_FIELD_TEXT) {
            digest_text(d, f->name, at);
            continue;
        }
        memcpy(&bits, at, sizeof bits); /* of a double too */
        snprintf(number, sizeof number, "%016" PRIx64, bits);
        digest_text(d, f->name, number);
    }
    digest_text(d, "results", results);
    digest_text(d, "model", model);
}

const char *checkpoint_array_name(char name[H5FILE_NAME_MAX + 1], const char *group,
                                  const struct checkpoint_tensor *t)
{
    snprintf(name, H5FILE_NAME_MAX + 1, "%s/%s", group, t->name);
    return name;
}

#define MEMBER(name) offsetof(struct checkpoint_tensor, name)
#define DIGEST(name) offsetof(struct checkpoint_meta, name)
const struct checkpoint_group *checkpoint_group_at(int i)
{
    static const struct checkpoint_group groups[CHECKPOINT_GROUPS] = {
        [CHECKPOINT_PARAMETERS] = {"parameters", MEMBER(parameter), CHECKPOINT_PARAMETER,
                                   DIGEST(parameters_sha256)},
        [CHECKPOINT_M] = {"moments/m", MEMBER(m), CHECKPOINT_PARAMETER, 0},
        [CHECKPOINT_V] = {"moments/v", MEMBER(v), CHECKPOINT_PARAMETER, 0},
        [CHECKPOINT_BUFFERS] = {"buffers", MEMBER(parameter), CHECKPOINT_BUFFER,
                                DIGEST(buffers_sha256)},
        [CHECKPOINT_CARRY] = {"carried", MEMBER(parameter), CHECKPOINT_CARRIED, 0},
    };
    return i < CHECKPOINT_GROUPS ? &groups[i] : NULL;
}
#undef MEMBER
#undef DIGEST

/* The tensor's numbers in that group; NULL: it has none. */
static const float *array_of(const struct checkpoint_group *group,
                             const struct checkpoint_tensor *t)
{
    return t->kind == group->kind ? *(float *const *)((const char *)t + group->member) : NULL;
}

/* The group's arrays, in file order; returns how many there are. */
static uint32_t group_digest(struct digest *d, const struct checkpoint_group *group,
                             const struct checkpoint_tensor *tensors, uint32_t count)
{
    char name[H5FILE_NAME_MAX + 1];
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        const float *data = array_of(group, &tensors[i]);
        if (data) {
            digest_array(d, checkpoint_array_name(name, group->name, &tensors[i]), H5TYPE_F32,
                         tensors[i].rank, tensors[i].dims, data);
            found++;
        }
    }
    return found;
}

/* Of a group that has one of its own. */
static int group_hex(const struct checkpoint_group *group, const struct checkpoint_tensor *tensors,
                     uint32_t count, char hex[65], struct err *e)
{
    struct digest *d;
    if (digest_open(&d, e) < 0)
        return -1;
    uint32_t found = group_digest(d, group, tensors, count);
    digest_close(&d, hex);
    if (!found)
        memset(hex, 0, 65);
    return 0;
}

int checkpoint_parameters_digest(const struct checkpoint_tensor *tensors, uint32_t count,
                                 char hex[65], struct err *e)
{
    return group_hex(checkpoint_group_at(CHECKPOINT_PARAMETERS), tensors, count, hex, e);
}

static int attributes_write(struct h5writer *w, const struct checkpoint_meta *meta,
                            const char *model, const char *results, struct err *e)
{
    const struct checkpoint_field *f;
    for (size_t i = 0; (f = checkpoint_field_next(&i, meta->version));) {
        const char *name = f->name;
        const void *at = (const char *)meta + f->offset;
        int result = f->kind == CHECKPOINT_FIELD_TEXT ? h5writer_text(w, "", name, at, e)
                     : f->kind == CHECKPOINT_FIELD_U64
                         ? h5writer_u64(w, "", name, *(const uint64_t *)at, e)
                         : h5writer_f64(w, "", name, *(const double *)at, e);
        if (result < 0)
            return -1;
    }
    const uint64_t bytes[1] = {strlen(results)};
    if (h5writer_text(w, "", "model", model, e) < 0)
        return -1;
    return h5writer_array(w, "results", H5TYPE_U8, 1, bytes, results, e);
}

/* All arrays of one group, in order; a group without arrays is left out. */
static int group_write(struct h5writer *w, const struct checkpoint_group *group,
                       const struct checkpoint_tensor *tensors, uint32_t count, struct err *e)
{
    char name[H5FILE_NAME_MAX + 1];
    for (uint32_t i = 0; i < count; i++) {
        const struct checkpoint_tensor *t = &tensors[i];
        const float *data = array_of(group, t);
        if (data && h5writer_array(w, checkpoint_array_name(name, group->name, t), H5TYPE_F32,
                                   t->rank, t->dims, data, e) < 0)
            return -1;
    }
    return 0;
}

/* The state's digest while it comes to be. */
struct digesting {
    struct digest *digest; /* NULL: not begun, or at its end */
    const struct checkpoint_tensor *tensors;
    uint32_t count;
    int by_thread; /* which has the digest until it is joined */
    pthread_t thread;
};

static void *arrays_digest(void *argument)
{
    struct digesting *d = argument;
    const struct checkpoint_group *group;
    for (int i = 0; (group = checkpoint_group_at(i)); i++)
        if (!group->digest)
            group_digest(d->digest, group, d->tensors, d->count);
    return NULL;
}

/* Of all that is not in the meta, from here on beside the caller, if there is a thread. */
static int digesting_begin(struct digesting *d, const struct checkpoint_tensor *tensors,
                           uint32_t count, struct err *e)
{
    *d = (struct digesting){.tensors = tensors, .count = count};
    if (digest_open(&d->digest, e) < 0)
        return -1;
    d->by_thread = thread_start(&d->thread, "digest", arrays_digest, d) == 0;
    if (!d->by_thread)
        arrays_digest(d);
    return 0;
}

static void digesting_wait(struct digesting *d)
{
    if (d->by_thread)
        pthread_join(d->thread, NULL);
    d->by_thread = 0;
}

static int state_write(struct h5writer *w, struct digesting *d, const struct checkpoint_meta *meta,
                       const char *model, const char *results, char digest[65], struct err *e)
{
    const struct checkpoint_group *group;
    if (attributes_write(w, meta, model, results, e) < 0)
        return -1;
    for (int i = 0; (group = checkpoint_group_at(i)); i++)
        if (group_write(w, group, d->tensors, d->count, e) < 0)
            return -1;
    digesting_wait(d);
    checkpoint_digest_meta(d->digest, meta, model, results);
    digest_close(&d->digest, digest);
    return h5writer_text(w, "", "digest", digest, e);
}

int checkpoint_write(const char *path, struct checkpoint_meta *meta, const char *model,
                     const struct checkpoint_tensor *tensors, uint32_t count, char digest[65],
                     uint64_t *bytes, struct err *e)
{
    struct h5writer *w = NULL;
    struct digesting d = {0};
    struct stat st;
    char ignored[65];
    int result = -1;
    ensure(count <= CHECKPOINT_TENSORS_MAX);
    meta->version = CHECKPOINT_VERSION;
    char *results = results_text(meta);
    if (!results) {
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot write checkpoint %s", path);
        goto out;
    }
    h5writer_sweep(path);
    if (digesting_begin(&d, tensors, count, e) < 0 ||
        checkpoint_parameters_digest(tensors, count, meta->parameters_sha256, e) < 0 ||
        group_hex(checkpoint_group_at(CHECKPOINT_BUFFERS), tensors, count, meta->buffers_sha256,
                  e) < 0 ||
        h5writer_open(&w, path, e) < 0)
        goto out;
    if (state_write(w, &d, meta, model, results, digest, e) < 0)
        goto out;
    if (h5writer_commit(&w, e) < 0)
        goto out;
    if (stat(path, &st) < 0) {
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot find checkpoint %s just written", path);
        goto out;
    }
    *bytes = (uint64_t)st.st_size;
    result = 0;
out:
    h5writer_abandon(&w);
    digesting_wait(&d);
    digest_close(&d.digest, ignored);
    free(results);
    return result;
}

int checkpoint_fingerprint(const char (*each)[65], uint32_t count, char all[65], struct err *e)
{
    struct digest *digest = NULL;
    if (count == 1) {
        memcpy(all, each[0], 65);
        return 0;
    }
    if (digest_open(&digest, e) < 0)
        return -1;
    for (uint32_t i = 0; i < count; i++)
        digest_bytes(digest, each[i], strlen(each[i]));
    digest_close(&digest, all);
    return 0;
}
