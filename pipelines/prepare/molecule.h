/* molecule.h - a SMILES text becomes atoms and bonds, by way of Open Babel.
 *
 * Hydrogens written as atoms are folded into their neighbours' counts (isotopes of hydrogen and H2
 * stay atoms). Stereochemistry is not kept, and wrong marks of it do no harm. Aromatic bonds are
 * perceived anew from the Kekule form (molecule_aromatic.h), so that both ways to write benzene
 * give one graph; a few molecules have Kekule forms that do not, if they are written as such.
 *
 * All calls from one thread.
 */
#ifndef PIPELINES_PREPARE_MOLECULE_H
#define PIPELINES_PREPARE_MOLECULE_H

#include <stdint.h>

#include "proto/err.h"

/* The InChI library takes 1,023 atoms; larger ones are no small molecules. */
enum { MOLECULE_ATOMS_MAX = 1023, MOLECULE_BONDS_MAX = 2047, MOLECULE_SMILES_MAX = 4095 };

struct molecule_atom {
    double mass;       /* monoisotopic, Da, with its folded hydrogens; MOLECULE_MASSES only */
    uint8_t element;   /* atomic number */
    uint8_t hydrogens; /* folded ones */
    uint8_t degree;    /* bonds to other atoms of the graph */
    uint8_t aromatic, ring;
    int8_t charge;
    uint16_t isotope; /* mass number, 0: natural */
};

enum { MOLECULE_ORDER_AROMATIC = 4 };

struct molecule_bond {
    uint16_t from, to;
    uint8_t order; /* 1 to 3, MOLECULE_ORDER_AROMATIC */
    uint8_t ring;
};

struct molecule {
    uint32_t atoms, bonds, components;
    double mass; /* monoisotopic, Da; MOLECULE_MASSES only */
    struct molecule_atom atom[MOLECULE_ATOMS_MAX];
    struct molecule_bond bond[MOLECULE_BONDS_MAX];
};

/* Why there is none. */
enum molecule_refusal {
    MOLECULE_ACCEPTED,
    MOLECULE_UNREADABLE, /* Open Babel understands no molecule */
    MOLECULE_UNSPECIFIC, /* an atom is no element: R, a pseudoatom */
    MOLECULE_VALENCE,    /* an atom has more bonds than it can, or aromatic ones cannot be told */
    MOLECULE_LARGE,      /* more than the maxima above */
    MOLECULE_REFUSALS,
    MOLECULE_MEMORY = MOLECULE_REFUSALS, /* none of these: there was too little to read it */
};

/* Identifier of a refusal, as in counts: "unreadable". */
const char *molecule_refusal_name(enum molecule_refusal refusal);

enum { MOLECULE_MASSES = 1, MOLECULE_KEKULE = 2 };

/* "Na"; borrowed. */
const char *molecule_symbol(const struct molecule_atom *a);

/* Before the first one is read: -1 if the installation of Open Babel is not complete, which is
 * permanent, or for want of memory, which is not. */
int molecule_begin(struct err *e);

/* Fill *m. The text ends at the first blank (names follow in some files). With MOLECULE_KEKULE
 * single and double bonds stay and nothing is aromatic. */
enum molecule_refusal molecule_read(struct molecule *m, const char *smiles, unsigned flags);

/* What there is to say of the last molecule that was not accepted; borrowed, one line. */
const char *molecule_why(void);

#endif
