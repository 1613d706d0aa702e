/* test_molecules.c - molecules as graphs by hand, records of MassBank good and bad, spectra, and
 * `prepare molecules` as a whole. */
#include <math.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "pipelines/prepare/graph.h"
#include "pipelines/prepare/massbank.h"
#include "pipelines/prepare/molecule_memo.h"
#include "pipelines/prepare/prepare.h"
#include "pipelines/prepare/skeleton.h"
#include "pipelines/prepare/spectrum.h"
#include "proto/durable.h"
#include "proto/h5file.h"
#include "tests/test.h"

static struct err e;

static void file_write(const char *path, const char *text)
{
    CHECK_OK(durable_write(path, text, strlen(text), &e), e);
}

/* ---- molecules ------------------------------------------------------------------------------ */

/* The name of the one column of this kind that is 1: "N" of element_N; it must be one. */
static const char *class_of(const uint8_t *row, const char *names, const char *kind)
{
    static char found[4][16];
    static int turn;
    char *name = found[turn++ % 4];
    int count = 0, column = 0;
    for (const char *at = names; *at; at += *at == '\n', column++) {
        size_t length = strcspn(at, "\n"), prefix = strlen(kind);
        if (strncmp(at, kind, prefix) == 0 && row[column]) {
            snprintf(name, 16, "%.*s", (int)(length - prefix), at + prefix);
            count++;
        }
        at += length;
    }
    CHECK_EQ(count, 1);
    return name;
}

/* The flag columns of a node: a (aromatic), r (ring), i (isotope). */
static const char *flags_of(const uint8_t *row)
{
    static char flags[4];
    char *at = flags;
    for (int k = 0; k < 3; k++)
        if (row[GRAPH_NODE_FEATURES - 3 + k])
            *at++ = "ari"[k];
    *at = 0;
    return flags;
}

/* "C1.0.3 O1.0.1 0-1": each atom as element, degree, charge, hydrogens and flags; each bond with -,
 * =, # or : for its order, r for a ring. Or the refusal's name. All by way of the feature rows. */
static const char *graph_of(const char *smiles)
{
    static struct molecule m;
    static char text[2][1024];
    static int turn;
    char *to = text[turn++ % 2];
    size_t used = 0;
    enum molecule_refusal refusal = molecule_read(&m, smiles, MOLECULE_MASSES);
    if (refusal != MOLECULE_ACCEPTED)
        return molecule_refusal_name(refusal);
    for (uint32_t i = 0; i < m.atoms; i++) {
        uint8_t row[GRAPH_NODE_FEATURES];
        graph_node(&m.atom[i], row);
        used += (size_t)snprintf(to + used, 1024 - used, "%s%s%s.%s.%s%s", i ? " " : "",
                                 class_of(row, graph_node_names, "element_"),
                                 class_of(row, graph_node_names, "degree_"),
                                 class_of(row, graph_node_names, "charge_"),
                                 class_of(row, graph_node_names, "hydrogens_"), flags_of(row));
    }
    for (uint32_t i = 0; i < m.bonds; i++) {
        uint8_t row[GRAPH_EDGE_FEATURES];
        graph_edge(&m.bond[i], row);
        CHECK_EQ(row[0] + row[1] + row[2] + row[3], 1);
        char order = row[0] ? '-' : row[1] ? '=' : row[2] ? '#' : ':';
        used += (size_t)snprintf(to + used, 1024 - used, " %u%c%u%s", m.bond[i].from, order,
                                 m.bond[i].to, row[4] ? "r" : "");
    }
    return to;
}

