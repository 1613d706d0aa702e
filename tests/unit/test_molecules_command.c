/* test_molecules_command.c - `prepare molecules` as a whole: what it writes, what it leaves out,
 * and where it cannot work. Whole sources are in tests/process/test_molecules.py. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipelines/prepare/graph.h"
#include "pipelines/prepare/molecule.h"
#include "pipelines/prepare/prepare.h"
#include "proto/h5file.h"
#include "tests/test.h"
#include "tests/unit/molecule_fixture.h"

static struct err e;

static int prepare(const char *source, const char *set)
{
    char text[512];
    snprintf(
        text, sizeof text,
        "data: {source: %s, file: m.h5}\nprepare: {validation_fraction: 0.3%s%s}\nmodel: {layers: "
        "[{type: relu}]}\ntasks: [{name: A}]\n",
        source, set[0] ? ", " : "", set);
    test_file_write("p.yaml", text);
    char *argv[] = {"molecules", "--config", "p.yaml", "--out", "m.h5", NULL};
    return prepare_molecules(5, argv);
}

TEST(molecules_need_the_reader_of_open_babel)
{
    CHECK_EQ(setenv("BABEL_LIBDIR", "nowhere", 1), 0);
    CHECK(molecule_begin(&e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "smilesformat.so");
    test_file_write("t.csv", "smiles,inchikey\nCCO,LFQSCWFLJHTTHZ-UHFFFAOYSA-N\n");
    CHECK_EQ(prepare("t.csv", ""), EXIT_CODE_PERMANENT);
}

/* A data set as numbers; returns how many. */
static uint64_t set_read(const char *name, enum h5type type, void *to, uint64_t bytes_max)
{
    struct h5reader *r;
    struct h5array a;
    CHECK_OK(h5reader_open(&r, "m.h5", &e), e);
    CHECK_OK(h5reader_array(r, name, &a, &e), e);
    CHECK(a.type == type && a.bytes <= bytes_max);
    CHECK_OK(h5reader_read(r, &a, to, &e), e);
    h5reader_close(&r);
    return a.bytes / h5type_bytes(type);
}

static uint64_t count_of(const char *attribute)
{
    struct h5reader *r;
    uint64_t value;
    CHECK_OK(h5reader_open(&r, "m.h5", &e), e);
    CHECK_OK(h5reader_u64(r, "", attribute, &value, &e), e);
    h5reader_close(&r);
    return value;
}

static const char ten[] = "name\tsmiles\n"
                          "benzene\tc1ccccc1\nethanol\tCCO\nglycine\t[NH3+]CC(=O)[O-]\n"
                          "cyclopropane\tC1CC1\nsalt\t[Na+].[Cl-]\n5\"-alanine\tC[C@H](N)C(=O)O\n"
                          "nothing\tN/A\nany\tC*\nmethane\tC\nmirrored\tC[C@@H](N)C(O)=O\nshort\n";

