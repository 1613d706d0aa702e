/* molecule_targets.c - see molecule_targets.h. */
#include "pipelines/prepare/molecule_targets.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BINS_MAX = 65536 };

static int bins_count(struct molecule_targets *t, struct err *e)
{
    const struct options *o = t->options;
    double bins = ceil(o->prepare_mz_max / o->prepare_bin_da);
    if (bins > BINS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "prepare.mz_max = %g and prepare.bin_da = %g make %.0f bins; at most %d are "
                       "accepted",
                       o->prepare_mz_max, o->prepare_bin_da, bins, BINS_MAX);
    t->count = (uint32_t)bins;
    return 0;
}

int molecule_targets_open(struct molecule_targets *t, const struct options *o, int measured,
                          struct err *e)
{
    static const unsigned flags[] = {[MOLECULE_DESCRIPTORS] = MOLECULE_MASSES,
                                     [MOLECULE_FRAGMENTS] = MOLECULE_MASSES,
                                     [MOLECULE_IONS] = MOLECULE_MASSES,
                                     [MOLECULE_MEASURED] = 0};
    t->options = o;
    t->kind = measured                       ? MOLECULE_MEASURED
              : o->prepare_compute[0] == 'f' ? MOLECULE_FRAGMENTS
              : o->prepare_compute[0] == 'i' ? MOLECULE_IONS
                                             : MOLECULE_DESCRIPTORS;
    t->flags = flags[t->kind];
    int result = t->kind == MOLECULE_DESCRIPTORS
                     ? graph_descriptors_choose(o->prepare_descriptors, t->descriptor, &t->count, e)
                     : bins_count(t, e);
    if (result < 0)
        return -1;
    t->value = calloc(t->count, sizeof *t->value);
    return t->value ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot keep the targets of a graph");
}

void molecule_targets_close(struct molecule_targets *t)
{
    free(t->value);
    t->value = NULL;
}

static int bins_make(struct molecule_targets *t, const struct peak *peak, uint32_t peaks)
{
    const struct options *o = t->options;
    return spectrum_bin(peak, peaks, o->prepare_bin_da, t->count, o->prepare_mz_max,
                        o->prepare_intensity[0] == 's', t->value);
}

int molecule_targets_make(struct molecule_targets *t, const struct molecule *m,
                          const struct massbank_record *r, const struct energy *energy)
{
    if (r)
        return bins_make(t, r->peak, r->peaks);
    if (t->kind == MOLECULE_FRAGMENTS)
        return bins_make(t, t->peak, fragments_make(m, t->peak));
    if (t->kind == MOLECULE_IONS)
        return bins_make(t, t->peak, ions_make(m, energy->value, t->peak));
    for (uint32_t k = 0; k < t->count; k++)
        t->value[k] = graph_descriptor(m, t->descriptor[k]);
    return 1;
}

int molecule_targets_name(const struct molecule_targets *t, struct h5writer *w, struct err *e)
{
    const struct options *o = t->options;
    if (t->kind != MOLECULE_DESCRIPTORS)
        return h5writer_text(w, "", "spectra",
                             t->kind == MOLECULE_MEASURED ? "measured" : "computed", e) < 0 ||
                       h5writer_f64(w, "", "bin_da", o->prepare_bin_da, e) < 0 ||
                       h5writer_f64(w, "", "mz_max", o->prepare_mz_max, e) < 0 ||
                       h5writer_text(w, "", "intensity", o->prepare_intensity, e) < 0
                   ? -1
                   : 0;
    char names[256];
    size_t used = 0;
    for (uint32_t k = 0; k < t->count; k++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", k ? "\n" : "",
                                 graph_descriptor_name(t->descriptor[k]));
    return h5writer_text(w, "", "target_names", names, e);
}

const char *molecule_targets_word(const struct molecule_targets *t)
{
    static const char *const words[] = {[MOLECULE_DESCRIPTORS] = "descriptors",
                                        [MOLECULE_FRAGMENTS] = "bins of computed spectra",
                                        [MOLECULE_IONS] = "bins of computed spectra of ions",
                                        [MOLECULE_MEASURED] = "bins of measured spectra"};
    return words[t->kind];
}
