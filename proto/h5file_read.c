/* h5file_read.c - reading the house's HDF5 files back, believing nothing that the file cannot back.
 *
 * Sizes are compared with the bytes stored before anything is allocated; only the element types and
 * filters that h5file_write.c and h5file_chunks.c use are accepted; other files are never followed
 * into. These are files of our own, which may be damaged; hostile ones are loaderd's business.
 */
#include "proto/h5file_names.h"
#include "proto/h5file_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Deflate makes at most 1,032 bytes of one. */
enum { DEFLATE_RATIO_MAX = 1032, GROUP_DEPTH_MAX = 8 };

static herr_t link_refuse(const char *from_file, const char *from_group, const char *file,
                          const char *object, unsigned *flags, hid_t access, void *self)
{
    (void)from_file, (void)from_group, (void)file, (void)object, (void)flags, (void)access,
        (void)self;
    return -1;
}

static hid_t file_open(const char *path)
{
    hid_t file = H5I_INVALID_HID, access = H5Pcreate(H5P_FILE_ACCESS);
    if (access >= 0 && H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0 &&
        H5Pset_file_locking(access, 0, 1) >= 0 &&
        h5_metadata_bound(access, H5FILE_METADATA_BYTES) == 0)
        file = H5Fopen(path, H5F_ACC_RDONLY, access);
    h5_close(&access);
    return file;
}

int h5reader_open(struct h5reader **r_p, const char *path, struct err *e)
{
    struct stat st;
    *r_p = NULL;
    if (stat(path, &st) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, EXIT_CODE_PERMANENT, "cannot open %s: it is not a file", path);
    struct h5reader *r = calloc(1, sizeof *r);
    if (!r)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot open %s", path);
    h5_quiet();
    snprintf(r->path, sizeof r->path, "%s", path);
    r->file_bytes = (uint64_t)st.st_size;
    r->links = H5Pcreate(H5P_DATASET_ACCESS);
    int ready = r->links >= 0 && H5Pset_elink_cb(r->links, link_refuse, NULL) >= 0;
    r->file = ready ? file_open(path) : H5I_INVALID_HID;
    *r_p = r;
    if (r->file < 0) {
        h5_fail(e, EXIT_CODE_PERMANENT, "cannot open %s as HDF5", path);
        h5reader_close(r_p);
        return -1;
    }
    return 0;
}

void h5reader_close(struct h5reader **r_p)
{
    struct h5reader *r = *r_p;
    if (!r)
        return;
    h5_close(&r->links);
    if (r->file >= 0)
        H5Fclose(r->file);
    H5Eclear2(H5E_DEFAULT);
    free(r);
    *r_p = NULL;
}

int h5reader_has(struct h5reader *r, const char *name)
{
    int has =
        H5Lexists(r->file, name, r->links) > 0; /* negative: not even the group above is there */
    H5Eclear2(H5E_DEFAULT);
    return has;
}

/* Open attribute `name` of `object`, which must be a scalar. */
static hid_t attribute_open(struct h5reader *r, const char *object, const char *name, struct err *e)
{
    hid_t at = H5Oopen(r->file, object[0] ? object : "/", r->links), attribute = H5I_INVALID_HID;
    hid_t space = H5I_INVALID_HID;
    if (at >= 0 && H5Aexists(at, name) == 0) {
        err_set(e, EXIT_CODE_PERMANENT, "/%s in %s has no attribute %s", object, r->path, name);
        goto out;
    }
    attribute = at < 0 ? H5I_INVALID_HID : H5Aopen(at, name, H5P_DEFAULT);
    space = attribute < 0 ? H5I_INVALID_HID : H5Aget_space(attribute);
    if (space < 0) {
        h5_fail(e, EXIT_CODE_PERMANENT, "cannot read attribute %s of /%s in %s", name, object,
                r->path);
        h5_close(&attribute);
    } else if (H5Sget_simple_extent_type(space) != H5S_SCALAR) {
        err_set(e, EXIT_CODE_PERMANENT, "attribute %s of /%s in %s is not a single value", name,
                object, r->path);
        h5_close(&attribute);
    }
out:
    h5_close(&space);
    h5_close(&at);
    return attribute;
}

