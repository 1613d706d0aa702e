/* reader_compare.c - see reader_compare.h. */
#include "tests/unit/reader_compare.h"

#include "loaderd/decode.h"
#include "proto/h5file_type.h"
#include "proto/opened.h"
#include "proto/order.h"
#include "proto/rowhash.h"
#include "tests/test.h"

void *set_read(const char *path, const char *name, hid_t type, uint64_t *items)
{
    hsize_t dims[4] = {0};
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(set);
    CHECK(file >= 0 && set >= 0 && H5Sget_simple_extent_dims(space, dims, NULL) > 0);
    /* zeros: chunks never written, of a set without fill values, leave them alone */
    void *data = calloc((size_t)H5Sget_simple_extent_npoints(space) + 1, H5Tget_size(type));
    CHECK(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    if (items)
        *items = dims[0];
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
    return data;
}

/* What a field must hold: row i of the file has the items cut[i] .. cut[i + 1] - 1 of `bytes`, or
 * with no cut those from i x stride on. */
struct expected {
    unsigned char *bytes, *owned;
    uint64_t *cut, stride;
};

static void *split_read(const char *path, const char *split, const char *name, hid_t type,
                        uint64_t *items)
{
    char full[200];
    snprintf(full, sizeof full, "%s/%s", split, name);
    return set_read(path, full, type, items);
}

/* The marks of every row, a bit for each of its tokens, by looking at each. */
static unsigned char *starts_expected(const char *path, const char *split, uint64_t rows,
                                      uint64_t window, uint64_t row_bytes)
{
    uint64_t count, *documents = split_read(path, split, "doc_ptr", H5T_STD_U64LE, &count);
    unsigned char *marks = calloc(rows, row_bytes);
    for (uint64_t i = 0; i + 1 < count; i++)
        for (uint64_t row = 0; row < rows; row++)
            for (uint64_t j = 0; j <= window; j++)
                if (documents[i] == row * window + j && documents[i] != documents[count - 1])
                    marks[row * row_bytes + j / 8] |= (unsigned char)(1 << j % 8);
    free(documents);
    return marks;
}

/* Does a document begin with the row's first token? */
static unsigned char *begins_expected(const char *path, const char *split, uint64_t rows,
                                      uint64_t window)
{
    uint64_t bytes = window / 8 + 1;
    unsigned char *marks = starts_expected(path, split, rows, window, bytes);
    for (uint64_t row = 0; row < rows; row++)
        marks[row] = marks[row * bytes] & 1;
    return marks;
}

static struct expected field_expected(const char *path, const struct reader_open *open,
                                      const struct reader_described *d,
                                      const struct msg_field_info *f)
{
    struct expected x = {.stride = f->row_bytes};
    hid_t type = h5_type(h5type_of(f->type));
    uint64_t edges = 0, numbers = 0;
    if (f->pointer[0])
        x.cut = split_read(path, open->split, f->pointer, H5T_STD_U64LE, &numbers);
    if (strncmp(f->name, "edge_", 5) == 0 && strcmp(f->name, "edge_features") != 0) {
        x.owned = split_read(path, open->split, "edge_index", type, NULL);
        edges = x.cut[numbers - 1];
    } else if (strcmp(f->name, "document_starts") == 0) {
        x.owned = starts_expected(path, open->split, d->rows, open->window, f->row_bytes);
    } else if (strcmp(f->name, "begins") == 0 && strcmp(d->layout, "tokens") == 0) {
        x.owned = begins_expected(path, open->split, d->rows, open->window);
    } else if (strcmp(d->layout, "tokens") == 0) { /* or their weights */
        x.owned = split_read(path, open->split, f->name, type, NULL);
        x.stride = open->window * H5Tget_size(type);
    } else {
        x.owned = split_read(path, open->split, f->name, type, NULL);
    }
    x.bytes = x.owned + (strcmp(f->name, "edge_target") == 0 ? edges * f->row_bytes : 0);
    return x;
}

static void items_compare(const struct msg_field_info *f, const struct expected *x,
                          const uint64_t *local, const unsigned char *at, uint64_t row,
                          uint64_t file_row)
{
    const unsigned char *wanted = x->bytes + file_row * x->stride;
    uint64_t items = 1, first = row;
    if (x->cut) {
        first = local[row];
        items = x->cut[file_row + 1] - x->cut[file_row];
        wanted = x->bytes + x->cut[file_row] * f->row_bytes;
        CHECK_EQ(local[row + 1] - first, items);
    }
    CHECK(first + items <= f->items_max);
    if (memcmp(at + first * f->row_bytes, wanted, items * f->row_bytes) != 0)
        test_fail(__FILE__, __LINE__, "%s (%s): row %llu of the span, %llu of the file, differs",
                  f->name, f->type, (unsigned long long)row, (unsigned long long)file_row);
}

/* The row of the file that is row `row` of a span. */
static uint64_t file_row(const struct order *o, uint64_t epoch, uint64_t span, uint64_t row)
{
    uint64_t laid = span * o->span_rows + row;
    if (!o->shuffle)
        return order_span_first(o, span) + row;
    return order_chunk_at(o, epoch, laid / o->chunk_rows) * o->chunk_rows + laid % o->chunk_rows;
}

static void span_compare(const struct harness *h, const struct order *o,
                         const struct reader_done *done, const struct expected *expected)
{
    const unsigned char *slot = (unsigned char *)arena_slot(&h->arena, done->slot) + done->offset;
    const struct reader_described *d = &h->described;
    struct rowhash_field fields[SPAN_FIELDS_MAX];
    struct err e = {0};
    uint64_t bytes = 0;
    uint32_t crc = 0, used = 0;
    CHECK_EQ(done->rows, order_span_rows(o, done->span));
    CHECK_OK(span_check(d->fields, d->field_count, slot, done->rows, &e), e);
    for (uint32_t i = 0; i < d->field_count; i++) {
        const struct msg_field_info *f = &d->fields[i], *p = NULL;
        uint64_t items = span_items(d->fields, d->field_count, f, slot, done->rows);
        CHECK_EQ(f->offset % 64, 0);
        CHECK(done->offset + f->offset + items * f->row_bytes <= d->span_bytes_max);
        crc = decode_crc32(crc, slot + f->offset, items * f->row_bytes);
        if (span_is_pointer(d->fields, d->field_count, i))
            continue;
        int made = strcmp(f->name, "document_starts") == 0 ||
                   (strcmp(f->name, "begins") == 0 && strcmp(d->layout, "tokens") == 0);
        bytes += made ? 0 : items * f->row_bytes;
        if (f->pointer[0])
            p = span_field(d->fields, d->field_count, f->pointer);
        const uint64_t *local = p ? (const uint64_t *)(slot + p->offset) : NULL;
        for (uint64_t row = 0; row < done->rows; row++) {
            items_compare(f, &expected[i], local, slot + f->offset, row,
                          file_row(o, done->epoch, done->span, row));
        }
        fields[used++] = (struct rowhash_field){slot + f->offset, f->row_bytes, local};
    }
    CHECK_EQ(done->checksum, crc);
    CHECK_EQ(done->bytes_delivered, bytes);
    CHECK_EQ(done->digest, rowhash_sum_plain(fields, used, done->rows));
}

static void expected_free(struct expected *x, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        free(x[i].owned);
        free(x[i].cut);
    }
}

