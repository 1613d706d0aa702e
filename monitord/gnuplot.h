/* gnuplot.h - pictures, drawn by gnuplot: the only program monitord ever starts.
 *
 * The script with the data in it is a temporary file beside the picture, which appears whole or not
 * at all.
 */
#ifndef MONITORD_GNUPLOT_H
#define MONITORD_GNUPLOT_H

#include <stdio.h>

#include "proto/err.h"

/* A script for a PNG picture of that many pixels, its terminal and output set; the caller writes
 * the rest to what is returned. NULL and *e (temporary) when it cannot be written. */
FILE *gnuplot_open(const char *script, const char *picture, int width, int height, struct err *e);

/* Close the script and have it drawn, in limit_s seconds; the script is removed. *out_p becomes
 * NULL. 0 and the picture durable, or -1, *e (temporary) and no new picture. */
int gnuplot_close(FILE **out_p, const char *script, const char *picture, double limit_s,
                  struct err *e);

/* A gnuplot string: single quotes, doubled inside; control characters become spaces. */
void gnuplot_quote(FILE *out, const char *text);

#endif