int h5reader_is_group(struct h5reader *r, const char *name)
{
    hid_t at = H5Oopen(r->file, name, r->links);
    int is_group = at >= 0 && H5Iget_type(at) == H5I_GROUP;
    h5_close(&at);
    H5Eclear2(H5E_DEFAULT);
    return is_group;
}

static int attribute_wrong(struct h5reader *r, const char *object, const char *name,
                           const char *wanted, struct err *e)
{
    return err_set(e, EXIT_CODE_PERMANENT, "attribute %s of /%s in %s is not %s", name, object,
                   r->path, wanted);
}

int h5reader_names(struct h5reader *r, const char *group, const char *attribute,
                   struct h5names *names, struct err *e)
{
    hid_t at = H5Oopen(r->file, group, r->links);
    int result = at < 0 ? -1 : h5_names(at, attribute, names);
    h5_close(&at);
    H5Eclear2(H5E_DEFAULT);
    return result == 0 ? 0
                       : attribute_wrong(r, group, attribute,
                                         "there or not a list of at most 15 names: a text such as "
                                         "\"M1 M5\", or an array of texts",
                                         e);
}

int h5reader_text(struct h5reader *r, const char *object, const char *name, char *text,
                  size_t capacity, struct err *e)
{
    int result = -1;
    hid_t attribute = attribute_open(r, object, name, e), type = H5I_INVALID_HID;
    if (attribute < 0)
        return -1;
    char *buffer = NULL;
    type = H5Aget_type(attribute);
    size_t bytes = type < 0 || H5Tget_class(type) != H5T_STRING ? 0 : H5Tget_size(type);
    if (bytes == 0 || H5Tis_variable_str(type) != 0 || bytes > H5FILE_TEXT_MAX) {
        attribute_wrong(r, object, name, "a text of fixed length, 1 to 65,536 bytes", e);
        goto out;
    }
    buffer = calloc(1, bytes + 1);
    if (!buffer) {
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot read attribute %s in %s", name, r->path);
        goto out;
    }
    if (H5Aread(attribute, type, buffer) < 0) {
        h5_fail(e, EXIT_CODE_PERMANENT, "cannot read attribute %s of /%s in %s", name, object,
                r->path);
        goto out;
    }
    if (strlen(buffer) >= capacity) {
        err_set(e, EXIT_CODE_PERMANENT, "attribute %s of /%s in %s has %zu bytes, at most %zu fit",
                name, object, r->path, strlen(buffer), capacity - 1);
        goto out;
    }
    memcpy(text, buffer, strlen(buffer) + 1);
    result = 0;
out:
    free(buffer);
    h5_close(&type);
    h5_close(&attribute);
    return result;
}

char *h5reader_text_new(struct h5reader *r, const char *name)
{
    struct err none;
    char *text = malloc(H5FILE_TEXT_MAX + 1);
    if (text && h5reader_text(r, "", name, text, H5FILE_TEXT_MAX + 1, &none) == 0)
        return text;
    free(text);
    return NULL;
}

static int attribute_number(struct h5reader *r, const char *object, const char *name,
                            enum h5type wanted, const char *wanted_text, void *value, struct err *e)
{
    int result = -1;
    hid_t attribute = attribute_open(r, object, name, e);
    if (attribute < 0)
        return -1;
    hid_t type = H5Aget_type(attribute);
    if (type < 0 || H5Tequal(type, h5_type(wanted)) <= 0)
        attribute_wrong(r, object, name, wanted_text, e);
    else if (H5Aread(attribute, h5_type(wanted), value) < 0)
        h5_fail(e, EXIT_CODE_PERMANENT, "cannot read attribute %s of /%s in %s", name, object,
                r->path);
    else
        result = 0;
    h5_close(&type);
    h5_close(&attribute);
    return result;
}

int h5reader_u64(struct h5reader *r, const char *object, const char *name, uint64_t *value,
                 struct err *e)
{
    return attribute_number(r, object, name, H5TYPE_U64, "a 64-bit unsigned integer", value, e);
}

int h5reader_f64(struct h5reader *r, const char *object, const char *name, double *value,
                 struct err *e)
{
    return attribute_number(r, object, name, H5TYPE_F64, "a 64-bit float", value, e);
}

/* Chunked sets: chunks no larger than the array but where it grew, filters none but shuffle and
 * deflate. *chunk_bytes: of a chunk unpacked. */