TEST(molecules_become_the_graphs_that_a_hand_draws)
{
    CHECK_STR(graph_of("CCO"), "C1.0.3 C2.0.2 O1.0.1 0-1 1-2");
    CHECK_STR(graph_of("c1ccccc1"), "C2.0.1ar C2.0.1ar C2.0.1ar C2.0.1ar C2.0.1ar C2.0.1ar "
                                    "0:1r 1:2r 2:3r 3:4r 4:5r 5:0r");
    CHECK_STR(graph_of("C1=CC=CC=C1"), graph_of("c1ccccc1"));
    CHECK_STR(graph_of("[NH3+]CC(=O)[O-]"), "N1.1.3 C2.0.2 C3.0.0 O1.0.0 O1.-1.0 0-1 1-2 2=3 2-4");
    CHECK_STR(graph_of("C1CC1"), "C2.0.2r C2.0.2r C2.0.2r 0-1r 1-2r 2-0r");
    CHECK_STR(graph_of("[Na+].[Cl-]"), "other0.1.0 Cl0.-1.0");
    CHECK_STR(graph_of("C#N"), "C1.0.1 N1.0.0 0#1");
    CHECK_STR(graph_of("c1cc[nH]c1"),
              "C2.0.1ar C2.0.1ar C2.0.1ar N2.0.1ar C2.0.1ar 0:1r 1:2r 2:3r 3:4r 4:0r");
    CHECK_STR(graph_of("O=C1C=CC=CN1"), graph_of("O=c1cccc[nH]1"));
    CHECK_STR(graph_of("C[N+](=O)[O-]"), "C1.0.3 N3.1.0 O1.0.0 O1.-1.0 0-1 1=2 1-3");
    CHECK_STR(graph_of("FC(F)(F)S(Cl)(Br)I"),
              "F1.0.0 C4.0.0 F1.0.0 F1.0.0 S4.0.0 Cl1.0.0 Br1.0.0 I1.0.0 "
              "0-1 1-2 1-3 1-4 4-5 4-6 4-7");
    CHECK_STR(graph_of("C1CC1c1ccccc1"), /* a bond between rings is in none */
              "C2.0.2r C2.0.2r C3.0.1r C3.0.0ar C2.0.1ar C2.0.1ar C2.0.1ar C2.0.1ar C2.0.1ar "
              "0-1r 1-2r 2-0r 2-3 3:4r 4:5r 5:6r 6:7r 7:8r 8:3r");
}

/* Orders of the bonds, in their order: "1221", a for aromatic. Or the refusal's name. */
static const char *orders_of(const char *smiles)
{
    static struct molecule m;
    static char text[2][256];
    static int turn;
    char *to = text[turn++ % 2];
    enum molecule_refusal refusal = molecule_read(&m, smiles, 0);
    if (refusal != MOLECULE_ACCEPTED)
        return molecule_refusal_name(refusal);
    for (uint32_t i = 0; i < m.bonds; i++)
        to[i] = " 123a"[m.bond[i].order];
    to[m.bonds] = 0;
    return to;
}

