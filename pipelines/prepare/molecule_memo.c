/* molecule_memo.c - see molecule_memo.h. A place holds the molecule's head, its atoms, its bonds
 * and its SMILES in one block.
 */
#include "pipelines/prepare/molecule_memo.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_BYTES = offsetof(struct molecule, atom) };

static char **place_of(struct molecule_memo *memo, const char *smiles)
{
    uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a */
    for (const char *c = smiles; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001b3ull;
    return &memo->kept[(hash ^ hash >> 32) % MOLECULE_MEMO_PLACES];
}

/* Does the block hold that SMILES? Then it is unpacked into *m. */
static int unpack(const char *block, struct molecule *m, const char *smiles)
{
    if (!block)
        return 0;
    struct molecule *head = m;
    memcpy(head, block, HEAD_BYTES);
    size_t atoms = head->atoms * sizeof m->atom[0], bonds = head->bonds * sizeof m->bond[0];
    if (strcmp(block + HEAD_BYTES + atoms + bonds, smiles) != 0)
        return 0;
    memcpy(m->atom, block + HEAD_BYTES, atoms);
    memcpy(m->bond, block + HEAD_BYTES + atoms, bonds);
    return 1;
}

static char *pack(const struct molecule *m, const char *smiles)
{
    size_t atoms = m->atoms * sizeof m->atom[0], bonds = m->bonds * sizeof m->bond[0];
    char *block = malloc(HEAD_BYTES + atoms + bonds + strlen(smiles) + 1);
    if (!block)
        return NULL; /* it is read again, then */
    memcpy(block, m, HEAD_BYTES);
    memcpy(block + HEAD_BYTES, m->atom, atoms);
    memcpy(block + HEAD_BYTES + atoms, m->bond, bonds);
    strcpy(block + HEAD_BYTES + atoms + bonds, smiles);
    return block;
}

enum molecule_refusal molecule_memo_read(struct molecule_memo *memo, struct molecule *m,
                                         const char *smiles, unsigned flags)
{
    char **place = place_of(memo, smiles);
    if (unpack(*place, m, smiles))
        return MOLECULE_ACCEPTED;
    enum molecule_refusal refusal = molecule_read(m, smiles, flags);
    if (refusal == MOLECULE_ACCEPTED) {
        free(*place);
        *place = pack(m, smiles);
    }
    return refusal;
}

void molecule_memo_clear(struct molecule_memo *memo)
{
    for (int i = 0; i < MOLECULE_MEMO_PLACES; i++)
        free(memo->kept[i]);
    *memo = (struct molecule_memo){.kept = {NULL}};
}
