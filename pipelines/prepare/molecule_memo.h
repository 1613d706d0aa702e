/* molecule_memo.h - molecules that were read already, by their SMILES, in bounded memory.
 *
 * A molecule is measured at many energies, and reading it costs fifty times what looking it up
 * does. Each SMILES has one place; a later one takes it.
 */
#ifndef PIPELINES_PREPARE_MOLECULE_MEMO_H
#define PIPELINES_PREPARE_MOLECULE_MEMO_H

#include "pipelines/prepare/molecule.h"

enum { MOLECULE_MEMO_PLACES = 2048 };

struct molecule_memo {
    char *kept[MOLECULE_MEMO_PLACES];
};

/* As molecule_read; only accepted molecules are kept. Always the same flags. */
enum molecule_refusal molecule_memo_read(struct molecule_memo *memo, struct molecule *m,
                                         const char *smiles, unsigned flags);
void molecule_memo_clear(struct molecule_memo *memo);

#endif
