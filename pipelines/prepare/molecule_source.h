/* molecule_source.h - where molecules come from, one after the other: MassBank records or a table.
 *
 * What data.source holds is told by its content: a directory is one of MassBank records (its .txt
 * files, also further down, in the order of their names; .txt.zst too); a file that begins with
 * "ACCESSION:", plain or compressed with zstd, is one of MassBank records; any other file is a
 * table.
 */
#ifndef PIPELINES_PREPARE_MOLECULE_SOURCE_H
#define PIPELINES_PREPARE_MOLECULE_SOURCE_H

#include "pipelines/prepare/massbank.h"
#include "pipelines/prepare/text_files.h"
#include "proto/options.h"

/* Borrowed until the next call. */
struct molecule_entry {
    const char *smiles;                   /* "" or "N/A": there is none */
    const char *key;                      /* InChIKey or InChI, or "" */
    const struct massbank_record *record; /* NULL: of a table */
    uint64_t number;                      /* of the record or row in the source, from 0 */
};

struct molecule_source {
    const struct options *options;
    struct text_files files; /* with their names, sizes and times */
    int spectra;             /* entries have a record */
    double share;            /* read so far, 0 to 1 */
    /* Go to the first entry; every byte read from now on enters `digest`. */
    int (*begin)(struct molecule_source *s, struct digest *digest, struct err *e);
    /* 1 and an entry; 0: no more; -1. */
    int (*next)(struct molecule_source *s, struct molecule_entry *entry, struct err *e);
    /* Name the entry read last: "mona.txt: line 7". */
    void (*where)(const struct molecule_source *s, char *text, size_t bytes);
    void (*close)(struct molecule_source *s);
};

/* Open o->data_source; o outlives it. 0, or -1 and nothing to close. */
int molecule_source_open(struct molecule_source **s_p, const struct options *o, struct err *e);

/* The two kinds, for molecule_source.c, which fills in options and files. */
int molecule_source_massbank(struct molecule_source **s_p, struct err *e);
int molecule_source_table(struct molecule_source **s_p, const struct options *o, struct err *e);

#endif
