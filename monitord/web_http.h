/* web_http.h - HTTP for the web page, on this machine only. web_http.c owns libmicrohttpd.
 *
 * One thread: the caller's loop waits for http.fd and calls http_turn, in which requests are
 * answered. Connections of other users than this one and root are closed. It listens on 127.0.0.1
 * and nowhere else, for HTTP is neither encrypted nor would a password in it be: from another
 * machine it is reached through ssh. What a client can make it keep is bounded: HTTP_CLIENTS_MAX
 * connections of 32 KiB, each for 30 s without a word.
 */
#ifndef MONITORD_WEB_HTTP_H
#define MONITORD_WEB_HTTP_H

#include <stddef.h>
#include <stdint.h>

#include "proto/err.h"

enum { HTTP_CLIENTS_MAX = 32, HTTP_BODY_MAX = 1024 };

/* What is asked. All texts are borrowed for the call; NULL: not there. */
struct http_request {
    int post;         /* else GET; others are refused before */
    const char *path; /* decoded, begins with a slash */
    const char *host, *origin, *authorization;
    const char *body; /* of a POST; "" without one */
    void *connection; /* for http_argument */
};

/* Value of ?name=value, decoded; NULL: not there. */
const char *http_argument(const struct http_request *q, const char *name);

/* What is answered. */
struct http_answer {
    unsigned status;  /* 200, ... */
    const char *type; /* of the content; stays valid */
    const char *body; /* stays valid; NULL: what is owned, which is freed when it has been sent */
    char *owned;
    size_t bytes; /* of either, or of the file */
    int file;     /* a descriptor, closed when it has been sent; 0: none */
};

typedef void http_handler(void *self, const struct http_request *q, struct http_answer *a);

struct http {
    void *daemon; /* NULL: closed */
    http_handler *answer;
    void *self;
    uint16_t port; /* on which it listens */
    int fd;        /* becomes readable when http_turn has something to do */
};

/* port 0: any that is free. -1 and *e (permanent): another program has it. */
int http_open(struct http *h, uint16_t port, http_handler *answer, void *self, struct err *e);
void http_close(struct http *h); /* harmless twice */

/* Answers what has come, or a piece of it; also every second, for those that have fallen silent. 1:
 * there is more to do at once, which http.fd does not tell. */
int http_turn(struct http *h);

#endif