TEST(aromatic_rings_are_those_of_the_model)
{
    static const char *const cases[][2] = {
        {"C1=CC=CC=CC=C1", "21212121"},                   /* 8 electrons */
        {"[CH-]1C=CC=C1", "aaaaa"},                       /* a lone pair */
        {"[CH+]1C=CC=CC=C1", "aaaaaaa"},                  /* an empty orbital */
        {"B1C=CC=CC=C1", "aaaaaaa"},                      /* another */
        {"[CH]1C=C[CH]C=C1", "aaaaaa"},                   /* two without partners */
        {"[CH]1C=CC=C1", "12121"},                        /* 5 electrons */
        {"C1[SiH2]C=CC=C1", "112121"},                    /* none from SiH2 */
        {"[Te]1C=CC=C1", "aaaaa"},                        /* of group 16 */
        {"O=C1C=CC=CC=C1", "2aaaaaaa"},                   /* C=O gives none and may leave */
        {"O=C1C=CC(=O)C=C1", "21212121"},                 /* 4 electrons */
        {"C=C1C=CC=C1", "212121"},                        /* C=C may not leave */
        {"O=S1N=CC=N1", "2aaaaa"},                        /* S=O gives two */
        {"O=N1=CC=CC=C1", "2aaaaaa"},                     /* nitrogen with five bonds */
        {"C1=CC2=CC=CC2=C1", "212121121"},                /* pentalene: 8 */
        {"C1=CC=C2C=CC=C2C=C1", "aaaaaaaaaaa"},           /* azulene: 10, and the bond across */
        {"C1=CC=C2C(=C1)C3=CC=CC=C32", "aaaaaa1aaaaaa1"}, /* biphenylene, whose text */
        {"c1ccc2c(c1)c1ccccc12", "aaaaaa1aaaaaa1"},       /* does not matter */
        {"C=1C=CC=CC=CC=CC=CC=CC=CC=CC=CC=CC1", "aaaaaaaaaaaaaaaaaaaaaa"}, /* 22 atoms at most */
        {"C1=CC=CC=CC=CC=CC=CC=CC=CC=CC=CC=CC=CC=C1", "21212121212121212121212121"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_STR(orders_of(cases[i][0]), cases[i][1]);
    CHECK(strspn(orders_of("C12=C3C4=C5C6=C1C7=C8C9=C1C%10=C%11C(=C29)C3=C2C3=C4C4=C5C5=C9C6=C7C6="
                           "C7C8=C1C1=C8C%10=C%10C%11=C2C2=C3C3=C4C4=C5C5=C%11C%12=C(C6=C95)C7=C1C1"
                           "=C%12C5=C%11C4=C3C3=C5C(=C81)C%10=C23"),
                 "a") == 90); /* fullerene */
    /* Boron instead of a sheet of graphite's carbon: any ring might be, and none is. */
    CHECK_STR(
        orders_of("B4BB3BB2BB1BBB%11B%10B1B9B2B8B3B7B4BB6BB5BBB%18B%17B5B%16B6B7B%15B8B%14B9B%13"
                  "B%10B%12B(B%11)BB%25B%24B%12B%23B%13B%22B%14B%21B%15B%16B%20B%17B%19B(B%18)"
                  "BB%31B%30B%19B%29B%20B%21B%28B%22B%27B%23B%26B%24B(BB%25)BB%35B%26B%34B%27B%33"
                  "B%28B%29B%32B%30B(BB%31)BB%37B%32B%33B%36B%34B(B%35)BBB%36B%37"),
        "large");
    CHECK_HAS(molecule_why(), "cycles");
    /* A sheet of graphite whose cycles are few enough, but not to look for other forms in them. */
    CHECK_STR(orders_of("c12c3cccc1cc1c4c2c2c(c3)cc3c5c2c2c4c4c(c1)ccc1c4c4c2c2c5c5c("
                        "c3)ccc3c5c5c2c2c4c(c1)cc1c2c2c5c(c3)cc3c2c(c1)ccc3.c1ccc1"),
              "large");
}

/* Counts of neighbours do not wrap: a benzene, one of whose atoms is in 127 other rings. */
TEST(aromatic_atoms_may_have_256_neighbours)
{
    static struct molecule m;
    char smiles[MOLECULE_SMILES_MAX + 1];
    int used = snprintf(smiles, sizeof smiles, "[C]1");
    for (int turn = 0; turn < 2; turn++)
        for (int i = 0; i < 127; i++)
            used += snprintf(smiles + used, sizeof smiles - (size_t)used,
                             turn ? "(C=C%%(%d))" : "%%(%d)", 100 + i);
    snprintf(smiles + used, sizeof smiles - (size_t)used, "=CC=CC=C1");
    CHECK_EQ(molecule_read(&m, smiles, 0), MOLECULE_ACCEPTED);
    CHECK_EQ(m.atoms, 6 + 2 * 127);
    CHECK(m.atom[0].aromatic && m.atom[m.atoms - 1].aromatic && !m.atom[1].aromatic);
}

TEST(bonds_that_close_rings_stand_where_the_text_has_them)
{
    CHECK_HAS(graph_of("C1CC(C)C1"), " 0-1r 1-2r 2-3 2-4r 4-0r");
    CHECK_HAS(graph_of("C1CC(C)C=1"), " 0-1r 1-2r 2-3 2-4r 4=0r");
    CHECK_HAS(graph_of("C=1CC(C)C1"), " 0=4r 0-1r 1-2r 2-3 2-4r");  /* the sign is the first's */
    CHECK_HAS(graph_of("C=1CC(C)C=1"), " 0-1r 1-2r 2-3 2-4r 0=4r"); /* and here both have one */
    CHECK_HAS(graph_of("C(C)1CC(C)C1"), " 0-1 0-2r 2-3r 3-4 3-5r 5-0r");
    CHECK_HAS(graph_of("C%12CC=2CC%12CC2"), " 0-1r 1-2r 2=6r 2-3r 3-4r 4-0r 4-5r 5-6r");
    CHECK_HAS(graph_of("C1.C1"), " 0-1");
    CHECK_STR(graph_of("C%(123)CCC%12C%(12)C%(00123)"), graph_of("C1CCC2C2C1"));
    CHECK_STR(graph_of("C(C.C1)C1"), "C2.0.2 C1.0.3 C1.0.3 C2.0.2 0-1 0-3 3-2");
}

TEST(molecules_have_no_hands_and_no_hydrogens_of_their_own)
{
    CHECK_STR(graph_of("CC(N)C(=O)O"),
              "C1.0.3 C3.0.1 N1.0.2 C3.0.0 O1.0.0 O1.0.1 0-1 1-2 1-3 3=4 3-5");
    CHECK_STR(graph_of("C[C@H](N)C(=O)O"), graph_of("CC(N)C(=O)O"));
    CHECK_STR(graph_of("C[C@@H](N)C(=O)O"), graph_of("CC(N)C(=O)O"));
    static const char *const tagged[][2] = {
        {"C[C@TH1H](N)C(=O)O", "CC(N)C(=O)O"},
        {"C[C@TH2](N)(F)O", "C[C](N)(F)O"},
        {"CC=[C@AL1]=CF", "CC=[C]=CF"},
        {"F[Pt@SP3](Cl)(N)Br", "F[Pt](Cl)(N)Br"},
        {"C[As@TB15](F)(Cl)(Br)N", "C[As](F)(Cl)(Br)N"},
        {"C[Co@OH30](F)(Cl)(Br)(N)O", "C[Co](F)(Cl)(Br)(N)O"},
        {"C[C@TH1](N)O", "C[C](N)O"},
    };
    for (size_t i = 0; i < sizeof tagged / sizeof tagged[0]; i++) {
        CHECK_HAS(graph_of(tagged[i][1]), " 0-1"); /* it is a molecule */
        CHECK_STR(graph_of(tagged[i][0]), graph_of(tagged[i][1]));
    }
    CHECK_STR(graph_of("F/C=C\\F"), graph_of("FC=CF"));
    CHECK_STR(graph_of("C/1=C/CC\\1"), graph_of("C1=CCC1")); /* marks that contradict each other */
    CHECK_STR(graph_of("[H]C([H])([H])[H]"), "C0.0.4");
    CHECK_STR(graph_of("[H]OC([H])([H])C"), "O1.0.1 C2.0.2 C1.0.3 0-1 1-2");
    CHECK_STR(
        graph_of("[H]C(C)(C(F)([H])Cl)C(N)([H])O"), /* branches in branches */
        "C3.0.1 C1.0.3 C3.0.1 F1.0.0 Cl1.0.0 C3.0.1 N1.0.2 O1.0.1 0-1 0-2 2-3 2-4 0-5 5-6 5-7");
    CHECK_STR(graph_of("[2H]C"), "H1.0.0i C1.0.3 0-1");
    CHECK_STR(graph_of("[13CH4]"), "C0.0.4i");
    CHECK_STR(graph_of("CCO ethanol"), graph_of("CCO")); /* a name behind it */
}

TEST(molecules_that_are_none_are_refused_by_reason)
{
    char text[4 * MOLECULE_ATOMS_MAX + 8];
    CHECK_STR(graph_of(""), "unreadable");
    CHECK_STR(graph_of("hello"), "unreadable");
    CHECK_STR(graph_of("C1CC"), "unreadable");
    CHECK_STR(graph_of("C(C"), "unreadable");
    CHECK(molecule_why()[0] && !strchr(molecule_why(), '\n'));
    for (const char *const *cut =
             (const char *const[]){"CC=", "C(=)C", "(C)C", "C(())C", "C(.(C))C", "CC>>CC", "C&1CC",
                                   "CC#", "C=(=O)O", NULL};
         *cut; cut++)
        CHECK_STR(graph_of(*cut), "unreadable");
    static const char *const malformed[][2] = {
        {"C12CC12", "bonded twice"}, /* Open Babel makes cyclopropane of it */
        {"C12CCCCC12", "bonded twice"},
        {"CNC(=O)C(Cl)5C(Cl)5Cl", "bonded twice"},
        {"CCCCOC(=O)[CH]1C1(Cl)Cl", "bonded twice"},
        {"C1Cc1ccccc1C1C2=CC=CC=C2", "bonded twice"},
        {"C=1CC-1", "closed by another"},
        {"C=1CCCCC#1", "closed by another"},
        {"[N.+]", "in brackets"},
        {"[CH.]", "in brackets"},
        {"[C/H4]", "in brackets"},
        {"C@C", "'@'"},
        {"C:C", "aromatic bond"},
        {"CCOC:C", "aromatic bond"},
        {"C:1CCCC:1", "aromatic bond"},
        {"C(C/)C", "leads to no atom"},
        {"CC\\", "leads to no atom"},
        {"C%(123456)CCC%(123456)", "no SMILES"}, /* five digits at most */
    };
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        CHECK_STR(graph_of(malformed[i][0]), "unreadable");
        CHECK_HAS(molecule_why(), malformed[i][1]);
    }
    CHECK_STR(graph_of("c1:c:c:c:c:c:1"), graph_of("c1ccccc1"));
    CHECK_STR(graph_of("C=[H]"), "C1.0.2 H1.0.0 0=1"); /* no hydrogen to fold */
    CHECK_STR(graph_of("C*"), "unspecific");
    CHECK_STR(graph_of("C(C)(C)(C)(C)C"), "valence");
    CHECK_HAS(graph_of("[C](C)(C)(C)(C)C"), "C5.0.0 C1.0.3"); /* as it is written */
    CHECK_STR(graph_of("CN(C)(C)C"), "valence");
    CHECK_HAS(graph_of("[H][N]([H])([H])[Pt]"), "N1.0.3 other1.0.0 0-1");
    CHECK_STR(graph_of("ClCl(Cl)(Cl)Cl"), "valence");
    CHECK_STR(graph_of("CF(C)C"), "valence");
    CHECK_STR(graph_of("c1cccc1"), "valence");
    CHECK_HAS(molecule_why(), "kekulize");
    CHECK_STR(graph_of("s1(nc(c2c1cccc2)NN=Cc3occc3)(=O)=O"), "valence");
    memset(text, 'C', MOLECULE_ATOMS_MAX + 1);
    text[MOLECULE_ATOMS_MAX + 1] = 0;
    CHECK_STR(graph_of(text), "large");
    memset(text, 'C', sizeof text);
    text[sizeof text - 1] = 0;
    CHECK_STR(graph_of(text), "large");
    CHECK_STR(graph_of("CCO"), "C1.0.3 C2.0.2 O1.0.1 0-1 1-2"); /* and nothing is left of them */
}

TEST(molecules_of_the_largest_size_are_taken)
{
    static struct molecule m;
    char text[MOLECULE_ATOMS_MAX + 1];
    memset(text, 'C', MOLECULE_ATOMS_MAX);
    text[MOLECULE_ATOMS_MAX] = 0;
    CHECK_EQ(molecule_read(&m, text, 0), MOLECULE_ACCEPTED);
    CHECK_EQ(m.atoms, MOLECULE_ATOMS_MAX);
    CHECK_EQ(m.bonds, MOLECULE_ATOMS_MAX - 1);
}

static void memory_limit(rlim_t bytes)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = bytes == RLIM_INFINITY ? limit.rlim_max : bytes;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* What the machine refuses now it may grant later; it is nothing that the text is refused for. */
TEST(molecules_are_not_refused_for_want_of_memory)
{
#ifdef __SANITIZE_ADDRESS__
    test_skip("the sanitizer ends a program that gets no memory");
#endif
    static struct molecule m;
    static char chain[MOLECULE_SMILES_MAX + 1];
    memset(chain, 'C', MOLECULE_SMILES_MAX);
    CHECK_EQ(molecule_read(&m, "CCO", 0), MOLECULE_ACCEPTED);
    memory_limit(1 << 20);
    enum molecule_refusal refusal = molecule_read(&m, chain, 0);
    memory_limit(RLIM_INFINITY);
    CHECK_EQ(refusal, MOLECULE_MEMORY);
    CHECK_EQ(molecule_read(&m, chain, 0), MOLECULE_LARGE);
    CHECK_EQ(molecule_read(&m, "CCO", 0), MOLECULE_ACCEPTED);
}

TEST(open_babel_is_opened_later_where_memory_is_short)
{
#ifdef __SANITIZE_ADDRESS__
    test_skip("the sanitizer ends a program that gets no memory");
#endif
    memory_limit(1 << 20);
    int result = molecule_begin(&e);
    memory_limit(RLIM_INFINITY);
    CHECK(result < 0);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "no memory");
}

