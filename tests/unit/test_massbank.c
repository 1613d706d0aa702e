/* test_massbank.c - records of MassBank good and bad, and what becomes of their collision energies
 * and peaks. */
#include <math.h>
#include <zstd.h>

#include "pipelines/prepare/massbank.h"
#include "pipelines/prepare/spectrum.h"
#include "proto/durable.h"
#include "tests/test.h"
#include "tests/unit/molecule_fixture.h"

static struct err e;

/* What the records of a file say, "name adduct peaks [fault]/" each, or the sentence. */
static const char *records_of(const char *path)
{
    static char text[2048];
    static struct peak peak[MASSBANK_PEAKS_MAX];
    static struct massbank_record r;
    struct lines l;
    size_t used = 0;
    int more;
    r.peak = peak;
    CHECK_OK(lines_open(&l, path, NULL, &e), e);
    text[0] = 0;
    while ((more = massbank_next(&l, &r, &e)) > 0)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s %s %u%s%s%s/", r.accession,
                                 massbank_adduct(&r), r.peaks, r.deprecated ? " deprecated" : "",
                                 r.fault ? " " : "", r.fault ? r.fault : "");
    lines_close(&l);
    lines_close(&l);
    return more < 0 ? e.text : text;
}

static const char *records(const char *text)
{
    test_file_write("r.txt", text);
    return records_of("r.txt");
}

static const char *joined(const char *a, const char *b)
{
    static char text[8192];
    snprintf(text, sizeof text, "%s%s", a, b);
    return text;
}

TEST(massbank_records_are_read)
{
    CHECK_STR(records(""), "");
    CHECK_STR(records(record_text("A", RECORD_PEAKS "//\n")), "A [M+H]+ 2/");
    CHECK_STR(records(record_text("A", RECORD_PEAKS "//")), "A [M+H]+ 2/");
    CHECK_STR(records(joined(record_text("A", RECORD_PEAKS "//\n\n"),
                             record_text("B", RECORD_PEAKS "//\n"))),
              "A [M+H]+ 2/B [M+H]+ 2/");
    CHECK_STR(
        records(record_text("A", "MS$FOCUSED_ION: PRECURSOR_TYPE [M+Na]+\n" RECORD_PEAKS "//\n")),
        "A [M+Na]+ 2/");
    CHECK_STR(records(record_text("A", "DEPRECATED: 2020-01-01 wrong\n" RECORD_PEAKS "//\n")),
              "A [M+H]+ 2 deprecated/");
    /* Annotations are indented too, and are no peaks. */
    CHECK_STR(records(record_text("A", "PK$ANNOTATION: m/z formula\n  31.018 CH3O+ 1\n" RECORD_PEAKS
                                       "//\n")),
              "A [M+H]+ 2/");
    CHECK_STR(records("ACCESSION: A\r\nPK$NUM_PEAK: 1\r\nPK$PEAK: m/z\r\n  1 2 3\r\n//\r\n"),
              "A  1/");
}

