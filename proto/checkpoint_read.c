/* checkpoint_read.c - see checkpoint.h: from a durable HDF5 file back to the state of training.
 *
 * A file is read by walking its arrays in file order, which verifies it whether or not somebody
 * wants the numbers: an array goes to the caller's tensor, or to a scratch as large as the largest
 * array.
 */
#include "proto/checkpoint_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A checkpoint while it is read. */
struct reading {
    struct h5reader *r;
    const char *path;
    struct checkpoint_meta *meta;
    char *model, *results; /* as stored */
    struct digest *digest; /* of what was visited so far */
    const struct checkpoint_tensor *tensors;
    uint32_t count;
    const struct checkpoint_group *group; /* being visited */
    uint32_t seen;                        /* tensors passed in the group */
    void *scratch;                        /* for arrays that nobody wants */
    uint64_t scratch_bytes;
    int other_version; /* the file is not known to be damaged: another program reads it */
    struct err *e;
};

/* Copy the field that ends at `end` to `to` and step over it. -1 if it is missing or too long. */
static int result_field(char **at, char end, char *to, size_t to_bytes)
{
    char *stop = strchr(*at, end);
    if (!stop || (size_t)(stop - *at) >= to_bytes)
        return -1;
    memcpy(to, *at, (size_t)(stop - *at));
    to[stop - *at] = 0;
    *at = stop + 1;
    return 0;
}

static int results_parse(char *text, struct checkpoint_meta *meta)
{
    char value[64], loss[64];
    meta->result_count = 0;
    for (char *at = text; *at;) {
        if (meta->result_count == CHECKPOINT_RESULTS_MAX)
            return -1;
        struct checkpoint_result *r = &meta->results[meta->result_count++];
        if (result_field(&at, '\t', r->task, sizeof r->task) < 0 ||
            result_field(&at, '\t', r->after, sizeof r->after) < 0 ||
            result_field(&at, '\t', r->metric, sizeof r->metric) < 0 ||
            result_field(&at, '\t', value, sizeof value) < 0 ||
            result_field(&at, '\t', loss, sizeof loss) < 0 ||
            result_field(&at, '\n', r->weights_sha256, sizeof r->weights_sha256) < 0)
            return -1;
        r->value = strtod(value, NULL);
        r->loss = strtod(loss, NULL);
    }
    return 0;
}

/* results -> reading.results and meta. */
static int results_read(struct reading *g)
{
    struct h5array a;
    if (h5reader_array(g->r, "results", &a, g->e) < 0)
        return -1;
    if (a.type != H5TYPE_U8 || a.rank != 1 || a.bytes > CHECKPOINT_RESULTS_BYTES_MAX)
        return err_set(g->e, EXIT_CODE_PERMANENT,
                       "results of checkpoint %s are not text of at most %d bytes", g->path,
                       CHECKPOINT_RESULTS_BYTES_MAX);
    g->results = calloc(1, a.bytes + 1);
    if (!g->results)
        return err_errno(g->e, EXIT_CODE_TEMPORARY, "cannot read checkpoint %s", g->path);
    if (h5reader_read(g->r, &a, g->results, g->e) < 0)
        return -1;
    char *copy = strdup(g->results);
    if (!copy)
        return err_errno(g->e, EXIT_CODE_TEMPORARY, "cannot read checkpoint %s", g->path);
    int result = results_parse(copy, g->meta);
    free(copy);
    return result == 0 ? 0
                       : err_set(g->e, EXIT_CODE_PERMANENT, "results of checkpoint %s are damaged",
                                 g->path);
}

/* Before all else: what else there is follows from it. */
static int version_read(struct reading *g)
{
    uint64_t *version = &g->meta->version;
    if (h5reader_u64(g->r, "", "version", version, g->e) < 0)
        return -1;
    if (*version >= CHECKPOINT_VERSION_OLDEST && *version <= CHECKPOINT_VERSION)
        return 0;
    g->other_version = 1;
    return err_set(g->e, EXIT_CODE_PERMANENT,
                   "checkpoint %s is of version %" PRIu64 ", this program reads versions %d to %d; "
                   "go on with the program that wrote it, or move the file elsewhere to go on "
                   "without it",
                   g->path, *version, CHECKPOINT_VERSION_OLDEST, CHECKPOINT_VERSION);
}