TEST(molecules_have_descriptors)
{
    static struct molecule m;
    int chosen[GRAPH_DESCRIPTORS];
    uint32_t count;
    CHECK_EQ(molecule_read(&m, "O=C1C=CC=CN1.Cl", MOLECULE_MASSES), MOLECULE_ACCEPTED);
    CHECK_OK(graph_descriptors_choose("rings, hydrogens,log_mass", chosen, &count, &e), e);
    CHECK_EQ(count, 3);
    CHECK_STR(graph_descriptor_name(chosen[1]), "hydrogens");
    CHECK(graph_descriptor(&m, chosen[0]) == 1);                   /* 7 bonds - 8 atoms + 2 parts */
    CHECK(fabs(graph_descriptor(&m, chosen[1]) - 6 / 8.0) < 1e-6); /* 4 CH, NH, HCl */
    CHECK(fabs(graph_descriptor(&m, chosen[2]) - log10(95.037114 + 35.976678)) < 1e-5);
    CHECK_OK(graph_descriptors_choose("heteroatoms,aromatic", chosen, &count, &e), e);
    CHECK(fabs(graph_descriptor(&m, chosen[0]) - 3 / 8.0) < 1e-6);
    CHECK(fabs(graph_descriptor(&m, chosen[1]) - 6 / 8.0) < 1e-6);
    CHECK(graph_descriptors_choose("rings,colour", chosen, &count, &e) < 0);
    CHECK_HAS(e.text, "there is no \"colour\"; accepted are log_mass");
    CHECK(graph_descriptors_choose("rings,rings", chosen, &count, &e) < 0);
    CHECK_HAS(e.text, "names rings twice");
    CHECK(graph_descriptors_choose(",", chosen, &count, &e) < 0);
    CHECK_HAS(e.text, "no descriptor");
}

