/* h5source_open.c - what a data set must be before anything of it is read: one check a function,
 * each with the sentence that tells its owner what is wrong and what would be right.
 */
#include "loaderd/h5source_private.h"

#include <stdio.h>
#include <string.h>

#include "proto/h5file_type.h"

/* gzip cannot make more than 1032 bytes of one, so a data set that is larger than this many times
 * its file mostly was never written. */
enum { EXPANSION_MAX = 1100 };
#define ITEMS_MAX     (1ull << 40)
#define ROW_BYTES_MAX (1ull << 36)
/* Chunk cache for data sets whose chunks outlast what is read together. */
#define CACHE_BYTES (16ull << 20)
enum { CACHE_SLOTS_MIN = 1009, CACHE_SLOTS_MAX = 1 << 20 };

static int set_refuse(const struct source_set *t, struct err *e, const char *why)
{
    return err_set(e, EXIT_CODE_PERMANENT, "%s %s", t->field.path, why);
}

/* "60000 x 28 x 28" */
static const char *dims_text(const struct source_set *t, char text[128])
{
    int used = 0;
    text[0] = 0;
    for (int i = 0; i < t->rank && i < H5FILE_RANK_MAX; i++)
        used += snprintf(text + used, 128 - (size_t)used, "%s%llu", i ? " x " : "",
                         (unsigned long long)t->dims[i]);
    return text;
}

/* The data set itself, by hard links only (a link elsewhere may lead out of the file). */
static int set_find(struct source *s, struct source_set *t, int *found, struct err *e)
{
    H5L_info_t link;
    *found = source_has(s, t->link);
    if (!*found)
        return 0;
    if (H5Lget_info(s->group, t->link, &link, H5P_DEFAULT) < 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s cannot be looked up: %s", t->field.path,
                       source_reason());
    if (link.type != H5L_TYPE_HARD)
        return set_refuse(t, e,
                          link.type == H5L_TYPE_EXTERNAL
                              ? "is a link to another file; only data in the file itself are read"
                              : "is a soft link; a data set must stand there itself");
    hid_t object = H5Oopen(s->group, t->link, H5P_DEFAULT);
    if (object < 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s cannot be opened: %s", t->field.path,
                       source_reason());
    if (H5Iget_type(object) != H5I_DATASET) {
        H5Oclose(object);
        return set_refuse(t, e, "is not a data set");
    }
    t->dataset = object;
    return 0;
}

/* t->rank and t->dims; refuses another number of dimensions. */
static int dims_read(struct source_set *t, struct err *e)
{
    char text[128];
    hid_t space = H5Dget_space(t->dataset);
    int simple = space >= 0 && H5Sget_simple_extent_type(space) == H5S_SIMPLE;
    t->rank = simple ? H5Sget_simple_extent_ndims(space) : 0;
    int fits = t->rank <= H5FILE_RANK_MAX && simple &&
               H5Sget_simple_extent_dims(space, t->dims, NULL) == t->rank;
    H5Sclose(space);
    if (!simple)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is a single value; expected %s", t->field.path,
                       t->kind->wanted);
    if (t->rank < t->kind->rank_low || t->rank > t->kind->rank_high || !fits)
        return err_set(e, EXIT_CODE_PERMANENT, "%s has %d dimension%s%s%s%s; expected %s",
                       t->field.path, t->rank, t->rank == 1 ? "" : "s", fits ? " (" : "",
                       fits ? dims_text(t, text) : "", fits ? ")" : "", t->kind->wanted);
    return 0;
}

static int shape_check(struct source_set *t, struct err *e)
{
    char text[128];
    int axis = t->kind->axis;
    if (dims_read(t, e) != 0)
        return -1;
    if (axis && t->dims[0] != SOURCE_PLANES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "%s has the dimensions %s; expected %s",
                       t->field.path, dims_text(t, text), t->kind->wanted);
    if (t->dims[axis] == 0 && !t->kind->may_be_empty)
        return err_set(e, EXIT_CODE_PERMANENT, "%s has no rows (%s)", t->field.path,
                       dims_text(t, text));
    uint64_t values = 1;
    for (int i = axis + 1; i < t->rank; i++)
        if (__builtin_mul_overflow(values, (uint64_t)t->dims[i], &values))
            values = UINT64_MAX;
    if (values == 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s has rows without values (%s)", t->field.path,
                       dims_text(t, text));
    if (t->dims[axis] > ITEMS_MAX || values > UINT32_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is too large (%s)", t->field.path,
                       dims_text(t, text));
    t->field.items = t->dims[axis];
    t->field.planes = axis ? SOURCE_PLANES_MAX : 1;
    t->field.values = values;
    return 0;
}

