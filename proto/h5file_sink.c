/* h5file_sink.c - where libhdf5's writing ends up: a file driver of ours over durable_pwrite_all.
 *
 * libhdf5 neither recovers nor frees everything when a write fails below it. This driver therefore
 * keeps the first failure to itself, lets libhdf5 believe that all went well, and writes nothing
 * more; the writer asks h5_wrote after each operation and throws the file away. It also makes every
 * single write of a durable file one that a test can fail.
 */
#include "proto/h5file_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/durable.h"

struct sink_file {
    H5FD_t base; /* first: libhdf5 knows no other part */
    struct h5sink *sink;
    haddr_t end; /* of the allocated addresses */
};

static struct h5sink *sink_of(const H5FD_t *file)
{
    return ((const struct sink_file *)file)->sink;
}

static H5FD_t *sink_file_open(const char *name, unsigned flags, hid_t access, haddr_t end_max)
{
    (void)name, (void)flags, (void)end_max;
    struct h5sink *const *sink = H5Pget_driver_info(access);
    struct sink_file *f = calloc(1, sizeof *f);
    if (!f || !sink) {
        free(f);
        return NULL;
    }
    f->sink = *sink;
    return &f->base;
}

static herr_t sink_file_close(H5FD_t *file)
{
    free(file);
    return 0;
}

static int sink_file_compare(const H5FD_t *a, const H5FD_t *b)
{
    uintptr_t one = (uintptr_t)sink_of(a), other = (uintptr_t)sink_of(b);
    return (one > other) - (one < other);
}

static herr_t sink_file_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
             H5FD_FEAT_AGGREGATE_SMALLDATA;
    return 0;
}

static haddr_t sink_file_end(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const struct sink_file *)file)->end;
}

static herr_t sink_file_set_end(H5FD_t *file, H5FD_mem_t type, haddr_t end)
{
    (void)type;
    ((struct sink_file *)file)->end = end;
    return 0;
}

static haddr_t sink_file_bytes(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return sink_of(file)->bytes;
}

/* libhdf5 reads back metadata that left its cache; what was never written is zero. */
static herr_t sink_file_read(H5FD_t *file, H5FD_mem_t type, hid_t list, haddr_t at, size_t bytes,
                             void *data)
{
    (void)type, (void)list;
    char *to = data;
    while (bytes > 0) {
        ssize_t got = pread(sink_of(file)->fd, to, bytes, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        to += got;
        at += (haddr_t)got;
        bytes -= (size_t)got;
    }
    memset(to, 0, bytes);
    return 0;
}

static herr_t sink_file_write(H5FD_t *file, H5FD_mem_t type, hid_t list, haddr_t at, size_t bytes,
                              const void *data)
{
    (void)type, (void)list;
    struct h5sink *s = sink_of(file);
    if (!s->failure.code)
        durable_pwrite_all(s->fd, data, bytes, at, s->path, &s->failure);
    if (at + bytes > s->bytes)
        s->bytes = at + bytes;
    return 0;
}

/* Called when the file is closed: what is allocated and was not written becomes a hole. */
static herr_t sink_file_truncate(H5FD_t *file, hid_t list, hbool_t closing)
{
    (void)list, (void)closing;
    struct h5sink *s = sink_of(file);
    haddr_t end = ((struct sink_file *)file)->end;
    if (!s->failure.code && end != s->bytes && ftruncate(s->fd, (off_t)end) < 0)
        err_errno(&s->failure, EXIT_CODE_TEMPORARY, "cannot write %s", s->path);
    s->bytes = end;
    return 0;
}

static const H5FD_class_t sink_class = {
#ifdef H5FD_CLASS_VERSION /* HDF5 1.14 and later */
    .version = H5FD_CLASS_VERSION,
#endif
    .name = "sink",
    .maxaddr = INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(struct h5sink *),
    .open = sink_file_open,
    .close = sink_file_close,
    .cmp = sink_file_compare,
    .query = sink_file_query,
    .get_eoa = sink_file_end,
    .set_eoa = sink_file_set_end,
    .get_eof = sink_file_bytes,
    .read = sink_file_read,
    .write = sink_file_write,
    .truncate = sink_file_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

int h5_sink_open(struct h5sink *s, const char *path, struct err *e)
{
    *s = (struct h5sink){.path = path, .driver = H5I_INVALID_HID};
    s->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (s->fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot create %s", path);
    s->driver = H5FDregister(&sink_class);
    return s->driver < 0 ? h5_fail(e, EXIT_CODE_PERMANENT, "cannot create %s", path) : 0;
}

int h5_sink_use(struct h5sink *s, hid_t access)
{
    return H5Pset_driver(access, s->driver, &s) < 0 ? -1 : 0;
}

void h5_sink_close(struct h5sink *s)
{
    if (s->driver >= 0)
        H5FDunregister(s->driver);
    if (s->fd >= 0 && close(s->fd) < 0 && !s->failure.code)
        err_errno(&s->failure, EXIT_CODE_TEMPORARY, "cannot write %s", s->path);
    s->driver = H5I_INVALID_HID;
    s->fd = -1;
}

int h5_wrote(struct h5writer *w, int result, struct err *e)
{
    if (!w->sink.failure.code)
        return result;
    if (e)
        *e = w->sink.failure;
    return -1;
}
