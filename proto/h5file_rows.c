/* h5file_rows.c - data sets that others wrote, a few rows at a time: what `prepare check` reads.
 *
 * Wider than h5file_read.c, which knows our own files: whatever loaderd would deliver can be looked
 * at. libhdf5 converts; no size is believed that would make it allocate more than one chunk.
 */
#include "proto/h5file_private.h"

#include <string.h>

enum { CHUNK_BYTES_MAX = 256 << 20 };

/* The type of ours that holds every value of this one, or -1. */
static int type_nearest(hid_t type)
{
    static const enum h5type whole[2][4] = {{H5TYPE_U8, H5TYPE_U16, H5TYPE_U32, H5TYPE_U64},
                                            {H5TYPE_I8, H5TYPE_I16, H5TYPE_I32, H5TYPE_I64}};
    H5T_class_t class = H5Tget_class(type);
    size_t bytes = H5Tget_size(type);
    if (class == H5T_FLOAT && (bytes == 2 || bytes == 4))
        return H5TYPE_F32;
    if (class == H5T_FLOAT && bytes == 8)
        return H5TYPE_F64;
    if (class != H5T_INTEGER || bytes > 8 || (bytes & (bytes - 1)) != 0 || bytes == 0)
        return -1;
    return (int)whole[H5Tget_sign(type) == H5T_SGN_2][__builtin_ctzll(bytes)];
}

/* loaderd loads no plugins, so what one of them would decode is not looked at either: not even
 * where no chunk needs it, as lzf leaves chunks that it cannot make smaller. */
static int filters_accept(const struct h5reader *r, hid_t list, const struct h5array *a,
                          struct err *e)
{
    H5PLset_loading_state(0);
    for (int i = 0; i < H5Pget_nfilters(list); i++) {
        unsigned flags, config;
        size_t values = 0;
        char name[64] = "";
        H5Z_filter_t f =
            H5Pget_filter2(list, (unsigned)i, &flags, &values, NULL, sizeof name, name, &config);
        if (f < 0 || H5Zfilter_avail(f) <= 0)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "data set %s in %s is stored with filter %d (%.63s), which libhdf5 has "
                           "only as a plugin; store it with gzip, e.g. by h5repack -f GZIP=4",
                           a->name, r->path, (int)f, name[0] ? name : "unnamed");
    }
    return 0;
}

static int storage_accept(const struct h5reader *r, hid_t list, const struct h5array *a,
                          struct err *e)
{
    hsize_t chunk[H5FILE_RANK_MAX];
    H5D_layout_t layout = H5Pget_layout(list);
    if (layout == H5D_VIRTUAL || H5Pget_external_count(list) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "data set %s in %s keeps its values in other files, which are not read",
                       a->name, r->path);
    if (layout != H5D_CHUNKED)
        return layout == H5D_CONTIGUOUS || layout == H5D_COMPACT
                   ? 0
                   : h5_fail(e, EXIT_CODE_PERMANENT, "cannot describe data set %s in %s", a->name,
                             r->path);
    if (H5Pget_chunk(list, a->rank, chunk) != a->rank)
        return h5_fail(e, EXIT_CODE_PERMANENT, "cannot describe data set %s in %s", a->name,
                       r->path);
    uint64_t bytes = h5type_bytes(a->type);
    for (int i = 0; i < a->rank; i++)
        if (__builtin_mul_overflow(bytes, chunk[i], &bytes) || bytes > CHUNK_BYTES_MAX)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "data set %s in %s has chunks over %d MiB; store smaller ones, e.g. by "
                           "h5repack -l CHUNK=",
                           a->name, r->path, CHUNK_BYTES_MAX >> 20);
    return filters_accept(r, list, a, e);
}

