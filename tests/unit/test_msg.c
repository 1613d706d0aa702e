/* test_msg.c - the codec: round trips, every limit at it and one beyond, and hostile bytes.
 *
 * The cases walk the same field tables as the codec (proto/msg_fields.h), so a new message is
 * tested from the moment it is declared. Encodings that the codec itself would never make are
 * written by the small writer below.
 */
#include "proto/msg.h"

#include <malloc.h>
#include <math.h>
#include <signal.h>
#include <unistd.h>

#include "proto/msg_fields.h"
#include "tests/aborts.h"
#include "tests/test.h"

/* ---- a writer that keeps no rule ----------------------------------------------------- */

struct writer {
    unsigned char data[2 * MSG_BYTES_MAX];
    size_t bytes;
};

static void put(struct writer *w, unsigned first, uint64_t value, int value_bytes)
{
    w->data[w->bytes++] = (unsigned char)first;
    while (value_bytes-- > 0)
        w->data[w->bytes++] = (unsigned char)(value >> (8 * value_bytes));
}

static void put_text(struct writer *w, const char *text, size_t bytes)
{
    put(w, 0xdb, bytes, 4);
    memcpy(w->data + w->bytes, text, bytes);
    w->bytes += bytes;
}

static void put_key(struct writer *w, const char *key)
{
    put_text(w, key, strlen(key));
}

/* The three head fields behind the header of a map of `keys` keys. */
static void put_head(struct writer *w, unsigned keys)
{
    w->bytes = 0;
    put(w, 0xde, keys, 2);
    put_key(w, "incarnation");
    put(w, 0xcf, 3, 8);
    put_key(w, "seq");
    put(w, 0xcd, 2, 2);
    put_key(w, "time_s");
    put(w, 0x01, 0, 0);
}

static int refused(enum msg_type type, const struct writer *w, const char *part)
{
    union msg m;
    struct err e = {0};
    if (msg_decode(type, w->data, w->bytes, &m, &e) == 0)
        return 0;
    CHECK_HAS(e.text, part);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    return 1;
}

/* ---- random messages ----------------------------------------------------------------- */

static void random_text(char *text, uint64_t bytes)
{
    static const char *const sequences[] = {
        "\"", "\\", "\n", "\x1f", "é", "\xe2\x82\xac", "\xf0\x9f\x90\xa6", "a"};
    uint64_t at = 0;
    while (at < bytes) {
        const char *s = sequences[test_random() % 8];
        if (strlen(s) > bytes - at)
            s = "z";
        memcpy(text + at, s, strlen(s));
        at += strlen(s);
    }
    text[at] = '\0';
}

enum fill { FILL_RANDOM, FILL_LARGEST };

static void fill(const struct msg_shape *shape, char *m, enum fill how)
{
    for (unsigned i = 0; i < shape->field_count; i++) {
        const struct msg_field *f = &shape->fields[i];
        char *at = m + f->offset;
        int largest = how == FILL_LARGEST;
        uint64_t count = largest ? f->limit : test_random() % (f->limit + (f->limit < UINT64_MAX));
        double numbers[] = {0, -1.5, 1e300, NAN, INFINITY, 0.1, -0.0, 12345678};
        switch (f->kind) {
        case MSG_KIND_U64:
            *(uint64_t *)at = count;
            break;
        case MSG_KIND_F64:
            *(double *)at = numbers[test_random() % 8];
            break;
        case MSG_KIND_BOOL:
            *(int *)at = (int)(test_random() & 1);
            break;
        case MSG_KIND_STR:
            random_text(at, count);
            break;
        case MSG_KIND_LIST:
            *(uint32_t *)(m + f->count_offset) = (uint32_t)count;
            for (uint64_t k = 0; k < count; k++)
                fill(f->record, at + k * f->record->bytes, how);
            break;
        }
    }
}

static union msg random_message(enum msg_type type, enum fill how)
{
    union msg m;
    memset(&m, 0, sizeof m);
    fill(msg_shape_of(type), (char *)&m, how);
    return m;
}

