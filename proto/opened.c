/* opened.c - see opened.h. Limits of single numbers are the codec's (messages.def); here is what
 * holds between them. Sums and products are formed only where those limits keep them below 2^64. */
#include "proto/opened.h"

#include <inttypes.h>
#include <string.h>
#include <zlib.h>

#include "proto/order.h"
#include "proto/span.h"

enum { FIELD_ALIGNMENT = 64, POINTER_BYTES = 8 };

/* What a layout may consist of. */
static const struct field_kind {
    const char *layout, *name; /* a name ending in / begins that of any number of fields */
    const char *pointer;       /* field that cuts it, or "" */
    int is_pointer, is_needed;
} kinds[] = {
    {"dense", "features", "", 0, 0},
    {"dense", "features/", "", 0, 0},
    {"dense", "targets", "", 0, 0},
    {"dense", "weights", "", 0, 0},
    {"dense", "begins", "", 0, 0},
    {"graph", "node_ptr", "", 1, 1},
    {"graph", "node_features", "node_ptr", 0, 1},
    {"graph", "edge_ptr", "", 1, 1},
    {"graph", "edge_source", "edge_ptr", 0, 1},
    {"graph", "edge_target", "edge_ptr", 0, 1},
    {"graph", "edge_features", "edge_ptr", 0, 0},
    {"graph", "targets", "", 0, 0},
    {"graph", "weights", "", 0, 0},
    {"tokens", "tokens", "", 0, 1},
    {"tokens", "document_starts", "", 0, 1},
    {"tokens", "weights", "", 0, 0},
    {"tokens", "begins", "", 0, 0},
};

enum { KINDS = sizeof kinds / sizeof *kinds };

static int kind_names(const struct field_kind *k, const char *name)
{
    size_t bytes = strlen(k->name);
    return k->name[bytes - 1] == '/' ? strncmp(k->name, name, bytes) == 0 && name[bytes]
                                     : strcmp(k->name, name) == 0;
}

static const struct field_kind *kind_of(const struct msg_opened *o, const char *name)
{
    for (int i = 0; i < KINDS; i++)
        if (strcmp(kinds[i].layout, o->layout) == 0 && kind_names(&kinds[i], name))
            return &kinds[i];
    return NULL;
}

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
    uint64_t rows = o->streams ? (o->rows - 1) / o->streams + 1 : o->rows;
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

/* Items of a field that is not ragged are known from the rows. */
static int items_possible(const struct msg_opened *o, const struct field_kind *k,
                          const struct msg_field_info *field)
{
    if (k->pointer[0])
        return field->slice_items_max <= field->batch_items_max; /* samples are in other batches */
    return field->items_max == rows_max(o) + (k->is_pointer ? 1 : 0) && !field->batch_items_max &&
           !field->slice_items_max && !field->sample_items_max;
}

static int field_check(const struct msg_opened *o, const struct msg_field_info *field,
                       struct err *e)
{
    const struct field_kind *k = kind_of(o, field->name);
    if (!k)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the loader describes a data set \"%s\" in layout \"%s\", which has none of "
                       "that name",
                       field->name, o->layout);
    uint64_t bytes = type_bytes(field->type);
    if (bytes == 0 || field->values == 0 || field->row_bytes != field->values * bytes ||
        (k->is_pointer && (field->values != 1 || strcmp(field->type, "u64") != 0)))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the loader describes %s as %" PRIu64 " values of type \"%s\" in %" PRIu64
                       " bytes a row, which cannot be true",
                       field->name, field->values, field->type, field->row_bytes);
    if (strcmp(field->pointer, k->pointer) != 0 || !items_possible(o, k, field))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the loader describes %s as %" PRIu64 " items a span (%" PRIu64
                       " a batch, %" PRIu64 " a slice) cut by \"%s\", which cannot be true",
                       field->name, field->items_max, field->batch_items_max,
                       field->slice_items_max, field->pointer);
    if (field->offset % FIELD_ALIGNMENT != 0 || field->offset > o->span_bytes_max ||
        field->items_max > (o->span_bytes_max - field->offset) / field->row_bytes)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the loader puts %s at byte %" PRIu64 " of a span of %" PRIu64
                       " bytes, where %" PRIu64 " items of %" PRIu64
                       " bytes do not fit (or not at a multiple of %d)",
                       field->name, field->offset, o->span_bytes_max, field->items_max,
                       field->row_bytes, FIELD_ALIGNMENT);
    return 0;
}

