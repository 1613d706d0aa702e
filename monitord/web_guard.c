/* web_guard.c - see web_guard.h. */
#include "monitord/web_guard.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"

static int token_make(char token[GUARD_TOKEN_CHARS + 1], struct err *e)
{
    unsigned char bytes[GUARD_TOKEN_CHARS / 2];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot make a token: no random numbers");
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(token + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

/* For this user alone. */
static int token_write(const struct guard *g, const char *file, struct err *e)
{
    char line[GUARD_TOKEN_CHARS + 2];
    int length = snprintf(line, sizeof line, "%s\n", g->reading);
    mode_t before = umask(S_IRWXG | S_IRWXO);
    int result = durable_write(file, line, (size_t)length, e);
    umask(before);
    return result;
}

int guard_open(struct guard *g, const char *file, struct err *e)
{
    if (token_make(g->token, e) < 0 || token_make(g->reading, e) < 0)
        return -1;
    return file ? token_write(g, file, e) : 0;
}

/* "localhost", "127.0.0.1" or "[::1]", with a port or without; through ssh it is another port. */
static int host_is_here(const char *host)
{
    static const char *const here[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < sizeof here / sizeof *here; i++) {
        size_t length = strlen(here[i]);
        if (strncasecmp(host, here[i], length) == 0 && (!host[length] || host[length] == ':'))
            return 1;
    }
    return 0;
}

const char *guard_host_refuses(const struct http_request *q)
{
    static const char scheme[] = "http://";
    if (!q->host || !host_is_here(q->host))
        return "Only requests to localhost and 127.0.0.1 are answered.\n";
    if (q->origin && (strncmp(q->origin, scheme, sizeof scheme - 1) != 0 ||
                      strcasecmp(q->origin + sizeof scheme - 1, q->host) != 0))
        return "Requests of other pages are not answered.\n";
    return NULL;
}

/* In a time that says nothing of where they differ. */
static int token_is(const char *token, const char *text)
{
    unsigned differs = 0;
    if (strlen(text) != GUARD_TOKEN_CHARS)
        return 0;
    for (size_t i = 0; i < GUARD_TOKEN_CHARS; i++)
        differs |= (unsigned)(text[i] ^ token[i]);
    return differs == 0;
}

const char *guard_token_refuses(const struct guard *g, const struct http_request *q)
{
    static const char scheme[] = "Bearer ";
    const char *given = q->authorization;
    int is_bearer = given && strncasecmp(given, scheme, sizeof scheme - 1) == 0;
    if (is_bearer && token_is(g->token, given + sizeof scheme - 1))
        return NULL;
    if (is_bearer && token_is(g->reading, given + sizeof scheme - 1))
        return q->post ? "This token is for reading alone.\n" : NULL;
    return "The token is missing or of an earlier start: open the address that web.sh printed, or "
           "send \"Authorization: Bearer TOKEN\".\n";
}