TEST(prepare_molecules_writes_the_graphs_of_a_table)
{
    static uint8_t node[64 * GRAPH_NODE_FEATURES], edge[64 * GRAPH_EDGE_FEATURES];
    static uint16_t index[2 * 64];
    uint64_t ptr[2][2][16], row[2][16], graphs[2];
    float targets[16 * 2];
    int seen = 0;
    test_file_write("t.tsv", ten);
    CHECK_EQ(prepare("t.tsv", "descriptors: 'rings,hydrogens'"), EXIT_CODE_DONE);
    CHECK_EQ(count_of("skipped_no_structure"), 3);
    CHECK_EQ(count_of("refused_unreadable"), 0);
    for (int v = 0; v < 2; v++) {
        const char *group[] = {"train", "validation"};
        char name[64];
#define SET(set) (snprintf(name, sizeof name, "%s/%s", group[v], set), name)
        graphs[v] = set_read(SET("source_row"), H5TYPE_U64, row[v], sizeof row[v]);
        CHECK_EQ(set_read(SET("node_ptr"), H5TYPE_U64, ptr[v][0], 128), graphs[v] + 1);
        CHECK_EQ(set_read(SET("edge_ptr"), H5TYPE_U64, ptr[v][1], 128), graphs[v] + 1);
        CHECK_EQ(set_read(SET("targets"), H5TYPE_F32, targets, sizeof targets), 2 * graphs[v]);
        uint64_t edges = ptr[v][1][graphs[v]];
        CHECK_EQ(set_read(SET("node_features"), H5TYPE_U8, node, sizeof node),
                 ptr[v][0][graphs[v]] * GRAPH_NODE_FEATURES);
        CHECK_EQ(set_read(SET("edge_index"), H5TYPE_U16, index, sizeof index), 2 * edges);
        CHECK_EQ(set_read(SET("edge_features"), H5TYPE_U8, edge, sizeof edge),
                 edges * GRAPH_EDGE_FEATURES);
        CHECK(ptr[v][0][0] == 0 && ptr[v][1][0] == 0);
        for (uint64_t i = 0; i < graphs[v]; i++) {
            uint64_t n = ptr[v][0][i], at = ptr[v][1][i];
            if (row[v][i] == 1) { /* ethanol */
                CHECK_EQ(ptr[v][0][i + 1] - n, 3);
                CHECK_EQ(ptr[v][1][i + 1] - at, 4);
                const uint16_t from[] = {0, 1, 1, 2}, to[] = {1, 0, 2, 1};
                CHECK(memcmp(index + at, from, sizeof from) == 0);
                CHECK(memcmp(index + edges + at, to, sizeof to) == 0);
                CHECK_STR(
                    class_of(node + (n + 2) * GRAPH_NODE_FEATURES, graph_node_names, "element_"),
                    "O");
                CHECK(targets[2 * i] == 0 && targets[2 * i + 1] == 2);
                seen++;
            }
            if (row[v][i] == 0) { /* benzene: both directions of each bond look the same */
                CHECK_EQ(ptr[v][1][i + 1] - at, 12);
                for (uint64_t k = 0; k < 12; k++)
                    CHECK(memcmp(edge + (at + k) * GRAPH_EDGE_FEATURES, "\0\0\0\1\1", 5) == 0);
                CHECK(targets[2 * i] == 1 && targets[2 * i + 1] == 1);
                seen++;
            }
        }
    }
    CHECK_EQ(seen, 2);
    CHECK_EQ(graphs[0] + graphs[1], 8);
    /* Both hands of alanine are one molecule: they are in the same part. */
    int parts = 0;
    for (int v = 0; v < 2; v++)
        for (uint64_t i = 0; i < graphs[v]; i++)
            parts |= row[v][i] == 5 || row[v][i] == 9 ? 1 << v : 0;
    CHECK(parts == 1 || parts == 2);
}