TEST(molecules_are_remembered_in_few_places)
{
    static struct molecule m, again;
    static struct molecule_memo memo;
    char smiles[MOLECULE_MEMO_PLACES + 64];
    /* More than there are places, twice: each is itself whoever took its place. */
    for (int turn = 0; turn < 2; turn++)
        for (int i = 1; i < MOLECULE_MEMO_PLACES / 4; i++)
            for (int k = 0; k < 6; k++) {
                snprintf(smiles, sizeof smiles, "%.*s%c", i % 40 + 1,
                         "CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC", "CNOSFI"[k]);
                CHECK_EQ(molecule_memo_read(&memo, &m, smiles, 0), MOLECULE_ACCEPTED);
                CHECK_EQ(m.atoms, i % 40 + 2);
                CHECK_EQ(m.atom[m.atoms - 1].element, ((const uint8_t[]){6, 7, 8, 16, 9, 53})[k]);
            }
    CHECK_EQ(molecule_memo_read(&memo, &m, "[Na+].[Cl-]", 0), MOLECULE_ACCEPTED);
    CHECK_EQ(molecule_memo_read(&memo, &again, "[Na+].[Cl-]", 0), MOLECULE_ACCEPTED);
    CHECK(again.atoms == 2 && again.bonds == 0 && again.components == 2);
    CHECK(memcmp(again.atom, m.atom, 2 * sizeof m.atom[0]) == 0);
    CHECK_EQ(molecule_memo_read(&memo, &m, "C1", 0), MOLECULE_UNREADABLE);
    molecule_memo_clear(&memo);
}

