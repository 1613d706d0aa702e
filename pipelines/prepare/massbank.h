/* massbank.h - records of MassBank, one after the other: what is needed of each.
 *
 * A record is lines "TAG: value" from "ACCESSION: ..." to "//"; behind "PK$PEAK:" each peak is a
 * line of blanks, m/z and intensity. A file that ends inside a record, or holds text between
 * records, is refused; a record with a fault of its own is given with the fault named, for the
 * caller to count.
 */
#ifndef PIPELINES_PREPARE_MASSBANK_H
#define PIPELINES_PREPARE_MASSBANK_H

#include "pipelines/prepare/lines.h"

enum { MASSBANK_TEXT_MAX = 4096, MASSBANK_PEAKS_MAX = 65536 };

struct peak {
    float mz, intensity;
};

struct massbank_record {
    uint64_t line; /* of ACCESSION */
    char accession[128];
    char smiles[MASSBANK_TEXT_MAX];
    char inchi[MASSBANK_TEXT_MAX]; /* CH$IUPAC */
    char inchikey[32];             /* CH$LINK: INCHIKEY */
    char precursor_type[64], ion_type[64];
    char ms_type[16]; /* "MS2" */
    char energy[256]; /* COLLISION_ENERGY, free text */
    int deprecated;
    struct peak *peak; /* [MASSBANK_PEAKS_MAX], the caller's */
    uint32_t peaks;
    const char *fault; /* NULL: none */
};

/* "[M+H]+": PRECURSOR_TYPE, else ION_TYPE, else "". */
const char *massbank_adduct(const struct massbank_record *r);

/* Read the next record into *r. 1; 0: there is none; -1 and *e. */
int massbank_next(struct lines *l, struct massbank_record *r, struct err *e);

/* Does the file begin as a record does? -1 if it cannot be read. */
int massbank_begins(const char *path, struct err *e);

#endif
