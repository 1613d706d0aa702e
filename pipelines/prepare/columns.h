/* columns.h - what the columns of a CSV table are: features and targets, by the options
 * prepare.target, prepare.task and prepare.header.
 */
#ifndef PIPELINES_PREPARE_COLUMNS_H
#define PIPELINES_PREPARE_COLUMNS_H

#include <stdint.h>

#include "pipelines/prepare/csv.h"
#include "pipelines/prepare/like.h"
#include "proto/options.h"

#define COLUMN_CLASS UINT32_MAX

struct columns {
    const struct csv *csv;             /* borrowed */
    uint32_t count, features, targets; /* targets: values; 0: one column tells the class */
    uint32_t *place;     /* [count], of a column's value in a row; of the class COLUMN_CLASS */
    int header;          /* the first row holds names */
    int unlabelled;      /* all columns are features, or should be: new rows like other ones */
    char **names;        /* [count], or NULL */
    char *feature_names; /* one a line, or NULL */
    char *target_names;  /* of values, one a line, or NULL */
};

/* Read the first row of `csv` and decide. 0 or -1; columns_free is due in both cases. */
int columns_read(struct columns *c, struct csv *csv, const struct options *o,
                 const struct like *like, struct err *e);
void columns_free(struct columns *c); /* harmless twice, and on a zeroed struct */

/* The name of a column, or NULL. */
static inline const char *columns_name(const struct columns *c, uint32_t column)
{
    return c->names ? c->names[column] : NULL;
}

#endif
