/* fragments.h - computed spectra: what a molecule breaks into, one bond at a time; as bare
 * fragments, or as the ions of a collision.
 *
 * Each bond that is in no ring is broken by itself, which leaves two fragments. Both are seen, each
 * with a proton added, as in a spectrum of [M+H]+ that holds nothing but single breaks:
 *   m/z        sum of the monoisotopic masses of its atoms and of the hydrogens they carry,
 *              + 1.007276 (a proton). No hydrogen moves; charges the molecule has count nothing.
 *   intensity  1 / the bond's order: a double bond breaks half as often as a single one.
 * The unbroken molecule and breaks of rings, which take two, are left out. It is no forecast of
 * what an instrument sees, but a task of its kind that needs no measurement: as there the answer is
 * read off the whole graph, and what one molecule teaches holds for the next.
 *
 * Ions are nearer to what is measured, where an electron pair stays together (the even-electron
 * rule) and the energy decides how much breaks. Of each fragment:
 *   cation     the fragment less an electron, that is less a hydrogen and with a proton; intensity
 *              (mass of the fragment / mass of the molecule) / the bond's order
 *   protonated the fragment with a hydrogen and a proton; a fifth of that
 * and of the unbroken molecule [M+H]+, 64 * 2^(-energy / 15 eV). The three constants are round ones
 * near the best of a few tried on MassBank's training molecules: the cosine with 400 of their
 * spectra is 0.30, that of fragments as they are 0.03.
 */
#ifndef PIPELINES_PREPARE_FRAGMENTS_H
#define PIPELINES_PREPARE_FRAGMENTS_H

#include "pipelines/prepare/massbank.h"
#include "pipelines/prepare/molecule.h"

enum { FRAGMENTS_MAX = 2 * MOLECULE_BONDS_MAX, IONS_MAX = 2 * FRAGMENTS_MAX + 1 };

/* The peaks of m (read with MOLECULE_MASSES), two a bond in the order of the bonds, into
 * peak[FRAGMENTS_MAX]. Returns how many; 0: every bond is in a ring, or there is none. */
uint32_t fragments_make(const struct molecule *m, struct peak *peak);

/* The ions of m (read so, too) at that energy: [M+H]+, then cation and protonated of each of those
 * fragments, into peak[IONS_MAX]. Returns how many, 1 at least. */
uint32_t ions_make(const struct molecule *m, double energy_ev, struct peak *peak);

#endif