static int attributes_read(struct reading *g)
{
    const struct checkpoint_field *f;
    if (version_read(g) < 0)
        return -1;
    for (size_t i = 0; (f = checkpoint_field_next(&i, g->meta->version));) {
        const char *name = f->name;
        void *at = (char *)g->meta + f->offset;
        int result = f->kind == CHECKPOINT_FIELD_TEXT
                         ? h5reader_text(g->r, "", name, at, f->bytes, g->e)
                     : f->kind == CHECKPOINT_FIELD_U64 ? h5reader_u64(g->r, "", name, at, g->e)
                                                       : h5reader_f64(g->r, "", name, at, g->e);
        if (result < 0)
            return -1;
    }
    g->model = calloc(1, CHECKPOINT_MODEL_MAX);
    if (!g->model)
        return err_errno(g->e, EXIT_CODE_TEMPORARY, "cannot read checkpoint %s", g->path);
    if (h5reader_text(g->r, "", "model", g->model, CHECKPOINT_MODEL_MAX, g->e) < 0)
        return -1;
    return results_read(g);
}

static int reading_open(struct reading *g, const char *path, struct checkpoint_meta *meta,
                        struct err *e)
{
    *g = (struct reading){.path = path, .meta = meta, .e = e};
    memset(meta, 0, sizeof *meta);
    if (h5reader_open(&g->r, path, e) < 0)
        return -1;
    return attributes_read(g);
}

static void reading_close(struct reading *g)
{
    char ignored[65];
    digest_close(&g->digest, ignored);
    h5reader_close(&g->r);
    free(g->model);
    free(g->results);
    free(g->scratch);
}

/* The caller's place for the tensor's numbers in this group; NULL: it has none. */
static float *tensor_place(const struct reading *g, uint32_t tensor)
{
    return *(float *const *)((const char *)&g->tensors[tensor] + g->group->member);
}

/* The next tensor from g->seen on that has a place in this group. */
static uint32_t tensor_next(const struct reading *g)
{
    uint32_t next = g->seen;
    while (g->tensors && next < g->count &&
           (g->tensors[next].kind != g->group->kind || !tensor_place(g, next)))
        next++;
    return next;
}

/* Where the numbers of `array` go: the caller's tensor, or the scratch if there is none. */
static void *array_place(struct reading *g, const struct h5array *array)
{
    float *to = g->tensors ? tensor_place(g, g->seen) : NULL;
    if (to)
        return to;
    if (array->bytes > g->scratch_bytes) {
        free(g->scratch);
        g->scratch = malloc(array->bytes);
        g->scratch_bytes = g->scratch ? array->bytes : 0;
    }
    if (!g->scratch)
        err_errno(g->e, EXIT_CODE_TEMPORARY, "cannot read %s of checkpoint %s", array->name,
                  g->path);
    return g->scratch;
}

static int tensor_agrees(const struct reading *g, const struct h5array *array)
{
    char name[H5FILE_NAME_MAX + 1];
    if (g->seen >= g->count)
        return 0;
    const struct checkpoint_tensor *t = &g->tensors[g->seen];
    if (strcmp(checkpoint_array_name(name, g->group->name, t), array->name) != 0 ||
        array->rank != t->rank)
        return 0;
    return memcmp(array->dims, t->dims, (size_t)t->rank * sizeof t->dims[0]) == 0;
}

static int array_visit(void *self, const struct h5array *array)
{
    struct reading *g = self;
    if (array->type != H5TYPE_F32)
        return err_set(g->e, EXIT_CODE_PERMANENT, "%s of checkpoint %s is not float32", array->name,
                       g->path);
    g->seen = tensor_next(g);
    if (g->tensors && !tensor_agrees(g, array))
        return err_set(g->e, EXIT_CODE_PERMANENT,
                       "checkpoint %s is of another model: its %s is not what the model has there",
                       g->path, array->name);
    void *to = array_place(g, array);
    if (!to || h5reader_read(g->r, array, to, g->e) < 0)
        return -1;
    digest_array(g->digest, array->name, array->type, array->rank, array->dims, to);
    g->seen++;
    return 0;
}

static int group_read(struct reading *g, int number)
{
    const char *group = checkpoint_group_at(number)->name;
    g->group = checkpoint_group_at(number);
    g->seen = 0;
    if (number != CHECKPOINT_PARAMETERS && !h5reader_has(g->r, group)) {
        if (!g->tensors || tensor_next(g) == g->count)
            return 0; /* written without them, and none are wanted */
        return err_set(g->e, EXIT_CODE_PERMANENT, "checkpoint %s has no %s", g->path, group);
    }
    if (h5reader_each(g->r, group, array_visit, g, g->e) < 0)
        return -1;
    if (g->tensors && tensor_next(g) != g->count)
        return err_set(g->e, EXIT_CODE_PERMANENT,
                       "checkpoint %s is of another model: it has %" PRIu32
                       " arrays in %s, the model %" PRIu32,
                       g->path, g->seen, group, g->count);
    return 0;
}

