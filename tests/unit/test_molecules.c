/* test_molecules.c - molecules as graphs by hand: what is read, what is refused, which rings are
 * aromatic; their descriptors and the skeletons of their InChIKeys. */
#include <math.h>
#include <sys/resource.h>

#include "pipelines/prepare/graph.h"
#include "pipelines/prepare/molecule_memo.h"
#include "pipelines/prepare/skeleton.h"
#include "tests/test.h"
#include "tests/unit/molecule_fixture.h"

static struct err e;

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
