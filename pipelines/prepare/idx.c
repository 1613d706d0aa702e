/* idx.c - `prepare idx`: idx image files (the format of MNIST and its family) -> one dense HDF5
 * file.
 *
 *   train-images-idx3-ubyte  ->  train/features       u8 [N, rows * columns]
 *   train-labels-idx1-ubyte  ->  train/targets        u8 [N]
 *   t10k-images-idx3-ubyte   ->  validation/features
 *   t10k-labels-idx1-ubyte   ->  validation/targets
 *
 * each plain or with .gz. Everything is streamed, checked before it is believed, and committed at
 * once: the file is the old one or the whole new one. With --only, rows of other classes are left
 * out (idx_labels.h). A file made from the same sources (names, sizes, times) is left alone, and so
 * is one that prepare did not make (own.h). The fingerprint is over what the idx files hold, so
 * packing does not change it.
 */
#include "pipelines/prepare/prepare.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "pipelines/prepare/idx_file.h"
#include "pipelines/prepare/idx_labels.h"
#include "pipelines/prepare/own.h"
#include "pipelines/prepare/place.h"
#include "proto/err.h"
#include "proto/h5file.h"

#define LAYOUT_VERSION "dense 1"
enum {
    FILES = 4,      /* images and labels of two splits */
    GZIP_LEVEL = 1, /* of images: 1 % larger than level 4, decoded 1.25 times as fast */
    FEATURE_CHUNK_ROWS = 256,
    FEATURE_CHUNK_BYTES_MAX = 4 << 20, /* larger images get fewer rows a chunk */
    TARGET_CHUNK_ROWS = 8192,
};

static const char *const file_names[FILES] = {
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
};

struct idx_config {
    const char *source, *out;
    unsigned classes;
    struct idx_selection selection;
    int rebuild;
};

struct idx {
    const struct idx_config *config;
    struct idx_file file[FILES];
    char stamp[OWN_STAMP_BYTES];
    struct h5writer *writer;
    struct digest *digest;
    unsigned char *piece;
    double shown_s;
};

/* ---- source files --------------------------------------------------------------------------- */

/* Find each source file, plain before .gz, and write the stamp: what must differ for a rebuild. */
static int sources_find(struct idx *x, struct err *e)
{
    size_t used = (size_t)snprintf(x->stamp, sizeof x->stamp, "%s classes=%u%s", LAYOUT_VERSION,
                                   x->config->classes, x->config->selection.text);
    for (int i = 0; i < FILES; i++) {
        struct stat st;
        char *path = x->file[i].path;
        int length = snprintf(path, PATH_MAX, "%s/%s", x->config->source, file_names[i]);
        if (length < 0 || length > PATH_MAX - 4)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "cannot use the source directory: its path has more "
                           "than %d bytes",
                           PATH_MAX - 64);
        if (stat(path, &st) != 0) {
            memcpy(path + length, ".gz", 4);
            if (stat(path, &st) != 0)
                return err_errno(e, EXIT_CODE_PERMANENT,
                                 "cannot find %s (with or without .gz) in %s", file_names[i],
                                 x->config->source);
        }
        if (!S_ISREG(st.st_mode))
            return err_set(e, EXIT_CODE_PERMANENT, "%s is not a regular file", path);
        x->file[i].seen = seen_of(&st);
        x->stamp[used++] = '\n';
        own_stamp_file(x->stamp + used, sizeof x->stamp - used, path, &st);
        used += strlen(x->stamp + used);
    }
    return 0;
}

/* ---- conversion ----------------------------------------------------------------------------- */

/* A line rewritten in place on a terminal, ten times a second; elsewhere one line a split. */
static void progress(struct idx *x, const char *group, uint64_t done, uint64_t rows)
{
    struct timespec now;
    int terminal = isatty(STDERR_FILENO);
    clock_gettime(CLOCK_MONOTONIC, &now);
    double now_s = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    if (done < rows && (!terminal || now_s - x->shown_s < 0.1))
        return;
    x->shown_s = now_s;
    fprintf(stderr, "%sprepare idx: %s %llu of %llu rows%s", terminal ? "\r" : "", group,
            (unsigned long long)done, (unsigned long long)rows, done < rows ? "" : "\n");
}

/* Rows of the image file from row *row on into x->piece, until `chunk` are wanted or all are read.
 */
static int rows_read(struct idx *x, struct idx_file *f, const struct idx_labels *labels,
                     uint64_t *row, uint64_t chunk, uint64_t *filled, struct err *e)
{
    uint64_t row_bytes = f->rows * f->columns;
    *filled = 0;
    while (*row < f->count && *filled < chunk) {
        if (idx_file_read(f, x->piece + *filled * row_bytes, row_bytes, e) != 0)
            return -1;
        *filled += labels->wanted[(*row)++];
    }
    return 0;
}

