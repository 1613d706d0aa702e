/* mark.c - see mark.h. */
#include "proto/mark.h"

#include <string.h>

#include "proto/msg_fields.h"

enum { TEXT_BYTES_MAX = sizeof((struct msg_mark *)0)->text - 1 };

static const char accepted[] = "printable UTF-8 is accepted";

/* Of C0, DEL and C1 (in UTF-8 0xc2 0x80 to 0xc2 0x9f). */
static int is_control(const unsigned char *s)
{
    return s[0] < 0x20 || s[0] == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0);
}

int mark_check(const char *text, struct err *e)
{
    size_t bytes = strlen(text);
    if (bytes == 0 || bytes > TEXT_BYTES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the text of a mark has %zu bytes; 1 to %d are accepted", bytes,
                       TEXT_BYTES_MAX);
    for (size_t at = 0, step; at < bytes; at += step) {
        step = msg_utf8_bytes(text + at, bytes - at);
        if (step == 0)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "the text of a mark is no UTF-8 from byte %zu on; %s", at, accepted);
        if (is_control((const unsigned char *)text + at))
            return err_set(e, EXIT_CODE_PERMANENT,
                           "the text of a mark has a control character at byte %zu; %s", at,
                           accepted);
    }
    return 0;
}
