/* checkpoint_map.c - see checkpoint_map.h. libhdf5 says where the arrays lie; what is mapped there
 * is verified, so it does not matter whether the file is still the one that libhdf5 has read.
 */
#include "proto/checkpoint_map.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/checkpoint_private.h"

/* Where one tensor lies in the file. */
static int tensor_find(struct h5reader *r, const char *path, const struct checkpoint_tensor *t,
                       struct h5array *array, struct err *e)
{
    char name[H5FILE_NAME_MAX + 1];
    if (h5reader_array(r, checkpoint_array_name(name, "parameters", t), array, e) < 0)
        return err_prefix(e, "checkpoint %s", path);
    if (array->type != H5TYPE_F32 || array->rank != t->rank ||
        memcmp(array->dims, t->dims, (size_t)t->rank * sizeof t->dims[0]) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "checkpoint %s is of another model: its %s is not what the model has there",
                       path, name);
    if (array->file_offset % sizeof(float) || array->file_offset > INT64_MAX)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot map %s of checkpoint %s: it is not stored in one piece at a multiple "
            "of 4 bytes, as trainerd writes it",
            name, path);
    return 0;
}

/* Where all of them lie: arrays[count], and the range of the file that holds them. */
static int tensors_find(const char *path, const struct checkpoint_tensor *tensors, uint32_t count,
                        struct h5array *arrays, uint64_t *begin, uint64_t *end, struct err *e)
{
    struct h5reader *r = NULL;
    int result = h5reader_open(&r, path, e);
    *begin = UINT64_MAX;
    *end = 0;
    for (uint32_t i = 0; result == 0 && i < count; i++) {
        struct h5array *a = &arrays[i];
        result = tensor_find(r, path, &tensors[i], a, e);
        if (result < 0)
            break;
        *begin = a->file_offset < *begin ? a->file_offset : *begin;
        *end = a->file_offset + a->bytes > *end ? a->file_offset + a->bytes : *end;
    }
    h5reader_close(&r);
    return result;
}

/* Bytes begin .. end - 1 of the file, from a page's beginning on. */
static int range_map(struct checkpoint_map *m, const char *path, uint64_t begin, uint64_t end,
                     struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC), result = -1;
    if (fd < 0 || fstat(fd, &st) < 0) {
        err_errno(e, EXIT_CODE_PERMANENT, "cannot map checkpoint %s", path);
        goto out;
    }
    if ((uint64_t)st.st_size < end) {
        err_set(e, EXIT_CODE_PERMANENT,
                "cannot map checkpoint %s: it has %" PRIu64
                " bytes, its parameters end at %" PRIu64,
                path, (uint64_t)st.st_size, end);
        goto out;
    }
    void *at = mmap(NULL, end - begin, PROT_READ, MAP_SHARED, fd, (off_t)begin);
    if (at == MAP_FAILED) {
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot map checkpoint %s", path);
        goto out;
    }
    m->at = at;
    m->bytes = end - begin;
    result = 0;
out:
    if (fd >= 0)
        close(fd);
    return result;
}

/* What is mapped against the digest that the file says its parameters have. */
static int map_verify(const struct checkpoint_map *m, const char *path,
                      const struct checkpoint_meta *meta, const struct h5array *arrays,
                      uint32_t count, struct err *e)
{
    struct digest *d;
    char found[65];
    if (digest_open(&d, e) < 0)
        return -1;
    for (uint32_t i = 0; i < count; i++)
        digest_array(d, arrays[i].name, arrays[i].type, arrays[i].rank, arrays[i].dims,
                     m->parameters[i]);
    digest_close(&d, found);
    if (strcmp(found, meta->parameters_sha256) == 0)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "checkpoint %s is damaged: its parameters have digest %s, stored is %s", path,
                   found, meta->parameters_sha256);
}

int checkpoint_map_open(struct checkpoint_map *m, const char *path, struct checkpoint_meta *meta,
                        const struct checkpoint_tensor *tensors, uint32_t count, struct err *e)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), begin, end;
    int result = -1;
    *m = (struct checkpoint_map){0};
    struct h5array *arrays = calloc(count, sizeof *arrays);
    m->parameters = calloc(count, sizeof *m->parameters);
    if (!arrays || !m->parameters) {
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot map checkpoint %s", path);
        goto out;
    }
    if (checkpoint_read_meta(path, meta, NULL, 0, e) < 0 ||
        tensors_find(path, tensors, count, arrays, &begin, &end, e) < 0)
        goto out;
    begin = begin / page * page;
    if (range_map(m, path, begin, end, e) < 0)
        goto out;
    for (uint32_t i = 0; i < count; i++)
        m->parameters[i] = (const float *)((const char *)m->at + (arrays[i].file_offset - begin));
    result = map_verify(m, path, meta, arrays, count, e);
out:
    free(arrays);
    if (result < 0)
        checkpoint_map_close(m);
    return result;
}

void checkpoint_map_close(struct checkpoint_map *m)
{
    if (m->at)
        munmap(m->at, (size_t)m->bytes);
    free(m->parameters);
    *m = (struct checkpoint_map){0};
}