static int chunks_acceptable(hid_t set, hid_t list, const struct h5array *a, uint64_t *chunk_bytes)
{
    hsize_t chunk[H5FILE_RANK_MAX], limits[H5FILE_RANK_MAX];
    hid_t space = H5Dget_space(set);
    int known = space >= 0 && H5Sget_simple_extent_dims(space, NULL, limits) == a->rank &&
                H5Pget_chunk(list, a->rank, chunk) == a->rank;
    h5_close(&space);
    *chunk_bytes = h5type_bytes(a->type);
    for (int i = 0; known && i < a->rank; i++)
        known = (chunk[i] <= a->dims[i] || limits[i] == H5S_UNLIMITED) &&
                !__builtin_mul_overflow(*chunk_bytes, (uint64_t)chunk[i], chunk_bytes);
    if (!known)
        return 0;
    for (int i = 0; i < H5Pget_nfilters(list); i++) {
        unsigned flags, config;
        size_t values = 0;
        H5Z_filter_t f = H5Pget_filter2(list, (unsigned)i, &flags, &values, NULL, 0, NULL, &config);
        if (f != H5Z_FILTER_SHUFFLE && f != H5Z_FILTER_DEFLATE)
            return 0;
    }
    return 1;
}

/* Where the bytes are, and whether they can be there. */
static int storage_describe(struct h5reader *r, hid_t set, struct h5array *a, struct err *e)
{
    int result = -1;
    uint64_t chunk_bytes = 0;
    hid_t list = H5Dget_create_plist(set);
    H5D_layout_t layout = list < 0 ? H5D_LAYOUT_ERROR : H5Pget_layout(list);
    uint64_t stored = H5Dget_storage_size(set);
    haddr_t offset = H5Dget_offset(set);
    H5Eclear2(H5E_DEFAULT);
    int contiguous = layout == H5D_CONTIGUOUS && H5Pget_external_count(list) == 0;
    a->file_offset = contiguous && offset != HADDR_UNDEF ? offset : UINT64_MAX;
    if (!contiguous && !(layout == H5D_CHUNKED && chunks_acceptable(set, list, a, &chunk_bytes))) {
        err_set(
            e, EXIT_CODE_PERMANENT,
            "data set %s in %s is stored in a way that is not ours: contiguous, or in chunks with "
            "shuffle and gzip, is accepted",
            a->name, r->path);
        goto out;
    }
    int backed = stored <= r->file_bytes;
    if (contiguous && a->bytes > 0)
        backed = a->file_offset <= r->file_bytes && a->bytes <= r->file_bytes - a->file_offset;
    else if (a->bytes > 0)
        backed = backed && a->bytes / DEFLATE_RATIO_MAX <= stored &&
                 chunk_bytes / DEFLATE_RATIO_MAX <= stored;
    if (!backed) {
        err_set(e, EXIT_CODE_PERMANENT,
                "data set %s in %s claims %llu bytes, which a file of %llu bytes cannot hold",
                a->name, r->path, (unsigned long long)a->bytes, (unsigned long long)r->file_bytes);
        goto out;
    }
    result = 0;
out:
    h5_close(&list);
    return result;
}

static int shape_describe(struct h5reader *r, hid_t set, struct h5array *a, struct err *e)
{
    hsize_t dims[H5FILE_RANK_MAX];
    hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    int found = type < 0 ? -1 : h5_type_find(type);
    a->rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    int readable = a->rank >= 1 && a->rank <= H5FILE_RANK_MAX &&
                   H5Sget_simple_extent_dims(space, dims, NULL) == a->rank;
    h5_close(&type);
    h5_close(&space);
    H5Eclear2(H5E_DEFAULT);
    if (found < 0)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "data set %s in %s has a type that is not ours: little-endian integers of 8 to 64 "
            "bits and floats of 32 and 64 bits are accepted",
            a->name, r->path);
    if (!readable)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "data set %s in %s has rank %d: 1 to %d are accepted", a->name, r->path,
                       a->rank, H5FILE_RANK_MAX);
    a->type = (enum h5type)found;
    for (int i = 0; i < a->rank; i++)
        a->dims[i] = dims[i];
    if (h5_bytes(a->type, a->rank, a->dims, &a->bytes) < 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "data set %s in %s claims more bytes than 63 bits count", a->name, r->path);
    return 0;
}

