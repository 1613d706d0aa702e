/* ops.c - the operations as they are called: each is checked (ops_check.h) and handed over to its
 * backend. The op_NAME functions are made from the list, so an operation without a check does not
 * link. */
#include "engine/ops.h"

#include <string.h>

#include "engine/ops_check.h"
#include "proto/err.h"

static const char *const element_names[ELEMENT_COUNT] = {"u8",  "i8",  "u16", "i16", "u32", "i32",
                                                         "u64", "i64", "f16", "f32", "f64"};

enum element element_named(const char *name)
{
    int type = 0;
    while (type < ELEMENT_COUNT && strcmp(name, element_names[type]) != 0)
        type++;
    return (enum element)type;
}

uint64_t element_bytes(enum element type)
{
    static const uint64_t bytes[ELEMENT_COUNT] = {1, 1, 2, 2, 4, 4, 8, 8, 2, 4, 8};
    ensure(type < ELEMENT_COUNT);
    return bytes[type];
}

#define OP(name, args, names, what)                                                                \
    void op_##name(const struct backend *backend, OP_SPLICE args)                                  \
    {                                                                                              \
        check_##name names;                                                                        \
        backend->name names;                                                                       \
    }
#include "engine/ops.def"
#undef OP
