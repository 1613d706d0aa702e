/* text.c - `prepare text`: files become byte tokens.
 *
 *   train/tokens   [sum of T]  u8   the documents' bytes, one after the other, as they are
 *   train/doc_ptr  [D + 1]     u64  where each document begins; the number of tokens behind the
 * last validation/... the same of other documents
 *
 * A token is a byte: any language, no vocabulary to fit, 256 of them (attribute vocabulary).
 * Nothing is put between documents, doc_ptr says where they end. A document is a file
 * (text_files.h); empty ones are left out. Whole documents train or evaluate; of a single one the
 * end evaluates. The source is read twice, for lengths and fingerprint and for the tokens; never
 * more than a chunk of it is held, and 40 bytes and its name of each document.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/own.h"
#include "pipelines/prepare/piece.h"
#include "pipelines/prepare/place.h"
#include "pipelines/prepare/prepare.h"
#include "pipelines/prepare/progress.h"
#include "pipelines/prepare/split.h"
#include "pipelines/prepare/text_files.h"

#define LAYOUT_VERSION "text 1"
enum { CHUNK_TOKENS = 64 << 10, VOCABULARY = 256 };

struct text {
    const struct options *options;
    struct text_files files;
    struct digest *digest;
    struct h5writer *writer;
    struct piece tokens[2]; /* of train, of validation */
    uint64_t documents, validation_documents, empty;
    uint64_t bytes;             /* of the file being read, so far */
    uint64_t part_documents[2]; /* train, validation */
    uint64_t part_tokens[2];
    uint64_t cut; /* of a single document: tokens that train; else 0 */
    int part;     /* of the document being read */
    const char *doing;
    uint64_t done, stored_bytes; /* of the files before; of the file being read */
    struct progress progress;
};

/* ---- passes --------------------------------------------------------------------------------- */

static void progress(struct text *t)
{
    uint64_t now = t->bytes < t->stored_bytes ? t->bytes : t->stored_bytes;
    progress_show(&t->progress, "text", t->doing,
                  (double)(t->done + now) / (double)(t->files.stored_bytes + 1));
}

static int files_pass(struct text *t, const char *what,
                      int (*begin)(struct text *t, struct text_file *f),
                      int (*take)(void *self, const void *data, uint64_t bytes, struct err *e),
                      int (*end)(struct text *t, struct text_file *f, struct err *e), struct err *e)
{
    t->doing = what;
    t->done = 0;
    for (uint64_t i = 0; i < t->files.count; i++) {
        struct text_file *f = &t->files.file[i];
        t->bytes = 0;
        t->stored_bytes = (uint64_t)f->seen.bytes;
        if (begin(t, f) && (text_file_read(f, take, t, e) < 0 || end(t, f, e) < 0))
            return -1;
        t->done += t->stored_bytes;
    }
    return 0;
}

static int length_begin(struct text *t, struct text_file *f)
{
    (void)t, (void)f;
    return 1;
}

static int length_take(void *self, const void *data, uint64_t bytes, struct err *e)
{
    struct text *t = self;
    (void)e;
    digest_bytes(t->digest, data, bytes);
    t->bytes += bytes;
    progress(t);
    return 0;
}

static int length_end(struct text *t, struct text_file *f, struct err *e)
{
    (void)e;
    f->bytes = t->bytes;
    t->documents += f->bytes > 0;
    t->empty += f->bytes == 0;
    digest_bytes(t->digest, &f->bytes, sizeof f->bytes); /* where a document ends */
    return 0;
}

/* An empty file is no document. */
static int tokens_begin(struct text *t, struct text_file *f)
{
    if (f->bytes == 0)
        return 0;
    t->part = !t->cut && split_evaluates(t->options, t->documents, t->validation_documents,
                                         t->part_documents[0] + t->part_documents[1]);
    t->part_documents[t->part]++;
    return 1;
}

static int tokens_take(void *self, const void *data, uint64_t bytes, struct err *e)
{
    struct text *t = self;
    const unsigned char *from = data;
    progress(t);
    while (bytes > 0) {
        uint64_t now = bytes;
        if (t->cut && t->bytes < t->cut && now > t->cut - t->bytes)
            now = t->cut - t->bytes;
        int part = t->cut ? t->bytes >= t->cut : t->part;
        struct piece *p = &t->tokens[part];
        if (now > t->part_tokens[part])
            return seen_changed(t->options->data_source, e);
        t->part_tokens[part] -= now;
        if (piece_add(p, from, now, e) < 0)
            return -1;
        t->bytes += now;
        from += now;
        bytes -= now;
    }
    return 0;
}

static int tokens_end(struct text *t, struct text_file *f, struct err *e)
{
    return t->bytes == f->bytes ? 0 : seen_changed(f->path, e);
}

/* ---- the file ------------------------------------------------------------------------------- */

/* How many documents and tokens train and evaluate. */
static int parts_count(struct text *t, struct err *e)
{
    uint64_t document = 0, tokens = 0;
    for (uint64_t i = 0; i < t->files.count; i++) {
        uint64_t bytes = t->files.file[i].bytes;
        tokens += bytes;
        if (t->documents < 2 || bytes == 0)
            continue;
        int part = split_evaluates(t->options, t->documents, t->validation_documents, document++);
        t->part_tokens[part] += bytes;
    }
    if (tokens < 2)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %" PRIu64 " bytes in %" PRIu64
                       " files; at least 2 are needed, one to train with and one to evaluate",
                       t->options->data_source, tokens, t->files.count);
    if (t->documents == 1) {
        t->part_tokens[1] = split_validation(t->options, tokens);
        t->part_tokens[0] = t->cut = tokens - t->part_tokens[1];
    }
    return 0;
}

