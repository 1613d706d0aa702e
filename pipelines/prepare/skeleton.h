/* skeleton.h - the first block of an InChIKey: 14 letters that molecules with the same atoms and
 * connections share, whatever their stereochemistry. Molecules are split by it.
 */
#ifndef PIPELINES_PREPARE_SKELETON_H
#define PIPELINES_PREPARE_SKELETON_H

#include "pipelines/prepare/molecule.h"

enum { SKELETON_LETTERS = 14 };

/* From a text that is an InChIKey (its first block is taken) or an InChI ("InChI=1S/..."). 1 and
 * the block, NUL-terminated; 0: it is neither. */
int skeleton_of_text(const char *text, char block[SKELETON_LETTERS + 1]);

/* Computed from a molecule that was read with MOLECULE_KEKULE: about a millisecond. 1 and the
 * block; 0: the InChI library refuses it. */
int skeleton_of_molecule(const struct molecule *m, char block[SKELETON_LETTERS + 1]);

#endif
