/* test_layouts_tokens.c - windows of tokens: what a reader process delivers is what libhdf5 gives,
 * how many there are, and what cannot be is refused.
 */
#include "tests/test.h"
#include "tests/unit/layout_fixture.h"
#include "tests/unit/reader_compare.h"

/* weights: of the tokens; the name NULL: none. */
static void tokens_make(const char *path, uint64_t tokens, uint64_t documents, hid_t type,
                        hsize_t chunk, enum filters filters, struct set_config weights)
{
    uint64_t *at = calloc(documents + 1, sizeof *at);
    for (uint64_t i = 1; i < documents; i++) /* some are empty */
        at[i] = at[i - 1] + (test_random() % 3 ? test_random() % (2 * tokens / documents + 1) : 0);
    for (uint64_t i = 1; i < documents; i++)
        at[i] = at[i] < tokens ? at[i] : tokens;
    at[documents] = tokens;
    hid_t group, file = file_create(path, "train", &group);
    set_write(group, (struct set_config){"tokens", type, 1, {tokens}, {chunk}, filters, 1ull << 30},
              0, NULL);
    set_write(group, (struct set_config){"doc_ptr", type_random(4, 4), 1, {documents + 1}},
              H5T_NATIVE_UINT64, at);
    if (weights.name)
        set_write(group, weights, 0, NULL);
    H5Gclose(group);
    H5Fclose(file);
    free(at);
}

TEST_LIMIT(windows_of_tokens_equal_h5dread, 120)
{
    for (int i = 0; i < TEST_ROUNDS(120, 36); i++) {
        struct reader_open open = open_default();
        uint64_t tokens = 2 + test_random() % 3000;
        hsize_t chunk = i % 6 ? chunk_random(tokens) : 2 * tokens; /* larger than the data */
        open.window = 1 + test_random() % (tokens - 1 < 70 ? tokens - 1 : 70);
        open.shuffle = i % 3 != 0;
        open.span_rows = i % 4 ? 1 + test_random() % 50 : 0;
        open.streams = open.shuffle ? 0 : test_random() % ((tokens - 1) / open.window % 4 + 1);
        if (i % 4 == 0)
            open.span_bytes_chosen = 60000;
        struct set_config weights = {"weights", type_random(0, TYPES),  1,
                                     {tokens},  {chunk_random(tokens)}, filters_random()};
        MSG_STR(open.weights, "weights"); /* where there are such */
        if (i % 2)
            weights.name = NULL;
        open.begins = open.rest = i / 2 % 2;
        tokens_make("tokens.h5", tokens, 1 + test_random() % 40, type_random_unsigned(), chunk,
                    filters_random(), weights);
        file_compare("tokens.h5", &open);
    }
}

TEST(windows_are_cut_and_counted)
{
    struct reader_open open = open_default();
    struct harness h;
    const struct set_config none = {0}, few = {"w", H5T_IEEE_F32LE, 1, {100}},
                            wide = {"w", H5T_IEEE_F32LE, 2, {101, 2}};
    tokens_make("count.h5", 101, 5, H5T_STD_U16LE, 0, PLAIN, none);
    static const uint64_t cases[][2] = {{1, 100}, {10, 10}, {33, 3}, {34, 2}, {100, 1}};
    for (int i = 0; i < 5; i++) {
        open.window = cases[i][0];
        CHECK(harness_open(&h, "count.h5", &open) == 0);
        CHECK_STR(h.described.layout, "tokens");
        CHECK_EQ(h.described.rows, cases[i][1]);
        CHECK_EQ(h.described.fields[0].values, cases[i][0] + 1);
        CHECK_EQ(h.described.fields[1].values, (cases[i][0] + 8) / 8);
        harness_close(&h);
    }
    open.window = 101;
    file_refused("count.h5", &open, "has 101 tokens and data.window is 101");
    open.window = 0;
    file_refused("count.h5", &open, "expected a window of 1 to 100 tokens");
    open.window = 1ull << 31;
    file_refused("count.h5", &open, "expected a window of 1 to 100 tokens");
    open.window = 10;
    tokens_make("signed.h5", 101, 5, H5T_STD_I16LE, 0, PLAIN, none);
    file_refused("signed.h5", &open,
                 "has signed numbers; expected unsigned integers in one dimension");
    MSG_STR(open.weights, "w");
    tokens_make("few.h5", 101, 5, H5T_STD_U16LE, 0, PLAIN, few);
    file_refused("few.h5", &open, "train/w has 100 numbers, where there are 101 to be weighed");
    tokens_make("wide.h5", 101, 5, H5T_STD_U16LE, 0, PLAIN, wide);
    file_refused("wide.h5", &open, "expected 1 dimension: a number a token");
}

TEST_LIMIT(stored_chunks_of_tokens_are_decoded_about_once, 60)
{
    struct reader_open open = open_default();
    open.window = 64;
    tokens_make("stream.h5", 400001, 900, H5T_STD_U16LE, 5000, SHUFFLE_GZIP,
                (struct set_config){0});
    open.shuffle = 0;
    struct compared ordered = file_compare_all("stream.h5", &open);
    /* windows share a token with the next: 65 are delivered for each 64 that are decoded */
    CHECK_EQ(ordered.decoded, 2 * 400001);
    CHECK_EQ(ordered.delivered, 2 * 65 * (400000 / 64));
    open.shuffle = 1;
    struct compared permuted = file_compare_all("stream.h5", &open);
    CHECK((double)permuted.decoded < 1.09 * (double)ordered.decoded);
    CHECK_EQ(permuted.digest, ordered.digest);
}
