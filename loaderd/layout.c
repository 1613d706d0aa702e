/* layout.c - see layout.h. */
#include "loaderd/layout.h"

#include <stdio.h>
#include <string.h>

#include "proto/order.h"

/* A span costs some 50 us of messages and wake-ups, whatever it holds. Decoding 1 MiB takes 30
 * times that, copying it out of the page cache twice that: spans that are only copied are longer.
 */
enum {
    FIELD_ALIGNMENT = 64,
    SPAN_BYTES_DECODED = 1 << 20,
    SPAN_BYTES_COPIED = 4 << 20,
    WINDOW_SPANS_AUTO = 4, /* the spans of a window of streams are made smaller: so many of those */
    STREAM_CHUNKS_LOST = 64, /* one row of so many may be left out for streams of whole chunks */
    STREAM_SPAN_CHUNKS = 4,  /* of a span where streams begin inside chunks, each read twice */
};

/* Places the fields of a span of `rows` rows; returns its bytes, UINT64_MAX when they cannot be
 * counted. */
static uint64_t fields_place(struct reader_described *d, uint64_t rows)
{
    uint64_t at = 0, bytes;
    for (uint32_t i = 0; i < d->field_count; i++) {
        d->fields[i].offset = at;
        if (__builtin_mul_overflow(rows, d->fields[i].row_bytes, &bytes) ||
            __builtin_add_overflow(at, bytes, &at) || at > UINT64_MAX - FIELD_ALIGNMENT)
            return UINT64_MAX;
        at = (at + FIELD_ALIGNMENT - 1) / FIELD_ALIGNMENT * FIELD_ALIGNMENT;
    }
    return at;
}

static uint64_t part_rows(const struct reader_described *d)
{
    return d->streams ? d->rows / d->streams : d->rows;
}

/* Rows of a span as resident: no more than there are. */
static uint64_t rows_held(const struct reader_described *d, uint64_t span_rows)
{
    return span_rows < part_rows(d) ? span_rows : part_rows(d);
}

/* The rows that fill the streams: each as long as possible, or a little less where that makes it a
 * whole number of chunks, so that every chunk belongs to one stream and is read once. */
static int streams_cut(struct reader_described *d, struct err *e)
{
    uint64_t rows = d->rows / d->streams, whole = rows / d->chunk_rows * d->chunk_rows;
    if (!rows)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%llu rows do not fill %llu streams; lower training.batch_size",
                       (unsigned long long)d->rows, (unsigned long long)d->streams);
    if (rows - whole <= rows / STREAM_CHUNKS_LOST)
        rows = whole;
    d->rows = rows * d->streams;
    return 0;
}

static int limit_exceeded(const char *what, uint64_t rows, uint64_t bytes, uint64_t limit,
                          const char *advice, struct err *e)
{
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s of %llu rows is %.2f MiB; arena.limit_mb allows %.2f MiB a span (%s)", what,
                   (unsigned long long)rows, (double)bytes / 1048576, (double)limit / 1048576,
                   advice);
}

static int chunks_fit(const struct reader_open *open, const struct source *source,
                      struct reader_described *d, struct err *e)
{
    static const char advice[] =
        "raise arena.limit_mb or store smaller chunks, e.g. by h5repack -l CHUNK=";
    for (uint32_t i = 0; i < d->field_count; i++) {
        const struct source_field *f = source_field(source, i);
        if (f->chunk_bytes > open->span_bytes_limit)
            return limit_exceeded("a chunk", f->chunk_rows, f->chunk_bytes, open->span_bytes_limit,
                                  advice, e) ||
                   err_prefix(e, "%s", f->path);
    }
    uint64_t rows = rows_held(d, d->chunk_rows), bytes = fields_place(d, rows);
    if (bytes > open->span_bytes_limit)
        return limit_exceeded("a chunk", rows, bytes, open->span_bytes_limit, advice, e);
    return 0;
}

static int is_copied(const struct source_field *f)
{
    return f->plain_at != UINT64_MAX || (f->direct && f->plan.count == 0);
}

/* The whole number of chunks that comes nearest to `wanted` bytes and within the limit. */
static uint64_t span_rows_auto(struct reader_described *d, uint64_t wanted, uint64_t limit)
{
    uint64_t row_bytes = 0;
    for (uint32_t i = 0; i < d->field_count; i++)
        row_bytes += d->fields[i].row_bytes;
    uint64_t chunk_bytes = d->chunk_rows * row_bytes;
    if (d->streams > WINDOW_SPANS_AUTO)
        wanted = wanted * WINDOW_SPANS_AUTO / d->streams;
    uint64_t chunks = (wanted + chunk_bytes / 2) / chunk_bytes;
    if (d->streams && part_rows(d) % d->chunk_rows && chunks < STREAM_SPAN_CHUNKS)
        chunks = STREAM_SPAN_CHUNKS;
    uint64_t chunks_max = (part_rows(d) + d->chunk_rows - 1) / d->chunk_rows;
    if (chunks > chunks_max)
        chunks = chunks_max;
    while (chunks > 1 && fields_place(d, rows_held(d, chunks * d->chunk_rows)) > limit)
        chunks--;
    return (chunks ? chunks : 1) * d->chunk_rows;
}

/* As asked, rounded up to whole chunks, and no longer than one span for everything. */
static uint64_t span_rows_asked(const struct reader_described *d, uint64_t asked)
{
    uint64_t rows = rows_held(d, asked);
    return (rows + d->chunk_rows - 1) / d->chunk_rows * d->chunk_rows;
}

int layout_make(const struct reader_open *open, const struct source *source,
                struct reader_described *d, struct err *e)
{
    d->rows = source_rows(source);
    d->chunk_rows = source_chunk_rows(source);
    d->streams = open->streams;
    if (d->streams && streams_cut(d, e) != 0)
        return -1;
    d->field_count = source_field_count(source);
    for (uint32_t i = 0; i < d->field_count; i++) {
        const struct source_field *f = source_field(source, i);
        struct msg_field_info *info = &d->fields[i];
        snprintf(info->name, sizeof info->name, "%s", f->name);
        snprintf(info->type, sizeof info->type, "%s", h5type_name(f->type));
        info->values = f->values;
        info->row_bytes = f->row_bytes;
    }
    if (chunks_fit(open, source, d, e) != 0)
        return -1;
    uint64_t wanted = is_copied(source_field(source, 0)) ? SPAN_BYTES_COPIED : SPAN_BYTES_DECODED;
    d->span_rows = open->span_rows ? span_rows_asked(d, open->span_rows)
                                   : span_rows_auto(d, wanted, open->span_bytes_limit);
    d->spans = order_spans(
        &(struct order){.rows = d->rows, .span_rows = d->span_rows, .streams = d->streams});
    d->span_bytes_max = fields_place(d, rows_held(d, d->span_rows));
    if (d->span_bytes_max > open->span_bytes_limit)
        return limit_exceeded("a span", d->span_rows, d->span_bytes_max, open->span_bytes_limit,
                              "raise arena.limit_mb or lower order.span_rows", e);
    return 0;
}
