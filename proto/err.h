/* err.h - how functions fail, and how processes end.
 *
 * Three kinds of trouble (docs of the house: "errors and logs"):
 *   we are wrong          ensure(cond), always compiled in, aborts with file, line, expression;
 *   the world is wrong    the function returns -1 (or NULL) and fills a struct err with one
 * sentence that says what was attempted, on what, why it failed, what is accepted; no memory at
 * start    the world. Nothing here prints or exits: only proto/daemon.c ends a process.
 */
#ifndef PROTO_ERR_H
#define PROTO_ERR_H

/* Exit codes shared by every program of the house. */
enum exit_code {
    EXIT_CODE_DONE = 0,        /* the work is finished */
    EXIT_CODE_PAUSED = 75,     /* stopped by its own time limit: the same command goes on */
    EXIT_CODE_PERMANENT = 100, /* a restart cannot help: bad option, bad data, incompatible peer */
    EXIT_CODE_TEMPORARY = 111, /* a restart may help: disk full, peer gone, lock held */
};

struct err {
    int code;       /* an enum exit_code; 0: no error */
    char text[768]; /* one sentence, no newline, NUL-terminated, truncated at the limit */
};

/* Fill *e with `code` and a printf-formatted sentence (e may be NULL). Returns -1 always, so that
 * `return err_set(e, EXIT_CODE_PERMANENT, "cannot open %s: ...", path);` reads well. */
int err_set(struct err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As err_set, with ": " and strerror(errno) added. ENOSPC, EDQUOT, EIO, ENOMEM, EMFILE, ENFILE,
 * EAGAIN and ETIMEDOUT become EXIT_CODE_TEMPORARY whatever `code` says. errno is preserved. */
int err_errno(struct err *e, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "prefix: " before the sentence already in *e, keeping its code. Returns -1. */
int err_prefix(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

void ensure_failed(const char *file, int line, const char *expression) __attribute__((noreturn));

#define ensure(cond) ((cond) ? (void)0 : ensure_failed(__FILE__, __LINE__, #cond))

#endif
