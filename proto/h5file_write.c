/* h5file_write.c - HDF5 files written once, whole: path.tmp-<pid>, checked, then committed by
 * durable.c.
 *
 * Equal content is an equal file: object times are off, every group keeps the order of creation,
 * and data sets are allocated when they are made. Everything in the file begins on a multiple of 64
 * bytes, which costs a few bytes an object and lets a reader map any contiguous data set, but for
 * files of thousands of objects. The format is that of HDF5 1.10, whose metadata carries checksums:
 * a damaged file is refused before libhdf5 believes it. Chunked sets are written by
 * h5file_chunks.c.
 */
#include "proto/h5file_private.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/durable.h"

/* A message of an object header holds 65,535 bytes; an attribute's own description takes some of
 * them. */
enum { ATTRIBUTE_TEXT_MAX = 65000 };
/* Between the name that a file will have and the number of the process that writes it. */
#define MARK ".tmp-"

/* Property list of a group or of the file's root: no times, links in order of creation. */
static hid_t group_properties(hid_t class)
{
    hid_t list = H5Pcreate(class);
    if (list >= 0 &&
        (H5Pset_obj_track_times(list, 0) < 0 ||
         H5Pset_link_creation_order(list, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED) < 0))
        h5_close(&list);
    return list;
}

/* many: nothing is aligned. libhdf5 keeps what an alignment leaves over, and walks through all of
 * it for every new object, which is the square of their number. */
static hid_t file_create(struct h5writer *w, int many)
{
    hid_t file = H5I_INVALID_HID;
    hid_t create = group_properties(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);
    if (create >= 0 && access >= 0 &&
        (many || H5Pset_alignment(access, 1, H5FILE_ALIGNMENT) >= 0) &&
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0 &&
        H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
        h5_metadata_bound(access, H5FILE_METADATA_BYTES) == 0 && h5_sink_use(&w->sink, access) == 0)
        file = H5Fcreate(w->temporary, H5F_ACC_TRUNC, create, access);
    h5_close(&create);
    h5_close(&access);
    return file;
}

static int writer_open(struct h5writer **w_p, const char *path, int many, struct err *e)
{
    *w_p = NULL;
    struct h5writer *w = calloc(1, sizeof *w);
    if (!w)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", path);
    w->file = w->sink.driver = H5I_INVALID_HID;
    w->sink.fd = -1;
    size_t used = (size_t)snprintf(w->path, sizeof w->path, "%s", path);
    size_t long_used =
        (size_t)snprintf(w->temporary, sizeof w->temporary, "%s" MARK "%d", path, (int)getpid());
    if (used >= sizeof w->path || long_used >= sizeof w->temporary) {
        free(w);
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot write %.64s...: the path has %zu bytes, at most %d fit", path, used,
                       H5FILE_PATH_MAX - 16);
    }
    h5_quiet();
    int result = h5_sink_open(&w->sink, w->temporary, e);
    if (result == 0) {
        w->file = file_create(w, many);
        if (w->file < 0)
            result = h5_fail(e, EXIT_CODE_PERMANENT, "cannot create %s", w->temporary);
        result = h5_wrote(w, result, e);
    }
    *w_p = w;
    if (result < 0)
        h5writer_abandon(w_p);
    return result;
}

int h5writer_open(struct h5writer **w_p, const char *path, struct err *e)
{
    return writer_open(w_p, path, 0, e);
}

int h5writer_open_many(struct h5writer **w_p, const char *path, struct err *e)
{
    return writer_open(w_p, path, 1, e);
}

int h5_groups_make(struct h5writer *w, const char *name, struct err *e)
{
    char prefix[H5FILE_NAME_MAX + 1];
    size_t length = strlen(name);
    ensure(length > 0 && length <= H5FILE_NAME_MAX && name[0] != '/');
    for (size_t i = 0; i < length; i++) {
        if (name[i] != '/')
            continue;
        memcpy(prefix, name, i);
        prefix[i] = 0;
        htri_t there = H5Lexists(w->file, prefix, H5P_DEFAULT);
        if (there > 0)
            continue;
        hid_t list = group_properties(H5P_GROUP_CREATE);
        hid_t group = there < 0 || list < 0
                          ? H5I_INVALID_HID
                          : H5Gcreate2(w->file, prefix, H5P_DEFAULT, list, H5P_DEFAULT);
        h5_close(&list);
        if (group < 0)
            return h5_fail(e, EXIT_CODE_PERMANENT, "cannot make group %s in %s", prefix,
                           w->temporary);
        h5_close(&group);
    }
    return 0;
}