/* Bit for bit, so NaN equals itself. */
static int shape_equal(const struct msg_shape *shape, const char *a, const char *b)
{
    for (unsigned i = 0; i < shape->field_count; i++) {
        const struct msg_field *f = &shape->fields[i];
        const char *x = a + f->offset, *y = b + f->offset;
        if (f->kind == MSG_KIND_LIST) {
            uint32_t count = *(const uint32_t *)(a + f->count_offset);
            if (count != *(const uint32_t *)(b + f->count_offset))
                return 0;
            for (uint32_t k = 0; k < count; k++)
                if (!shape_equal(f->record, x + k * f->record->bytes, y + k * f->record->bytes))
                    return 0;
        } else if (f->kind == MSG_KIND_STR ? strcmp(x, y) != 0
                                           : memcmp(x, y, f->kind == MSG_KIND_BOOL ? 4 : 8) != 0) {
            return 0;
        }
    }
    return 1;
}

/* ---- the cases ----------------------------------------------------------------------- */

TEST(every_message_comes_back)
{
    unsigned char data[MSG_BYTES_MAX];
    for (int type = 0; type < MSG_COUNT; type++)
        for (int k = 0; k < 20; k++) {
            union msg m = random_message(type, k == 0 ? FILL_LARGEST : FILL_RANDOM), back;
            struct err e;
            size_t bytes = msg_encode(type, &m, data, sizeof data);
            CHECK_OK(msg_decode(type, data, bytes, &back, &e), e);
            CHECK(shape_equal(msg_shape_of(type), (char *)&m, (char *)&back));
            CHECK_EQ(msg_encode(type, &m, data, bytes), bytes); /* an exact buffer is enough */
        }
}

TEST(names_and_types_agree)
{
    for (int type = 0; type < MSG_COUNT; type++)
        CHECK_EQ(msg_type_of(msg_name(type), strlen(msg_name(type))), type);
    CHECK_STR(msg_name(MSG_trainer_step), "trainer.step");
    CHECK_EQ(msg_type_of("trainer.step!", 12), MSG_trainer_step);
    CHECK_EQ(msg_type_of("trainer.ste", 11), -1);
    CHECK_EQ(msg_type_of("", 0), -1);
}

TEST(every_prefix_is_refused)
{
    unsigned char data[MSG_BYTES_MAX + 1];
    for (int type = 0; type < MSG_COUNT; type++) {
        union msg m = random_message(type, FILL_RANDOM), back;
        struct err e = {0};
        size_t bytes = msg_encode(type, &m, data, MSG_BYTES_MAX);
        for (size_t cut = 0; cut < bytes; cut++) {
            unsigned char *copy = malloc(cut ? cut : 1); /* ASan sees a read beyond it */
            CHECK(copy);
            memcpy(copy, data, cut);
            CHECK_EQ(msg_decode(type, copy, cut, &back, &e), -1);
            free(copy);
        }
        data[bytes] = 0xc0;
        CHECK_EQ(msg_decode(type, data, bytes + 1, &back, &e), -1);
        CHECK_HAS(e.text, "1 bytes behind");
    }
}

TEST_LIMIT(mutations_never_crash, 60)
{
    static unsigned char data[MSG_BYTES_MAX];
    union msg m, back;
    struct err e;
    unsigned accepted = 0;
    for (int k = 0; k < 200000; k++) {
        int type = k % MSG_COUNT;
        static size_t bytes_of[MSG_COUNT];
        static unsigned char valid[MSG_COUNT][16384];
        if (bytes_of[type] == 0 || k % 50 == 0) {
            m = random_message(type, FILL_RANDOM);
            for (unsigned i = 0; i < msg_shape_of(type)->field_count; i++) {
                const struct msg_field *f = &msg_shape_of(type)->fields[i];
                if (f->kind == MSG_KIND_STR && f->limit > 64) /* mutate the structure, not prose */
                    random_text((char *)&m + f->offset, test_random() % 64);
            }
            bytes_of[type] = msg_encode(type, &m, valid[type], sizeof valid[type]);
        }
        size_t bytes = bytes_of[type];
        memcpy(data, valid[type], bytes);
        for (unsigned change = 0; change <= test_random() % 4; change++)
            data[test_random() % bytes] = (unsigned char)test_random();
        if (k % 16 == 0)
            bytes = test_random() % bytes;
        accepted += msg_decode(type, data, bytes, &back, &e) == 0;
    }
    CHECK(accepted > 1000); /* mutants inside a number are still messages */
}

