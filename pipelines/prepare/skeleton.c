/* skeleton.c - see skeleton.h. The only file that knows the InChI library. */
#include "pipelines/prepare/skeleton.h"

#include <inchi_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = 28 };

static int block_is_there(const char *text)
{
    return strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == SKELETON_LETTERS &&
           (text[SKELETON_LETTERS] == '-' || !text[SKELETON_LETTERS]);
}

static int key_of_inchi(const char *inchi, char block[SKELETON_LETTERS + 1])
{
    char key[KEY_BYTES + 1] = "";
    if (GetINCHIKeyFromINCHI(inchi, 0, 0, key, NULL, NULL) != INCHIKEY_OK || !block_is_there(key))
        return 0;
    memcpy(block, key, SKELETON_LETTERS);
    block[SKELETON_LETTERS] = 0;
    return 1;
}

int skeleton_of_text(const char *text, char block[SKELETON_LETTERS + 1])
{
    if (strncmp(text, "InChI=", 6) == 0)
        return key_of_inchi(text, block);
    if (!block_is_there(text))
        return 0;
    memcpy(block, text, SKELETON_LETTERS);
    block[SKELETON_LETTERS] = 0;
    return 1;
}

static int bond_add(inchi_Atom *from, const struct molecule_bond *b)
{
    if (from->num_bonds == MAXVAL)
        return 0;
    from->neighbor[from->num_bonds] = (AT_NUM)b->to;
    from->bond_type[from->num_bonds++] = (S_CHAR)b->order; /* 1 to 3 there too */
    return 1;
}

int skeleton_of_molecule(const struct molecule *m, char block[SKELETON_LETTERS + 1])
{
    char options[] = "";
    inchi_Input in = {.szOptions = options, .num_atoms = (AT_NUM)m->atoms};
    inchi_Output out = {.szInChI = NULL};
    int found = 0;
    in.atom = calloc(m->atoms, sizeof *in.atom);
    if (!in.atom)
        return 0;
    for (uint32_t i = 0; i < m->atoms; i++) {
        inchi_Atom *a = &in.atom[i];
        snprintf(a->elname, sizeof a->elname, "%s", molecule_symbol(&m->atom[i]));
        a->num_iso_H[0] = (S_CHAR)(m->atom[i].hydrogens < 127 ? m->atom[i].hydrogens : 127);
        a->charge = m->atom[i].charge;
        a->isotopic_mass = (AT_NUM)m->atom[i].isotope;
    }
    for (uint32_t i = 0; i < m->bonds; i++)
        if (!bond_add(&in.atom[m->bond[i].from], &m->bond[i]))
            goto out;
    int said = GetStdINCHI(&in, &out);
    if ((said == inchi_Ret_OKAY || said == inchi_Ret_WARNING) && out.szInChI)
        found = key_of_inchi(out.szInChI, block);
    FreeStdINCHI(&out);
out:
    free(in.atom);
    return found;
}
