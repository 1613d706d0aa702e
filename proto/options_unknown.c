/* options_unknown.c - the unknown keys of all sources, told together: whoever brings a file that
 * was written for something else has many of them. One alone has a sentence of its own.
 */
#include <stdarg.h>
#include <string.h>

#include "proto/options_parts.h"

#define MANY                                                                                       \
    "%u unknown options, each with the nearest there is: %s%s; docs/OPTIONS.md lists them all"

enum {
    MORE_BYTES = sizeof ", and 4294967295 more",
    MANY_BYTES = sizeof ": 4294967295" + sizeof MANY + MORE_BYTES,
    SOURCE_BYTES = 300, /* of a file's name (origin_error) */
};

void unknowns_begin(struct unknowns *u, const char *file)
{
    memset(u, 0, sizeof *u);
    u->file = file;
    u->room = sizeof u->list - MANY_BYTES - strnlen(file, SOURCE_BYTES);
    _Static_assert(sizeof u->list > MANY_BYTES + SOURCE_BYTES, "there is room for some");
}

/* One more of the list; the first that does not fit is its end. */
static void __attribute__((format(printf, 2, 3)))
item_add(struct unknowns *u, const char *format, ...)
{
    size_t used = u->used + (size_t)sprintf(u->list + u->used, "%s", u->listed ? ", " : "");
    size_t left = u->room > used ? u->room - used : 0;
    va_list args;
    va_start(args, format);
    int bytes = vsnprintf(u->list + used, left, format, args);
    va_end(args);
    u->full = bytes < 0 || (size_t)bytes >= left;
    if (u->full)
        u->list[u->used] = '\0';
    else
        u->used = used + (size_t)bytes;
    u->listed += !u->full;
}

void unknown_add(struct unknowns *u, const struct option_row *rows, size_t count,
                 const char *prefix, const char *key, struct origin at)
{
    char shown[SHOWN_BYTES], source[SHOWN_BYTES];
    if (++u->count > 1 && u->full)
        return;
    const char *nearest = key_nearest(rows, count, key);
    const char *before = nearest ? prefix : "";
    text_show(key, shown);
    if (u->count == 1 && nearest)
        origin_error(at, &u->first, "unknown option %s%s; the nearest is %s%s", prefix, shown,
                     prefix, nearest);
    else if (u->count == 1)
        origin_error(at, &u->first,
                     "unknown option %s%s; none is like it, and docs/OPTIONS.md lists them", prefix,
                     shown);
    nearest = nearest ? nearest : "none";
    if (at.line == 0)
        item_add(u, "%s (%s%s)", text_show(at.source, source), before, nearest);
    else if (strcmp(at.source, u->file) == 0)
        item_add(u, "line %d %s%s (%s%s)", at.line, prefix, shown, before, nearest);
    else
        item_add(u, "%s:%d %s%s (%s%s)", text_show(at.source, source), at.line, prefix, shown,
                 before, nearest);
}

int unknowns_error(const struct unknowns *u, struct err *e)
{
    char more[MORE_BYTES] = "";
    if (u->count == 1)
        return err_set(e, u->first.code, "%s", u->first.text);
    if (u->count > u->listed)
        snprintf(more, sizeof more, ", and %u more", u->count - u->listed);
    return origin_error((struct origin){u->file, 0}, e, MANY, u->count, u->list, more);
}
