/* test_npy.c - NumPy's .npy headers, believed only as far as the file goes. */
#include <unistd.h>

#include "pipelines/prepare/npy.h"
#include "tests/test.h"

static struct err e;

/* A file of that version with that header text and `bytes` bytes 1, 2, 3 ... behind it. */
static void file_write(const char *path, int version, const char *header, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    size_t length = strlen(header);
    CHECK(f);
    fprintf(f, "\x93NUMPY%c%c%c%c", version, 0, (int)(length & 255), (int)(length >> 8));
    if (version == 2)
        fprintf(f, "%c%c", 0, 0);
    fputs(header, f);
    for (size_t i = 0; i < bytes; i++)
        fputc((int)(i + 1) & 255, f);
    CHECK(fclose(f) == 0);
}

static const char *refused(int version, const char *header, size_t bytes)
{
    struct npy n;
    file_write("x.npy", version, header, bytes);
    e.text[0] = 0;
    CHECK_EQ(npy_open(&n, "x.npy", &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    npy_close(&n);
    npy_close(&n);
    return e.text;
}

TEST(npy_both_versions_are_read)
{
    struct npy n;
    unsigned char data[8];
    for (int version = 1; version <= 2; version++) {
        file_write("x.npy", version,
                   "{'descr': '<u2', 'fortran_order': False, 'shape': (3, 2), }      \n", 12);
        CHECK_OK(npy_open(&n, "x.npy", &e), e);
        CHECK(n.kind == 'u' && n.size == 2 && n.rank == 2 && n.dims[0] == 3 && n.row_values == 2 &&
              n.row_bytes == 4);
        CHECK_OK(npy_read(&n, 1, 2, data, &e), e);
        CHECK_EQ(npy_value(&n, data), 0x0605);
        CHECK_EQ(npy_read(&n, 2, 2, data, &e), -1);
        npy_close(&n);
    }
}

TEST(npy_header_forms)
{
    struct npy n = {.path = "x"};
    static const char *const good[] = {
        "{\"shape\":(7,),\"descr\":\"|i1\",\"fortran_order\":False}",
        "{'fortran_order': True, 'shape': (7,), 'descr': '|b1', }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (7, 1)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (7, 1,), }  \n",
    };
    static const char *const bad[] = {
        "",
        "{}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (7)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (7, -1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (7,), 'more': 1}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (7,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (7,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (7,)",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (7,)} x",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (7,)}",
        "{'descr': '<f4",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK_OK(npy_header_parse(&n, good[i], strlen(good[i]), &e), e);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_EQ(npy_header_parse(&n, bad[i], strlen(bad[i]), &e), -1);
        CHECK_HAS(e.text, "x has a header that is not NumPy's");
    }
    /* No cut of a good header is good, and none is read past its end. */
    for (size_t bytes = 0; bytes < strlen(good[0]); bytes++) {
        char *cut = malloc(bytes + 1);
        memcpy(cut, good[0], bytes);
        cut = realloc(cut, bytes ? bytes : 1);
        CHECK_EQ(npy_header_parse(&n, cut, bytes, &e), -1);
        free(cut);
    }
}

TEST(npy_what_is_refused)
{
    CHECK_HAS(refused(3, "{}", 0), "x.npy is no .npy file of version 1.0 or 2.0");
    CHECK_HAS(refused(1, "{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}", 4),
              "elements of type \">f4\"");
    CHECK_HAS(refused(1, "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", 4),
              "elements of type \"|O\"");
    CHECK_HAS(refused(1, "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1)}", 4),
              "Fortran order");
    CHECK_HAS(refused(1, "{'descr': '<f4', 'fortran_order': False, 'shape': ()}", 4),
              "single value");
    CHECK_HAS(refused(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 7),
              "holds 7 bytes behind its header, which announces 8");
    CHECK_HAS(refused(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 9),
              "holds 9 bytes behind its header, which announces 8");
    CHECK_HAS(refused(1,
                      "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
                      8),
              "holds 8 bytes behind its header, which announces more than");
    FILE *f = fopen("x.npy", "wb");
    CHECK(f && fwrite("\x93NUMPY\2\0\xff\xff\xff\xff{}", 1, 14, f) == 14 && fclose(f) == 0);
    struct npy n;
    CHECK_EQ(npy_open(&n, "x.npy", &e), -1);
    CHECK_HAS(e.text, "announces a header of 4294967295 bytes");
    npy_close(&n);
    CHECK(truncate("x.npy", 7) == 0);
    CHECK_EQ(npy_open(&n, "x.npy", &e), -1);
    CHECK_HAS(e.text, "x.npy is too short: it ends after 7 bytes");
    npy_close(&n);
    CHECK_EQ(npy_open(&n, "absent.npy", &e), -1);
    CHECK_HAS(e.text, "cannot open absent.npy");
    npy_close(&n);
}

TEST(npy_values_of_every_type)
{
    static const struct {
        char kind;
        uint32_t size;
        unsigned char bytes[8];
        double value;
    } cases[] = {
        {'f', 4, {0, 0, 0xc0, 0xbf}, -1.5},
        {'f', 8, {0, 0, 0, 0, 0, 0, 0xf8, 0xbf}, -1.5},
        {'b', 1, {1}, 1},
        {'u', 1, {255}, 255},
        {'i', 1, {255}, -1},
        {'u', 2, {255, 255}, 65535},
        {'i', 2, {254, 255}, -2},
        {'u', 4, {255, 255, 255, 255}, 4294967295.0},
        {'i', 4, {253, 255, 255, 255}, -3},
        {'u', 8, {0, 0, 0, 0, 0, 0, 0, 128}, 9223372036854775808.0},
        {'i', 8, {252, 255, 255, 255, 255, 255, 255, 255}, -4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct npy n = {.kind = cases[i].kind, .size = cases[i].size};
        CHECK(npy_value(&n, cases[i].bytes) == cases[i].value);
    }
}
