/* h5file_type.h - libhdf5's identifiers of the house's element types; for proto/h5file*.c and
 * loaderd/h5source*.c, which alone include hdf5.h.
 */
#ifndef PROTO_H5FILE_TYPE_H
#define PROTO_H5FILE_TYPE_H

#include <hdf5.h>

#include "proto/h5file.h"

/* The little-endian type, borrowed for ever; -1 for none of ours. */
hid_t h5_type(enum h5type type);

/* IEEE 754 binary16 in that byte order, borrowed for ever. HDF5 1.10 has no name for it; made as
 * h5py makes it. */
hid_t h5_half(H5T_order_t order);

#endif