TEST(skeletons_are_first_blocks_of_inchikeys)
{
    static struct molecule m;
    char block[SKELETON_LETTERS + 1], other[SKELETON_LETTERS + 1];
    CHECK(skeleton_of_text("LFQSCWFLJHTTHZ-UHFFFAOYSA-N", block)); /* ethanol */
    CHECK_STR(block, "LFQSCWFLJHTTHZ");
    CHECK(skeleton_of_text("InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3", other));
    CHECK_STR(other, block);
    CHECK_EQ(molecule_read(&m, "CCO", MOLECULE_KEKULE), MOLECULE_ACCEPTED);
    CHECK(skeleton_of_molecule(&m, other));
    CHECK_STR(other, block);
    CHECK_EQ(molecule_read(&m, "C[C@H](N)C(=O)[O-].[Na+]", MOLECULE_KEKULE), MOLECULE_ACCEPTED);
    CHECK(skeleton_of_molecule(&m, block));
    CHECK_EQ(molecule_read(&m, "c1ccc2[nH]ccc2c1", MOLECULE_KEKULE), MOLECULE_ACCEPTED);
    CHECK(skeleton_of_molecule(&m, block));
    CHECK_STR(block, "SIKJAQJRHWYJAI"); /* indole */
    for (const char *const *bad = (const char *const[]){"", "N/A", "InChI=NA", "lfqscwfljhtthz-U",
                                                        "LFQSCWFLJHTTHZX", NULL};
         *bad; bad++)
        CHECK(!skeleton_of_text(*bad, block));
}

