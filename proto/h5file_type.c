/* h5file_type.c - see h5file_type.h. */
#include "proto/h5file_type.h"

hid_t h5_half(H5T_order_t order)
{
    static hid_t halves[2];
    hid_t *half = &halves[order == H5T_ORDER_BE];
    if (*half > 0)
        return *half;
    *half = H5Tcopy(order == H5T_ORDER_BE ? H5T_IEEE_F32BE : H5T_IEEE_F32LE);
    H5Tset_fields(*half, 15, 10, 5, 0, 10);
    H5Tset_size(*half, 2);
    H5Tset_ebias(*half, 15);
    return *half;
}

hid_t h5_type(enum h5type type)
{
    switch (type) {
    case H5TYPE_U8:
        return H5T_STD_U8LE;
    case H5TYPE_I8:
        return H5T_STD_I8LE;
    case H5TYPE_U16:
        return H5T_STD_U16LE;
    case H5TYPE_I16:
        return H5T_STD_I16LE;
    case H5TYPE_U32:
        return H5T_STD_U32LE;
    case H5TYPE_I32:
        return H5T_STD_I32LE;
    case H5TYPE_U64:
        return H5T_STD_U64LE;
    case H5TYPE_I64:
        return H5T_STD_I64LE;
    case H5TYPE_F16:
        return h5_half(H5T_ORDER_LE);
    case H5TYPE_F32:
        return H5T_IEEE_F32LE;
    case H5TYPE_F64:
        return H5T_IEEE_F64LE;
    case H5TYPE_COUNT:
        break;
    }
    ensure(!"an element type");
}

int h5_metadata_bound(hid_t access, uint64_t bytes)
{
    H5AC_cache_config_t c = {.version = H5AC__CURR_CACHE_CONFIG_VERSION};
    if (H5Pget_mdc_config(access, &c) < 0)
        return -1;
    c.set_initial_size = 1;
    c.initial_size = c.min_size = c.max_size = bytes;
    return H5Pset_mdc_config(access, &c) < 0 ? -1 : 0;
}
