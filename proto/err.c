/* err.c - see err.h. */
#include "proto/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int err_set(struct err *e, int code, const char *format, ...)
{
    if (e) {
        va_list args;
        va_start(args, format);
        vsnprintf(e->text, sizeof e->text, format, args);
        va_end(args);
        e->code = code;
    }
    return -1;
}

static int errno_is_temporary(int number)
{
    switch (number) {
    case ENOSPC:
    case EDQUOT:
    case EIO:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EAGAIN:
    case ETIMEDOUT:
        return 1;
    default:
        return 0;
    }
}

int err_errno(struct err *e, int code, const char *format, ...)
{
    int number = errno;
    if (e) {
        va_list args;
        va_start(args, format);
        int used = vsnprintf(e->text, sizeof e->text, format, args);
        va_end(args);
        if (used >= 0 && (size_t)used < sizeof e->text)
            snprintf(e->text + used, sizeof e->text - (size_t)used, ": %s", strerror(number));
        e->code = errno_is_temporary(number) ? EXIT_CODE_TEMPORARY : code;
    }
    errno = number;
    return -1;
}

int err_prefix(struct err *e, const char *format, ...)
{
    if (e) {
        char old[sizeof e->text];
        memcpy(old, e->text, sizeof old);
        va_list args;
        va_start(args, format);
        int used = vsnprintf(e->text, sizeof e->text, format, args);
        va_end(args);
        if (used >= 0 && (size_t)used < sizeof e->text - 2) {
            size_t room = sizeof e->text - (size_t)used;
            memcpy(e->text + used, ": ", 2);
            memcpy(e->text + used + 2, old, room - 2);
            e->text[sizeof e->text - 1] = '\0';
        }
    }
    return -1;
}

void ensure_failed(const char *file, int line, const char *expression)
{
    fprintf(stderr, "%s:%d: ensure(%s) failed\n", file, line, expression);
    abort();
}