TEST(prepare_molecules_counts_what_it_leaves_out)
{
    char text[16384];
    size_t used = 0;
    const char *const rest[] = {
        RECORD_PEAKS "//\n",
        "DEPRECATED: x\n" RECORD_PEAKS "//\n",
        "MS$FOCUSED_ION: PRECURSOR_TYPE [M+Na]+\n" RECORD_PEAKS "//\n",
        "AC$MASS_SPECTROMETRY: MS_TYPE MS3\n" RECORD_PEAKS "//\n",
        "CH$SMILES: N/A\n" RECORD_PEAKS "//\n",
        "PK$NUM_PEAK: 1\nPK$PEAK: m/z\n  2000 5 5\n//\n",
        "PK$NUM_PEAK: 9\nPK$PEAK: m/z\n  1 5 5\n//\n",
        "CH$SMILES: C1CC\n" RECORD_PEAKS "//\n",
        "CH$SMILES: c1ccccc1\nCH$IUPAC: N/A\n" RECORD_PEAKS "//\n", /* the key is computed */
        "CH$SMILES: CCN\nCH$LINK: INCHIKEY QUSNBJAOOMFDIB-UHFFFAOYSA-N\n" RECORD_PEAKS "//\n",
        "CH$SMILES: CCS\nCH$IUPAC: N/A\n" RECORD_PEAKS "//\n",
        "CH$SMILES: CCF\nCH$IUPAC: N/A\n" RECORD_PEAKS "//\n",
    };
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++)
        used += (size_t)sprintf(text + used, "%s", record_text("A", rest[i]));
    test_file_write("r.txt", text);
    CHECK_EQ(prepare("r.txt", ""), EXIT_CODE_PERMANENT); /* 2 of 7, and 1 % may be refused */
    CHECK(access("m.h5", F_OK) != 0);
    CHECK_EQ(prepare("r.txt", "refused_max: 0.3"), EXIT_CODE_DONE);
    CHECK_EQ(count_of("skipped_deprecated"), 1);
    CHECK_EQ(count_of("skipped_other_adduct"), 1);
    CHECK_EQ(count_of("skipped_not_ms2"), 1);
    CHECK_EQ(count_of("skipped_no_structure"), 1);
    CHECK_EQ(count_of("skipped_no_peak"), 1);
    CHECK_EQ(count_of("refused_malformed"), 1);
    CHECK_EQ(count_of("refused_unreadable"), 1);
    CHECK_EQ(count_of("refused_no_inchikey"), 0);
    static float bins[16 * 1000];
    CHECK_EQ(set_read("train/targets", H5TYPE_F32, bins, sizeof bins) +
                 set_read("validation/targets", H5TYPE_F32, bins, sizeof bins),
             5 * 1000);
    CHECK(bins[47] == 1 && fabs(bins[31] - sqrt(0.5)) < 1e-6);
    CHECK_EQ(prepare("r.txt", "refused_max: 0.3, bin_da: 0.01, mz_max: 1000"),
             EXIT_CODE_PERMANENT);               /* more bins than are accepted */
    CHECK_EQ(count_of("refused_unreadable"), 1); /* the old file is there */
    CHECK_EQ(prepare("r.txt", "refused_max: 0.3, adduct: '[M+K]+'"), EXIT_CODE_PERMANENT);
}

TEST(prepare_molecules_reads_a_directory_like_one_file)
{
    char first[8192] = "";
    struct h5reader *r;
    CHECK(mkdir("d", 0777) == 0 && mkdir("d/b", 0777) == 0);
    const char *const smiles[] = {"CCO", "CCN", "CCS", "CCF", "c1ccccc1", "CCCl", "CC", "CCC"};
    for (int i = 0; i < 8; i++) {
        char path[32], rest[256];
        snprintf(rest, sizeof rest, "CH$SMILES: %s\nCH$IUPAC: N/A\n" RECORD_PEAKS "//\n",
                 smiles[i]);
        const char *text = record_text("A", rest);
        snprintf(path, sizeof path, "d/%s%d.txt", i > 4 ? "b/" : "a", i);
        test_file_write(path, text);
        strcat(first, text);
    }
    test_file_write("d/list.md", "no record");
    test_file_write("all.txt", first);
    CHECK_EQ(prepare("d", ""), EXIT_CODE_DONE);
    CHECK_OK(h5reader_open(&r, "m.h5", &e), e);
    CHECK_OK(h5reader_text(r, "", "source_stamp", first, sizeof first, &e), e);
    CHECK_HAS(first, "\n9 files ");
    h5reader_close(&r);
    static float bins[2][9000];
    uint64_t rows[8], again[8], count = set_read("train/source_row", H5TYPE_U64, rows, sizeof rows);
    set_read("train/targets", H5TYPE_F32, bins[0], sizeof bins[0]);
    CHECK_EQ(prepare("all.txt", ""), EXIT_CODE_DONE);
    CHECK_EQ(set_read("train/source_row", H5TYPE_U64, again, sizeof again), count);
    set_read("train/targets", H5TYPE_F32, bins[1], sizeof bins[1]);
    CHECK(memcmp(rows, again, count * 8) == 0 && memcmp(bins[0], bins[1], sizeof bins[0]) == 0);
    /* A file among the records that is none is said, with its name. */
    test_file_write("d/a9.txt", "something else\n");
    CHECK_EQ(prepare("d", ""), EXIT_CODE_PERMANENT);
    CHECK(mkdir("empty", 0777) == 0);
    CHECK_EQ(prepare("empty", ""), EXIT_CODE_PERMANENT);
}