TEST(massbank_faults_of_a_record_are_named_and_the_next_is_read)
{
    const struct {
        const char *rest, *said;
    } bad[] = {
        {"//\n", "0 it has no peaks"},
        {"PK$NUM_PEAK: 0\nPK$PEAK: m/z int. rel.int.\n//\n", "0 it has no peaks"},
        {"PK$NUM_PEAK: 3\nPK$PEAK: m/z\n  1 2 3\n  4 5 6\n//\n",
         "2 PK$NUM_PEAK is not the number of its peaks"},
        {"PK$NUM_PEAK: 1\nPK$PEAK: m/z\n  31.018\n//\n", "0 a peak is not two positive numbers"},
        {"PK$NUM_PEAK: 1\nPK$PEAK: m/z\n  x 5 5\n//\n", "0 a peak is not two positive numbers"},
        {"PK$NUM_PEAK: 1\nPK$PEAK: m/z\n  -1 5 5\n//\n", "0 a peak is not two positive numbers"},
        {"PK$NUM_PEAK: 1\nPK$PEAK: m/z\n  1 inf 5\n//\n", "0 a peak is not two positive numbers"},
        {"MS$FOCUSED_ION: PRECURSOR_TYPE [M+H]+, but written by someone who had a lot to say of "
         "it all, and again\n" RECORD_PEAKS "//\n",
         "2 a value is too long"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char expected[300];
        snprintf(expected, sizeof expected, "A [M+H]+ %s/B [M+H]+ 2/", bad[i].said);
        CHECK_STR(
            records(joined(record_text("A", bad[i].rest), record_text("B", RECORD_PEAKS "//\n"))),
            expected);
    }
}

TEST(massbank_files_that_are_damaged_are_refused_with_the_line)
{
    char *long_line = malloc(LINES_BYTES_MAX + 100);
    CHECK_STR(records(record_text("A", RECORD_PEAKS)),
              "r.txt: record A, which begins in line 1, does not end with a line // before the "
              "file does");
    CHECK_STR(
        records(joined(record_text("A", RECORD_PEAKS), record_text("B", RECORD_PEAKS "//\n"))),
        "r.txt: record A, which begins in line 1, does not end with a line //");
    CHECK_STR(records(joined(record_text("A", RECORD_PEAKS "//\n"), "RECORD_TITLE: x\n")),
              "r.txt: line 12 stands between records; expected ACCESSION:, with which a record "
              "begins");
    sprintf(long_line, "ACCESSION: A\n%*s\n//\n", LINES_BYTES_MAX + 1, "x");
    CHECK_STR(records(long_line), "r.txt: line 2 has more than 65536 bytes");
    free(long_line);
}

TEST(massbank_records_are_unpacked)
{
    static char text[600000], packed[600000];
    size_t used = 0;
    int count = 0;
    for (; used < sizeof text - 4096; count++)
        used += (size_t)sprintf(text + used, "%s", record_text("A", RECORD_PEAKS "//\n"));
    size_t bytes = ZSTD_compress(packed, sizeof packed, text, used, 3);
    CHECK(!ZSTD_isError(bytes));
    CHECK_OK(durable_write("r.zst", packed, bytes, &e), e);
    struct lines l;
    char *line;
    int more, lines = 0;
    CHECK_OK(lines_open(&l, "r.zst", NULL, &e), e);
    while ((more = lines_next(&l, &line, &e)) > 0)
        lines++;
    lines_close(&l);
    CHECK_EQ(more, 0);
    CHECK_EQ(lines, 11 * count);
    CHECK_EQ(massbank_begins("r.zst", &e), 1);
    /* Every shorter file is refused, wherever it ends. */
    for (size_t cut = 4; cut < bytes; cut += bytes / 7) {
        CHECK_OK(durable_write("cut.zst", packed, cut, &e), e);
        CHECK_OK(lines_open(&l, "cut.zst", NULL, &e), e);
        while ((more = lines_next(&l, &line, &e)) > 0)
            continue;
        lines_close(&l);
        CHECK(more < 0);
        CHECK_STR(e.text, "cut.zst is too short: its zstd frame does not end");
    }
    packed[bytes / 2] ^= 0x55;
    packed[bytes / 2 + 1] ^= 0x55;
    memset(packed + 8, 0xff, 3);
    CHECK_OK(durable_write("bad.zst", packed, bytes, &e), e);
    CHECK_OK(lines_open(&l, "bad.zst", NULL, &e), e);
    while ((more = lines_next(&l, &line, &e)) > 0)
        continue;
    lines_close(&l);
    CHECK(more < 0);
    CHECK_HAS(e.text, "bad.zst cannot be unpacked: zstd says");
}

/* ---- spectra -------------------------------------------------------------------------------- */

TEST(spectrum_energies_are_read_from_free_text)
{
    const struct {
        const char *text;
        enum energy_unit unit;
        double value;
    } known[] = {
        {"20 eV", ENERGY_EV, 20},
        {"20.5eV", ENERGY_EV, 20.5},
        {"35 V", ENERGY_EV, 35},
        {"65 eV FT-MS II", ENERGY_EV, 65},
        {"40", ENERGY_PLAIN, 40},
        {"CE45", ENERGY_PLAIN, 45},
        {"HCD 35", ENERGY_PLAIN, 35},
        {"45 (nominal)", ENERGY_NCE, 45},
        {"35  (nominal)", ENERGY_NCE, 35},
        {"30 % (nominal)", ENERGY_NCE, 30},
        {"30% (nominal)", ENERGY_NCE, 30},
        {"25 NCE", ENERGY_NCE, 25},
        {"Ramp 20%-70% (nominal)", ENERGY_NCE, 45},
        {"15, 30, 45, 60, 70 or 90 (nominal)", ENERGY_NCE, 310 / 6.0},
        {"Ramp 18.1-27.1 eV", ENERGY_EV, 22.6},
        {"65% (nominal) with stepped collision energies 45% and 85%", ENERGY_NCE, 65},
        {"", ENERGY_UNKNOWN, 0},
        {"ceV", ENERGY_UNKNOWN, 0},
        {"1 kV", ENERGY_UNKNOWN, 0},
        {"scaled 30 (m/z=150) to 40 (m/z=900)", ENERGY_UNKNOWN, 0},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct energy energy = energy_parse(known[i].text);
        if (energy.unit != known[i].unit || fabs(energy.value - known[i].value) > 1e-9)
            test_fail(__FILE__, __LINE__, "\"%s\" is read as unit %d, value %g", known[i].text,
                      energy.unit, energy.value);
    }
}

TEST(spectrum_energies_become_columns)
{
    uint8_t row[ENERGY_FEATURES], none[ENERGY_FEATURES] = {0};
    energy_features(&(struct energy){ENERGY_UNKNOWN, 20}, row);
    CHECK(memcmp(row, none, sizeof row) == 0);
    for (int unit = ENERGY_PLAIN; unit <= ENERGY_NCE; unit++) {
        energy_features(&(struct energy){(enum energy_unit)unit, 29.9}, row);
        CHECK_EQ(row[unit - 1] + row[3 + 2], 2); /* 20 to 29 is the third class */
        int ones = 0;
        for (int i = 0; i < ENERGY_FEATURES; i++)
            ones += row[i];
        CHECK_EQ(ones, 2);
    }
    energy_features(&(struct energy){ENERGY_EV, 1e9}, row);
    CHECK_STR(class_of(row, energy_names, "energy_1"), "50"); /* the last: 150 and above */
    energy_features(&(struct energy){ENERGY_EV, 0}, row);
    CHECK_EQ(row[3], 1);
}

TEST(spectrum_bins_are_sums_divided_by_the_largest)
{
    const struct peak peak[] = {{0, 1}, {9.999f, 9}, {50, 20}, {50.99f, 16}, {51, 4}, {100, 1e6f}};
    float out[100];
    CHECK(spectrum_bin(peak, 6, 1, 100, 100, 0, out));
    CHECK(out[0] == 1 / 36.0f && out[9] == 0.25f && out[50] == 1 && out[51] == 4 / 36.0f);
    CHECK(out[49] == 0 && out[99] == 0);
    CHECK(spectrum_bin(peak, 6, 1, 100, 100, 1, out));
    CHECK(out[9] == 0.5f && out[50] == 1 && fabs(out[51] - 1 / 3.0f) < 1e-7);
    CHECK(spectrum_bin(peak, 6, 0.5, 100, 100, 0, out));
    CHECK(out[0] == 1 / 9.0f && out[19] == 1 && out[99] == 0); /* 49.5 to 50 is the last bin */
    CHECK(spectrum_bin(peak, 6, 1, 51, 50.5, 0, out));         /* it ends within the last bin */
    CHECK(out[0] == 0.05f && out[50] == 1 && out[9] == 0.45f);
    CHECK(!spectrum_bin(peak + 5, 1, 1, 100, 100, 0, out));
    CHECK(!spectrum_bin((const struct peak[]){{5, 0}}, 1, 1, 100, 100, 0, out));
    CHECK(!spectrum_bin(peak, 0, 1, 100, 100, 0, out));
}
