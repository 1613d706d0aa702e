/* h5file_names.c - see h5file_names.h. Sizes are looked at before anything is allocated: the file
 * may be hostile.
 */
#include "proto/h5file_names.h"

#include <stdlib.h>
#include <string.h>

#include "proto/h5file_private.h"

/* The texts with a space after each; 0 or -1. */
static int texts_join(char joined[H5NAMES_BYTES], const char *values, size_t count, size_t bytes,
                      int varying)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        const char *one = varying ? ((char *const *)values)[i] : values + i * bytes;
        size_t length = !one ? 0 : varying ? strlen(one) : strnlen(one, bytes);
        if (!length || length >= H5NAMES_BYTES - used - 1)
            return -1;
        memcpy(joined + used, one, length);
        used += length;
        joined[used++] = ' ';
        joined[used] = 0;
    }
    return 0;
}

static int texts_read(hid_t attribute, char joined[H5NAMES_BYTES])
{
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    hssize_t count = space < 0 ? 0 : H5Sget_simple_extent_npoints(space);
    int is_text = type >= 0 && H5Tget_class(type) == H5T_STRING, result = -1;
    int varying = is_text && H5Tis_variable_str(type) > 0;
    size_t bytes = is_text ? H5Tget_size(type) : 0;
    char *values = NULL;
    if (bytes && count >= 1 && count <= H5NAMES_MAX && (varying || bytes <= H5NAMES_BYTES))
        values = calloc((size_t)count, bytes);
    if (values && H5Aread(attribute, type, values) >= 0) {
        result = texts_join(joined, values, (size_t)count, bytes, varying);
        if (varying)
            H5Dvlen_reclaim(type, space, H5P_DEFAULT, values);
    }
    free(values);
    h5_close(&space);
    h5_close(&type);
    return result;
}

int h5_names(hid_t object, const char *attribute, struct h5names *names)
{
    *names = (struct h5names){0};
    char *rest = names->text;
    if (H5Aexists(object, attribute) <= 0)
        return -1;
    hid_t at = H5Aopen(object, attribute, H5P_DEFAULT);
    int result = at < 0 ? -1 : texts_read(at, names->text);
    h5_close(&at);
    for (char *name; result == 0 && (name = strsep(&rest, " ,"));) {
        if (name[0] && names->count == H5NAMES_MAX)
            return -1;
        if (name[0])
            names->name[names->count++] = name;
    }
    return names->count ? result : -1;
}
