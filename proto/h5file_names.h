/* h5file_names.h - names that an attribute lists, read from an open object; for proto/h5file*.c and
 * loaderd/h5source*.c, which alone include hdf5.h.
 */
#ifndef PROTO_H5FILE_NAMES_H
#define PROTO_H5FILE_NAMES_H

#include <hdf5.h>

#include "proto/h5file.h"

/* Fill *names from a text ("M1 M5", also with commas) or an array of texts, of fixed or variable
 * length. 0, or -1: there is no such attribute, it is something else, it lists nothing, or more
 * than H5NAMES_MAX. */
int h5_names(hid_t object, const char *attribute, struct h5names *names);

#endif
