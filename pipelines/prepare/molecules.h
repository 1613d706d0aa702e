/* molecules.h - molecules become the graph HDF5 layout (graphs.h): which are taken, their features
 * and targets, their part.
 *
 * A node's columns are graph_node_names, for spectra, ions and prepare.energy followed by the
 * collision energy (energy_names), the same for every atom of a graph: so an input of the whole
 * graph goes where message passing finds it. An edge's are graph_edge_names; each bond is two
 * edges. Targets are those of molecule_targets.h.
 *
 * Attributes of the root: fingerprint (of options and contents), source, source_stamp, layout
 * "graph", node_feature_names, edge_feature_names, those of the targets, and how many entries were
 * skipped_<why> and refused_<why>.
 */
#ifndef PIPELINES_PREPARE_MOLECULES_H
#define PIPELINES_PREPARE_MOLECULES_H

#include "pipelines/prepare/molecule_like.h"
#include "pipelines/prepare/molecule_source.h"

#define MOLECULES_VERSION "molecules 4" /* see maker.version */

/* Make `out` from the source, like the file that is followed if one is, at once or not at all. */
int molecules_convert(struct molecule_source *s, const struct molecule_like *like, const char *out,
                      const char *stamp, struct err *e);

#endif
