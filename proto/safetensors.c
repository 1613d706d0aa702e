/* safetensors.c - see safetensors.h: the file around the header. The header itself is read and made
 * by safetensors_header.c. */
#include "proto/safetensors_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"

enum { LENGTH_BYTES = 8 };

static int bytes_read(const struct safetensors *s, void *data, uint64_t bytes, uint64_t offset,
                      struct err *e)
{
    char *to = data;
    while (bytes > 0) {
        ssize_t got = pread(s->fd, to, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", s->path);
        if (got == 0)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "cannot read %s: it became shorter while it was read", s->path);
        to += got;
        offset += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return 0;
}

/* The length that the file claims for its header, if it can be that. */
static int length_read(struct safetensors *s, uint64_t file_bytes, uint64_t *bytes, struct err *e)
{
    unsigned char raw[LENGTH_BYTES];
    if (file_bytes < LENGTH_BYTES + 2)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is no safetensors file: it has %" PRIu64
                       " bytes, the shortest one has 10",
                       s->path, file_bytes);
    if (bytes_read(s, raw, sizeof raw, 0, e) < 0)
        return -1;
    *bytes = 0;
    for (int i = LENGTH_BYTES; i-- > 0;)
        *bytes = *bytes << 8 | raw[i];
    if (*bytes >= 2 && *bytes <= file_bytes - LENGTH_BYTES && *bytes <= SAFETENSORS_HEADER_MAX)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s is no safetensors file: it claims a header of %" PRIu64
                   " bytes; accepted: 2 to %d, and no more than the %" PRIu64
                   " bytes that the file has",
                   s->path, *bytes, SAFETENSORS_HEADER_MAX, file_bytes);
}

static int header_read(struct safetensors *s, struct err *e)
{
    struct stat st;
    uint64_t bytes = 0;
    if (fstat(s->fd, &st) < 0 || !S_ISREG(st.st_mode))
        return err_set(e, EXIT_CODE_PERMANENT, "cannot read %s: it is not a regular file", s->path);
    if (length_read(s, (uint64_t)st.st_size, &bytes, e) < 0)
        return -1;
    char *text = malloc(bytes);
    if (!text)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the header of %s", s->path);
    s->data_at = LENGTH_BYTES + bytes;
    s->data_bytes = (uint64_t)st.st_size - s->data_at;
    int result = bytes_read(s, text, bytes, LENGTH_BYTES, e);
    if (result == 0)
        result = safetensors_header_parse(s, text, bytes, e);
    free(text);
    return result;
}

int safetensors_open(struct safetensors *s, const char *path, struct err *e)
{
    *s = (struct safetensors){.path = path};
    s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us */
    if (s->fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open %s", path);
    if (header_read(s, e) == 0)
        return 0;
    safetensors_close(s);
    return -1;
}

void safetensors_close(struct safetensors *s)
{
    for (uint32_t i = 0; i < s->metadata_count; i++) {
        free(s->metadata[i].key);
        free(s->metadata[i].value);
    }
    free(s->tensors);
    if (s->path && s->fd >= 0)
        close(s->fd);
    *s = (struct safetensors){.fd = -1};
}

static int name_compare(const void *key, const void *tensor)
{
    return strcmp(key, ((const struct safetensor *)tensor)->name);
}

const struct safetensor *safetensors_find(const struct safetensors *s, const char *name)
{
    return s->count ? bsearch(name, s->tensors, s->count, sizeof *s->tensors, name_compare) : NULL;
}

const char *safetensors_metadata(const struct safetensors *s, const char *key)
{
    for (uint32_t i = 0; i < s->metadata_count; i++)
        if (strcmp(s->metadata[i].key, key) == 0)
            return s->metadata[i].value;
    return NULL;
}

uint64_t safetensor_items(const struct safetensor *t)
{
    return (t->end - t->first) / safetensors_type_bytes(t->type);
}

int safetensors_read(const struct safetensors *s, const struct safetensor *t, uint64_t first,
                     uint64_t bytes, void *data, struct err *e)
{
    ensure(first <= t->end - t->first && bytes <= t->end - t->first - first);
    return bytes_read(s, data, bytes, s->data_at + t->first + first, e);
}

static uint64_t source_bytes(const struct safetensors_source *t)
{
    uint64_t bytes = safetensors_type_bytes(t->type);
    for (int i = 0; i < t->rank; i++)
        bytes *= t->dims[i];
    return bytes;
}

static int file_fill(int fd, const char *path, const char *header, size_t header_bytes,
                     const struct safetensors_source *sources, uint32_t count, struct err *e)
{
    unsigned char raw[LENGTH_BYTES];
    uint64_t at = LENGTH_BYTES + header_bytes;
    for (int i = 0; i < LENGTH_BYTES; i++)
        raw[i] = (unsigned char)(header_bytes >> 8 * i);
    if (durable_pwrite_all(fd, raw, sizeof raw, 0, path, e) < 0 ||
        durable_pwrite_all(fd, header, header_bytes, LENGTH_BYTES, path, e) < 0)
        return -1;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t bytes = source_bytes(&sources[i]);
        if (durable_pwrite_all(fd, sources[i].data, bytes, at, path, e) < 0)
            return -1;
        at += bytes;
    }
    return 0;
}

int safetensors_write(const char *path, const struct safetensors_source *sources, uint32_t count,
                      const struct safetensors_text *metadata, uint32_t metadata_count,
                      struct err *e)
{
    char temporary[4096 + 16];
    size_t header_bytes = 0;
    int fd = -1, result = -1;
    char *header = safetensors_header_make(sources, count, metadata, metadata_count, &header_bytes);
    if (!header)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the header of %s", path);
    int used = snprintf(temporary, sizeof temporary, "%s.tmp-%d", path, (int)getpid());
    if (used < 0 || (size_t)used >= sizeof temporary) {
        err_set(e, EXIT_CODE_PERMANENT, "the path %.60s... has %zu bytes, at most 4096 fit", path,
                strlen(path));
        goto out;
    }
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        err_errno(e, EXIT_CODE_PERMANENT, "cannot make %s", path);
        goto out;
    }
    result = file_fill(fd, temporary, header, header_bytes, sources, count, e);
    if (close(fd) < 0 && result == 0)
        result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot write %s", path);
    if (result == 0)
        result = durable_commit(temporary, path, e);
    else
        unlink(temporary);
out:
    free(header);
    return result;
}
