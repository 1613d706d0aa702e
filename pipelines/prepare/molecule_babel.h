/* molecule_babel.h - atoms and bonds of a SMILES text, as Open Babel reads it, and what it knows of
 * the elements.
 *
 * Bonds are single, double and triple: aromatic ones get an order by Open Babel's Kekule form.
 * Nothing is left out and nothing judged: see molecule.c. All calls from one thread.
 */
#ifndef PIPELINES_PREPARE_MOLECULE_BABEL_H
#define PIPELINES_PREPARE_MOLECULE_BABEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { BABEL_SMILES_MAX = 4095 };

struct babel_atom {
    uint8_t element;    /* atomic number; 0: none */
    uint32_t hydrogens; /* that are no atoms of the text */
    int32_t charge;
    uint32_t isotope; /* mass number, 0: natural */
    uint8_t aromatic; /* as it is written */
};

struct babel_bond {
    uint16_t from, to; /* from the earlier atom of the text to the later one */
    uint8_t order;
    uint8_t ring;
};

/* In the order of the text, which has a byte for each. */
struct babel_molecule {
    uint32_t atoms, bonds;
    struct babel_atom atom[BABEL_SMILES_MAX];
    struct babel_bond bond[BABEL_SMILES_MAX];
};

enum babel_result {
    BABEL_READ,
    BABEL_SYNTAX, /* no molecule */
    BABEL_KEKULE, /* aromatic atoms to which no double bonds can be given */
    BABEL_MEMORY, /* there is not enough of it, which says nothing of the text */
};

/* Is its reader of SMILES installed, which is a plugin? BABEL_READ, else BABEL_SYNTAX or
 * BABEL_MEMORY. */
enum babel_result babel_open(void);

/* Fill *b from at most BABEL_SMILES_MAX bytes, or say why not in one line. */
enum babel_result babel_read(struct babel_molecule *b, const char *smiles, char *why,
                             uint32_t bytes);

/* Monoisotopic mass in Da, of that isotope unless it is 0; 0: unknown. */
double babel_mass(uint8_t element, uint16_t isotope);

/* "Na"; borrowed. */
const char *babel_symbol(uint8_t element);

#ifdef __cplusplus
}
#endif

#endif
