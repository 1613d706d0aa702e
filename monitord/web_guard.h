/* web_guard.h - who may see and steer runs over HTTP: whoever can read the token, which is this
 * user alone.
 *
 * Every program of the machine, of every user, can connect to 127.0.0.1. So the pages themselves
 * are for anybody, and everything that is said of runs, or done to them, needs the token of this
 * start of the server: 128 random bits, in the address that it prints; for
 * Prometheus another one, with which figures can be read and nothing be done, in a file if wanted.
 * It is no cookie, since a browser gives those of one port to all ports. Requests that a foreign
 * page has made are refused by their Host (a name of somebody's that leads here) and Origin.
 */
#ifndef MONITORD_WEB_GUARD_H
#define MONITORD_WEB_GUARD_H

#include "monitord/web_http.h"
#include "proto/err.h"

enum { GUARD_TOKEN_CHARS = 32 };

struct guard {
    char token[GUARD_TOKEN_CHARS + 1];   /* hexadecimal */
    char reading[GUARD_TOKEN_CHARS + 1]; /* what it is good for is GET alone */
};

/* New tokens; that for reading is also written to the file (0600, in place of an earlier one; NULL:
 * to none). */
int guard_open(struct guard *g, const char *file, struct err *e);

/* NULL: it may be answered; else the sentence of the refusal (403). */
const char *guard_host_refuses(const struct http_request *q);
const char *guard_token_refuses(const struct guard *g, const struct http_request *q);

#endif
