/* molecule_targets.h - what is to be learned of a molecule: the bins of a measured spectrum, those
 * of a computed one (fragments.h: fragments or ions), or numbers computed of it (graph.h).
 *
 * MassBank records bring their spectra; of a table's molecules prepare.compute tells which.
 */
#ifndef PIPELINES_PREPARE_MOLECULE_TARGETS_H
#define PIPELINES_PREPARE_MOLECULE_TARGETS_H

#include "pipelines/prepare/fragments.h"
#include "pipelines/prepare/graph.h"
#include "pipelines/prepare/massbank.h"
#include "pipelines/prepare/spectrum.h"
#include "proto/h5file.h"
#include "proto/options.h"

enum molecule_target {
    MOLECULE_DESCRIPTORS,
    MOLECULE_FRAGMENTS,
    MOLECULE_IONS,
    MOLECULE_MEASURED,
};

struct molecule_targets {
    const struct options *options;
    enum molecule_target kind;
    uint32_t count;
    int descriptor[GRAPH_DESCRIPTORS];
    unsigned flags; /* molecule_read's, which they need */
    float *value;   /* [count], of the molecule last made */
    struct peak peak[IONS_MAX];
};

/* As the options say; `measured`: the molecules come with spectra. 0 or -1; close is due in both
 * cases. */
int molecule_targets_open(struct molecule_targets *t, const struct options *o, int measured,
                          struct err *e);
void molecule_targets_close(struct molecule_targets *t); /* harmless on a zeroed struct */

/* Fill value[]; r: the molecule's record where it has one; energy: what ions are made with. 1; 0:
 * it has no peak in the bins. */
int molecule_targets_make(struct molecule_targets *t, const struct molecule *m,
                          const struct massbank_record *r, const struct energy *energy);

/* The attributes of the root that say what they are: target_names; or spectra (computed or
 * measured), bin_da, mz_max and intensity. */
int molecule_targets_name(const struct molecule_targets *t, struct h5writer *w, struct err *e);

/* For a sentence: "descriptors", "bins of computed spectra". */
const char *molecule_targets_word(const struct molecule_targets *t);

#endif
