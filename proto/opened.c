/* opened.c - see opened.h. Limits of single numbers are the codec's (messages.def); here is what
 * holds between them. Sums and products are formed only where those limits keep them below 2^64. */
#include "proto/opened.h"

#include <inttypes.h>
#include <string.h>
#include <zlib.h>

#include "proto/order.h"

enum { FIELD_ALIGNMENT = 64 };

static uint64_t type_bytes(const char *type)
{
    static const struct {
        char name[4];
        uint64_t bytes;
    } types[] = {{"u8", 1},  {"i8", 1},  {"u16", 2}, {"i16", 2}, {"u32", 4}, {"i32", 4},
                 {"u64", 8}, {"i64", 8}, {"f32", 4}, {"f64", 8}, {"f16", 2}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, type) == 0)
            return types[i].bytes;
    return 0;
}

static uint64_t rows_max(const struct msg_opened *o)
{
    uint64_t rows = o->streams ? o->rows / o->streams : o->rows;
    return rows < o->span_rows ? rows : o->span_rows;
}

static int order_check(const struct msg_opened *o, uint64_t span_bytes_limit, struct err *e)
{
    static const char start[] = "the loader's description of the data cannot be true";
    if (!o->fingerprint[0] || o->rows == 0 || o->chunk_rows == 0 || o->span_rows == 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: fingerprint \"%s\", %" PRIu64 " rows, %" PRIu64 " a chunk, %" PRIu64
                       " a span; none may be empty",
                       start, o->fingerprint, o->rows, o->chunk_rows, o->span_rows);
    if (o->span_rows % o->chunk_rows != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: a span of %" PRIu64 " rows is not a whole number of chunks of %" PRIu64,
                       start, o->span_rows, o->chunk_rows);
    if (o->streams && o->rows % o->streams != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: %" PRIu64 " rows are no whole number of rows for %" PRIu64 " streams",
                       start, o->rows, o->streams);
    if (o->spans != order_spans(&(struct order){
                        .rows = o->rows, .span_rows = o->span_rows, .streams = o->streams}))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: %" PRIu64 " rows in spans of %" PRIu64 " do not make %" PRIu64 " spans",
                       start, o->rows, o->span_rows, o->spans);
    if (o->span_bytes_max == 0 || o->span_bytes_max > span_bytes_limit)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: a span of %" PRIu64 " bytes, where 1 to %" PRIu64 " were asked for",
                       start, o->span_bytes_max, span_bytes_limit);
    return 0;
}

static int field_check(const struct msg_opened *o, const struct msg_field_info *field,
                       struct err *e)
{
    if (strcmp(field->name, "features") != 0 && strcmp(field->name, "targets") != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the loader describes a data set \"%s\"; features and targets are known",
                       field->name);
    uint64_t bytes = type_bytes(field->type);
    if (bytes == 0 || field->values == 0 || field->row_bytes != field->values * bytes)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the loader describes %s as %" PRIu64 " values of type \"%s\" in %" PRIu64
                       " bytes a row, which cannot be true",
                       field->name, field->values, field->type, field->row_bytes);
    if (field->offset % FIELD_ALIGNMENT != 0 || field->offset > o->span_bytes_max ||
        rows_max(o) > (o->span_bytes_max - field->offset) / field->row_bytes)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the loader puts %s at byte %" PRIu64 " of a span of %" PRIu64
                       " bytes, where %" PRIu64 " rows of %" PRIu64
                       " bytes do not fit (or not at a multiple of %d)",
                       field->name, field->offset, o->span_bytes_max, rows_max(o), field->row_bytes,
                       FIELD_ALIGNMENT);
    return 0;
}

/* Both have passed field_check, so the sums are below span_bytes_max. */
static int fields_overlap(const struct msg_opened *o, const struct msg_field_info *a,
                          const struct msg_field_info *b)
{
    return a->offset < b->offset + rows_max(o) * b->row_bytes &&
           b->offset < a->offset + rows_max(o) * a->row_bytes;
}

int opened_check(const struct msg_opened *o, uint64_t span_bytes_limit, struct err *e)
{
    if (order_check(o, span_bytes_limit, e) < 0)
        return -1;
    for (uint32_t i = 0; i < o->fields_count; i++)
        if (field_check(o, &o->fields[i], e) < 0)
            return -1;
    for (uint32_t i = 0; i < o->fields_count; i++)
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(o->fields[i].name, o->fields[j].name) == 0 ||
                fields_overlap(o, &o->fields[i], &o->fields[j]))
                return err_set(e, EXIT_CODE_PERMANENT,
                               "the loader describes %s and %s as the same or overlapping bytes",
                               o->fields[j].name, o->fields[i].name);
    if (!opened_field(o, "features"))
        return err_set(e, EXIT_CODE_PERMANENT, "the loader describes data without features");
    return 0;
}

static int fields_agree(const struct msg_opened *a, const struct msg_opened *b)
{
    if (a->fields_count != b->fields_count)
        return 0;
    for (uint32_t i = 0; i < a->fields_count; i++) {
        const struct msg_field_info *x = &a->fields[i], *y = &b->fields[i];
        if (strcmp(x->name, y->name) != 0 || strcmp(x->type, y->type) != 0 ||
            x->values != y->values || x->row_bytes != y->row_bytes || x->offset != y->offset)
            return 0;
    }
    return 1;
}

int opened_agrees(const struct msg_opened *first, const struct msg_opened *now, struct err *e)
{
    static const char cause[] = "the data file changed under the run";
    if (strcmp(first->fingerprint, now->fingerprint) != 0)
        return err_set(e, EXIT_CODE_PERMANENT, "%s: its fingerprint was %s and is %s", cause,
                       first->fingerprint, now->fingerprint);
    if (first->rows != now->rows)
        return err_set(e, EXIT_CODE_PERMANENT, "%s: it had %" PRIu64 " rows and has %" PRIu64,
                       cause, first->rows, now->rows);
    if (first->spans != now->spans || first->span_rows != now->span_rows ||
        first->chunk_rows != now->chunk_rows || first->streams != now->streams ||
        first->span_bytes_max != now->span_bytes_max)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: it came in %" PRIu64 " spans of %" PRIu64 " rows and now in %" PRIu64
                       " of %" PRIu64 ", or their chunks or bytes differ",
                       cause, first->spans, first->span_rows, now->spans, now->span_rows);
    if (!fields_agree(first, now))
        return err_set(e, EXIT_CODE_PERMANENT, "%s: its data sets have other names, types or sizes",
                       cause);
    return 0;
}

const struct msg_field_info *opened_field(const struct msg_opened *o, const char *name)
{
    for (uint32_t i = 0; i < o->fields_count; i++)
        if (strcmp(o->fields[i].name, name) == 0)
            return &o->fields[i];
    return NULL;
}

uint64_t opened_checksum(const struct msg_opened *o, const void *slot, uint64_t rows)
{
    uLong crc = crc32_z(0, NULL, 0);
    for (uint32_t i = 0; i < o->fields_count; i++)
        crc =
            crc32_z(crc, (const Bytef *)slot + o->fields[i].offset, rows * o->fields[i].row_bytes);
    return crc;
}
