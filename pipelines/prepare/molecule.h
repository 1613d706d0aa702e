/* molecule.h - a SMILES text becomes atoms and bonds, by way of the Indigo toolkit.
 *
 * Hydrogens written as atoms are folded into their neighbours' counts (isotopes of hydrogen and H2
 * stay atoms). Stereochemistry is not kept, and wrong marks of it do no harm. Aromatic bonds are
 * perceived anew from the Kekule form, by Indigo's "generic" model, so that both ways to write
 * benzene give one graph.
 *
 * Indigo keeps its state per thread: all calls from one thread.
 */
#ifndef PIPELINES_PREPARE_MOLECULE_H
#define PIPELINES_PREPARE_MOLECULE_H

#include <stdint.h>

/* The InChI library takes 1,023 atoms; larger ones are no small molecules. */
enum { MOLECULE_ATOMS_MAX = 1023, MOLECULE_BONDS_MAX = 2047, MOLECULE_SMILES_MAX = 4095 };

struct molecule_atom {
    char symbol[4];    /* of the element; MOLECULE_KEKULE only */
    double mass;       /* monoisotopic, Da, with its folded hydrogens; MOLECULE_ATOM_MASSES only */
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
    double mass; /* monoisotopic, Da; MOLECULE_MASS only */
    struct molecule_atom atom[MOLECULE_ATOMS_MAX];
    struct molecule_bond bond[MOLECULE_BONDS_MAX];
};

/* Why there is none. */
enum molecule_refusal {
    MOLECULE_ACCEPTED,
    MOLECULE_UNREADABLE, /* Indigo understands no molecule */
    MOLECULE_UNSPECIFIC, /* an atom is no element: R, a pseudoatom */
    MOLECULE_VALENCE,    /* the number of hydrogens cannot be told */
    MOLECULE_LARGE,      /* more than the maxima above */
    MOLECULE_REFUSALS,
};

/* Identifier of a refusal, as in counts: "unreadable". */
const char *molecule_refusal_name(enum molecule_refusal refusal);

enum { MOLECULE_MASS = 1, MOLECULE_KEKULE = 2, MOLECULE_ATOM_MASSES = 4 };

/* Fill *m. The text ends at the first blank (names follow in some files). With MOLECULE_KEKULE
 * single and double bonds stay and nothing is aromatic. */
enum molecule_refusal molecule_read(struct molecule *m, const char *smiles, unsigned flags);

/* What Indigo said of the last molecule that was not accepted; borrowed, one line. */
const char *molecule_why(void);

#endif