/* One scalar attribute of `object`, `type` in the file and in memory alike. */
static int attribute_write(struct h5writer *w, const char *object, const char *name, hid_t type,
                           const void *value, struct err *e)
{
    int result = -1;
    hid_t at = H5I_INVALID_HID, space = H5I_INVALID_HID, attribute = H5I_INVALID_HID;
    at = H5Oopen(w->file, object[0] ? object : "/", H5P_DEFAULT);
    space = H5Screate(H5S_SCALAR);
    if (at < 0 || space < 0)
        goto out;
    attribute = H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, type, value) < 0)
        goto out;
    result = 0;
out:
    if (result < 0)
        h5_fail(e, EXIT_CODE_PERMANENT, "cannot write attribute %s of /%s in %s", name, object,
                w->temporary);
    h5_close(&attribute);
    h5_close(&space);
    h5_close(&at);
    return h5_wrote(w, result, e);
}

int h5writer_text(struct h5writer *w, const char *object, const char *name, const char *text,
                  struct err *e)
{
    size_t length = strlen(text);
    if (length > ATTRIBUTE_TEXT_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot write attribute %s of /%s in %s: it has %zu bytes, at most %d fit",
                       name, object, w->temporary, length, ATTRIBUTE_TEXT_MAX);
    hid_t type = H5Tcopy(H5T_C_S1);
    int result = -1;
    if (type < 0 || H5Tset_size(type, length ? length : 1) < 0 ||
        H5Tset_strpad(type, H5T_STR_NULLPAD) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)
        h5_fail(e, EXIT_CODE_PERMANENT, "cannot describe attribute %s in %s", name, w->temporary);
    else
        result = attribute_write(w, object, name, type, text, e);
    h5_close(&type);
    return result;
}

int h5writer_u64(struct h5writer *w, const char *object, const char *name, uint64_t value,
                 struct err *e)
{
    return attribute_write(w, object, name, H5T_STD_U64LE, &value, e);
}

int h5writer_f64(struct h5writer *w, const char *object, const char *name, double value,
                 struct err *e)
{
    return attribute_write(w, object, name, H5T_IEEE_F64LE, &value, e);
}

static hid_t array_create(struct h5writer *w, const char *name, enum h5type type, int rank,
                          const uint64_t *dims)
{
    hsize_t sizes[H5FILE_RANK_MAX];
    for (int i = 0; i < rank; i++)
        sizes[i] = dims[i];
    hid_t set = H5I_INVALID_HID;
    hid_t space = H5Screate_simple(rank, sizes, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    if (space >= 0 && list >= 0 && H5Pset_obj_track_times(list, 0) >= 0 &&
        H5Pset_layout(list, H5D_CONTIGUOUS) >= 0 &&
        H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY) >= 0 &&
        H5Pset_fill_time(list, H5D_FILL_TIME_NEVER) >= 0)
        set = H5Dcreate2(w->file, name, h5_type(type), space, H5P_DEFAULT, list, H5P_DEFAULT);
    h5_close(&list);
    h5_close(&space);
    return set;
}

