/* test_decode_grid.c - 702 generated files, each equal to H5Dread byte for byte.
 *
 * Every way to store a data set that is listed in `kinds` (layout, chunk shape, index, filters,
 * what was never written, filter masks) meets every stored type and byte order; sizes, gzip levels
 * and how the reader is asked are random. The values are random bits, so that NaN, infinities and
 * denormal numbers are among them. TEST_SEED chooses another set of files.
 */
#include "loaderd/decode.h"

#include <zlib.h>

#include "proto/h5file.h"
#include "tests/test.h"
#include "tests/unit/reader_compare.h"

/* Of a kind: how it is laid out ... */
enum layout {
    CONTIGUOUS,
    COMPACT,
    ROWS,    /* chunks of some rows */
    ROW,     /* of one */
    PARTS,   /* of parts of rows */
    WHOLE,   /* one chunk, exactly full */
    TOO_LONG /* one chunk, longer than the data */
};

/* ... which index finds its chunks: B-tree version 1, or of HDF5 1.10's format by what may grow ...
 */
enum growth { OLD_FORMAT, FIXED, GROWS, GROWS_TWICE };

/* ... and which of its rows are written. */
enum written { ALL, SOME, SOME_NO_FILL, MASKED };

enum { EARLY = 1, RAW_EDGE = 2, USER_BLOCK = 4, INTEGERS_ONLY = 8, ONE_ROW = 16 };

static const struct kind {
    const char *name;
    enum layout layout;
    enum growth growth;
    enum filters filters;
    enum written written;
    unsigned flags;
} kinds[] = {
    {"contiguous", CONTIGUOUS, OLD_FORMAT, PLAIN, ALL, 0},
    {"contiguous after a user block", CONTIGUOUS, OLD_FORMAT, PLAIN, ALL, USER_BLOCK},
    {"contiguous, partly written", CONTIGUOUS, FIXED, PLAIN, SOME, 0},
    {"one contiguous row", CONTIGUOUS, OLD_FORMAT, PLAIN, ALL, ONE_ROW},
    {"in the header", COMPACT, OLD_FORMAT, PLAIN, ALL, 0},
    {"plain chunks, B-tree", ROWS, OLD_FORMAT, PLAIN, ALL, 0},
    {"plain chunks, implicit index", ROWS, FIXED, PLAIN, ALL, EARLY},
    {"plain chunks, implicit index, partly written", ROWS, FIXED, PLAIN, SOME, EARLY},
    {"plain chunks, fixed array", ROWS, FIXED, PLAIN, ALL, 0},
    {"shuffle alone", ROWS, OLD_FORMAT, SHUFFLE, ALL, 0},
    {"fletcher32 alone", ROWS, OLD_FORMAT, FLETCHER, ALL, 0},
    {"gzip, B-tree", ROWS, OLD_FORMAT, GZIP, ALL, USER_BLOCK},
    {"gzip, fixed array", ROWS, FIXED, GZIP, ALL, 0},
    {"gzip, extensible array", ROWS, GROWS, GZIP, ALL, 0},
    {"gzip, B-tree version 2", ROWS, GROWS_TWICE, GZIP, ALL, 0},
    {"gzip, single chunk", WHOLE, FIXED, GZIP, ALL, 0},
    {"shuffle, gzip", ROWS, OLD_FORMAT, SHUFFLE_GZIP, ALL, 0},
    {"shuffle, gzip, a row a chunk", ROW, GROWS, SHUFFLE_GZIP, ALL, 0},
    {"shuffle, gzip, one chunk too long", TOO_LONG, GROWS, SHUFFLE_GZIP, ALL, 0},
    {"shuffle, gzip, one row", TOO_LONG, GROWS, SHUFFLE_GZIP, ALL, ONE_ROW},
    {"shuffle, gzip, parts of rows", PARTS, OLD_FORMAT, SHUFFLE_GZIP, ALL, 0},
    {"plain parts of rows, B-tree version 2", PARTS, GROWS_TWICE, PLAIN, SOME, 0},
    {"gzip, shuffle", ROWS, OLD_FORMAT, GZIP_SHUFFLE, ALL, 0},
    {"shuffle, gzip, fletcher32", ROWS, GROWS, SHUFFLE_GZIP_FLETCHER, ALL, 0},
    {"fletcher32, shuffle, gzip", ROWS, FIXED, FLETCHER_SHUFFLE_GZIP, ALL, 0},
    {"gzip twice", ROWS, OLD_FORMAT, GZIP_TWICE, ALL, 0},
    {"nbit", ROWS, OLD_FORMAT, NBIT, ALL, INTEGERS_ONLY},
    {"scale and offset", ROWS, OLD_FORMAT, SCALE_OFFSET, ALL, INTEGERS_ONLY},
    {"szip", ROWS, OLD_FORMAT, SZIP, ALL, INTEGERS_ONLY},
    {"masked filters", ROWS, OLD_FORMAT, SHUFFLE_GZIP_FLETCHER, MASKED, 0},
    {"masked filters, fixed array", ROWS, FIXED, SHUFFLE_GZIP, MASKED, 0},
    {"partly written, fill value", ROWS, OLD_FORMAT, SHUFFLE_GZIP, SOME, 0},
    {"partly written, fill value, extensible array", ROWS, GROWS, GZIP, SOME, 0},
    {"partly written, no fill value", ROWS, OLD_FORMAT, SHUFFLE_GZIP, SOME_NO_FILL, 0},
    {"raw edge", ROWS, FIXED, SHUFFLE_GZIP, ALL, RAW_EDGE},
    {"raw edge, partly written", ROWS, GROWS, GZIP, SOME, RAW_EDGE},
};

