/* test_layouts_dense.c - timeframes and other rows of one size: what a reader process delivers is
 * what libhdf5 gives, which rows are permuted together, what a fingerprint covers, and what cannot
 * be is refused.
 */
#include "tests/test.h"
#include "tests/unit/layout_fixture.h"
#include "tests/unit/reader_compare.h"

enum naming { AS_TEXT, AS_ARRAY, AS_STRINGS, NAMINGS };

/* "M1 M5" as one text, as an array of fixed length, as an array of variable length. */
static void timeframes_write(hid_t group, const char *const *names, int count, enum naming naming)
{
    char text[256] = "", fixed[8][8] = {{0}};
    hsize_t n = (hsize_t)count;
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    for (int i = 0; i < count; i++) {
        snprintf(text + strlen(text), 16, "%s%s", i ? " " : "", names[i]);
        snprintf(fixed[i], sizeof fixed[i], "%s", names[i]);
    }
    const void *data = naming == AS_TEXT    ? (void *)text
                       : naming == AS_ARRAY ? (void *)fixed
                                            : names;
    if (naming != AS_TEXT)
        space = H5Screate_simple(1, &n, NULL);
    H5Tset_size(type, naming == AS_TEXT    ? strlen(text)
                      : naming == AS_ARRAY ? sizeof fixed[0]
                                           : H5T_VARIABLE);
    hid_t attribute = H5Acreate2(group, "timeframes", type, space, H5P_DEFAULT, H5P_DEFAULT);
    CHECK(attribute >= 0 && H5Awrite(attribute, type, data) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static const char *const frames[] = {"M5", "M1", "H1"}; /* not the order of their names */

static void timeframes_make(const char *path, enum naming naming, hsize_t rows, hsize_t other_rows)
{
    hid_t train, file = file_create(path, "train", &train);
    hid_t group = H5Gcreate2(train, "features", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    for (int i = 0; i < 3; i++) {
        hsize_t time = 2 + (hsize_t)i * 3, n = i == 2 ? other_rows : rows;
        struct set_config c = {frames[i], type_random(0, TYPES), 3, {n, time, 4}};
        c.chunk[0] = test_random() % 4 ? 1 + test_random() % rows : 0;
        c.chunk[1] = time;
        c.chunk[2] = test_random() % 5 ? 4 : 3;
        c.filters = c.chunk[0] ? filters_random() : PLAIN;
        set_write(group, c, 0, NULL);
    }
    set_write(train, (struct set_config){"targets", H5T_STD_U8LE, 1, {rows}, {rows}, GZIP}, 0,
              NULL);
    set_write(train, (struct set_config){"begins", H5T_STD_U16BE, 1, {rows}, {7}, GZIP}, 0, NULL);
    timeframes_write(group, frames, 3, naming);
    H5Gclose(group);
    H5Gclose(train);
    H5Fclose(file);
}

TEST_LIMIT(timeframes_equal_h5dread, 60)
{
    for (int i = 0; i < TEST_ROUNDS(40, 12); i++) {
        struct reader_open open = open_default();
        struct harness h;
        open.shuffle = i % 4 != 0;
        open.span_rows = 1 + test_random() % 40;
        open.begins = i % 2;
        timeframes_make("frames.h5", (enum naming)(i % NAMINGS), 70, 70);
        CHECK(file_compare("frames.h5", &open) >= 2);
        CHECK(harness_open(&h, "frames.h5", &open) == 0);
        CHECK_STR(h.described.layout, "dense");
        CHECK_EQ(h.described.field_count, 4 + open.begins);
        CHECK_STR(h.described.fields[0].name, "features/M5");
        CHECK_STR(h.described.fields[1].name, "features/M1");
        CHECK_STR(h.described.fields[2].name, "features/H1");
        CHECK_EQ(h.described.fields[2].values, 32);
        harness_close(&h);
    }
}

TEST(wrong_timeframes_are_refused)
{
    static const char *const wrong[][2] = {{"M1", "M1"}, {"M1", "M15"}, {"../M1", "M5"}};
    static const char *const words[] = {"names \"M1\" twice", "no data set M15", "\"../M1\""};
    struct reader_open open = open_default();
    for (int i = 0; i < 3; i++) {
        hid_t group, file;
        timeframes_make("wrong.h5", AS_TEXT, 20, 20);
        file = H5Fopen("wrong.h5", H5F_ACC_RDWR, H5P_DEFAULT);
        group = H5Gopen2(file, "train/features", H5P_DEFAULT);
        H5Adelete(group, "timeframes");
        timeframes_write(group, wrong[i], 2, (enum naming)i);
        H5Gclose(group);
        H5Fclose(file);
        file_refused("wrong.h5", &open, words[i]);
    }
    timeframes_make("rows.h5", AS_TEXT, 20, 21);
    file_refused("rows.h5", &open, "timeframes need the same rows and features");
    hid_t train, file = file_create("none.h5", "train", &train);
    H5Gclose(H5Gcreate2(train, "features", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Gclose(train);
    H5Fclose(file);
    file_refused("none.h5", &open, "its attribute timeframes does not say");
}

TEST(data_sets_are_named_by_options)
{
    struct set_config sets[2] = {{"pixels", H5T_STD_U8LE, 2, {50, 6}, {16, 6}, GZIP},
                                 {"label", H5T_STD_I32LE, 1, {50}, {50}, GZIP}};
    struct reader_open open = open_default();
    struct harness h;
    file_make("names.h5", sets, 2);
    file_refused("names.h5", &open, "train has no data set features (there is: label, pixels)");
    MSG_STR(open.features, "pixels");
    MSG_STR(open.targets, "label");
    CHECK(harness_open(&h, "names.h5", &open) == 0);
    CHECK_STR(h.described.fields[0].name, "features");
    CHECK_STR(h.described.fields[1].name, "targets");
    CHECK_EQ(h.described.fields[0].values, 6);
    harness_close(&h);
    MSG_STR(open.features, "train/pixels");
    file_refused("names.h5", &open, "has no data set train/pixels");
    MSG_STR(open.features, "pixels");
    MSG_STR(open.targets, "../label");
    file_refused("names.h5", &open, "without /");
}

TEST(begins_that_are_none_are_refused)
{
    struct reader_open open = open_default();
    hid_t truth = H5Tenum_create(H5T_STD_I8LE);
    H5Tenum_insert(truth, "FALSE", (int8_t[]){0});
    const struct {
        struct set_config set;
        const char *words;
    } cases[] = {
        {{"begins", truth, 1, {70}}, "train/begins is of a type that is enumerated"},
        {{"begins", H5T_IEEE_F32LE, 1, {70}}, "train/begins has floats"},
        {{"begins", H5T_STD_I8LE, 1, {70}}, "train/begins has signed numbers"},
        {{"begins", H5T_STD_U8LE, 2, {70, 1}}, "train/begins has 2 dimensions (70 x 1)"},
        {{"begins", H5T_STD_U8LE, 1, {69}}, "train/begins has 69 rows, where 70 rows begin"},
    };
    open.begins = 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hid_t train, file = file_create("begins.h5", "train", &train);
        set_write(train, (struct set_config){"features", H5T_IEEE_F32LE, 2, {70, 3}}, 0, NULL);
        hid_t set = set_create(train, &cases[i].set);
        if (i == 4)
            set_fill(set, &cases[i].set);
        H5Dclose(set);
        H5Gclose(train);
        H5Fclose(file);
        file_refused("begins.h5", &open, cases[i].words);
        if (i < 4)
            file_refused("begins.h5", &open,
                         "; expected one unsigned number a row (NumPy: .astype(");
    }
}

/* ---- what was added to a file ---- */

static void attribute_write(hid_t at, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text));
    hid_t attribute = H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    CHECK(attribute >= 0 && H5Awrite(attribute, type, text) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

/* Of a file of another writer, to which begins and weights were added: row `begin` does, row
 * `heavy` weighs 2, all others 1. `wanted`: what a run takes of it. */
enum added { NEITHER = 0, BEGINS = 1, WEIGHTS = 2 };

static void added_make(hsize_t chunk, int begin, int heavy)
{
    uint8_t begins[70] = {0};
    float weights[70];
    hid_t train, file = file_create("added.h5", "train", &train);
    begins[begin] = 1;
    for (int i = 0; i < 70; i++)
        weights[i] = i == heavy ? 2 : 1;
    attribute_write(file, "fingerprint", "12ab");
    set_write(train, (struct set_config){"features", H5T_IEEE_F32LE, 2, {70, 3}, {7, 3}, GZIP}, 0,
              NULL);
    set_write(train, (struct set_config){"begins", H5T_STD_U8LE, 1, {70}, {chunk}, GZIP},
              H5T_NATIVE_UINT8, begins);
    set_write(train, (struct set_config){"w", H5T_IEEE_F32LE, 1, {70}, {chunk}, GZIP},
              H5T_NATIVE_FLOAT, weights);
    H5Gclose(train);
    H5Fclose(file);
}

static void fingerprint_get(unsigned wanted, char hex[65])
{
    struct reader_open open = open_default();
    struct harness h;
    open.begins = wanted & BEGINS;
    if (wanted & WEIGHTS)
        MSG_STR(open.weights, "w");
    CHECK(harness_open(&h, "added.h5", &open) == 0);
    memcpy(hex, h.described.fingerprint, 65);
    harness_close(&h);
}

/* Whatever the file's writer stored: a run sees that what it takes is another, and only that. */
TEST(fingerprint_knows_what_was_added)
{
    char first[4][65], again[65];
    for (hsize_t chunk = 0; chunk < 64; chunk += 32)
        for (unsigned changed = NEITHER; changed <= (BEGINS | WEIGHTS); changed++) {
            added_make(chunk, 69, 69);
            for (unsigned wanted = 0; wanted < 4; wanted++) {
                fingerprint_get(wanted, first[wanted]);
                for (unsigned other = 0; other < wanted; other++)
                    CHECK(strcmp(first[wanted], first[other]) != 0);
            }
            CHECK_STR(first[NEITHER], "12ab");
            added_make(chunk, changed & BEGINS ? 68 : 69, changed & WEIGHTS ? 68 : 69);
            for (unsigned wanted = 0; wanted < 4; wanted++) {
                fingerprint_get(wanted, again);
                CHECK_EQ(strcmp(again, first[wanted]) != 0, (wanted & changed) != 0);
            }
        }
}

/* ---- data sets in chunks of several lengths ---- */

/* Targets in longer chunks than the features: 5 chunks of 4 MiB, which the cache does not hold. */
enum { LONG_ROWS = 5 * 8192 };

static void long_targets_make(const char *path, hsize_t features_chunk)
{
    struct set_config sets[2] = {
        {"features", H5T_STD_U8LE, 2, {LONG_ROWS, 16}, {features_chunk, 16}, GZIP},
        {"targets", H5T_IEEE_F32LE, 2, {LONG_ROWS, 128}, {8192, 128}, SHUFFLE_GZIP}};
    file_make(path, sets, 2);
}

static uint64_t chunk_rows_of(const char *path, const struct reader_open *open)
{
    struct harness h;
    CHECK(harness_open(&h, path, open) == 0);
    uint64_t rows = h.described.chunk_rows;
    harness_close(&h);
    return rows;
}

TEST_LIMIT(the_longest_chunk_is_permuted_whole_where_it_fits, 60)
{
    struct reader_open open = open_default();
    long_targets_make("long.h5", 64);
    CHECK_EQ(chunk_rows_of("long.h5", &open), 8192);
    struct compared found = file_compare_all("long.h5", &open);
    CHECK_EQ(found.decoded, found.delivered);
    open.shuffle = 0;
    CHECK_EQ(chunk_rows_of("long.h5", &open), 64);
    found = file_compare_all("long.h5", &open);
    CHECK_EQ(found.decoded, found.delivered);
}

/* What is decoded again is counted again. */
TEST_LIMIT(a_chunk_that_is_decoded_again_counts_again, 60)
{
    struct reader_open open = open_default();
    long_targets_make("again.h5", 256);
    open.span_bytes_chosen = (4 << 20) + (64 << 10);
    CHECK_EQ(chunk_rows_of("again.h5", &open), 256);
    struct compared found = file_compare_all("again.h5", &open);
    CHECK(found.decoded > 2 * found.delivered);
}

TEST_LIMIT(the_common_multiple_of_chunks_is_permuted_whole_where_it_is_small, 60)
{
    struct reader_open open = open_default();
    open.span_bytes_chosen = open.span_bytes_limit = 32 << 20;
    long_targets_make("common.h5", 96);
    CHECK_EQ(chunk_rows_of("common.h5", &open), 3 * 8192);
    long_targets_make("common.h5", 97);
    CHECK_EQ(chunk_rows_of("common.h5", &open), 8192);
}

/* Small data sets in chunks of their own: decoded once for all epochs, and rows stay well mixed. */
TEST_LIMIT(data_sets_that_the_cache_holds_leave_the_order_alone, 60)
{
    struct set_config sets[2] = {
        {"features", H5T_STD_U8LE, 2, {6000, 64}, {64, 64}, GZIP},
        {"targets", H5T_STD_U8LE, 2, {6000, 4}, {6000, 4}, GZIP},
    };
    struct reader_open open = open_default();
    for (int i = 0; i < 3; i++) {
        sets[1].chunk[0] = i == 0 ? 6000 : 1500;
        sets[1].chunk[1] = i == 2 ? 1 : 4;
        file_make("small.h5", sets, 2);
        CHECK_EQ(chunk_rows_of("small.h5", &open), 64);
        struct compared found = file_compare_all("small.h5", &open);
        CHECK_EQ(found.decoded, found.delivered);
    }
}
