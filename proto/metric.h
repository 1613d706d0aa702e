/* metric.h - names of what an evaluation tells, which of two values is the better one, and how a
 * value is shown: what trainerd, monitord and tap must agree on.
 */
#ifndef PROTO_METRIC_H
#define PROTO_METRIC_H

#include <stddef.h>

enum { METRIC_TEXT_MAX = 32 };

/* 1 if `value` of that metric is better than `than`. NaN stands for none: every number is better,
 * and none is better than a number. A metric of an unknown name is better when larger. */
int metric_better(const char *metric, double value, double than);

/* The value as people read it: "86.16 %" for a share, else 4 digits; "-" for NaN. Returns text. */
const char *metric_format(char text[METRIC_TEXT_MAX], const char *metric, double value);

#endif