TEST(random_bytes_are_refused)
{
    unsigned char data[256];
    union msg back;
    struct err e;
    for (int k = 0; k < 100000; k++) {
        size_t bytes = test_random() % sizeof data;
        for (size_t i = 0; i < bytes; i++)
            data[i] = (unsigned char)test_random();
        CHECK_EQ(msg_decode(k % MSG_COUNT, data, bytes, &back, &e), -1);
    }
}

TEST(claims_of_billions_are_refused)
{
    static const struct {
        const char *bytes;
        size_t count;
        const char *part;
    } hostile[] = {
        {"\xdf\xff\xff\xff\xff", 5, "4294967295 keys"},
        {"\xde\xff\xff", 3, "65535 keys"},
        {"\xdd\xff\xff\xff\xff", 5, "is a list"},
        {"\xdb\xff\xff\xff\xff", 5, "4294967295 bytes"},
        {"\xc6\xff\xff\xff\xff", 5, "is binary data"},
        {"\xc9\xff\xff\xff\xff", 5, "is an extension"},
        {"\x81\xdb\xff\xff\xff\xff", 6, "4294967295 bytes"},
        {"\x83\xa3seq\xdd\xff\xff\xff\xff", 10, "seq is a list"},
        {"\xc1", 1, "an invalid byte"},
        {"", 0, "cut off"},
    };
    union msg back;
    struct err e;
    size_t before = mallinfo2().uordblks;
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        CHECK_EQ(msg_decode(MSG_status, hostile[i].bytes, hostile[i].count, &back, &e), -1);
        CHECK_HAS(e.text, hostile[i].part);
    }
    CHECK(mallinfo2().uordblks == before); /* refused before anything was allocated */

    struct writer w;
    put_head(&w, 10);
    put_key(&w, "fields");
    put(&w, 0xdd, 0xffffffff, 4);
    CHECK(refused(MSG_opened, &w, "field fields has 4294967295 elements; at most 16"));
    char nested[1000]; /* a thousand lists in each other */
    memset(nested, 0x91, sizeof nested);
    CHECK_EQ(msg_decode(MSG_status, nested, sizeof nested, &back, &e), -1);
}

TEST(too_long_is_refused_unread)
{
    static unsigned char data[MSG_BYTES_MAX + 1];
    union msg back;
    struct err e;
    CHECK_EQ(msg_decode(MSG_status, data, sizeof data, &back, &e), -1);
    CHECK_HAS(e.text, "it has 65537 bytes; at most 65536 are accepted");
}

/* What journals of earlier versions lack is empty then; what every version had is wanted. */
TEST(msg_of_an_earlier_version_is_read)
{
    static const char *const numbers[] = {
        "index", "memory_bytes", "context_bytes", "capability", "driver", "runtime", NULL};
    struct writer w;
    struct err e;
    union msg m;
    for (int lacks = 0; lacks < 2; lacks++) {
        put_head(&w, (unsigned)(11 - lacks));
        put_key(&w, "kind");
        put_text(&w, "cpu", 3);
        if (!lacks) {
            put_key(&w, "name");
            put_text(&w, "x", 1);
        }
        for (int i = 0; numbers[i]; i++) {
            put_key(&w, numbers[i]);
            put(&w, 0x05, 0, 0);
        }
        if (lacks)
            CHECK(refused(MSG_event_device, &w, "field name is missing"));
        else
            CHECK_OK(msg_decode(MSG_event_device, w.data, w.bytes, &m, &e), e);
    }
    CHECK(m.event_device.index == 5 && m.event_device.bus[0] == '\0');
}

