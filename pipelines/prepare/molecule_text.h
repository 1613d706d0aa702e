/* molecule_text.h - what a SMILES text tells besides the molecule that Open Babel makes of it.
 *
 * The text is not understood here, that is Open Babel's work: its marks of stereochemistry go, and
 * while that is done the atoms in brackets (which have the hydrogens and bonds they are written
 * with, however odd), the bonds that lead from one atom on to the next and the numbers that close
 * rings are noted down, in the order of the text. They tell whether Open Babel left a bond out.
 */
#ifndef PIPELINES_PREPARE_MOLECULE_TEXT_H
#define PIPELINES_PREPARE_MOLECULE_TEXT_H

#include <stddef.h>
#include <stdint.h>

enum { TEXT_BYTES_MAX = 4095, TEXT_RINGS_MAX = TEXT_BYTES_MAX / 2 };
/* What leads to an atom besides signs of bonds: no bond; one without a sign. */
enum { TEXT_NONE = 0, TEXT_PLAIN = ' ' };

/* A bond that closes a ring, in the order in which they are closed. It is written where its first
 * number is if only that has a sign of a bond before it, else where its second one is. */
struct text_ring {
    uint16_t atom;      /* the last one before that number */
    uint16_t place;     /* numbers before it, of all */
    uint8_t from_first; /* it leads from the atom of the first number to that of the second */
    char sign;          /* of a bond, before either number; 0: none */
};

struct molecule_text {
    char text[TEXT_BYTES_MAX + 1]; /* without marks of stereochemistry */
    uint32_t atoms, chains, rings; /* bonds that lead on, and that close rings */
    uint32_t turned;               /* rings with from_first */
    uint8_t bracket[TEXT_BYTES_MAX];
    char lead[TEXT_BYTES_MAX]; /* sign of the bond that leads to each atom, or TEXT_ */
    struct text_ring ring[TEXT_RINGS_MAX];
};

/* From at most TEXT_BYTES_MAX bytes. NULL; else why it is no molecule though Open Babel might make
 * one of it: a text that was cut, or lacks a part. Borrowed. */
const char *molecule_text_read(struct molecule_text *t, const char *smiles, size_t bytes);

#endif
