/* spectrum.c - see spectrum.h. */
#include "pipelines/prepare/spectrum.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int spectrum_bin(const struct peak *peak, uint32_t peaks, double bin_da, uint32_t bins, int root,
                 float *out)
{
    float largest = 0;
    memset(out, 0, bins * sizeof *out);
    for (uint32_t i = 0; i < peaks; i++) {
        double place = floor(peak[i].mz / bin_da);
        if (place >= bins)
            continue;
        float *bin = &out[(uint32_t)place];
        *bin += peak[i].intensity;
        largest = *bin > largest ? *bin : largest;
    }
    if (!(largest > 0) || !isfinite(largest))
        return 0;
    for (uint32_t k = 0; k < bins; k++)
        if (out[k] > 0)
            out[k] = root ? sqrtf(out[k] / largest) : out[k] / largest;
    return 1;
}

/* Behind a number: to the next one of the same list ("20%-70%", "15, 30 or 45"), or NULL. */
static const char *number_next(const char *text)
{
    for (;;) {
        text += strspn(text, " ,-%");
        if (strncmp(text, "or ", 3) != 0 && strncmp(text, "to ", 3) != 0)
            break;
        text += 2;
    }
    return *text >= '0' && *text <= '9' ? text : NULL;
}

struct energy energy_parse(const char *text)
{
    struct energy energy = {ENERGY_UNKNOWN, 0};
    const char *at = text + strcspn(text, "0123456789");
    double sum = 0;
    int count = 0;
    /* "35 (m/z=100) to 50 (m/z=500)" depends on the mass; kilovolts are another voltage. */
    if (!*at || strstr(text, "mz") || strstr(text, "m/z") || strstr(text, "kV"))
        return energy;
    while (at) {
        char *end;
        sum += strtod(at, &end);
        count++;
        at = number_next(end);
    }
    energy.value = sum / count;
    if (strchr(text, '%') || strstr(text, "nominal") || strstr(text, "NCE"))
        energy.unit = ENERGY_NCE;
    else
        energy.unit = strchr(text, 'V') ? ENERGY_EV : ENERGY_PLAIN;
    return energy;
}

enum { ENERGY_UNITS = ENERGY_NCE, ENERGY_STEP = 10 };

const char energy_names[] =
    "energy_plain\nenergy_eV\nenergy_NCE\nenergy_0\nenergy_10\nenergy_20\nenergy_30\nenergy_40\n"
    "energy_50\nenergy_60\nenergy_70\nenergy_80\nenergy_90\nenergy_100\nenergy_110\nenergy_120\n"
    "energy_130\nenergy_140\nenergy_150";

void energy_features(const struct energy *energy, uint8_t features[ENERGY_FEATURES])
{
    const int classes = ENERGY_FEATURES - ENERGY_UNITS;
    memset(features, 0, ENERGY_FEATURES);
    if (energy->unit == ENERGY_UNKNOWN)
        return;
    double class = floor(energy->value / ENERGY_STEP);
    features[energy->unit - ENERGY_PLAIN] = 1;
    features[ENERGY_UNITS + (class < classes ? (int)class : classes - 1)] = 1;
}
