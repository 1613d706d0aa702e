/* h5source_driver.c - libhdf5's way to the bytes: a read-only driver over pread on one descriptor.
 *
 * It takes no name and opens nothing. The descriptor is handed out once, so whatever in a file
 * makes libhdf5 want another file (an external link, a virtual data set's source) fails here. A
 * read beyond the end of the file fails instead of yielding zeros.
 */
#include "loaderd/h5source_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/h5file_type.h"

/* Smaller reads are metadata, met again and again. */
enum { DROP_BYTES_MIN = 16384 };

struct driver_file {
    H5FD_t base; /* first: libhdf5 casts */
    int fd;
    haddr_t eoa, eof;
};

static struct {
    int fd;
    uint64_t bytes;
    int waiting; /* 1: the next open takes fd */
} handed;

static uint64_t bytes_read;
static struct source_raw raw_read;
static int drop_behind, drop_shuffled;

/* Nothing is ever read into it: its address says that the place is wanted, not the bytes. */
static struct {
    uint64_t at, bytes;
} sought;

void *source_driver_seek(void)
{
    sought.bytes = 0;
    return &sought;
}

uint64_t source_driver_sought(uint64_t *at)
{
    *at = sought.at;
    return sought.bytes;
}

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t fapl, haddr_t maxaddr)
{
    (void)name, (void)fapl, (void)maxaddr;
    if (!handed.waiting || (flags & (H5F_ACC_RDWR | H5F_ACC_TRUNC | H5F_ACC_CREAT)))
        return NULL;
    struct driver_file *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    handed.waiting = 0;
    f->fd = handed.fd;
    f->eof = handed.bytes;
    return &f->base;
}

static herr_t driver_close(H5FD_t *file)
{
    free(file);
    return 0;
}

static herr_t driver_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_DATA_SIEVE | H5FD_FEAT_IGNORE_DRVRINFO | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t driver_get_eoa(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const struct driver_file *)file)->eoa;
}

static herr_t driver_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t address)
{
    (void)type;
    ((struct driver_file *)file)->eoa = address;
    return 0;
}

static haddr_t driver_get_eof(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const struct driver_file *)file)->eof;
}

void source_drop_behind(struct source *s, int shuffled)
{
    drop_behind = 1;
    drop_shuffled = shuffled;
    if (shuffled)
        posix_fadvise(s->fd, 0, 0, POSIX_FADV_RANDOM);
}

void source_bytes_ahead(const struct source *s, uint64_t at, uint64_t bytes)
{
    posix_fadvise(s->fd, (off_t)at, (off_t)bytes, POSIX_FADV_WILLNEED);
}

/* The kernel drops only whole folios, of up to SOURCE_FOLIO_BYTES: one that begins before the range
 * goes with it. What follows it is still wanted when the reads are in order. */
static void bytes_drop(int fd, uint64_t at, uint64_t bytes, uint64_t low, uint64_t high)
{
    uint64_t end = at + bytes, first = at < SOURCE_FOLIO_BYTES ? 0 : at - SOURCE_FOLIO_BYTES;
    if (bytes < DROP_BYTES_MIN)
        return;
    if (drop_shuffled)
        end += SOURCE_FOLIO_BYTES;
    first = first < low ? low : first;
    end = end > high ? high : end;
    posix_fadvise(fd, (off_t)first, (off_t)(end - first), POSIX_FADV_DONTNEED);
}

source_bytes_drop *source_bytes_dropper(const struct source *s)
{
    (void)s;
    return drop_behind ? bytes_drop : NULL;
}

int source_driver_pread(int fd, void *buffer, uint64_t bytes, uint64_t offset)
{
    char *at = buffer;
    while (bytes) {
        ssize_t got = pread(fd, at, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0) /* the file was cut while we read it */
            errno = 0;
        if (got <= 0)
            return -1;
        at += got;
        offset += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return 0;
}

int source_driver_read(int fd, void *buffer, uint64_t bytes, uint64_t offset)
{
    bytes_read += bytes;
    if (source_driver_pread(fd, buffer, bytes, offset) != 0)
        return -1;
    if (drop_behind)
        bytes_drop(fd, offset, bytes, 0, UINT64_MAX);
    return 0;
}

static herr_t driver_read(H5FD_t *file, H5FD_mem_t type, hid_t dxpl, haddr_t address, size_t bytes,
                          void *buffer)
{
    struct driver_file *f = (struct driver_file *)file;
    (void)dxpl;
    if (address > f->eof || bytes > f->eof - address)
        return -1;
    if (buffer == &sought) {
        sought.at = address;
        sought.bytes = bytes;
        return 0;
    }
    if (type == H5FD_MEM_DRAW) {
        raw_read.count++;
        raw_read.bytes += bytes;
    }
    return source_driver_read(f->fd, buffer, bytes, address);
}

static herr_t driver_write(H5FD_t *file, H5FD_mem_t type, hid_t dxpl, haddr_t address, size_t bytes,
                           const void *buffer)
{
    (void)file, (void)type, (void)dxpl, (void)address, (void)bytes, (void)buffer;
    return -1;
}

static const H5FD_class_t driver_class = {
#ifdef H5FD_CLASS_VERSION /* HDF5 1.14 and later */
    .version = H5FD_CLASS_VERSION,
#endif
    .name = "finetuned-pread",
    .maxaddr = (haddr_t)INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .open = driver_open,
    .close = driver_close,
    .query = driver_query,
    .get_eoa = driver_get_eoa,
    .set_eoa = driver_set_eoa,
    .get_eof = driver_get_eof,
    .read = driver_read,
    .write = driver_write,
    .fl_map = H5FD_FLMAP_DEFAULT,
};

struct source_raw source_driver_raw(void)
{
    return raw_read;
}

uint64_t source_driver_bytes(void)
{
    return bytes_read;
}

hid_t source_driver_open(int fd, uint64_t file_bytes)
{
    static hid_t driver = -1;
    if (driver < 0)
        driver = H5FDregister(&driver_class);
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    if (driver < 0 || fapl < 0 || H5Pset_driver(fapl, driver, NULL) < 0 ||
        h5_metadata_bound(fapl, SOURCE_INDEX_BYTES) != 0) {
        H5Pclose(fapl);
        return -1;
    }
    handed.fd = fd;
    handed.bytes = file_bytes;
    handed.waiting = 1;
    return fapl;
}