/* A consumer would believe the description. */
static void described_check(const struct reader_described *d, uint64_t span_bytes_limit)
{
    struct msg_opened o = {.rows = d->rows,
                           .streams = d->streams,
                           .chunk_rows = d->chunk_rows,
                           .spans = d->spans,
                           .span_rows = d->span_rows,
                           .span_bytes_max = d->span_bytes_max,
                           .fields_count = d->field_count};
    struct err e;
    MSG_STR(o.fingerprint, d->fingerprint);
    MSG_STR(o.layout, d->layout);
    memcpy(o.fields, d->fields, sizeof o.fields);
    CHECK_OK(opened_check(&o, span_bytes_limit, &e), e);
}

struct compared file_compare_all(const char *path, const struct reader_open *open)
{
    struct harness h;
    struct reader_done done;
    struct expected expected[SPAN_FIELDS_MAX] = {0};
    uint64_t digest[2] = {0};
    if (harness_open(&h, path, open) != 0)
        test_fail(__FILE__, __LINE__, "rejected: %s", h.reason);
    const struct reader_described *d = &h.described;
    described_check(d, open->span_bytes_limit);
    struct compared c = {.chunk_rows = d->chunk_rows};
    struct order o = {open->seed, open->shuffle, d->rows, d->chunk_rows, d->span_rows,
                      4,          d->streams};
    CHECK_EQ(d->streams, open->streams);
    CHECK_EQ(d->spans, order_spans(&o));
    CHECK_EQ(d->span_rows % d->chunk_rows, 0);
    for (uint32_t i = 0; i < d->field_count; i++)
        if (!span_is_pointer(d->fields, d->field_count, i))
            expected[i] = field_expected(path, open, d, &d->fields[i]);
    harness_arm(&h, 3);
    for (uint64_t epoch = 0; epoch < 2; epoch++)
        for (uint64_t span = 0; span < d->spans; span++, c.spans++) {
            if (harness_read(&h, epoch, span, span % 3, &done) != 0)
                test_fail(__FILE__, __LINE__, "rejected: %s", h.reason);
            span_compare(&h, &o, &done, expected);
            digest[epoch] += done.digest;
            c.decoded += epoch ? 0 : done.bytes_decoded;
            c.delivered += epoch ? 0 : done.bytes_delivered;
        }
    CHECK_EQ(digest[0], digest[1]);
    c.digest = digest[0];
    expected_free(expected, d->field_count);
    harness_close(&h);
    return c;
}