static const char *class_name(H5T_class_t class)
{
    switch (class) {
    case H5T_STRING:
        return "text";
    case H5T_COMPOUND:
        return "compound";
    case H5T_ENUM:
        return "enumerated (or true/false)";
    case H5T_VLEN:
        return "variable-length";
    case H5T_ARRAY:
        return "array";
    default:
        return "not numeric";
    }
}

/* The slot's type for a stored one; -1: none. */
static int type_of(hid_t stored, H5T_class_t class)
{
    static const enum h5type integers[2][9] = {
        {[1] = H5TYPE_U8, [2] = H5TYPE_U16, [4] = H5TYPE_U32, [8] = H5TYPE_U64},
        {[1] = H5TYPE_I8, [2] = H5TYPE_I16, [4] = H5TYPE_I32, [8] = H5TYPE_I64},
    };
    size_t size = H5Tget_size(stored);
    if (class == H5T_FLOAT && size == 2)
        return H5Tequal(stored, h5_half(H5T_ORDER_LE)) > 0 ||
                       H5Tequal(stored, h5_half(H5T_ORDER_BE)) > 0
                   ? H5TYPE_F16
                   : -1;
    if (class == H5T_FLOAT)
        return size == 4 ? H5TYPE_F32 : size == 8 ? H5TYPE_F64 : -1;
    if (class == H5T_INTEGER && (size == 1 || size == 2 || size == 4 || size == 8))
        return (int)integers[H5Tget_sign(stored) == H5T_SGN_2][size];
    return -1;
}

/* What is wrong with numbers of that class and type (-1: none of ours) where others are expected;
 * NULL: nothing. */
static const char *numbers_wrong(const struct source_kind *kind, H5T_class_t class, int type)
{
    if (kind->numbers == SOURCE_NUMBERS || type < 0)
        return NULL;
    if (class != H5T_INTEGER)
        return "has floats";
    if (kind->numbers == SOURCE_UNSIGNED && h5type_name((enum h5type)type)[0] != 'u')
        return "has signed numbers";
    return NULL;
}

/* Sets the slot's type; field.direct when the stored bytes are the slot's bytes (others, such as
 * big-endian ones, are converted by libhdf5). */
static int type_check(struct source_set *t, struct err *e)
{
    hid_t stored = H5Dget_type(t->dataset);
    H5T_class_t class = H5Tget_class(stored);
    size_t size = H5Tget_size(stored);
    int type = type_of(stored, class);
    if (type >= 0) {
        t->field.type = (enum h5type)type;
        t->memory_type = h5_type(t->field.type);
        t->field.direct = H5Tequal(stored, t->memory_type) > 0;
    }
    H5Tclose(stored);
    const char *wrong = numbers_wrong(t->kind, class, type);
    const char *whole = t->kind->numbers == SOURCE_UNSIGNED ? t->kind->wanted : "whole numbers";
    if (wrong)
        return err_set(e, EXIT_CODE_PERMANENT, "%s %s; expected %s", t->field.path, wrong, whole);
    if (type >= 0)
        return 0;
    if (class == H5T_INTEGER || class == H5T_FLOAT)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %zu-byte %s; expected integers of 1, 2, 4 or 8 bytes or IEEE floats "
                       "of 2, 4 or 8",
                       t->field.path, size, class == H5T_FLOAT ? "floats" : "integers");
    return err_set(e, EXIT_CODE_PERMANENT, "%s is of a type that is %s; expected %s", t->field.path,
                   class_name(class),
                   t->kind->numbers != SOURCE_NUMBERS
                       ? whole
                       : "integers of 1, 2, 4 or 8 bytes or floats of 2, 4 or 8");
}