TEST(keys_are_exact)
{
    struct writer w;
    union msg m;
    struct err e;
    put_head(&w, 4); /* order is free: the head comes first here, its own order is the table's */
    put_key(&w, "verb");
    put_text(&w, "stop", 4);
    CHECK_OK(msg_decode(MSG_done, w.data, w.bytes, &m, &e), e);
    CHECK_STR(m.done.verb, "stop");
    CHECK_EQ(m.head.incarnation, 3);
    CHECK(m.head.time_s == 1.0); /* came as an integer */

    w.bytes = 0; /* the other way round */
    put(&w, 0x84, 0, 0);
    put_key(&w, "verb");
    put_text(&w, "go", 2);
    put_key(&w, "time_s");
    put(&w, 0xff, 0, 0); /* -1 */
    put_key(&w, "seq");
    put(&w, 0xd2, 7, 4); /* a signed number that is not negative */
    put_key(&w, "incarnation");
    put(&w, 0x00, 0, 0);
    CHECK_OK(msg_decode(MSG_done, w.data, w.bytes, &m, &e), e);
    CHECK(m.head.time_s == -1.0 && m.head.seq == 7);

    put_head(&w, 3);
    CHECK(refused(MSG_done, &w, "message done refused: field verb is missing"));
    put_head(&w, 4);
    put_key(&w, "seq");
    put(&w, 0, 0, 0);
    CHECK(refused(MSG_done, &w, "field seq is there twice"));
    put_head(&w, 4);
    put_key(&w, "verbs");
    put(&w, 0, 0, 0);
    CHECK(refused(MSG_done, &w, "an unknown key of 5 bytes"));
    put_head(&w, 5);
    CHECK(refused(MSG_done, &w, "a map of 5 keys; done has 4"));
    put_head(&w, 4);
    put(&w, 0x05, 0, 0);
    CHECK(refused(MSG_done, &w, "it has a key that is a whole number"));
}

/* Encodes a `done` whose verb is what `first`, `value` and `value_bytes` spell. */
static const struct writer *done_with(unsigned first, uint64_t value, int value_bytes)
{
    static struct writer w;
    put_head(&w, 4);
    put_key(&w, "verb");
    put(&w, first, value, value_bytes);
    return &w;
}

