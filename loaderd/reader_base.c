/* reader_base.c - see reader_base.h. */
#include "loaderd/reader_base.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loaderd/decoders.h"
#include "loaderd/h5source.h"
#include "proto/h5file.h"
#include "proto/highwater.h"
#include "proto/limits.h"
#include "proto/log.h"

enum { ROWS = 4 };

static int file_write(const char *path, struct err *e)
{
    static const float features[ROWS][1];
    static const uint8_t targets[ROWS];
    const uint64_t dims[] = {ROWS, 1};
    struct h5writer *w = NULL;
    if (h5writer_open(&w, path, e) == 0 &&
        h5writer_gzip(w, "features", H5TYPE_F32, 2, dims, dims, 6, features, e) == 0 &&
        h5writer_gzip(w, "targets", H5TYPE_U8, 1, dims, dims, 6, targets, e) == 0)
        return h5writer_commit(&w, e);
    h5writer_abandon(&w);
    return -1;
}

/* libhdf5's tables, the threads, and a file that is open. */
static int source_measure(int fd, uint64_t *bytes, struct err *e)
{
    const struct source_wish wish = {"", "features", "targets", "", 1};
    struct decoders *decoders = NULL;
    struct source *source = NULL;
    char fingerprint[65];
    int result = -1;
    source_library_open();
    if (decoders_open(&decoders, (unsigned)limits_decoders("", LIMITS_AUTO),
                      (unsigned)limits_readers("", LIMITS_AUTO), e) == 0 &&
        source_open(&source, fd, &wish, e) == 0 &&
        source_fingerprint(source, fingerprint, e) == 0) {
        *bytes = highwater_bytes(getpid(), "RssAnon");
        result = 0;
    }
    source_close(&source);
    decoders_close(&decoders);
    return result;
}

int reader_base_main(void)
{
    char path[] = "/tmp/finetuned-base-XXXXXX";
    struct err e = {0};
    uint64_t bytes = 0;
    int result = -1, fd = mkstemp(path);
    if (fd < 0)
        err_errno(&e, EXIT_CODE_TEMPORARY, "cannot make a temporary file (%s)", path);
    if (fd >= 0 && close(fd) == 0 && file_write(path, &e) == 0) {
        fd = open(path, O_RDONLY | O_CLOEXEC);
        result = fd < 0 ? err_errno(&e, EXIT_CODE_TEMPORARY, "cannot open %s", path)
                        : source_measure(fd, &bytes, &e);
    }
    unlink(path);
    if (result == 0 && printf("base.reader=%llu\n", (unsigned long long)bytes) > 0 &&
        fflush(stdout) == 0)
        return EXIT_CODE_DONE;
    log_error("code=%d cannot measure what a reader takes before it has work: %s", e.code, e.text);
    return e.code ? e.code : EXIT_CODE_TEMPORARY;
}
