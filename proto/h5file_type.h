/* h5file_type.h - libhdf5's identifiers of the house's element types, and how much of a file's
 * metadata it keeps; for proto/h5file*.c and loaderd/h5source*.c, which alone include hdf5.h.
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

/* What libhdf5 keeps of the metadata of a file opened with these access properties, in bytes of the
 * file, which would else grow with its data sets (measured: 30 KiB each) and chunks. It has that
 * size from the beginning: it would not shrink, and what it does not need it does not take. 0, or
 * -1: libhdf5's error. */
int h5_metadata_bound(hid_t access, uint64_t bytes);

#endif