/* The wanted rows of the opened images into data set `name`, chunk by chunk. */
static int images_convert(struct idx *x, struct idx_file *f, const struct idx_labels *labels,
                          const char *name, struct err *e)
{
    uint64_t row_bytes = f->rows * f->columns, dims[2] = {labels->wanted_rows, row_bytes};
    uint64_t chunk = FEATURE_CHUNK_BYTES_MAX / row_bytes < FEATURE_CHUNK_ROWS
                         ? FEATURE_CHUNK_BYTES_MAX / row_bytes
                         : FEATURE_CHUNK_ROWS;
    if (chunk > dims[0])
        chunk = dims[0];
    if (h5writer_rows_begin(x->writer, name, H5TYPE_U8, 2, dims, chunk, GZIP_LEVEL, e) != 0)
        return -1;
    for (uint64_t row = 0; row < f->count;) {
        uint64_t rows;
        if (rows_read(x, f, labels, &row, chunk, &rows, e) != 0 ||
            (rows && h5writer_rows_append(x->writer, name, x->piece, rows, e) != 0))
            return -1;
        progress(x, name, row, f->count);
    }
    return idx_file_end(f, e);
}

static int labels_convert(struct idx *x, const struct idx_labels *labels, const char *name,
                          struct err *e)
{
    uint64_t all = labels->wanted_rows, chunk = all < TARGET_CHUNK_ROWS ? all : TARGET_CHUNK_ROWS;
    if (h5writer_rows_begin(x->writer, name, H5TYPE_U8, 1, &all, chunk, GZIP_LEVEL, e) != 0)
        return -1;
    for (uint64_t row = 0; row < all; row += chunk)
        if (h5writer_rows_append(x->writer, name, labels->label + row,
                                 all - row < chunk ? all - row : chunk, e) != 0)
            return -1;
    return 0;
}

static int split_convert(struct idx *x, const char *group, struct idx_file *images,
                         struct idx_file *labels, struct err *e)
{
    struct idx_labels of_rows = {0};
    char name[64];
    int result = -1;
    images->digest = labels->digest = x->digest;
    if (idx_file_open(images, IDX_IMAGES, e) != 0 || idx_file_open(labels, IDX_LABELS, e) != 0)
        goto out;
    if (images->count != labels->count) {
        err_set(e, EXIT_CODE_PERMANENT,
                "%s announces %llu images and %s %llu labels; expected as many", images->path,
                (unsigned long long)images->count, strrchr(labels->path, '/') + 1,
                (unsigned long long)labels->count);
        goto out;
    }
    if (images != x->file &&
        (images->rows != x->file[0].rows || images->columns != x->file[0].columns)) {
        err_set(e, EXIT_CODE_PERMANENT,
                "%s has images of %llu x %llu; expected %llu x %llu as in %s", images->path,
                (unsigned long long)images->rows, (unsigned long long)images->columns,
                (unsigned long long)x->file[0].rows, (unsigned long long)x->file[0].columns,
                strrchr(x->file[0].path, '/') + 1);
        goto out;
    }
    snprintf(name, sizeof name, "%s/targets", group);
    if (idx_labels_read(&of_rows, labels, &x->config->selection, x->config->classes, e) != 0 ||
        labels_convert(x, &of_rows, name, e) != 0)
        goto out;
    snprintf(name, sizeof name, "%s/features", group);
    result = images_convert(x, images, &of_rows, name, e);
out:
    idx_labels_close(&of_rows);
    idx_file_close(images);
    idx_file_close(labels);
    return result;
}

static int attributes_write(struct idx *x, struct err *e)
{
    return own_attributes(x->writer, &x->digest, x->config->source, x->stamp, "dense", e) < 0 ||
                   h5writer_u64(x->writer, "", "image_rows", x->file[0].rows, e) < 0 ||
                   h5writer_u64(x->writer, "", "image_columns", x->file[0].columns, e) < 0
               ? -1
               : 0;
}

