/* test_fragments.c - the peaks of computed spectra, worked by hand. What `prepare molecules` makes
 * of them is compared with RDKit in tests/process/test_molecules.py. */
#include <math.h>

#include "pipelines/prepare/fragments.h"
#include "tests/test.h"

/* "16.0308:1 32.0257:1", in the order of the bonds. */
static const char *spectrum_of(const char *smiles)
{
    static struct molecule m;
    static struct peak peak[FRAGMENTS_MAX];
    static char text[4096];
    size_t used = 0;
    CHECK_EQ(molecule_read(&m, smiles, MOLECULE_MASSES), MOLECULE_ACCEPTED);
    uint32_t peaks = fragments_make(&m, peak);
    text[0] = 0;
    for (uint32_t i = 0; i < peaks && used < sizeof text - 32; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%.4f:%.3g", i ? " " : "",
                                 peak[i].mz, peak[i].intensity);
    return text;
}

TEST(fragments_are_what_a_broken_bond_leaves)
{
    /* CH3 and CH2OH; C2H5 and OH */
    CHECK_STR(spectrum_of("CCO"), "32.0257:1 16.0308:1 18.0100:1 30.0464:1");
    /* CH3 and COOH; O and CH3-C-OH; OH and CH3-C=O */
    CHECK_STR(spectrum_of("CC(=O)O"),
              "46.0049:1 16.0308:1 17.0022:0.5 45.0335:0.5 18.0100:1 44.0257:1");
    CHECK_STR(spectrum_of("C#N"), "15.0104:0.333 14.0151:0.333"); /* N; CH */
    /* a ring stays whole: C6H5 and CH3 */
    CHECK_STR(spectrum_of("Cc1ccccc1"), "78.0464:1 16.0308:1");
    CHECK_STR(spectrum_of("c1ccccc1"), "");
    CHECK_STR(spectrum_of("O"), "");
    /* parts break by themselves */
    CHECK_STR(spectrum_of("[Na+].[Cl-]"), "");
    CHECK_STR(spectrum_of("O.CC.O"), "16.0308:1 16.0308:1");
    /* isotopes weigh what they weigh */
    CHECK_STR(spectrum_of("[13CH3]C"), "16.0308:1 17.0341:1");
}

TEST(fragments_of_the_largest_chain_are_all_there)
{
    static struct molecule m;
    static struct peak peak[FRAGMENTS_MAX];
    static char smiles[MOLECULE_ATOMS_MAX + 1];
    memset(smiles, 'C', MOLECULE_ATOMS_MAX);
    CHECK_EQ(molecule_read(&m, smiles, MOLECULE_MASSES), MOLECULE_ACCEPTED);
    CHECK_EQ(fragments_make(&m, peak), 2 * (MOLECULE_ATOMS_MAX - 1));
    double sum = 0, methylene = 14.01565006, ends = 2 * 1.00782503;
    for (uint32_t i = 0; i < 2 * (MOLECULE_ATOMS_MAX - 1); i++)
        sum += peak[i].mz - 1.00727647;
    double chain = MOLECULE_ATOMS_MAX * methylene + ends;
    CHECK(fabs(sum / (chain * (MOLECULE_ATOMS_MAX - 1)) - 1) < 1e-6);
}