static int filter_note(struct source_set *t, hid_t dcpl, unsigned i, struct err *e)
{
    unsigned flags = 0, values[8] = {0};
    size_t count = 8;
    char name[64] = "";
    H5Z_filter_t id = H5Pget_filter2(dcpl, i, &flags, &count, values, sizeof name, name, NULL);
    struct decode_step *step = &t->field.plan.step[t->field.plan.count];
    if (id < 0 || H5Zfilter_avail(id) <= 0)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "%s is stored with filter %d (%.63s), which this build does not have; store it "
            "with gzip, e.g. by h5repack -f GZIP=4",
            t->field.path, (int)id, name[0] ? name : "unnamed");
    if (t->field.plan.count == DECODE_STEPS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "%s has more than %d filters", t->field.path,
                       DECODE_STEPS_MAX);
    int gzips = 0;
    for (uint32_t j = 0; j < t->field.plan.count; j++)
        gzips += t->field.plan.step[j].kind == DECODE_GZIP;
    if (id == H5Z_FILTER_SHUFFLE && count >= 1 && values[0] > 0)
        *step = (struct decode_step){DECODE_SHUFFLE, values[0]};
    else if (id == H5Z_FILTER_DEFLATE && !gzips)
        *step = (struct decode_step){DECODE_GZIP, 0};
    else if (id == H5Z_FILTER_FLETCHER32)
        *step = (struct decode_step){DECODE_FLETCHER32, 0};
    else
        t->field.direct = 0;
    t->field.plan.count++;
    return 0;
}

/* How it is stored: chunks, filters; what lies in other files is refused. */
static int storage_check(struct source_set *t, hid_t dcpl, struct err *e)
{
    H5D_layout_t layout = H5Pget_layout(dcpl);
    int axis = t->kind->axis;
    if (layout == H5D_VIRTUAL)
        return set_refuse(t, e, "is a virtual data set; only data in the file itself are read");
    if (H5Pget_external_count(dcpl) > 0)
        return set_refuse(t, e, "lies in other files; only data in the file itself are read");
    if (layout != H5D_CHUNKED) {
        t->contiguous_same = layout == H5D_CONTIGUOUS && t->field.direct;
        t->field.direct = 0;
        return 0;
    }
    if (H5Pget_chunk(dcpl, H5FILE_RANK_MAX, t->chunk) != t->rank)
        return err_set(e, EXIT_CODE_PERMANENT, "%s has damaged chunk sizes: %s", t->field.path,
                       source_reason());
    uint64_t bytes = h5type_bytes(t->field.type);
    for (int i = 0; i < t->rank; i++) {
        if (t->chunk[i] == 0 || __builtin_mul_overflow(bytes, (uint64_t)t->chunk[i], &bytes))
            return set_refuse(t, e, "has impossible chunk sizes");
        if (i > axis && t->chunk[i] != t->dims[i])
            t->field.direct = 0;
    }
    if (axis && t->chunk[0] > SOURCE_PLANES_MAX) /* each chunk reaches over the end */
        t->field.direct = 0;
    t->field.chunk_rows = t->chunk[axis];
    t->field.chunk_planes = axis && t->chunk[0] > 1 ? SOURCE_PLANES_MAX : 1;
    t->field.chunk_bytes = bytes;
    unsigned options = 0;
    H5Pget_chunk_opts(dcpl, &options);
    t->field.edge_unfiltered = (options & H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS) != 0;
    int filters = H5Pget_nfilters(dcpl);
    for (int i = 0; i < filters; i++)
        if (filter_note(t, dcpl, (unsigned)i, e) != 0)
            return -1;
    return 0;
}

/* Contiguous data in the slot's type lie whole in the file, where its end allows that. */
static void plain_find(const struct source *s, struct source_set *t, uint64_t bytes,
                       uint64_t stored)
{
    haddr_t at = t->contiguous_same ? H5Dget_offset(t->dataset) : HADDR_UNDEF;
    if (at != HADDR_UNDEF && stored == bytes && at <= s->file_bytes && bytes <= s->file_bytes - at)
        t->field.plain_at = at;
}

/* What it declares against what the file has. */
static int size_check(const struct source *s, struct source_set *t, struct err *e)
{
    struct source_field *f = &t->field;
    uint64_t bytes, stored = H5Dget_storage_size(t->dataset);
    f->row_bytes = f->values * h5type_bytes(f->type);
    if (f->row_bytes > ROW_BYTES_MAX ||
        __builtin_mul_overflow(f->row_bytes * f->planes, f->items, &bytes))
        return set_refuse(t, e, "is too large");
    if (bytes == 0)
        return 0;
    if (stored == 0)
        return set_refuse(t, e, "was never written: it declares rows and stores none");
    plain_find(s, t, bytes, stored);
    if (stored > s->file_bytes)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s claims %llu stored bytes in a file of %llu: the file is damaged or cut",
                       f->path, (unsigned long long)stored, (unsigned long long)s->file_bytes);
    /* libhdf5 does not check this itself for rows that stand in the header (compact layout). */
    if (!f->chunk_rows && stored < bytes)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s declares %llu bytes and stores %llu: the file is damaged", f->path,
                       (unsigned long long)bytes, (unsigned long long)stored);
    if (bytes / EXPANSION_MAX > s->file_bytes)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s declares %llu bytes, which a file of %llu bytes cannot hold", f->path,
                       (unsigned long long)bytes, (unsigned long long)s->file_bytes);
    return 0;
}

