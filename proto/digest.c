/* digest.c - SHA-256 over named arrays: what a checkpoint, a Fisher file and weights_sha256 are
 * known by.
 *
 * An array enters as one header line "name type rank dim dim ...\n" and then its bytes, so that
 * neither a renamed nor a reshaped array keeps its digest. The bytes are little-endian: the
 * machine's own here, which the check below insists on.
 */
#include "proto/h5file.h"

#include <errno.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "digests are over little-endian bytes");

struct digest {
    struct sha256_ctx sha;
};

int digest_open(struct digest **d_p, struct err *e)
{
    *d_p = calloc(1, sizeof **d_p);
    if (!*d_p)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot begin a SHA-256");
    sha256_init(&(*d_p)->sha);
    return 0;
}

void digest_array(struct digest *d, const char *name, enum h5type type, int rank,
                  const uint64_t *dims, const void *data)
{
    char header[H5FILE_NAME_MAX + 64 + 21 * H5FILE_RANK_MAX];
    uint64_t bytes = h5type_bytes(type);
    ensure(rank >= 0 && rank <= H5FILE_RANK_MAX && strlen(name) <= H5FILE_NAME_MAX);
    int used = snprintf(header, sizeof header, "%s %s %d", name, h5type_name(type), rank);
    for (int i = 0; i < rank; i++) {
        used += snprintf(header + used, sizeof header - (size_t)used, " %" PRIu64, dims[i]);
        bytes *= dims[i];
    }
    header[used++] = '\n';
    digest_bytes(d, header, (uint64_t)used);
    digest_bytes(d, data, bytes);
}

void digest_bytes(struct digest *d, const void *data, uint64_t bytes)
{
    sha256_update(&d->sha, bytes, data);
}

void digest_close(struct digest **d_p, char hex[65])
{
    uint8_t raw[SHA256_DIGEST_SIZE];
    if (!*d_p)
        return;
    sha256_digest(&(*d_p)->sha, sizeof raw, raw);
    for (size_t i = 0; i < sizeof raw; i++)
        snprintf(hex + 2 * i, 3, "%02x", raw[i]);
    free(*d_p);
    *d_p = NULL;
}