enum { KINDS = sizeof kinds / sizeof *kinds, TYPES = 20, INTEGERS = 14 };

/* A process under AddressSanitizer takes long to fork: there each kind meets every third type. */
enum { STRIDE = TEST_ROUNDS(1, 3), FILES = TEST_ROUNDS(702, 234) };

/* Integers of both byte orders, then floats. */
static void types_fill(hid_t types[TYPES])
{
    const hid_t all[TYPES] = {
        H5T_STD_U8LE,   H5T_STD_I8LE,   H5T_STD_U16LE,          H5T_STD_I16LE,
        H5T_STD_U32LE,  H5T_STD_I32LE,  H5T_STD_U64LE,          H5T_STD_I64LE,
        H5T_STD_U16BE,  H5T_STD_I16BE,  H5T_STD_U32BE,          H5T_STD_I32BE,
        H5T_STD_U64BE,  H5T_STD_I64BE,  type_short_float(5, 0), type_short_float(5, 1),
        H5T_IEEE_F32LE, H5T_IEEE_F32BE, H5T_IEEE_F64LE,         H5T_IEEE_F64BE,
    };
    memcpy(types, all, sizeof all);
}

/* One data set to be. */
struct plan {
    const struct kind *kind;
    hid_t type;
    int rank;
    hsize_t dims[3], chunk[3];
};

static uint64_t below(uint64_t n)
{
    return test_random() % n;
}

/* `count` elements that compress: the first byte of each random, the others slow, all of some. */
static unsigned char *values_make(size_t count, size_t width)
{
    unsigned char *data = malloc(count * width);
    CHECK(data);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < width; j++)
            data[i * width + j] =
                (unsigned char)(j == 0 || i % 11 == 0 ? test_random() : i / 37 + 13 * j);
    return data;
}

static void plan_make(struct plan *p, const struct kind *k, hid_t type, hsize_t rows)
{
    *p = (struct plan){k, type, 2 + (int)below(2), {rows, 1 + below(24), 1 + below(5)}, {0}};
    memcpy(p->chunk, p->dims, sizeof p->chunk);
    if (k->layout == ROWS)
        p->chunk[0] = 1 + below(rows);
    else if (k->layout == ROW)
        p->chunk[0] = 1;
    else if (k->layout == TOO_LONG)
        p->chunk[0] = rows + 1 + below(50);
    else if (k->layout == PARTS) {
        p->chunk[0] = 1 + below(rows);
        p->dims[1]++;
        p->chunk[1] = 1 + below(p->dims[1] - 1);
    }
}

static hid_t properties_make(const struct plan *p)
{
    const struct kind *k = p->kind;
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    unsigned char fill[8];
    for (size_t i = 0; i < sizeof fill; i++)
        fill[i] = (unsigned char)test_random();
    if (k->layout == COMPACT)
        H5Pset_layout(dcpl, H5D_COMPACT);
    if (k->layout >= ROWS) {
        CHECK(H5Pset_chunk(dcpl, p->rank, p->chunk) >= 0);
        filters_set(dcpl, k->filters);
    }
    if (k->flags & RAW_EDGE)
        CHECK(H5Pset_chunk_opts(dcpl, H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS) >= 0);
    if (k->flags & EARLY)
        H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY);
    if (k->written == SOME)
        CHECK(H5Pset_fill_value(dcpl, p->type, fill) >= 0);
    if (k->written == SOME_NO_FILL)
        H5Pset_fill_time(dcpl, H5D_FILL_TIME_NEVER);
    return dcpl;
}

static hid_t space_make(const struct plan *p)
{
    hsize_t most[3];
    memcpy(most, p->dims, sizeof most);
    if (p->kind->growth >= GROWS)
        most[0] = H5S_UNLIMITED;
    if (p->kind->growth == GROWS_TWICE)
        most[1] = H5S_UNLIMITED;
    return H5Screate_simple(p->rank, p->dims, most);
}

