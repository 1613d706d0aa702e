/* test_opened.c - proto/opened: descriptions that cannot be true are refused, each for its reason.
 */
#include "proto/opened.h"

#include "proto/span.h"
#include "tests/test.h"

static const uint64_t limit = 1 << 20;

/* 1000 rows in chunks of 8 and spans of 64: 16 spans; 64 rows of 16 + 4 bytes. */
static struct msg_opened good(void)
{
    struct msg_opened o = {.stream = 1,
                           .fingerprint = "cafe",
                           .rows = 1000,
                           .chunk_rows = 8,
                           .spans = 16,
                           .span_rows = 64,
                           .span_bytes_max = 1280,
                           .fields_count = 2};
    MSG_STR(o.layout, "dense");
    o.fields[0] = (struct msg_field_info){"features", "f32", 4, 16, 0, "", 64};
    o.fields[1] = (struct msg_field_info){"targets", "i32", 1, 4, 1024, "", 64};
    return o;
}

static void check_refused(const struct msg_opened *o, const char *text)
{
    struct err e;
    CHECK(opened_check(o, limit, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, text);
}

#define REFUSED(change, text)                                                                      \
    do {                                                                                           \
        struct msg_opened o = good();                                                              \
        change;                                                                                    \
        check_refused(&o, text);                                                                   \
    } while (0)

TEST(a_true_description_passes)
{
    struct msg_opened o = good();
    struct err e;
    CHECK_OK(opened_check(&o, limit, &e), e);
    CHECK_OK(opened_check(&o, 1280, &e), e);
    CHECK(opened_field(&o, "targets") == &o.fields[1] && !opened_field(&o, "weights"));
    o.fields_count = 1; /* targets are not needed */
    CHECK_OK(opened_check(&o, limit, &e), e);
    o = good();
    o.rows = 40; /* fewer rows than a span: 1 span, and smaller fields would do */
    o.spans = 1;
    o.fields[0].items_max = o.fields[1].items_max = 40;
    CHECK_OK(opened_check(&o, limit, &e), e);
}

TEST(a_span_begins_where_it_fits_its_slot)
{
    struct msg_opened o = good();
    CHECK_EQ(opened_span_bytes(&o), 1280);
    CHECK(opened_offset_possible(&o, 0) && !opened_offset_possible(&o, 8));
    o.span_bytes_max = 1280 + 17;
    CHECK(opened_offset_possible(&o, 8) && opened_offset_possible(&o, 16));
    CHECK(!opened_offset_possible(&o, 17) && !opened_offset_possible(&o, 12));
    CHECK(!opened_offset_possible(&o, 24) && !opened_offset_possible(&o, UINT64_MAX - 7));
}

TEST(wrong_arithmetic_is_refused)
{
    REFUSED(o.fingerprint[0] = '\0', "fingerprint");
    REFUSED(o.rows = 0, "none may be empty");
    REFUSED(o.chunk_rows = 0, "none may be empty");
    REFUSED(o.span_rows = 0, "none may be empty");
    REFUSED(o.chunk_rows = 7, "whole number of chunks");
    REFUSED(o.spans = 15, "do not make 15 spans");
    REFUSED(o.spans = 17, "do not make 17 spans");
    REFUSED(o.span_bytes_max = 0, "0 bytes");
    REFUSED(o.span_bytes_max = limit + 1, "1048577 bytes");
}

TEST(wrong_fields_are_refused)
{
    REFUSED(MSG_STR(o.fields[0].name, "pixels"), "pixels");
    REFUSED(MSG_STR(o.fields[0].type, "f16"), "f16");
    REFUSED(o.fields[0].values = 0, "cannot be true");
    REFUSED(o.fields[0].row_bytes = 15, "15 bytes a row");
    REFUSED(o.fields[1].offset = 1028, "multiple of 64");
    REFUSED(o.fields[1].offset = 1088, "do not fit");
    REFUSED(o.fields[1].offset = 1ull << 40, "do not fit");
    REFUSED(o.fields[1].offset = 960, "overlapping");
    REFUSED(o.fields[1].offset = 0, "overlapping");
    REFUSED(MSG_STR(o.fields[1].name, "features"), "features and features");
    REFUSED(MSG_STR(o.fields[0].name, "targets"), "targets and targets");
    REFUSED(o.fields_count = 0, "without features");
    REFUSED(o.fields[0].items_max = 65, "65 items a span");
    REFUSED(o.fields[0].items_max = 63, "63 items a span");
    REFUSED(o.fields[0].batch_items_max = 1, "(1 a batch, 0 a slice)");
    REFUSED(o.fields[0].slice_items_max = 1, "(0 a batch, 1 a slice)");
    REFUSED(MSG_STR(o.fields[0].pointer, "targets"), "cut by \"targets\"");
    REFUSED(MSG_STR(o.layout, "graph"), "in layout \"graph\"");
    REFUSED(MSG_STR(o.layout, "sparse"), "in layout \"sparse\"");
    REFUSED(MSG_STR(o.fields[0].name, "features/"), "\"features/\"");
    REFUSED(MSG_STR(o.fields[1].name, "features/M1"), "both whole and in parts");
    REFUSED(o.fields[0] = o.fields[1], "targets and targets");
}

/* The largest numbers the codec lets through must not wrap around into something that fits. */
TEST(products_do_not_overflow)
{
    REFUSED((o.fields[0].values = 1ull << 32, o.fields[0].row_bytes = 1ull << 34), "do not fit");
    struct msg_opened o = good();
    o.rows = 1ull << 48;
    o.chunk_rows = o.span_rows = 1ull << 40;
    o.spans = 1ull << 8;
    o.fields[0].values = 1ull << 32;
    o.fields[0].items_max = o.fields[1].items_max = 1ull << 40;
    o.fields[0].row_bytes = 1ull << 34; /* 2^74 bytes a span */
    check_refused(&o, "do not fit");
}

TEST(timeframes_pass)
{
    struct msg_opened o = good();
    struct err e;
    MSG_STR(o.fields[0].name, "features/M1");
    MSG_STR(o.fields[1].name, "features/M5");
    CHECK_OK(opened_check(&o, limit, &e), e);
}

/* 64 graphs a span of at most 100 nodes and 30 edges. */
static struct msg_opened graphs(void)
{
    struct msg_opened o = good();
    MSG_STR(o.layout, "graph");
    o.span_bytes_max = 4096;
    o.fields_count = 6;
    o.fields[0] = (struct msg_field_info){"node_ptr", "u64", 1, 8, 0, "", 65};
    o.fields[1] = (struct msg_field_info){"node_features", "f32", 3, 12, 576, "node_ptr", 100, 90};
    o.fields[2] = (struct msg_field_info){"edge_ptr", "u64", 1, 8, 1792, "", 65};
    o.fields[3] = (struct msg_field_info){"edge_source", "u16", 1, 2, 2368, "edge_ptr", 30, 20};
    o.fields[4] = (struct msg_field_info){"edge_target", "u16", 1, 2, 2432, "edge_ptr", 30, 20};
    o.fields[5] = (struct msg_field_info){"targets", "f32", 1, 4, 2496, "", 64};
    return o;
}

#define GRAPHS_REFUSED(change, text)                                                               \
    do {                                                                                           \
        o = graphs();                                                                              \
        change;                                                                                    \
        check_refused(&o, text);                                                                   \
    } while (0)

TEST(graphs_pass_and_their_lies_do_not)
{
    struct msg_opened o = graphs();
    struct err e;
    CHECK_OK(opened_check(&o, limit, &e), e);
    o.fields_count = 5; /* targets are not needed */
    CHECK_OK(opened_check(&o, limit, &e), e);
    o.fields[3].items_max = o.fields[4].items_max = 0; /* no edges anywhere */
    CHECK_OK(opened_check(&o, limit, &e), e);
    GRAPHS_REFUSED(o.fields_count = 4, "without edge_target");
    GRAPHS_REFUSED(o.fields[0] = o.fields[5], "targets and targets");
    GRAPHS_REFUSED(MSG_STR(o.fields[1].pointer, ""), "cut by \"\"");
    GRAPHS_REFUSED(MSG_STR(o.fields[1].pointer, "edge_ptr"), "cut by \"edge_ptr\"");
    GRAPHS_REFUSED(MSG_STR(o.fields[0].pointer, "node_ptr"), "cut by \"node_ptr\"");
    GRAPHS_REFUSED(o.fields[0].items_max = 64, "64 items a span");
    GRAPHS_REFUSED(o.fields[1].items_max = 1ull << 40, "do not fit");
    GRAPHS_REFUSED(o.fields[1].items_max = 102, "overlapping");
    GRAPHS_REFUSED(MSG_STR(o.fields[0].type, "i64"), "type \"i64\"");
    GRAPHS_REFUSED((MSG_STR(o.fields[0].type, "u32"), o.fields[0].row_bytes = 4), "type \"u32\"");
    GRAPHS_REFUSED(MSG_STR(o.fields[4].type, "i16"), "ends of edges as u16 and i16");
    GRAPHS_REFUSED((MSG_STR(o.fields[3].type, "f16"), MSG_STR(o.fields[4].type, "f16")),
                   "one whole number each");
    GRAPHS_REFUSED(MSG_STR(o.fields[5].name, "tokens"), "\"tokens\" in layout \"graph\"");
}

/* 64 rows of 9 tokens, which weigh. */
static struct msg_opened tokens(void)
{
    struct msg_opened o = good();
    MSG_STR(o.layout, "tokens");
    o.span_bytes_max = 4096;
    o.fields_count = 3;
    o.fields[0] = (struct msg_field_info){"tokens", "u16", 9, 18, 0, "", 64};
    o.fields[1] = (struct msg_field_info){"document_starts", "u8", 2, 2, 1152, "", 64};
    o.fields[2] = (struct msg_field_info){"weights", "f32", 9, 36, 1280, "", 64};
    return o;
}

TEST(tokens_pass_and_their_lies_do_not)
{
    struct msg_opened o = tokens();
    struct err e;
    CHECK_OK(opened_check(&o, limit, &e), e);
    o.fields_count = 2; /* they need not weigh */
    CHECK_OK(opened_check(&o, limit, &e), e);
    o = tokens();
    o.fields[2].values = 8, o.fields[2].row_bytes = 32;
    check_refused(&o, "rows of 9 tokens and 8 weights");
    o = tokens();
    o.fields[0].values = 1, o.fields[0].row_bytes = 2, o.fields_count = 2;
    check_refused(&o, "a row has at least 2 tokens");
}

/* ---- what stands in a slot ------------------------------------------------------------------ */

/* Three graphs of 2, 0 and 3 nodes, and of 1, 0 and 0 edges. */
static char *slot_fill(void)
{
    static _Alignas(64) char slot[4096];
    const uint64_t nodes[] = {0, 2, 2, 5}, edges[] = {0, 1, 1, 1};
    memset(slot, 7, sizeof slot);
    memcpy(slot, nodes, sizeof nodes);
    memcpy(slot + 1792, edges, sizeof edges);
    return slot;
}

TEST(items_are_counted_and_never_beyond_their_field)
{
    struct msg_opened o = graphs();
    char *slot = slot_fill();
    static const uint64_t items[] = {4, 5, 4, 1, 1, 3};
    struct err e;
    for (int i = 0; i < 6; i++)
        CHECK_EQ(span_items(o.fields, 6, &o.fields[i], slot, 3), items[i]);
    CHECK_OK(span_check(o.fields, 6, slot, 3, &e), e);
    CHECK(span_is_pointer(o.fields, 6, 0) && span_is_pointer(o.fields, 6, 2));
    CHECK(!span_is_pointer(o.fields, 6, 1) && !span_is_pointer(o.fields, 6, 5));
    ((uint64_t *)slot)[3] = UINT64_MAX;
    CHECK_EQ(span_items(o.fields, 6, &o.fields[1], slot, 3), 100);
    opened_checksum(&o, slot, 3); /* reads within the slot */
}

TEST(pointers_that_lie_are_seen)
{
    static const struct {
        int at;
        uint64_t value;
        const char *words;
    } cases[] = {
        {0, 1, "row 0 end at 1"},
        {1, 3, "row 1 end at 2"},
        {3, 1, "row 2 end at 1"},
        {3, 101, "row 2 end at 101"},
        {3, UINT64_MAX, "row 2 end at 18446744073709551615"},
    };
    struct msg_opened o = graphs();
    struct err e;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *slot = slot_fill();
        ((uint64_t *)slot)[cases[i].at] = cases[i].value;
        CHECK(span_check(o.fields, 6, slot, 3, &e) < 0);
        CHECK_HAS(e.text, "node_ptr of a span");
        CHECK_HAS(e.text, cases[i].words);
    }
}

