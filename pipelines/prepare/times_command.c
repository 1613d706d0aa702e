/* times_command.c - `prepare times`: when each row that evaluates is decided, for predict.sh.
 *
 * Of a file that `prepare bars` made (its attribute timeframe tells): the data set times of the
 * group data.validation of data.file, as int64 one behind the other. Of any other nothing is
 * written: its rows are of no moment. A process of its own reads it because the file may be
 * anybody's, and libhdf5 may die of a damaged one.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "pipelines/prepare/arguments.h"
#include "pipelines/prepare/cuts.h"
#include "pipelines/prepare/like.h"
#include "pipelines/prepare/prepare.h"
#include "proto/durable.h"
#include "proto/h5file.h"

enum { BLOCK_ROWS = 1 << 16 };

static const char help[] =
    "usage: prepare times --config FILE --out FILE [--set SECTION.KEY=VALUE]...\n\n"
    "Writes when the rows of data.validation of data.file are decided (Unix time, int64 each), if\n"
    "prepare bars made that file; else nothing.\n\n"
    "  --config FILE              pipeline file\n"
    "  --out FILE                 what is made\n"
    "  --set SECTION.KEY=VALUE    change one option; repeatable, later ones win\n"
    "  --help                     this\n\n"
    "example: prepare times --config mine.yaml --out times\n";

static int times_copy(struct h5reader *r, const struct h5array *a, const char *out, struct err *e)
{
    int64_t *block = malloc(BLOCK_ROWS * sizeof *block);
    int fd = block ? open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    int result = fd >= 0 ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot make %s", out);
    for (uint64_t row = 0, rows; result == 0 && row < a->dims[0]; row += rows) {
        rows = a->dims[0] - row < BLOCK_ROWS ? a->dims[0] - row : BLOCK_ROWS;
        result = h5reader_rows(r, a, row, rows, block, e);
        if (result == 0)
            result =
                durable_pwrite_all(fd, block, rows * sizeof *block, row * sizeof *block, out, e);
    }
    if (fd >= 0)
        close(fd);
    free(block);
    return result;
}

/* A file made by another version, or by hand, may be without. */
static int times_write(struct h5reader *r, const struct options *o, const char *out, struct err *e)
{
    struct h5array a;
    char path[H5FILE_NAME_MAX + 1];
    char *timeframe = h5reader_text_new(r, "timeframe");
    int there = timeframe && h5reader_has(r, check_path(o->data_validation, "times", path));
    free(timeframe);
    if (!there)
        return 0;
    if (h5reader_foreign(r, path, &a, e) < 0)
        return -1;
    if (a.type != H5TYPE_I64 || a.rank != 1)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s in %s has type %s and %d dimensions; expected i64 [N], Unix time", path,
                       o->data_file, h5type_name(a.type), a.rank);
    return times_copy(r, &a, out, e);
}

int prepare_times(int argc, char **argv)
{
    static struct options o; /* large */
    struct arguments a;
    struct err e = {0};
    struct h5reader *r = NULL;
    int result = arguments_parse(&a, argc, argv, ARGUMENTS_OUT, &e);
    if (result == 0 && a.help) {
        fputs(help, stdout);
        return EXIT_CODE_DONE;
    }
    if (result == 0 && (result = options_read(&o, a.config, a.set, a.set_count, &e)) == 0) {
        result = h5reader_open(&r, o.data_file, &e);
        if (result == 0)
            result = times_write(r, &o, a.out, &e);
        h5reader_close(&r);
        options_free(&o);
    }
    if (result == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "prepare times: %s\n", e.text);
    return e.code;
}