/* Bytes of the chunk cache that a data set may have. */
static uint64_t cache_limit(const struct source_field *f)
{
    return f->chunk_bytes * 2 > CACHE_BYTES ? f->chunk_bytes * 2 : CACHE_BYTES;
}

uint64_t source_set_chunks(const struct source_set *t)
{
    uint64_t count = t->field.chunk_rows && t->field.items ? 1 : 0;
    for (int i = 0; count && i < t->rank; i++)
        if (__builtin_mul_overflow(count, (t->dims[i] - 1) / t->chunk[i] + 1, &count))
            return UINT64_MAX;
    return count;
}

int source_set_is_cached(const struct source_set *t)
{
    uint64_t chunks = source_set_chunks(t);
    return !chunks || chunks <= cache_limit(&t->field) / t->field.chunk_bytes;
}

/* A data set in longer chunks than are read together is read in pieces by libhdf5, out of its chunk
 * cache, which is made large enough to meet a chunk again. Two chunks whose numbers are the same
 * modulo its slots drive each other out: there are more slots than it has room for chunks. */
static int cache_set(const struct source *s, struct source_set *t, struct err *e)
{
    const struct source_field *f = &t->field;
    uint64_t slots = cache_limit(f) / f->chunk_bytes + CACHE_SLOTS_MIN;
    hid_t dapl = H5Pcreate(H5P_DATASET_ACCESS);
    t->field.direct = 0;
    H5Pset_chunk_cache(dapl, slots < CACHE_SLOTS_MAX ? slots : CACHE_SLOTS_MAX, cache_limit(f),
                       0.75);
    H5Dclose(t->dataset);
    t->dataset = H5Dopen2(s->group, t->link, dapl);
    H5Pclose(dapl);
    if (t->dataset < 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s cannot be opened: %s", f->path, source_reason());
    return 0;
}

uint64_t source_chunk_rows(const struct source *s, uint64_t rows_limit)
{
    return s->layout == SOURCE_DENSE ? source_dense_chunk_rows(s, rows_limit) : s->chunk_rows;
}

int source_chunk_rows_set(struct source *s, uint64_t rows, struct err *e)
{
    s->chunk_rows = rows;
    for (uint32_t i = 0; i < s->field_count; i++) {
        struct source_set *t = &s->set[i];
        int again =
            t->kind->ragged ? !t->field.direct : t->field.chunk_rows > rows && rows < s->rows;
        if (t->field.chunk_rows && again && cache_set(s, t, e) != 0)
            return -1;
    }
    return 0;
}

int source_set_describe(struct source *s, struct source_set *t, const char *link, const char *name,
                        const struct source_kind *kind, int *found, struct err *e)
{
    *t = (struct source_set){.kind = kind, .dataset = -1, .field.plain_at = UINT64_MAX};
    snprintf(t->link, sizeof t->link, "%s", link);
    snprintf(t->field.name, sizeof t->field.name, "%s", name);
    snprintf(t->field.path, sizeof t->field.path, "%s%s%s", s->split, s->split[0] ? "/" : "", link);
    if (set_find(s, t, found, e) != 0)
        return -1;
    if (!*found)
        return 0;
    if (shape_check(t, e) != 0 || type_check(t, e) != 0)
        return -1;
    hid_t dcpl = H5Dget_create_plist(t->dataset);
    if (dcpl < 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s cannot be read: %s", t->field.path,
                       source_reason());
    int result = storage_check(t, dcpl, e);
    H5Pclose(dcpl);
    return result == 0 ? size_check(s, t, e) : -1;
}

int source_set_open(struct source *s, const char *link, const char *name,
                    const struct source_kind *kind, int *found, struct err *e)
{
    ensure(s->field_count < SOURCE_FIELDS_MAX);
    struct source_set *t = &s->set[s->field_count];
    int result = source_set_describe(s, t, link, name, kind, found, e);
    s->field_count += result == 0 && *found; /* source_close closes it either way */
    return result;
}