static int idx_convert(struct idx *x, struct err *e)
{
    int result = -1;
    x->piece = malloc(FEATURE_CHUNK_BYTES_MAX);
    if (!x->piece) {
        err_set(e, EXIT_CODE_TEMPORARY, "cannot get memory for a chunk of images");
        goto out;
    }
    if (place_ready(x->config->out, e) != 0 || digest_open(&x->digest, e) != 0)
        goto out;
    digest_bytes(x->digest, LAYOUT_VERSION, sizeof LAYOUT_VERSION);
    digest_bytes(x->digest, x->config->selection.text, strlen(x->config->selection.text));
    if (place_begin(&x->writer, x->config->out, e) != 0 ||
        split_convert(x, "train", &x->file[0], &x->file[1], e) != 0 ||
        split_convert(x, "validation", &x->file[2], &x->file[3], e) != 0 ||
        attributes_write(x, e) != 0)
        goto out;
    result = place_commit(&x->writer, x->config->out, e);
out:
    h5writer_abandon(&x->writer);
    if (x->digest) {
        char hex[65];
        digest_close(&x->digest, hex);
    }
    free(x->piece);
    return result;
}

/* ---- command line --------------------------------------------------------------------------- */

static void help_print(void)
{
    printf(
        "prepare idx --source DIR --out FILE [--classes N] [--only LIST [--labels kept]] "
        "[--rebuild]\n\n"
        "Turns idx image files (MNIST and its family) into one HDF5 file with the groups train "
        "and\n"
        "validation, each with features u8 [N, rows * columns] and targets u8 [N].\n\n"
        "  --source DIR   directory with %s, %s,\n"
        "                 %s and %s, plain or .gz\n"
        "  --out FILE     HDF5 file to make; left alone if it was made from the same sources\n"
        "  --classes N    refuse labels other than 0 to N-1, 1 to %d (default %d: none)\n"
        "  --only LIST    rows of these classes, as 0,1, and no others; their labels are the\n"
        "                 places in the list, from 0\n"
        "  --labels kept  with --only: labels are the classes' own numbers\n"
        "  --rebuild      make it again in any case\n"
        "  --help         this text\n\n"
        "Example: prepare idx --source /usr/share/datasets/fashion-mnist --out data/fashion.h5\n",
        file_names[0], file_names[1], file_names[2], file_names[3], IDX_CLASSES_MAX,
        IDX_CLASSES_MAX);
}

/* 0; 1: help was printed; -1 and *e. */
static int arguments_read(int argc, char **argv, struct idx_config *c, struct err *e)
{
    const char *only = "";
    int kept = 0;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--help") == 0) {
            help_print();
            return 1;
        }
        if (strcmp(argv[i], "--rebuild") == 0) {
            c->rebuild = 1;
            continue;
        }
        if (strcmp(argv[i], "--source") == 0 && value) {
            c->source = value;
        } else if (strcmp(argv[i], "--out") == 0 && value) {
            c->out = value;
        } else if (strcmp(argv[i], "--only") == 0 && value) {
            only = value;
        } else if (strcmp(argv[i], "--labels") == 0 && value &&
                   (strcmp(value, "kept") == 0 || strcmp(value, "position") == 0)) {
            kept = value[0] == 'k';
        } else if (strcmp(argv[i], "--classes") == 0 && value) {
            char *end;
            unsigned long classes = strtoul(value, &end, 10);
            if (*end || classes < 1 || classes > IDX_CLASSES_MAX)
                return err_set(e, EXIT_CODE_PERMANENT, "--classes %s: expected 1 to %d", value,
                               IDX_CLASSES_MAX);
            c->classes = (unsigned)classes;
        } else {
            return err_set(e, EXIT_CODE_PERMANENT, "cannot use %s; see prepare idx --help",
                           argv[i]);
        }
        i++;
    }
    if (!c->source || !c->source[0] || !c->out || !c->out[0])
        return err_set(e, EXIT_CODE_PERMANENT, "%s is missing; see prepare idx --help",
                       c->source && c->source[0] ? "--out FILE" : "--source DIR");
    return idx_selection_read(&c->selection, only, kept, e);
}

int prepare_idx(int argc, char **argv)
{
    struct idx_config config = {.classes = IDX_CLASSES_MAX};
    struct err e = {0};
    struct idx *x = NULL;
    int result = arguments_read(argc, argv, &config, &e);
    if (result > 0)
        return EXIT_CODE_DONE;
    if (result == 0) {
        x = calloc(1, sizeof *x);
        result = x ? 0 : err_set(&e, EXIT_CODE_TEMPORARY, "out of memory");
    }
    if (result == 0) {
        x->config = &config;
        result = sources_find(x, &e);
    }
    int current =
        result == 0 ? own_is_current(config.out, config.source, x->stamp, config.rebuild, &e) : -1;
    if (current > 0)
        fprintf(stderr, "prepare idx: %s is up to date\n", config.out);
    else
        result = current < 0 ? -1 : idx_convert(x, &e);
    free(x);
    if (result == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "prepare idx: %s\n", e.text);
    return e.code;
}