/* The pointers of one part: as its documents follow each other. */
static int pointers_write(struct text *t, int part, struct err *e)
{
    uint64_t count = t->cut ? 1
                     : part ? t->validation_documents
                            : t->documents - t->validation_documents;
    uint64_t dims[] = {count + 1}, at = 0, document = 0;
    uint64_t *pointer = calloc(count + 1, sizeof *pointer);
    if (!pointer)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot write the documents' places");
    if (t->cut)
        pointer[1] = t->part_tokens[part];
    for (uint64_t i = 0; i < t->files.count && !t->cut; i++) {
        uint64_t bytes = t->files.file[i].bytes;
        if (bytes == 0 ||
            split_evaluates(t->options, t->documents, t->validation_documents, document++) != part)
            continue;
        pointer[at + 1] = pointer[at] + bytes;
        at++;
    }
    int result = h5writer_array(t->writer, part ? "validation/doc_ptr" : "train/doc_ptr",
                                H5TYPE_U64, 1, dims, pointer, e);
    free(pointer);
    return result;
}

static int file_write(struct text *t, const char *out, const char *stamp, struct err *e)
{
    if (place_begin(&t->writer, out, e) < 0)
        return -1;
    for (int part = 0; part < 2; part++)
        if (piece_begin(&t->tokens[part], t->writer, part ? "validation/tokens" : "train/tokens",
                        H5TYPE_U8, 1, &t->part_tokens[part], CHUNK_TOKENS, e) < 0 ||
            pointers_write(t, part, e) < 0)
            return -1;
    if (files_pass(t, "writing", tokens_begin, tokens_take, tokens_end, e) < 0 ||
        piece_flush(&t->tokens[0], e) < 0 || piece_flush(&t->tokens[1], e) < 0)
        return -1;
    return own_attributes(t->writer, &t->digest, t->options->data_source, stamp, "tokens", e) < 0 ||
                   h5writer_u64(t->writer, "", "vocabulary", VOCABULARY, e) < 0
               ? -1
               : place_commit(&t->writer, out, e);
}

/* ---- the command ---------------------------------------------------------------------------- */

static void text_close(void *self)
{
    struct text *t = self;
    char hex[65];
    progress_end(&t->progress);
    h5writer_abandon(&t->writer);
    digest_close(&t->digest, hex);
    piece_close(&t->tokens[0]);
    piece_close(&t->tokens[1]);
    text_files_close(&t->files);
    free(t);
}

static int text_open(void **self_p, const struct options *o, struct err *e)
{
    struct text *t = calloc(1, sizeof *t);
    if (!t)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", o->data_source);
    t->options = o;
    int result = text_files_open(&t->files, o->data_source, e);
    if (result < 0)
        text_close(t);
    else
        *self_p = t;
    return result;
}

static int text_stamp(void *self, char *stamp, size_t bytes, struct err *e)
{
    const struct text *t = self;
    const struct options *o = t->options;
    (void)e;
    snprintf(stamp, bytes, "text fraction=%.17g split=%s seed=%" PRIu64 "\n%" PRIu64 " files %s",
             o->prepare_validation_fraction, o->prepare_split, o->prepare_split_seed,
             t->files.count, t->files.digest);
    return 0;
}

static int text_make(void *self, const char *out, const char *stamp, struct err *e)
{
    struct text *t = self;
    if (digest_open(&t->digest, e) < 0)
        return -1;
    own_digest_options(t->digest, stamp);
    if (files_pass(t, "reading", length_begin, length_take, length_end, e) < 0)
        return -1;
    if (t->documents > 1)
        t->validation_documents = split_validation(t->options, t->documents);
    if (parts_count(t, e) < 0)
        return -1;
    uint64_t tokens[] = {t->part_tokens[0], t->part_tokens[1]};
    if (file_write(t, out, stamp, e) < 0)
        return -1;
    progress_end(&t->progress);
    fprintf(stderr,
            "prepare text: %" PRIu64 " documents, %" PRIu64 " tokens to train and %" PRIu64
            " to evaluate%s -> %s\n",
            t->documents, tokens[0], tokens[1], t->cut ? " (the end of the only document)" : "",
            out);
    if (t->empty)
        fprintf(stderr, "prepare text: %" PRIu64 " empty files were left out\n", t->empty);
    return 0;
}

int prepare_text(int argc, char **argv)
{
    static const struct maker text = {
        .name = "text",
        .does = "Turns the file data.source, or the files below that directory (plain or gzip, "
                "sorted by name; not\nthose that begin with a dot, nor symbolic links) into one "
                "HDF5 file: groups train and validation,\neach with tokens, the bytes of its "
                "documents one after the other, and doc_ptr, where each begins.",
        .version = LAYOUT_VERSION,
        .open = text_open,
        .stamp = text_stamp,
        .make = text_make,
        .close = text_close,
    };
    return own_prepare(argc, argv, &text);
}