/* ---- records -------------------------------------------------------------------------------- */

#define RECORD_HEAD                                                                                \
    "ACCESSION: %s\nCH$SMILES: CCO\nCH$IUPAC: InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3\n"                 \
    "AC$MASS_SPECTROMETRY: MS_TYPE MS2\nAC$MASS_SPECTROMETRY: COLLISION_ENERGY 20 eV\n"            \
    "MS$FOCUSED_ION: ION_TYPE [M+H]+\n"

/* One record with these lines behind its head. */
static const char *record(const char *name, const char *rest)
{
    static char text[4][2048];
    static int turn;
    char *to = text[turn++ % 4];
    int used = snprintf(to, 2048, RECORD_HEAD, name);
    snprintf(to + used, 2048 - (size_t)used, "%s", rest);
    return to;
}

#define PEAKS "PK$NUM_PEAK: 2\nPK$PEAK: m/z int. rel.int.\n  31.018 500 500\n  47.049 1000 999\n"

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
    file_write("r.txt", text);
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
    CHECK_STR(records(record("A", PEAKS "//\n")), "A [M+H]+ 2/");
    CHECK_STR(records(record("A", PEAKS "//")), "A [M+H]+ 2/");
    CHECK_STR(records(joined(record("A", PEAKS "//\n\n"), record("B", PEAKS "//\n"))),
              "A [M+H]+ 2/B [M+H]+ 2/");
    CHECK_STR(records(record("A", "MS$FOCUSED_ION: PRECURSOR_TYPE [M+Na]+\n" PEAKS "//\n")),
              "A [M+Na]+ 2/");
    CHECK_STR(records(record("A", "DEPRECATED: 2020-01-01 wrong\n" PEAKS "//\n")),
              "A [M+H]+ 2 deprecated/");
    /* Annotations are indented too, and are no peaks. */
    CHECK_STR(records(record("A", "PK$ANNOTATION: m/z formula\n  31.018 CH3O+ 1\n" PEAKS "//\n")),
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
         "it all, and again\n" PEAKS "//\n",
         "2 a value is too long"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char expected[300];
        snprintf(expected, sizeof expected, "A [M+H]+ %s/B [M+H]+ 2/", bad[i].said);
        CHECK_STR(records(joined(record("A", bad[i].rest), record("B", PEAKS "//\n"))), expected);
    }
}

