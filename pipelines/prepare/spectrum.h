/* spectrum.h - peaks become bins; the free text of a collision energy becomes columns of numbers.
 *
 * Bin k holds the peaks with k * bin_da <= m/z < (k + 1) * bin_da, their intensities summed,
 * divided by the largest bin, and, if wanted, replaced by their square roots.
 */
#ifndef PIPELINES_PREPARE_SPECTRUM_H
#define PIPELINES_PREPARE_SPECTRUM_H

#include "pipelines/prepare/massbank.h"

/* 1 and the bins; 0: no peak with an intensity lies in them. */
int spectrum_bin(const struct peak *peak, uint32_t peaks, double bin_da, uint32_t bins, int root,
                 float *out);

/* Volts are taken for electronvolts, which they are for one charge; "nominal" and per cent for
 * normalised collision energy, as Orbitraps count it. */
enum energy_unit { ENERGY_UNKNOWN, ENERGY_PLAIN, ENERGY_EV, ENERGY_NCE };

struct energy {
    enum energy_unit unit; /* ENERGY_PLAIN: a number without unit; ENERGY_UNKNOWN: no number */
    double value;          /* the mean where several are given, as in "Ramp 20-40 eV" */
};

struct energy energy_parse(const char *text);

/* unit (3 columns), and the class of the value: tens from 0 to 150 and above. All 0: unknown. */
enum { ENERGY_FEATURES = 3 + 16 };
extern const char energy_names[]; /* one a line */
void energy_features(const struct energy *energy, uint8_t features[ENERGY_FEATURES]);

#endif
