/* layout_fixture.c - see layout_fixture.h. */
#include "tests/unit/layout_fixture.h"

#include "proto/h5file_type.h"
#include "tests/test.h"

static const char *const types[TYPES] = {"u8",  "i8",  "u16", "i16", "u32", "i32",
                                         "u64", "i64", "f16", "f32", "f64"};

static hid_t type_make(uint64_t number)
{
    hid_t type = H5Tcopy(h5_type(h5type_of(types[number])));
    if (test_random() % 3 == 0)
        H5Tset_order(type, H5T_ORDER_BE);
    return type;
}

hid_t type_random(int first, int count)
{
    return type_make((uint64_t)first + test_random() % (uint64_t)count);
}

hid_t type_random_unsigned(void)
{
    return type_make(2 * (test_random() % 4));
}

enum filters filters_random(void)
{
    return (enum filters)(test_random() % NBIT);
}

hsize_t chunk_random(hsize_t items)
{
    return test_random() % 5 == 0 ? 0 : 1 + test_random() % (items < 60 ? items : 60);
}

void set_write(hid_t group, struct set_config c, hid_t memory, const void *data)
{
    if (!c.dims[0] || (c.rank == 2 && !c.dims[1]))
        memset(c.chunk, 0, sizeof c.chunk);
    if (!c.chunk[0]) {
        c.filters = PLAIN;
        c.dims_max0 = 0;
    }
    hid_t set = set_create(group, &c);
    if (data)
        CHECK(H5Dwrite(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    else if (c.dims[0])
        set_fill(set, &c);
    H5Dclose(set);
}
