/* molecule_aromatic.h - which bonds of a molecule are aromatic, perceived from its Kekule form.
 *
 * The model, which is near that of Indigo's "generic" (where an isotope or a charged nitrogen
 * without hydrogens bars a ring, which it does not here, and `cc` is a bond without an order and
 * C=C here): an atom of a ring that is in one of the groups 13 to 17 gives a number of pi
 * electrons,
 *
 *     1       it has a double bond in a ring, or an electron without a partner
 *     0       it is a carbon with a double bond to N, O or S outside rings, or has an empty orbital
 *     2       it is a sulphur with one to O outside rings, or has a lone pair
 *
 * and any other atom is in no aromatic ring. A ring of at most 22 atoms is aromatic if their sum is
 * 4 n + 2 and of the double bonds of each atom, not counting those that are aromatic already by
 * another ring, at most one is in the ring and none leaves it, but for those from C to N, O or S,
 * from S to O and of nitrogen with five bonds. A bond from one atom of it to another is aromatic,
 * too. Rings are all simple cycles, not the smallest alone.
 *
 * Of a text with aromatic atoms the Kekule form is taken that makes the more bonds aromatic; one
 * without is the form that it shows. Biphenylene is aromatic as c1ccc2c(c1)c1ccccc12 and as the
 * form with two benzenes, but not as C1=CC2=C3C=CC=CC3=C2C=C1, with double bonds between the two.
 */
#ifndef PIPELINES_PREPARE_MOLECULE_AROMATIC_H
#define PIPELINES_PREPARE_MOLECULE_AROMATIC_H

#include "pipelines/prepare/molecule.h"

/* Set the order of the aromatic bonds of *m, whose atoms have elements, hydrogens, charges and, if
 * they are written so, the flag aromatic, and whose bonds have their ring flags. 1; 0: its rings
 * make too many cycles to look at all of them, or at all forms. */
int molecule_aromatic_find(struct molecule *m);

#endif