/* The digest is the rows', wherever they stand; their pointers are not part of it. */
TEST(digest_is_of_rows_not_of_places)
{
    struct msg_opened o = graphs();
    char *slot = slot_fill();
    const uint64_t nodes[] = {0, 3, 5, 5}, edges[] = {0, 0, 1, 1}; /* the third, first, second */
    for (int i = 0; i < 60; i++)
        slot[576 + i] = (char)(i * 5);
    uint64_t digest = span_digest(o.fields, 6, slot, 3);
    char first[24];
    memcpy(first, slot + 576, 24);
    memmove(slot + 576, slot + 576 + 24, 36);
    memcpy(slot + 576 + 36, first, 24);
    memcpy(slot, nodes, sizeof nodes);
    memcpy(slot + 1792, edges, sizeof edges);
    CHECK_EQ(span_digest(o.fields, 6, slot, 3), digest);
    memcpy(slot + 1792, (uint64_t[]){0, 1, 1, 1}, sizeof edges); /* the edge goes to another */
    CHECK(span_digest(o.fields, 6, slot, 3) != digest);
}

/* "123456789" has the CRC-32 cbf43926: spread over two fields, with a gap that does not count. */
TEST(checksum_covers_the_rows_of_all_fields)
{
    struct msg_opened o = good();
    char slot[1280];
    memset(slot, 'x', sizeof slot);
    o.fields[0] = (struct msg_field_info){"features", "u8", 2, 2, 0, "", 64};
    o.fields[1] = (struct msg_field_info){"targets", "u8", 1, 1, 64, "", 64};
    memcpy(slot, "123456", 6);
    memcpy(slot + 64, "789", 3);
    CHECK_EQ(opened_checksum(&o, slot, 3), 0xcbf43926);
    slot[3] ^= 1;
    CHECK(opened_checksum(&o, slot, 3) != 0xcbf43926);
}