int h5reader_foreign(struct h5reader *r, const char *name, struct h5array *array, struct err *e)
{
    hsize_t dims[H5FILE_RANK_MAX];
    int result = -1;
    memset(array, 0, sizeof *array);
    array->file_offset = UINT64_MAX;
    if (strlen(name) > H5FILE_NAME_MAX)
        return err_set(e, EXIT_CODE_PERMANENT, "a data set's name in %s has more than %d bytes",
                       r->path, H5FILE_NAME_MAX);
    strcpy(array->name, name);
    hid_t set = H5Dopen2(r->file, name, r->links);
    if (set < 0)
        return h5_fail(e, EXIT_CODE_PERMANENT, "cannot open data set %s in %s", name, r->path);
    hid_t type = H5Dget_type(set), space = H5Dget_space(set), list = H5Dget_create_plist(set);
    int nearest = type < 0 ? -1 : type_nearest(type);
    array->rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    if (nearest < 0)
        err_set(e, EXIT_CODE_PERMANENT,
                "data set %s in %s has a type that is not accepted: integers of 8 to 64 bits and "
                "floats of 16 to 64 are",
                name, r->path);
    else if (array->rank < 1 || array->rank > H5FILE_RANK_MAX || list < 0 ||
             H5Sget_simple_extent_dims(space, dims, NULL) != array->rank)
        err_set(e, EXIT_CODE_PERMANENT, "data set %s in %s has rank %d: 1 to %d are accepted", name,
                r->path, array->rank, H5FILE_RANK_MAX);
    else
        result = 0;
    for (int i = 0; result == 0 && i < array->rank; i++)
        array->dims[i] = dims[i];
    if (result == 0) {
        array->type = (enum h5type)nearest;
        if (h5_bytes(array->type, array->rank, array->dims, &array->bytes) < 0)
            result =
                err_set(e, EXIT_CODE_PERMANENT,
                        "data set %s in %s claims more bytes than 63 bits count", name, r->path);
        else
            result = storage_accept(r, list, array, e);
    }
    h5_close(&list);
    h5_close(&space);
    h5_close(&type);
    h5_close(&set);
    H5Eclear2(H5E_DEFAULT);
    return result;
}

/* Read items [first, first + items) of dimension `axis`, all others being whole. */
static int slab_read(struct h5reader *r, const struct h5array *array, int axis, uint64_t first,
                     uint64_t items, void *data, struct err *e)
{
    hsize_t start[H5FILE_RANK_MAX] = {0}, count[H5FILE_RANK_MAX] = {0};
    int result = -1;
    ensure(axis < array->rank && first <= array->dims[axis] && items <= array->dims[axis] - first);
    if (array->bytes == 0 || items == 0)
        return 0;
    for (int i = 0; i < array->rank; i++)
        count[i] = array->dims[i];
    start[axis] = first;
    count[axis] = items;
    hid_t set = H5Dopen2(r->file, array->name, r->links);
    hid_t space = set < 0 ? H5I_INVALID_HID : H5Dget_space(set);
    hid_t memory = H5Screate_simple(array->rank, count, NULL);
    if (space >= 0 && memory >= 0 &&
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
        H5Dread(set, h5_type(array->type), memory, space, H5P_DEFAULT, data) >= 0)
        result = 0;
    else
        h5_fail(e, EXIT_CODE_PERMANENT, "cannot read %s %llu to %llu of data set %s in %s",
                axis ? "columns" : "rows", (unsigned long long)first,
                (unsigned long long)(first + items - 1), array->name, r->path);
    h5_close(&memory);
    h5_close(&space);
    h5_close(&set);
    return result;
}

int h5reader_rows(struct h5reader *r, const struct h5array *array, uint64_t first, uint64_t rows,
                  void *data, struct err *e)
{
    return slab_read(r, array, 0, first, rows, data, e);
}

int h5reader_columns(struct h5reader *r, const struct h5array *array, uint64_t first,
                     uint64_t items, void *data, struct err *e)
{
    return slab_read(r, array, 1, first, items, data, e);
}
