/* test_opened.c - proto/opened: descriptions that cannot be true are refused, each for its reason.
 */
#include "proto/opened.h"

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