TEST(types_are_exact)
{
    CHECK(refused(MSG_done, done_with(0xc0, 0, 0), "field verb is nil; a string"));
    CHECK(refused(MSG_done, done_with(0x05, 0, 0), "a whole number; a string"));
    CHECK(refused(MSG_done, done_with(0xc4, 0, 1), "binary data; a string"));
    CHECK(refused(MSG_done, done_with(0x80, 0, 0), "a map; a string"));
    CHECK(!refused(MSG_done, done_with(0xa0, 0, 0), ""));

    static const struct {
        unsigned first;
        uint64_t value;
        int bytes;
        const char *part;
    } known[] = {{0xc2, 0, 0, NULL},
                 {0xc3, 0, 0, NULL},
                 {0x01, 0, 0, "a whole number; a boolean"},
                 {0xc0, 0, 0, "nil; a boolean"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct writer w;
        put_head(&w, 5);
        put_key(&w, "stream");
        put(&w, 0xcf, UINT64_MAX, 8);
        put_key(&w, "known");
        put(&w, known[i].first, known[i].value, known[i].bytes);
        CHECK_EQ(refused(MSG_pong, &w, known[i].part ? known[i].part : ""), known[i].part != NULL);
    }
    struct writer w;
    put_head(&w, 4);
    put_key(&w, "stream");
    put(&w, 0xd3, UINT64_MAX, 8); /* -1 */
    CHECK(refused(MSG_ping, &w, "field stream is a negative number; a whole number from 0 on"));
    put_head(&w, 4);
    put_key(&w, "stream");
    put(&w, 0xcb, 0, 8);
    CHECK(refused(MSG_ping, &w, "a floating-point number; a whole number from 0 on"));
}

/* Each field of each message at its limit (accepted) and one beyond (refused, naming the field). */
static void put_map(struct writer *w, const struct msg_shape *shape, const char *beyond)
{
    put(w, 0xde, shape->field_count, 2);
    for (unsigned i = 0; i < shape->field_count; i++) {
        const struct msg_field *f = &shape->fields[i];
        uint64_t count = f->limit + (beyond == f->name);
        put_key(w, f->name);
        switch (f->kind) {
        case MSG_KIND_U64:
            put(w, 0xcf, count, 8);
            break;
        case MSG_KIND_F64:
            put(w, 0xca, 0x7fc00000, 4); /* a NaN of 32 bits */
            break;
        case MSG_KIND_BOOL:
            put(w, 0xc3, 0, 0);
            break;
        case MSG_KIND_STR:
            put(w, 0xdb, count, 4);
            memset(w->data + w->bytes, 'x', count);
            w->bytes += count;
            break;
        case MSG_KIND_LIST:
            put(w, 0xdd, count, 4);
            for (uint64_t k = 0; k < count; k++)
                put_map(w, f->record, beyond);
            break;
        }
    }
}

TEST(limits_of_every_field)
{
    static struct writer w;
    unsigned tried = 0;
    for (int type = 0; type < MSG_COUNT; type++) {
        const struct msg_shape *shape = msg_shape_of(type);
        w.bytes = 0;
        put_map(&w, shape, NULL);
        CHECK(!refused(type, &w, ""));
        for (unsigned i = 0; i < shape->field_count; i++) {
            const struct msg_field *f = &shape->fields[i];
            if (f->kind == MSG_KIND_F64 || f->kind == MSG_KIND_BOOL || f->limit == UINT64_MAX)
                continue;
            char part[128];
            snprintf(part, sizeof part, "field %s ", f->name);
            w.bytes = 0;
            put_map(&w, shape, f->name);
            CHECK(refused(type, &w, part));
            tried++;
        }
    }
    CHECK(tried > 50);
}

TEST(strings_are_utf8)
{
    static const char *const bad[] = {
        "\x80", "\xc0\xaf", "\xc3",          "\xe0\x9f\xbf", "\xed\xa0\x80",     "\xf4\x90\x80\x80",
        "\xff", "\xe2\x82", "a\xe2\x28\xa1", "\xf8\x88\x80", "\xf0\x8f\xbf\xbf", "\xe2\x82\xc3"};
    static const char *const good[] = {"", "a", "\xc2\x80", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"};
    struct writer w;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put_head(&w, 4);
        put_key(&w, "verb");
        put_text(&w, bad[i], strlen(bad[i]));
        CHECK(refused(MSG_done, &w, "UTF-8 without zero bytes"));
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        put_head(&w, 4);
        put_key(&w, "verb");
        put_text(&w, good[i], strlen(good[i]));
        CHECK(!refused(MSG_done, &w, ""));
    }
    put_head(&w, 4);
    put_key(&w, "verb");
    put_text(&w, "a\0b", 3);
    CHECK(refused(MSG_done, &w, "a byte 0x00 at 1"));
}

TEST(strings_are_cut_and_repaired)
{
    char field[5];
    msg_str(field, sizeof field, "abcd");
    CHECK_STR(field, "abcd");
    msg_str(field, sizeof field, "abcde");
    CHECK_STR(field, "abcd");
    msg_str(field, sizeof field, "abc\xc3\xa9"); /* the two bytes of the last letter do not fit */
    CHECK_STR(field, "abc");
    msg_str(field, sizeof field, "\xf0\x9f\x90\xa6\xf0\x9f\x90\xa6");
    CHECK_STR(field, "\xf0\x9f\x90\xa6");
    msg_str(field, sizeof field, "a\xff\xc3z");
    CHECK_STR(field, "a??z");
    msg_str(field, sizeof field, "\x80\x80\x80\x80\x80");
    CHECK_STR(field, "");

    union msg m = {.done = {.verb = "caf\xc3"}}, back;
    unsigned char data[256];
    struct err e;
    size_t bytes = msg_encode(MSG_done, &m, data, sizeof data);
    CHECK_OK(msg_decode(MSG_done, data, bytes, &back, &e), e);
    CHECK_STR(back.done.verb, "caf?");
}

TEST(bugs_of_the_sender_abort)
{
    unsigned char data[MSG_BYTES_MAX];
    union msg m = {.grant = {.slot = 4095}};
    size_t bytes = msg_encode(MSG_grant, &m, data, sizeof data);
    CHECK(ABORTS(msg_encode(MSG_grant, &m, data, bytes - 1)));
    CHECK(!ABORTS(msg_encode(MSG_grant, &m, data, bytes)));
    m.grant.slot = 4096;
    CHECK(ABORTS(msg_encode(MSG_grant, &m, data, sizeof data)));
    union msg done = {0};
    memset(done.done.verb, 'x', sizeof done.done.verb);
    CHECK(ABORTS(msg_encode(MSG_done, &done, data, sizeof data)));
    union msg opened = {.opened = {.fields_count = 17}};
    CHECK(ABORTS(msg_encode(MSG_opened, &opened, data, sizeof data)));
}

static char *printed(enum msg_type type, const union msg *m)
{
    static char text[65536];
    FILE *out = fmemopen(text, sizeof text, "w");
    CHECK(out);
    msg_print_json(out, type, m);
    fclose(out);
    return text;
}

TEST(json_is_exact)
{
    union msg m = {.opened = {.head = {7, UINT64_MAX, 1767225600.25},
                              .stream = 1,
                              .fingerprint = "a\"b\\c\n\x01\x7f\xc3\xa9",
                              .layout = "dense",
                              .fields_count = 2,
                              .fields = {{.name = "features", .type = "u8", .values = 784},
                                         {.name = "targets", .type = "u8", .values = 1}}}};
    CHECK_STR(
        printed(MSG_opened, &m),
        "{\"topic\": \"opened\", \"incarnation\": 7, \"seq\": 18446744073709551615, "
        "\"time_s\": 1767225600.25, \"stream\": 1, "
        "\"fingerprint\": \"a\\\"b\\\\c\\n\\u0001\\u007f\xc3\xa9\", \"layout\": \"dense\", "
        "\"rows\": 0, "
        "\"streams\": 0, \"chunk_rows\": 0, \"spans\": 0, \"span_rows\": 0, \"span_bytes_max\": 0, "
        "\"chunk_bytes_max\": 0, \"kept_bytes\": 0, "
        "\"fields\": [{\"name\": \"features\", \"type\": \"u8\", \"values\": 784, "
        "\"row_bytes\": 0, \"offset\": 0, \"pointer\": \"\", \"items_max\": 0, "
        "\"batch_items_max\": 0, \"slice_items_max\": 0, \"sample_items_max\": 0}, {\"name\": "
        "\"targets\", \"type\": "
        "\"u8\", "
        "\"values\": 1, \"row_bytes\": 0, \"offset\": 0, \"pointer\": \"\", \"items_max\": 0, "
        "\"batch_items_max\": 0, \"slice_items_max\": 0, \"sample_items_max\": 0}]}\n");
    union msg step = {
        .trainer_step = {
            .task = "A", .loss = NAN, .penalty = -INFINITY, .learning_rate = 0.1, .eta_s = 1e300}};
    CHECK_HAS(printed(MSG_trainer_step, &step), "\"loss\": null, \"penalty\": null, "
                                                "\"learning_rate\": 0.1, \"gradient_norm\": 0,");
    CHECK_HAS(printed(MSG_trainer_step, &step), "\"eta_s\": 1e+300");
    union msg evaluation = {.trainer_evaluation = {.final = 1, .value = 1.0 / 3}};
    CHECK_HAS(printed(MSG_trainer_evaluation, &evaluation), "\"value\": 0.333333333333333");
    CHECK_HAS(printed(MSG_trainer_evaluation, &evaluation), "\"final\": true}");
}

TEST(reference_names_everything)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    msg_print_docs(out);
    fclose(out);
    for (int type = 0; type < MSG_COUNT; type++) {
        const struct msg_shape *shape = msg_shape_of(type);
        char part[128];
        snprintf(part, sizeof part, "\n## `%s`\n", shape->name);
        CHECK_HAS(text, part);
        for (unsigned i = 0; i < shape->field_count; i++) {
            snprintf(part, sizeof part, "\n| `%s` |", shape->fields[i].name);
            CHECK_HAS(text, part);
        }
    }
    CHECK_HAS(text, "A `field_info` is one data set of a span:");
    const char *once = strstr(text, "A `plan_row` is"); /* of two lists of one message */
    CHECK(once && !strstr(once + 1, "A `plan_row` is"));
    free(text);
}