static int digest_compare(struct reading *g, const char *what, const char *stored)
{
    char found[65];
    digest_close(&g->digest, found);
    if (strcmp(found, stored) == 0)
        return 0;
    return err_set(g->e, EXIT_CODE_PERMANENT,
                   "checkpoint %s is damaged: its %s have digest %s, stored is %s", g->path, what,
                   found, stored);
}

static int buffers_wanted(const struct reading *g)
{
    uint32_t i = 0;
    while (i < g->count && g->tensors[i].kind != CHECKPOINT_BUFFER)
        i++;
    return i < g->count;
}

/* A group that has a digest of its own, against it. */
static int group_verify(struct reading *g, int number)
{
    static const char *const names[CHECKPOINT_GROUPS] = {
        [CHECKPOINT_PARAMETERS] = "parameters", [CHECKPOINT_BUFFERS] = "module buffers"};
    const char *stored = (const char *)g->meta + checkpoint_group_at(number)->digest;
    char none[65];
    if (digest_open(&g->digest, g->e) < 0 || group_read(g, number) < 0)
        return -1;
    if (g->seen || stored[0])
        return digest_compare(g, names[number], stored);
    digest_close(&g->digest, none); /* it has no arrays */
    return 0;
}

static int parameters_read(struct reading *g)
{
    if (group_verify(g, CHECKPOINT_PARAMETERS) < 0)
        return -1;
    return buffers_wanted(g) ? group_verify(g, CHECKPOINT_BUFFERS) : 0;
}

/* One group of the state, whose digest is g->digest before and afterwards. */
static int group_of_state_read(struct reading *g, int number)
{
    struct digest *of_state = g->digest;
    if (g->meta->version < CHECKPOINT_VERSION_APART || !checkpoint_group_at(number)->digest)
        return group_read(g, number);
    g->digest = NULL;
    int result = group_verify(g, number);
    char ignored[65];
    digest_close(&g->digest, ignored);
    g->digest = of_state;
    return result;
}

static int state_read(struct reading *g)
{
    char stored[65];
    int apart = g->meta->version >= CHECKPOINT_VERSION_APART;
    if (h5reader_text(g->r, "", "digest", stored, sizeof stored, g->e) < 0 ||
        digest_open(&g->digest, g->e) < 0)
        return -1;
    if (!apart)
        checkpoint_digest_meta(g->digest, g->meta, g->model, g->results);
    for (int i = 0; i < CHECKPOINT_GROUPS; i++)
        if (group_of_state_read(g, i) < 0)
            return -1;
    if (apart)
        checkpoint_digest_meta(g->digest, g->meta, g->model, g->results);
    return digest_compare(g, "state", stored);
}

int checkpoint_read_meta(const char *path, struct checkpoint_meta *meta, char *model,
                         size_t model_bytes, struct err *e)
{
    struct reading g;
    int result = reading_open(&g, path, meta, e);
    if (result == 0 && model) {
        if (strlen(g.model) < model_bytes)
            strcpy(model, g.model);
        else
            result = err_set(e, EXIT_CODE_PERMANENT,
                             "the model of checkpoint %s has %zu bytes, at most %zu fit", path,
                             strlen(g.model), model_bytes - 1);
    }
    reading_close(&g);
    return result;
}

int checkpoint_read(const char *path, struct checkpoint_meta *meta,
                    const struct checkpoint_tensor *tensors, uint32_t count, int want_moments,
                    struct err *e)
{
    struct reading g;
    int result = reading_open(&g, path, meta, e);
    g.tensors = tensors;
    g.count = count;
    if (result == 0)
        result = want_moments ? state_read(&g) : parameters_read(&g);
    reading_close(&g);
    return result;
}

int checkpoint_verify(const char *path, struct checkpoint_meta *meta, struct err *e)
{
    struct reading g;
    int result = reading_open(&g, path, meta, e);
    if (result == 0)
        result = state_read(&g);
    reading_close(&g);
    if (result == 0)
        return 1;
    return e->code == EXIT_CODE_TEMPORARY || g.other_version ? -1 : 0;
}