int h5writer_array(struct h5writer *w, const char *name, enum h5type type, int rank,
                   const uint64_t *dims, const void *data, struct err *e)
{
    uint64_t bytes;
    ensure(rank >= 1 && rank <= H5FILE_RANK_MAX && h5_bytes(type, rank, dims, &bytes) == 0);
    if (h5_groups_make(w, name, e) < 0)
        return -1;
    hid_t set = array_create(w, name, type, rank, dims);
    int result = set < 0 ? -1 : 0;
    if (result == 0 && bytes > 0)
        result = H5Dwrite(set, h5_type(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0 ? -1 : 0;
    if (result < 0)
        h5_fail(e, EXIT_CODE_PERMANENT, "cannot write data set %s in %s", name, w->temporary);
    h5_close(&set);
    return h5_wrote(w, result, e);
}

static int array_accept(void *self, const struct h5array *array)
{
    (void)self, (void)array;
    return 0;
}

/* Open the finished file as any reader would: every data set must be described and backed by bytes.
 */
static int file_check(const char *path, struct err *e)
{
    struct h5reader *r = NULL;
    int result = h5reader_open(&r, path, e);
    if (result == 0)
        result = h5reader_each(r, "", array_accept, NULL, e);
    h5reader_close(&r);
    return result;
}

/* Close the file: libhdf5 writes what it still holds. */
static int file_close(struct h5writer *w, struct err *e)
{
    int result = 0;
    h5_rows_free(w);
    if (w->file >= 0 && H5Fclose(w->file) < 0)
        result = h5_fail(e, EXIT_CODE_TEMPORARY, "cannot write %s", w->temporary);
    w->file = H5I_INVALID_HID;
    h5_sink_close(&w->sink);
    return h5_wrote(w, result, e);
}

int h5writer_commit(struct h5writer **w_p, struct err *e)
{
    struct h5writer *w = *w_p;
    int result = h5_rows_complete(w, e);
    if (result == 0)
        result = file_close(w, e);
    if (result == 0)
        result = file_check(w->temporary, e);
    if (result == 0)
        result = durable_commit(w->temporary, w->path, e);
    h5writer_abandon(w_p);
    return result;
}

int h5writer_place(struct h5writer **w_p, struct err *e)
{
    struct h5writer *w = *w_p;
    int result = file_close(w, e);
    if (result == 0)
        result = durable_place(w->temporary, w->path, e);
    h5writer_abandon(w_p);
    return result;
}

void h5writer_abandon(struct h5writer **w_p)
{
    struct h5writer *w = *w_p;
    if (!w)
        return;
    if (!w->sink.failure.code) /* nothing more needs to reach the disk */
        err_set(&w->sink.failure, EXIT_CODE_TEMPORARY, "%s was abandoned", w->temporary);
    file_close(w, NULL);
    unlink(w->temporary); /* after a commit there is none */
    free(w);
    *w_p = NULL;
}

const char *h5writer_temporary(const struct h5writer *w)
{
    return w->temporary;
}

/* The process that wrote what has this name, or 0: no writer did. */
static pid_t writer_of(const char *name)
{
    const char *mark = strstr(name, MARK), *digits = mark ? mark + strlen(MARK) : "";
    return *digits && strspn(digits, "0123456789") == strlen(digits) ? (pid_t)atoll(digits) : 0;
}

static int is_gone(pid_t process)
{
    return kill(process, 0) != 0 && errno == ESRCH;
}

/* base: "" or a file's name, whose writers only are meant, and dead ones. */
static void directory_sweep(const char *directory, const char *base)
{
    char path[H5FILE_PATH_MAX + 300];
    size_t length = strlen(base);
    DIR *d = opendir(directory);
    if (!d)
        return;
    for (struct dirent *entry; (entry = readdir(d));) {
        pid_t writer = writer_of(entry->d_name);
        int is_meant = !length || (strncmp(entry->d_name, base, length) == 0 &&
                                   strncmp(entry->d_name + length, MARK, strlen(MARK)) == 0 &&
                                   is_gone(writer));
        if (!writer || writer == getpid() || !is_meant)
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        unlink(path);
    }
    closedir(d);
}

/* The directory of `path`, which has a slash or not, in `text`. Returns the rest of it. */
static const char *path_split(const char *path, char text[H5FILE_PATH_MAX + 1])
{
    const char *slash = strrchr(path, '/');
    snprintf(text, H5FILE_PATH_MAX + 1, "%.*s", slash ? (int)(slash - path) + 1 : 1,
             slash ? path : ".");
    return slash ? slash + 1 : path;
}

void h5writer_sweep(const char *path)
{
    char directory[H5FILE_PATH_MAX + 1];
    path_split(path, directory);
    directory_sweep(directory, "");
}

void h5writer_sweep_dead(const char *path)
{
    char directory[H5FILE_PATH_MAX + 1];
    directory_sweep(directory, path_split(path, directory));
}
