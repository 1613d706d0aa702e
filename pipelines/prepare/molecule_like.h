/* molecule_like.h - prepare.like of molecules: the columns of their atoms, and that new ones are
 * not as those of another file. What else new molecules have in common with it is in the options.
 *
 * Each row of the new table becomes a graph of the group validation, in the table's order, without
 * targets; one that cannot be is an error, since rows of predictions are told by their number.
 */
#ifndef PIPELINES_PREPARE_MOLECULE_LIKE_H
#define PIPELINES_PREPARE_MOLECULE_LIKE_H

#include "proto/err.h"

enum { MOLECULE_NAMES_BYTES = 2048 };

struct molecule_like {
    int follows;          /* a file; else all is 0 */
    int energy;           /* its atoms have the columns of the collision energy */
    char fingerprint[65]; /* of it */
};

/* An empty path: it follows none. -1 and *e (permanent): `prepare molecules` did not make it, or
 * one of another version. */
int molecule_like_read(struct molecule_like *l, const char *path, struct err *e);

/* The names of an atom's columns, one a line. */
void molecule_node_names(int energy, char names[MOLECULE_NAMES_BYTES]);

#endif
