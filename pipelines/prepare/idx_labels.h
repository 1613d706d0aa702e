/* idx_labels.h - the labels of an idx file, whole in memory, and which rows are wanted by them: a
 * task of some classes has no rows of the others (tasks[].classes).
 */
#ifndef PIPELINES_PREPARE_IDX_LABELS_H
#define PIPELINES_PREPARE_IDX_LABELS_H

#include "pipelines/prepare/idx_file.h"

enum { IDX_CLASSES_MAX = 256 };

struct idx_selection {
    int count;                  /* of classes; 0: all rows, with their labels */
    int label[IDX_CLASSES_MAX]; /* that a row of the class gets; -1: it is left out */
    char text[1024];            /* for the stamp: " only=0,1 labels=position"; empty: all */
};

/* From a list of different class numbers "0,1" (empty: all); kept: labels stay the classes' own
 * numbers, else they are the places in the list. */
int idx_selection_read(struct idx_selection *s, const char *list, int kept, struct err *e);

struct idx_labels {
    unsigned char *label; /* of each row wanted, in file order */
    unsigned char *wanted;
    uint64_t rows, wanted_rows;
};

/* All labels of the open file f, which must be 0 to classes - 1. 0, or -1 and *e; idx_labels_close
 * is due in both cases. */
int idx_labels_read(struct idx_labels *l, struct idx_file *f, const struct idx_selection *s,
                    unsigned classes, struct err *e);
void idx_labels_close(struct idx_labels *l); /* harmless twice */

#endif