int h5reader_array(struct h5reader *r, const char *name, struct h5array *array, struct err *e)
{
    memset(array, 0, sizeof *array);
    if (strlen(name) > H5FILE_NAME_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "a data set's name in %s has more than %d bytes",
                       r->path, H5FILE_NAME_MAX);
    strcpy(array->name, name);
    hid_t set = H5Dopen2(r->file, name, r->links);
    if (set < 0)
        return h5_fail(e, EXIT_CODE_PERMANENT, "cannot open data set %s in %s", name, r->path);
    int result = shape_describe(r, set, array, e);
    if (result == 0)
        result = storage_describe(r, set, array, e);
    h5_close(&set);
    return result;
}

int h5reader_read(struct h5reader *r, const struct h5array *array, void *data, struct err *e)
{
    if (array->bytes == 0)
        return 0;
    hid_t set = H5Dopen2(r->file, array->name, r->links);
    int result = -1;
    if (set >= 0)
        result =
            H5Dread(set, h5_type(array->type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0 ? -1 : 0;
    if (result < 0)
        h5_fail(e, EXIT_CODE_PERMANENT, "cannot read data set %s in %s", array->name, r->path);
    h5_close(&set);
    return result;
}

struct walk {
    struct h5reader *r;
    int (*visit)(void *self, const struct h5array *array);
    void *self;
};

static int group_walk(const struct walk *w, const char *group, int depth, struct err *e);

/* Link number `i` of `at`: a data set is visited, a group walked, anything else refused. */
static int link_walk(const struct walk *w, hid_t at, const char *group, H5_index_t order, hsize_t i,
                     int depth, struct err *e)
{
    char link[H5FILE_NAME_MAX + 1], name[2 * H5FILE_NAME_MAX + 3];
    H5L_info_t info;
    H5O_info_t object;
    if (H5Lget_info_by_idx(at, ".", order, H5_ITER_INC, i, &info, H5P_DEFAULT) < 0 ||
        H5Lget_name_by_idx(at, ".", order, H5_ITER_INC, i, link, sizeof link, H5P_DEFAULT) < 0)
        return h5_fail(e, EXIT_CODE_PERMANENT, "cannot list group /%s in %s", group, w->r->path);
    snprintf(name, sizeof name, "%s%s%s", group, group[0] ? "/" : "", link);
    if (info.type != H5L_TYPE_HARD || strlen(name) > H5FILE_NAME_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "%.300s in %s is a link, or has too long a name",
                       name, w->r->path);
    if (H5Oget_info_by_name2(at, link, &object, H5O_INFO_BASIC, H5P_DEFAULT) < 0)
        return h5_fail(e, EXIT_CODE_PERMANENT, "cannot describe %s in %s", name, w->r->path);
    if (object.type == H5O_TYPE_GROUP)
        return group_walk(w, name, depth + 1, e);
    struct h5array array;
    if (h5reader_array(w->r, name, &array, e) < 0)
        return -1;
    return w->visit(w->self, &array) < 0 ? -1 : 0;
}

static int group_walk(const struct walk *w, const char *group, int depth, struct err *e)
{
    int result = 0;
    H5G_info_t info;
    unsigned tracked = 0;
    if (depth > GROUP_DEPTH_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "groups in %s are nested more than %d deep",
                       w->r->path, GROUP_DEPTH_MAX);
    hid_t at = H5Oopen(w->r->file, group[0] ? group : "/", w->r->links);
    hid_t list = at < 0 ? H5I_INVALID_HID : H5Gget_create_plist(at);
    if (list < 0 || H5Gget_info(at, &info) < 0 || H5Pget_link_creation_order(list, &tracked) < 0)
        result = h5_fail(e, EXIT_CODE_PERMANENT, "cannot open group /%s in %s", group, w->r->path);
    H5_index_t order = tracked & H5P_CRT_ORDER_INDEXED ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
    for (hsize_t i = 0; result == 0 && i < info.nlinks; i++)
        result = link_walk(w, at, group, order, i, depth, e);
    h5_close(&list);
    h5_close(&at);
    return result;
}

int h5reader_each(struct h5reader *r, const char *group,
                  int (*visit)(void *self, const struct h5array *array), void *self, struct err *e)
{
    struct walk w = {.r = r, .visit = visit, .self = self};
    return group_walk(&w, group, 0, e);
}