/* The rows [first, first + rows). */
static void rows_write(hid_t set, const struct plan *p, hsize_t first, hsize_t rows)
{
    hsize_t start[3] = {first}, count[3] = {rows, p->dims[1], p->dims[2]};
    size_t width = H5Tget_size(p->type);
    unsigned char *data = values_make(rows * p->dims[1] * p->dims[2], width);
    hid_t space = H5Dget_space(set), memory = H5Screate_simple(p->rank, count, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    CHECK(H5Dwrite(set, p->type, memory, space, H5P_DEFAULT, data) >= 0);
    H5Sclose(memory);
    H5Sclose(space);
    free(data);
}

/* A chunk's bytes through shuffle, gzip and fletcher32 by hand, those of `mask` left out: bytes in
 * `out`. */
static size_t chunk_filter(const unsigned char *in, size_t bytes, size_t width, int fletcher,
                           uint32_t mask, unsigned char *out)
{
    unsigned char *shuffled = malloc(bytes);
    uLongf used = bytes + 1024;
    size_t count = bytes / width;
    CHECK(shuffled);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < width; j++)
            shuffled[mask & 1 ? i * width + j : j * count + i] = in[i * width + j];
    if (mask & 2)
        memcpy(out, shuffled, used = bytes);
    else
        CHECK(compress2(out, &used, shuffled, bytes, 1 + (int)below(9)) == Z_OK);
    free(shuffled);
    if (fletcher && !(mask & 4)) {
        uint32_t sum = decode_fletcher32(out, used); /* libhdf5 checks it when it reads */
        for (int i = 0; i < 4; i++)
            out[used++] = (unsigned char)(sum >> 8 * i);
    }
    return used;
}

static void masked_write(hid_t set, const struct plan *p)
{
    int fletcher = p->kind->filters == SHUFFLE_GZIP_FLETCHER;
    size_t width = H5Tget_size(p->type);
    size_t values = p->chunk[0] * p->dims[1] * (p->rank > 2 ? p->dims[2] : 1);
    unsigned char *out = malloc(values * width + 2048);
    CHECK(out);
    for (hsize_t row = 0; row < p->dims[0]; row += p->chunk[0]) {
        hsize_t at[3] = {row};
        uint32_t mask = (uint32_t)below(fletcher ? 8 : 4);
        unsigned char *in = values_make(values, width);
        size_t bytes = chunk_filter(in, values * width, width, fletcher, mask, out);
        CHECK(H5Dwrite_chunk(set, H5P_DEFAULT, mask, at, bytes, out) >= 0);
        free(in);
    }
    free(out);
}

static void set_write(hid_t group, const char *name, const struct plan *p)
{
    hid_t dcpl = properties_make(p), space = space_make(p);
    hid_t set = H5Dcreate2(group, name, p->type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    CHECK(set >= 0);
    if (p->kind->written == MASKED) {
        masked_write(set, p);
    } else if (p->kind->written == ALL) {
        rows_write(set, p, 0, p->dims[0]);
    } else {
        hsize_t first = below(p->dims[0]);
        rows_write(set, p, first, 1 + below(p->dims[0] - first));
    }
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(dcpl);
}

/* Features of this kind and type; targets, in half of the files, in chunks of their own. */
static void grid_file(const char *path, const struct kind *k, hid_t type)
{
    static const struct kind targets[] = {
        {"targets", CONTIGUOUS, OLD_FORMAT, PLAIN, ALL, 0},
        {"targets", ROWS, OLD_FORMAT, SHUFFLE_GZIP, ALL, 0},
    };
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS), fcpl = H5Pcreate(H5P_FILE_CREATE);
    struct plan p;
    if (k->growth != OLD_FORMAT)
        H5Pset_libver_bounds(fapl, H5F_LIBVER_V110, H5F_LIBVER_V110);
    if (k->flags & USER_BLOCK)
        H5Pset_userblock(fcpl, 512u << below(3));
    test_file_forget(path);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, fcpl, fapl);
    hid_t group = H5Gcreate2(file, "train", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    CHECK(group >= 0);
    hsize_t rows = k->flags & ONE_ROW ? 1 : 2 + below(k->layout == COMPACT ? 40 : 120);
    plan_make(&p, k, type, rows);
    set_write(group, "features", &p);
    plan_make(&p, &targets[below(2)], H5T_STD_U8LE, rows);
    p.rank = 2;
    if (below(2))
        set_write(group, "targets", &p);
    H5Gclose(group);
    H5Fclose(file);
    H5Pclose(fcpl);
    H5Pclose(fapl);
}

TEST_LIMIT(every_kind_of_storage_with_every_type_equals_h5dread, 180)
{
    hid_t types[TYPES];
    int files = 0;
    types_fill(types);
    for (const struct kind *k = kinds; k < kinds + KINDS; k++)
        for (int i = (int)(k - kinds) % STRIDE; i < (k->flags & INTEGERS_ONLY ? INTEGERS : TYPES);
             i += STRIDE) {
            struct reader_open open = open_default();
            open.workers = 1 + below(4);
            open.shuffle = below(4) != 0;
            open.streams = open.shuffle || k->flags & ONE_ROW ? 0 : below(3);
            open.span_rows = below(3) ? 1 + below(100) : 0;
            open.drop_behind = below(8) == 0;
            printf("%s, type %d\n", k->name, i); /* shown when it fails */
            grid_file("grid.h5", k, types[i]);
            CHECK(file_compare("grid.h5", &open) >= 2);
            files++;
        }
    CHECK_EQ(files, FILES);
}
