/* idx_file.c - see idx_file.h. The header is big-endian: a magic number (type and dimensions), the
 * count, for images rows and columns; then unsigned bytes. zlib reads plain files as they are.
 */
#include "pipelines/prepare/idx_file.h"

#include <zlib.h>

enum {
    IMAGES_MAGIC = 0x00000803, /* unsigned bytes, 3 dimensions */
    LABELS_MAGIC = 0x00000801, /* 1 dimension */
    IMAGES_HEADER_BYTES = 16,
    LABELS_HEADER_BYTES = 8,
    BUFFER_BYTES = 256 << 10,
};

int idx_file_read(struct idx_file *f, void *data, uint64_t bytes, struct err *e)
{
    ensure(bytes <= INT_MAX);
    int got = gzread(f->gz, data, (unsigned)bytes), code = Z_OK;
    const char *why = gzerror(f->gz, &code);
    if (got < 0 || (code != Z_OK && code != Z_BUF_ERROR && code != Z_STREAM_END)) {
        if (code == Z_ERRNO)
            return err_errno(e, EXIT_CODE_PERMANENT, "cannot read %s", f->path);
        return err_set(e, EXIT_CODE_PERMANENT, "%s is damaged: gzip says %s", f->path, why);
    }
    f->bytes_read += (uint64_t)got;
    if ((uint64_t)got < bytes)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is too short: it ends after %llu bytes and its header announces %llu",
                       f->path, (unsigned long long)f->bytes_read, (unsigned long long)f->bytes);
    digest_bytes(f->digest, data, bytes);
    return 0;
}

int idx_file_end(struct idx_file *f, struct err *e)
{
    unsigned char byte;
    int got = gzread(f->gz, &byte, 1), code = Z_OK;
    if (got == 0) {
        gzerror(f->gz, &code);
        if (code == Z_OK || code == Z_STREAM_END)
            return seen_check(&f->seen, f->path, e);
        return err_set(e, EXIT_CODE_PERMANENT, "%s is too short: its gzip stream does not end",
                       f->path);
    }
    if (got < 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is damaged: gzip says %s", f->path,
                       gzerror(f->gz, &code));
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s is too long: its header announces %llu bytes and more follow", f->path,
                   (unsigned long long)f->bytes);
}

static uint32_t big_endian(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static int header_check(struct idx_file *f, const unsigned char *header, int images, struct err *e)
{
    f->count = big_endian(header + 4);
    f->rows = images ? big_endian(header + 8) : 1;
    f->columns = images ? big_endian(header + 12) : 1;
    if (f->count == 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s announces 0 %s; expected at least 1", f->path,
                       images ? "images" : "labels");
    if (f->rows == 0 || f->columns == 0 || f->rows > IDX_PIXELS_MAX ||
        f->columns > IDX_PIXELS_MAX || f->rows * f->columns > IDX_PIXELS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s announces images of %llu x %llu; expected 1 to %d pixels", f->path,
                       (unsigned long long)f->rows, (unsigned long long)f->columns, IDX_PIXELS_MAX);
    f->bytes =
        (images ? IMAGES_HEADER_BYTES : LABELS_HEADER_BYTES) + f->count * f->rows * f->columns;
    return 0;
}

int idx_file_open(struct idx_file *f, enum idx_kind kind, struct err *e)
{
    int images = kind == IDX_IMAGES;
    unsigned char header[IMAGES_HEADER_BYTES];
    uint32_t wanted = images ? IMAGES_MAGIC : LABELS_MAGIC;
    f->gz = gzopen(f->path, "rb"); /* reads plain files as they are */
    if (!f->gz)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open %s", f->path);
    gzbuffer(f->gz, BUFFER_BYTES);
    f->bytes = images ? IMAGES_HEADER_BYTES : LABELS_HEADER_BYTES; /* until the header says more */
    if (idx_file_read(f, header, 4, e) != 0)
        return -1;
    if (big_endian(header) != wanted)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has the magic number 0x%08x; expected 0x%08x (%s of unsigned bytes)",
                       f->path, big_endian(header), wanted, images ? "images" : "labels");
    if (idx_file_read(f, header + 4, f->bytes - 4, e) != 0)
        return -1;
    return header_check(f, header, images, e);
}

void idx_file_close(struct idx_file *f)
{
    if (f->gz)
        gzclose(f->gz);
    f->gz = NULL;
}
