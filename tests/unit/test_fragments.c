/* test_fragments.c - the peaks of computed spectra, worked by hand. What `prepare molecules` makes
 * of them is compared with RDKit in tests/process/test_molecules.py. */
#include <math.h>

#include "pipelines/prepare/fragments.h"
#include "tests/test.h"

/* "16.0308:1 32.0257:1", in the order of the bonds; energy_ev < 0: bare fragments. */
static const char *ions_of(const char *smiles, double energy_ev)
{
    static struct molecule m;
    static struct peak peak[IONS_MAX];
    static char text[4096];
    size_t used = 0;
    CHECK_EQ(molecule_read(&m, smiles, MOLECULE_MASSES), MOLECULE_ACCEPTED);
    uint32_t peaks = energy_ev < 0 ? fragments_make(&m, peak) : ions_make(&m, energy_ev, peak);
    text[0] = 0;
    for (uint32_t i = 0; i < peaks && used < sizeof text - 32; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%.4f:%.3g", i ? " " : "",
                                 peak[i].mz, peak[i].intensity);
    return text;
}

static const char *spectrum_of(const char *smiles)
{
    return ions_of(smiles, -1);
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

TEST(ions_are_even_electron_and_fewer_whole_ones_with_more_energy)
{
    /* CH3OH2+ of 32.0262 Da; HO+ and H2O with a proton, CH3+ and CH4 with one */
    const char *broken = " 17.0022:0.531 19.0178:0.106 15.0229:0.469 17.0386:0.0938";
    char wanted[128];
    snprintf(wanted, sizeof wanted, "33.0335:64%s", broken);
    CHECK_STR(ions_of("CO", 0), wanted);
    snprintf(wanted, sizeof wanted, "33.0335:16%s", broken);
    CHECK_STR(ions_of("CO", 30), wanted);
    CHECK_STR(ions_of("c1ccccc1", 15), "79.0542:32"); /* no bond to break: it stays whole */
    /* half as much of the double bond: CH2 is 14.0157 of 30.0106 */
    CHECK_STR(ions_of("C=O", 15),
              "31.0178:32 15.9944:0.266 18.0100:0.0533 14.0151:0.234 16.0308:0.0467");
}

TEST(fragments_of_the_largest_chain_are_all_there)
{
    static struct molecule m;
    static struct peak peak[IONS_MAX];
    static char smiles[MOLECULE_ATOMS_MAX + 1];
    memset(smiles, 'C', MOLECULE_ATOMS_MAX);
    CHECK_EQ(molecule_read(&m, smiles, MOLECULE_MASSES), MOLECULE_ACCEPTED);
    CHECK_EQ(fragments_make(&m, peak), 2 * (MOLECULE_ATOMS_MAX - 1));
    double sum = 0, methylene = 14.01565006, ends = 2 * 1.00782503;
    for (uint32_t i = 0; i < 2 * (MOLECULE_ATOMS_MAX - 1); i++)
        sum += peak[i].mz - 1.00727647;
    double chain = MOLECULE_ATOMS_MAX * methylene + ends;
    CHECK(fabs(sum / (chain * (MOLECULE_ATOMS_MAX - 1)) - 1) < 1e-6);
    CHECK_EQ(ions_make(&m, 15, peak), 1 + 4 * (MOLECULE_ATOMS_MAX - 1));
    sum = 0; /* of a cation and a protonated fragment, 6 / 5 of its share of the mass */
    for (uint32_t i = 1; i <= 4 * (MOLECULE_ATOMS_MAX - 1); i++)
        sum += peak[i].intensity;
    CHECK(fabs(sum / (1.2 * (MOLECULE_ATOMS_MAX - 1)) - 1) < 1e-5);
}
