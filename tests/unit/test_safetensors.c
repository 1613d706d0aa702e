/* test_safetensors.c - files of tensors: what is written is read, and what lies is refused before
 * it is believed. */
#include "proto/safetensors.h"

#include <unistd.h>

#include "proto/durable.h"
#include "tests/test.h"

static struct err e;

/* A file with that header text, as long as it is, and `bytes` bytes 1, 2, 3 ... behind it. */
static void file_write(const char *header, size_t header_bytes, size_t bytes)
{
    test_file_forget("x.safetensors");
    FILE *f = fopen("x.safetensors", "wb");
    CHECK(f);
    for (int i = 0; i < 8; i++)
        fputc((int)(header_bytes >> 8 * i & 255), f);
    fwrite(header, 1, header_bytes, f);
    for (size_t i = 0; i < bytes; i++)
        fputc((int)(i + 1) & 255, f);
    CHECK(fclose(f) == 0);
}

static const char *refused(const char *header, size_t bytes)
{
    struct safetensors s;
    file_write(header, strlen(header), bytes);
    e.text[0] = 0;
    CHECK_EQ(safetensors_open(&s, "x.safetensors", &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "x.safetensors");
    return e.text;
}

static void accepted(struct safetensors *s, const char *header, size_t bytes)
{
    file_write(header, strlen(header), bytes);
    CHECK_OK(safetensors_open(s, "x.safetensors", &e), e);
}

TEST(what_is_written_is_read)
{
    const float weight[6] = {1, -2, 3.5f, 4, 5, 6};
    const int8_t small[3] = {-1, 2, 3};
    const struct safetensors_source sources[] = {
        {"0.weight", SAFETENSORS_F32, 2, {2, 3}, weight},
        {"0.bias", SAFETENSORS_I8, 1, {3}, small},
        {"scale", SAFETENSORS_F32, 0, {0}, weight + 2},
        {"none", SAFETENSORS_F64, 2, {0, 7}, NULL},
    };
    struct safetensors_text texts[] = {
        {(char *)"format", (char *)"pt"},
        {(char *)"model", (char *)"inputs=3\n\"out\\\"\x01 \xc3\xa9"}};
    struct safetensors s;
    float back[6] = {0};
    CHECK_OK(safetensors_write("w.safetensors", sources, 4, texts, 2, &e), e);
    CHECK_OK(safetensors_open(&s, "w.safetensors", &e), e);
    CHECK_EQ(s.count, 4);
    CHECK_EQ(s.data_at % 64, 0);
    CHECK_STR(safetensors_metadata(&s, "format"), "pt");
    CHECK_STR(safetensors_metadata(&s, "model"), texts[1].value);
    CHECK(!safetensors_metadata(&s, "mode"));
    const struct safetensor *t = safetensors_find(&s, "0.weight");
    CHECK(t && t->type == SAFETENSORS_F32 && t->rank == 2 && t->dims[0] == 2 && t->dims[1] == 3);
    CHECK_EQ(safetensor_items(t), 6);
    CHECK_OK(safetensors_read(&s, t, 0, sizeof back, back, &e), e);
    CHECK(memcmp(back, weight, sizeof back) == 0);
    CHECK_OK(safetensors_read(&s, t, 8, 4, back, &e), e);
    CHECK(back[0] == 3.5f);
    t = safetensors_find(&s, "scale");
    CHECK(t && t->rank == 0 && safetensor_items(t) == 1);
    t = safetensors_find(&s, "none");
    CHECK(t && safetensor_items(t) == 0);
    CHECK(!safetensors_find(&s, "0.weigh"));
    safetensors_close(&s);
    safetensors_close(&s);
}

TEST(a_failing_disk_leaves_the_old_file)
{
    const uint8_t byte = 7;
    const struct safetensors_source one = {"a", SAFETENSORS_U8, 1, {1}, &byte};
    const struct safetensors_source two = {"b", SAFETENSORS_U8, 1, {1}, &byte};
    const char *const faults[] = {"write:1:ENOSPC", "write:3:EIO", "fsync:1:EIO", "rename:1:EIO"};
    struct safetensors s;
    CHECK_OK(safetensors_write("w.safetensors", &one, 1, NULL, 0, &e), e);
    for (int i = 0; i < 4; i++) {
        CHECK_OK(durable_fail_after(faults[i], &e), e);
        CHECK_EQ(safetensors_write("w.safetensors", &two, 1, NULL, 0, &e), -1);
        CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
        durable_fail_after("", &e);
        CHECK_OK(safetensors_open(&s, "w.safetensors", &e), e);
        CHECK(safetensors_find(&s, "a") && s.count == 1);
        safetensors_close(&s);
    }
    CHECK(system("test $(ls | wc -l) = 1") == 0);
}

TEST(what_json_allows_is_read)
{
    struct safetensors s;
    accepted(
        &s,
        "{ \"b\\u00e9\\ud83d\\ude00\\/\" : { \"data_offsets\" :[ 4 , 6 ],\n\t\"shape\":[1,2] , "
        "\"dtype\":\"BOOL\"} , \"__metadata__\":{\"k\\n\":\"\\\"\", \"l\" : \"\"},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}   ",
        6);
    CHECK_EQ(s.count, 2);
    CHECK(safetensors_find(&s, "b\xc3\xa9\xf0\x9f\x98\x80/"));
    CHECK_STR(safetensors_metadata(&s, "k\n"), "\"");
    CHECK_STR(safetensors_metadata(&s, "l"), "");
    safetensors_close(&s);
    accepted(&s, "{}", 0);
    CHECK_EQ(s.count, 0);
    safetensors_close(&s);
}

#define TENSOR(name, type, shape, first, end)                                                      \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" first "," end "]}"

TEST(what_lies_is_refused)
{
    CHECK_HAS(refused("{" TENSOR("a", "F32", "[2]", "0", "8") "}", 7), "the data, which are 7");
    CHECK_HAS(refused("{" TENSOR("a", "F32", "[2]", "0", "8") "}", 9), "the file has 9");
    CHECK_HAS(refused("{" TENSOR("a", "F32", "[3]", "0", "8") "}", 8), "takes 12 bytes");
    CHECK_HAS(refused("{" TENSOR("a", "F32", "[2]", "8", "0") "}", 8), "bytes 8 to 0");
    CHECK_HAS(
        refused("{" TENSOR("a", "U8", "[2]", "0", "2") "," TENSOR("b", "U8", "[2]", "1", "3") "}",
                3),
        "begins at byte 1");
    CHECK_HAS(
        refused("{" TENSOR("a", "U8", "[2]", "0", "2") "," TENSOR("b", "U8", "[2]", "3", "5") "}",
                5),
        "begins at byte 3");
    CHECK_HAS(
        refused("{" TENSOR("a", "U8", "[1]", "0", "1") "," TENSOR("a", "U8", "[1]", "1", "2") "}",
                2),
        "there twice");
    CHECK_HAS(refused("{" TENSOR("a", "F31", "[1]", "0", "4") "}", 4), "of type F31");
    CHECK_HAS(refused("{" TENSOR("a", "F32", "[4294967296,4294967296,4]", "0", "4") "}", 4),
              "2^64");
    CHECK_HAS(refused("{" TENSOR("a", "F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4),
              "more than 8 dimensions");
    CHECK_HAS(refused("{" TENSOR("a", "U8", "[99999999999999999999]", "0", "4") "}", 4),
              "too large");
    CHECK_HAS(refused("{" TENSOR("a", "U8", "[1.0]", "0", "1") "}", 1), "whole number");
    CHECK_HAS(refused("{" TENSOR("a", "U8", "[01]", "0", "1") "}", 1), "whole number");
    CHECK_HAS(refused("{" TENSOR("a", "U8", "[-1]", "0", "1") "}", 1), "whole number");
    CHECK_HAS(refused("{" TENSOR("a", "U8", "[1,]", "0", "1") "}", 1), "whole number");
    CHECK_HAS(refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1), "lacks one of");
    CHECK_HAS(refused("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1]}}", 1),
              "there twice");
    CHECK_HAS(refused("{\"a\":{\"kind\":\"U8\"}}", 1), "unknown");
    CHECK_HAS(refused("{\"a\":{}}", 0), "is expected");
    CHECK_HAS(refused("{\"a\":3}", 0), "'{' is expected");
    CHECK_HAS(refused("{\"__metadata__\":{\"a\":\"b\",\"a\":\"c\"}}", 0), "twice");
    CHECK_HAS(refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0), "twice");
    CHECK_HAS(refused("{\"__metadata__\":{\"a\":3}}", 0), "'\"' is expected");
    CHECK_HAS(refused("[]", 0), "'{' is expected");
    CHECK_HAS(refused(" {}", 0), "'{' is expected");
    CHECK_HAS(refused("{}}", 0), "goes on");
    CHECK_HAS(refused("{\"a", 0), "is expected");
    CHECK_HAS(refused("{\"\\", 0), "has no end");
    CHECK_HAS(refused("{\"\\ud800\":", 0), "half a character");
    CHECK_HAS(refused("{\"\\u12g4\":", 0), "hexadecimal");
    CHECK_HAS(refused("{\"\\u0000\":", 0), "no character");
    CHECK_HAS(refused("{\"\xff\":", 0), "UTF-8");
    CHECK_HAS(refused("{\"a\tb\":", 0), "UTF-8");
    CHECK_HAS(refused("{\"\\x\":", 0), "JSON does not have");
}

TEST(names_have_a_limit)
{
    char header[1024], name[300];
    struct safetensors s;
    memset(name, 'n', sizeof name);
    for (int length = SAFETENSORS_NAME_MAX; length <= SAFETENSORS_NAME_MAX + 1; length++) {
        snprintf(header, sizeof header, "{\"%.*s\":%s}", length, name,
                 "{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}");
        if (length == SAFETENSORS_NAME_MAX) {
            accepted(&s, header, 1);
            safetensors_close(&s);
        } else {
            CHECK_HAS(refused(header, 1), "longer than 255 bytes");
        }
    }
}

TEST(a_length_is_not_believed)
{
    struct safetensors s;
    const uint64_t lengths[] = {0, 1, 3, 1000, SAFETENSORS_HEADER_MAX + 1ull, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        FILE *f = fopen("x.safetensors", "wb");
        CHECK(f);
        fwrite(&lengths[i], 8, 1, f);
        fputs("{}", f);
        fclose(f);
        CHECK_EQ(safetensors_open(&s, "x.safetensors", &e), -1);
        CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
        CHECK_HAS(e.text, "claims a header");
    }
    CHECK(truncate("x.safetensors", 9) == 0);
    CHECK_EQ(safetensors_open(&s, "x.safetensors", &e), -1);
    CHECK_HAS(e.text, "has 9 bytes");
    CHECK_EQ(safetensors_open(&s, ".", &e), -1);
    CHECK_HAS(e.text, "not a regular file");
    CHECK_EQ(safetensors_open(&s, "missing", &e), -1);
    CHECK_HAS(e.text, "cannot open missing");
}

/* Whatever is opened agrees with its file: every tensor can be read. */
static void mutant_look(void)
{
    struct safetensors s;
    unsigned char data[64];
    if (safetensors_open(&s, "x.safetensors", &e) < 0) {
        CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
        return;
    }
    for (uint32_t i = 0; i < s.count; i++) {
        const struct safetensor *t = &s.tensors[i];
        CHECK(t->end - t->first <= sizeof data);
        CHECK_OK(safetensors_read(&s, t, 0, t->end - t->first, data, &e), e);
    }
    safetensors_close(&s);
}

TEST_LIMIT(thousands_of_mutated_headers, 60)
{
    static const char base[] =
        "{\"__metadata__\":{\"format\":\"pt\",\"m\\n\":\"\\u00e9\\\"\"}," TENSOR(
            "0.weight", "F32", "[2,3]", "0", "24") "," TENSOR("0.bias", "BF16", "[3]", "24",
                                                              "30") "}";
    static const char signs[] = "{}[]\":,\\u0192.eE \n\xc3\xa9\xff-";
    char header[2 * sizeof base];
    for (int round = 0; round < TEST_ROUNDS(5000, 20000); round++) {
        size_t bytes = sizeof base - 1;
        memcpy(header, base, bytes);
        for (uint64_t changes = 1 + test_random() % 4; changes-- > 0;) {
            size_t at = test_random() % bytes, span = 1 + test_random() % 8;
            switch (test_random() % 4) {
            case 0: /* another sign */
                header[at] = signs[test_random() % (sizeof signs - 1)];
                break;
            case 1: /* a bit */
                header[at] = (char)(header[at] ^ 1 << test_random() % 8);
                break;
            case 2: /* left out */
                span = span < bytes - at ? span : bytes - at;
                memmove(header + at, header + at + span, bytes - at - span);
                bytes -= span < bytes ? span : 0;
                break;
            default: /* there twice */
                span = span < bytes - at ? span : bytes - at;
                memmove(header + at + span, header + at, bytes - at);
                bytes += span;
            }
        }
        if (test_random() % 8 == 0)
            bytes = 1 + test_random() % bytes;
        file_write(header, bytes, 30);
        mutant_look();
    }
}