/* Both have passed field_check, so the sums are below span_bytes_max. */
static int fields_overlap(const struct msg_field_info *a, const struct msg_field_info *b)
{
    return a->offset < b->offset + b->items_max * b->row_bytes &&
           b->offset < a->offset + a->items_max * a->row_bytes;
}

uint64_t opened_span_bytes(const struct msg_opened *o)
{
    uint64_t end = 0;
    for (uint32_t i = 0; i < o->fields_count; i++) {
        uint64_t at = o->fields[i].offset + o->fields[i].items_max * o->fields[i].row_bytes;
        end = at > end ? at : end;
    }
    return end;
}

int opened_offset_possible(const struct msg_opened *o, uint64_t offset)
{
    return offset % POINTER_BYTES == 0 && offset <= o->span_bytes_max - opened_span_bytes(o);
}

/* A row's first token is only read, its last one only predicted. */
static int tokens_check(const struct msg_opened *o, struct err *e)
{
    const struct msg_field_info *tokens = opened_field(o, "tokens"),
                                *weights = opened_field(o, "weights");
    if (tokens->values >= 2 && (!weights || weights->values == tokens->values))
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "the loader describes rows of %" PRIu64 " tokens and %" PRIu64
                   " weights; a row has at least 2 tokens, and a weight for each or none",
                   tokens->values, weights ? weights->values : 0);
}

static int fields_needed_check(const struct msg_opened *o, struct err *e)
{
    int parts = 0;
    for (uint32_t i = 0; i < o->fields_count; i++)
        parts += strncmp(o->fields[i].name, "features/", 9) == 0;
    if (strcmp(o->layout, "dense") == 0 && !opened_field(o, "features") == !parts)
        return err_set(e, EXIT_CODE_PERMANENT,
                       parts ? "the loader describes features that are both whole and in parts"
                             : "the loader describes data without features");
    for (int i = 0; i < KINDS; i++)
        if (kinds[i].is_needed && strcmp(kinds[i].layout, o->layout) == 0 &&
            !opened_field(o, kinds[i].name))
            return err_set(e, EXIT_CODE_PERMANENT, "the loader describes data without %s",
                           kinds[i].name);
    const struct msg_field_info *from = opened_field(o, "edge_source"),
                                *to = opened_field(o, "edge_target");
    if (from && (strcmp(from->type, to->type) != 0 || from->type[0] == 'f' || from->values != 1 ||
                 to->values != 1))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the loader describes the ends of edges as %s and %s; they are one whole "
                       "number each",
                       from->type, to->type);
    const struct msg_field_info *begins = opened_field(o, "begins");
    if (begins && (begins->type[0] != 'u' || begins->values != 1))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the loader describes begins as %" PRIu64
                       " numbers a row of type \"%s\"; it is one unsigned number",
                       begins->values, begins->type);
    return 0;
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
                fields_overlap(&o->fields[i], &o->fields[j]))
                return err_set(e, EXIT_CODE_PERMANENT,
                               "the loader describes %s and %s as the same or overlapping bytes",
                               o->fields[j].name, o->fields[i].name);
    if (fields_needed_check(o, e) < 0)
        return -1;
    return strcmp(o->layout, "tokens") == 0 ? tokens_check(o, e) : 0;
}

static int fields_agree(const struct msg_opened *a, const struct msg_opened *b)
{
    if (strcmp(a->layout, b->layout) != 0 || a->fields_count != b->fields_count)
        return 0;
    for (uint32_t i = 0; i < a->fields_count; i++) {
        const struct msg_field_info *x = &a->fields[i], *y = &b->fields[i];
        if (strcmp(x->name, y->name) != 0 || strcmp(x->type, y->type) != 0 ||
            strcmp(x->pointer, y->pointer) != 0 || x->values != y->values ||
            x->row_bytes != y->row_bytes || x->offset != y->offset ||
            x->items_max != y->items_max || x->batch_items_max != y->batch_items_max ||
            x->slice_items_max != y->slice_items_max || x->sample_items_max != y->sample_items_max)
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
    return span_field(o->fields, o->fields_count, name);
}

void opened_following(struct msg_field_info *field)
{
    field->offset += field->row_bytes / field->values;
    field->values--;
}

uint64_t opened_checksum(const struct msg_opened *o, const void *slot, uint64_t rows)
{
    uLong crc = crc32_z(0, NULL, 0);
    for (uint32_t i = 0; i < o->fields_count; i++) {
        const struct msg_field_info *f = &o->fields[i];
        uint64_t items = span_items(o->fields, o->fields_count, f, slot, rows);
        crc = crc32_z(crc, (const Bytef *)slot + f->offset, items * f->row_bytes);
    }
    return crc;
}
