/* fragments.h - a computed spectrum: the ions that a molecule breaks into, one bond at a time.
 *
 * Each bond that is in no ring is broken by itself, which leaves two fragments. Both are seen, each
 * with a proton added, as in a spectrum of [M+H]+ that holds nothing but single breaks:
 *   m/z        sum of the monoisotopic masses of its atoms and of the hydrogens they carry,
 *              + 1.007276 (a proton). No hydrogen moves; charges the molecule has count nothing.
 *   intensity  1 / the bond's order: a double bond breaks half as often as a single one.
 * The unbroken molecule and breaks of rings, which take two, are left out. It is no forecast of
 * what an instrument sees, but a task of its kind that needs no measurement: as there the answer is
 * read off the whole graph, and what one molecule teaches holds for the next.
 */
#ifndef PIPELINES_PREPARE_FRAGMENTS_H
#define PIPELINES_PREPARE_FRAGMENTS_H

#include "pipelines/prepare/massbank.h"
#include "pipelines/prepare/molecule.h"

enum { FRAGMENTS_MAX = 2 * MOLECULE_BONDS_MAX };

/* The peaks of m (read with MOLECULE_MASSES), two a bond in the order of the bonds, into
 * peak[FRAGMENTS_MAX]. Returns how many; 0: every bond is in a ring, or there is none. */
uint32_t fragments_make(const struct molecule *m, struct peak *peak);

#endif
