/* h5file.c - what writing and reading of HDF5 files have in common: element types, sizes, errors.
 *
 * libhdf5 reports errors on a stack of its own. Its innermost entry is the reason ("truncated file:
 * ...", "file write failed: ... errno = 28 ..."): h5_fail makes one sentence of the caller's
 * attempt and that reason, and nothing else of the house looks at the stack.
 */
#include "proto/h5file_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    uint32_t bytes;
} types[H5TYPE_COUNT] = {
    [H5TYPE_U8] = {"u8", 1},   [H5TYPE_I8] = {"i8", 1},   [H5TYPE_U16] = {"u16", 2},
    [H5TYPE_I16] = {"i16", 2}, [H5TYPE_U32] = {"u32", 4}, [H5TYPE_I32] = {"i32", 4},
    [H5TYPE_U64] = {"u64", 8}, [H5TYPE_I64] = {"i64", 8}, [H5TYPE_F32] = {"f32", 4},
    [H5TYPE_F64] = {"f64", 8}, [H5TYPE_F16] = {"f16", 2},
};

const char *h5type_name(enum h5type type)
{
    ensure((unsigned)type < H5TYPE_COUNT);
    return types[type].name;
}

int h5type_of(const char *name)
{
    for (int i = 0; i < H5TYPE_COUNT; i++)
        if (strcmp(types[i].name, name) == 0)
            return i;
    return -1;
}

uint32_t h5type_bytes(enum h5type type)
{
    ensure((unsigned)type < H5TYPE_COUNT);
    return types[type].bytes;
}

int h5_type_find(hid_t type)
{
    for (int i = 0; i < H5TYPE_COUNT; i++)
        if (H5Tequal(type, h5_type((enum h5type)i)) > 0)
            return i;
    return -1;
}

int h5_bytes(enum h5type type, int rank, const uint64_t *dims, uint64_t *bytes)
{
    *bytes = h5type_bytes(type);
    for (int i = 0; i < rank; i++)
        if (__builtin_mul_overflow(*bytes, dims[i], bytes))
            return -1;
    return *bytes <= INT64_MAX ? 0 : -1;
}

void h5_quiet(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void h5_close(hid_t *id)
{
    hid_t errors = H5Eget_num(H5E_DEFAULT) > 0 ? H5Eget_current_stack() : H5I_INVALID_HID;
    if (*id >= 0)
        H5Idec_ref(*id);
    if (errors >= 0)
        H5Eset_current_stack(errors); /* which closes it */
    *id = H5I_INVALID_HID;
}

struct reason {
    char text[512];
    int system_error; /* errno named by libhdf5, 0: none */
    int no_memory;
};

/* Called from the innermost entry outwards. */
static herr_t reason_visit(unsigned n, const H5E_error2_t *entry, void *self)
{
    struct reason *r = self;
    const char *text = entry->desc ? entry->desc : "unknown";
    if (n == 0)
        snprintf(r->text, sizeof r->text, "%s", text);
    const char *number = strstr(text, "errno = ");
    if (number && !r->system_error)
        r->system_error = atoi(number + strlen("errno = "));
    if (entry->maj_num == H5E_RESOURCE)
        r->no_memory = 1;
    return 0;
}

int h5_fail(struct err *e, int code, const char *format, ...)
{
    char attempt[512];
    struct reason r = {.text = "no reason given"};
    va_list args;
    va_start(args, format);
    vsnprintf(attempt, sizeof attempt, format, args);
    va_end(args);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, reason_visit, &r);
    H5Eclear2(H5E_DEFAULT);
    if (r.system_error) {
        errno = r.system_error;
        return err_errno(e, code, "%s", attempt);
    }
    return err_set(e, r.no_memory ? EXIT_CODE_TEMPORARY : code, "%s: %s", attempt, r.text);
}