TEST(massbank_files_that_are_damaged_are_refused_with_the_line)
{
    char *long_line = malloc(LINES_BYTES_MAX + 100);
    CHECK_STR(records(record("A", PEAKS)),
              "r.txt: record A, which begins in line 1, does not end with a line // before the "
              "file does");
    CHECK_STR(records(joined(record("A", PEAKS), record("B", PEAKS "//\n"))),
              "r.txt: record A, which begins in line 1, does not end with a line //");
    CHECK_STR(records(joined(record("A", PEAKS "//\n"), "RECORD_TITLE: x\n")),
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
        used += (size_t)sprintf(text + used, "%s", record("A", PEAKS "//\n"));
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

/* ---- the program ---------------------------------------------------------------------------- */

static int prepare(const char *source, const char *set)
{
    char text[512];
    snprintf(
        text, sizeof text,
        "data: {source: %s, file: m.h5}\nprepare: {validation_fraction: 0.3%s%s}\nmodel: {layers: "
        "[{type: relu}]}\ntasks: [{name: A}]\n",
        source, set[0] ? ", " : "", set);
    file_write("p.yaml", text);
    char *argv[] = {"molecules", "--config", "p.yaml", "--out", "m.h5", NULL};
    return prepare_molecules(5, argv);
}

TEST(molecules_need_the_reader_of_open_babel)
{
    CHECK_EQ(setenv("BABEL_LIBDIR", "nowhere", 1), 0);
    CHECK(molecule_begin(&e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "smilesformat.so");
    file_write("t.csv", "smiles,inchikey\nCCO,LFQSCWFLJHTTHZ-UHFFFAOYSA-N\n");
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
    file_write("t.tsv", ten);
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
        PEAKS "//\n",
        "DEPRECATED: x\n" PEAKS "//\n",
        "MS$FOCUSED_ION: PRECURSOR_TYPE [M+Na]+\n" PEAKS "//\n",
        "AC$MASS_SPECTROMETRY: MS_TYPE MS3\n" PEAKS "//\n",
        "CH$SMILES: N/A\n" PEAKS "//\n",
        "PK$NUM_PEAK: 1\nPK$PEAK: m/z\n  2000 5 5\n//\n",
        "PK$NUM_PEAK: 9\nPK$PEAK: m/z\n  1 5 5\n//\n",
        "CH$SMILES: C1CC\n" PEAKS "//\n",
        "CH$SMILES: c1ccccc1\nCH$IUPAC: N/A\n" PEAKS "//\n", /* the key is computed */
        "CH$SMILES: CCN\nCH$LINK: INCHIKEY QUSNBJAOOMFDIB-UHFFFAOYSA-N\n" PEAKS "//\n",
        "CH$SMILES: CCS\nCH$IUPAC: N/A\n" PEAKS "//\n",
        "CH$SMILES: CCF\nCH$IUPAC: N/A\n" PEAKS "//\n",
    };
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++)
        used += (size_t)sprintf(text + used, "%s", record("A", rest[i]));
    file_write("r.txt", text);
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
        snprintf(rest, sizeof rest, "CH$SMILES: %s\nCH$IUPAC: N/A\n" PEAKS "//\n", smiles[i]);
        const char *text = record("A", rest);
        snprintf(path, sizeof path, "d/%s%d.txt", i > 4 ? "b/" : "a", i);
        file_write(path, text);
        strcat(first, text);
    }
    file_write("d/list.md", "no record");
    file_write("all.txt", first);
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
    file_write("d/a9.txt", "something else\n");
    CHECK_EQ(prepare("d", ""), EXIT_CODE_PERMANENT);
    CHECK(mkdir("empty", 0777) == 0);
    CHECK_EQ(prepare("empty", ""), EXIT_CODE_PERMANENT);
}
