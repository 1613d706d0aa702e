/* test_json.c - monitord's JSON writer: what it writes is JSON, whatever text or number it is
 * given.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "monitord/json.h"
#include "tests/test.h"

static char *json_text(void (*fill)(struct json *j))
{
    char *text = NULL;
    size_t bytes;
    struct json j;
    FILE *out = open_memstream(&text, &bytes);
    json_begin(&j, out);
    fill(&j);
    json_finish(&j);
    fclose(out);
    return text;
}

static void fill_everything(struct json *j)
{
    json_object(j, NULL);
    json_str(j, "quote \"\\", "a\n\t\x01\x7f");
    json_str(j, "none", NULL);
    json_list(j, "empty");
    json_end(j);
    json_list_flat(j, "numbers");
    json_u64(j, NULL, UINT64_MAX);
    json_f64(j, NULL, 0.1);
    json_f64(j, NULL, NAN);
    json_f64(j, NULL, -INFINITY);
    json_f64(j, NULL, 1e300);
    json_fixed(j, NULL, 2.0 / 3, 2);
    json_bool(j, NULL, 0);
    json_end(j);
    json_object(j, "deeper");
    json_null(j, "x");
    json_end(j);
    json_end(j);
}

TEST(json_is_as_expected)
{
    char *text = json_text(fill_everything);
    CHECK_STR(text, "{\n"
                    "  \"quote \\\"\\\\\": \"a\\u000a\\u0009\\u0001\\u007f\",\n"
                    "  \"none\": null,\n"
                    "  \"empty\": [],\n"
                    "  \"numbers\": [18446744073709551615, 0.1, null, null, 1e+300, 0.67, false],\n"
                    "  \"deeper\": {\n"
                    "    \"x\": null\n"
                    "  }\n"
                    "}\n");
    free(text);
}

static const char *text_in;
static void fill_text(struct json *j)
{
    json_str(j, NULL, text_in);
}

TEST(json_repairs_what_is_no_utf8)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x99\x82",
         "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x99\x82"},
        {"\xff", "\\ufffd"},
        {"a\xc3", "a\\ufffd"},                                /* cut */
        {"\xc0\xaf", "\\ufffd\\ufffd"},                       /* overlong */
        {"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd"},            /* surrogate */
        {"\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"}, /* beyond U+10FFFF */
        {"\xe2\x82", "\\ufffd\\ufffd"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char expected[128];
        text_in = cases[i].in;
        char *text = json_text(fill_text);
        snprintf(expected, sizeof expected, "\"%s\"\n", cases[i].out);
        CHECK_STR(text, expected);
        free(text);
    }
}

static double number_in;
static void fill_number(struct json *j)
{
    json_f64(j, NULL, number_in);
}

TEST(json_numbers_read_back)
{
    for (int i = 0; i < 2000; i++) {
        uint64_t bits = test_random();
        memcpy(&number_in, &bits, sizeof bits);
        char *text = json_text(fill_number);
        CHECK(isfinite(number_in) ? strtod(text, NULL) == number_in : strcmp(text, "null\n") == 0);
        free(text);
    }
}
