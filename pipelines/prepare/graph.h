/* graph.h - atoms and bonds as the rows of numbers that message passing takes: pure functions.
 *
 * One row an atom, one row a bond (which the file has twice, once for each direction), all 0 or 1.
 * Classes at an end are open: "degree_5" means 5 or more.
 */
#ifndef PIPELINES_PREPARE_GRAPH_H
#define PIPELINES_PREPARE_GRAPH_H

#include <stddef.h>
#include <stdint.h>

#include "pipelines/prepare/molecule.h"
#include "proto/err.h"

/* element (13 and "other"), degree 0 to 5, charge -2 to 2, hydrogens 0 to 4, aromatic, ring,
 * isotope */
enum { GRAPH_NODE_FEATURES = 14 + 6 + 5 + 5 + 3 };
/* single, double, triple, aromatic, ring */
enum { GRAPH_EDGE_FEATURES = 5 };

/* Their names, one a line, in the order of the columns. */
extern const char graph_node_names[], graph_edge_names[];

void graph_node(const struct molecule_atom *atom, uint8_t features[GRAPH_NODE_FEATURES]);
void graph_edge(const struct molecule_bond *bond, uint8_t features[GRAPH_EDGE_FEATURES]);

/* Numbers that are known of every molecule, as targets to learn before there are spectra:
 *   log_mass     log10 of the monoisotopic mass in Da
 *   rings        independent cycles: bonds - atoms + components
 *   heteroatoms  share of the atoms that is neither carbon nor hydrogen
 *   aromatic     share of the atoms that is aromatic
 *   hydrogens    hydrogens for each atom
 * Atoms are those of the graph. */
enum { GRAPH_DESCRIPTORS = 5 };

/* Read a list such as "log_mass,rings": their numbers in chosen[], *count of them. */
int graph_descriptors_choose(const char *list, int chosen[GRAPH_DESCRIPTORS], uint32_t *count,
                             struct err *e);
const char *graph_descriptor_name(int descriptor);
float graph_descriptor(const struct molecule *m, int descriptor);

#endif
