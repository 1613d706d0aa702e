/* web_http.c - see web_http.h. */
#include "monitord/web_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitord/web_peer.h"

enum { CLIENT_BYTES_MAX = 32 * 1024, SILENCE_S_MAX = 30, TURN_RUNS_MAX = 64 };

/* A request while its body comes. */
struct pending {
    size_t bytes;
    int too_long;
    char body[HTTP_BODY_MAX + 1];
};

const char *http_argument(const struct http_request *q, const char *name)
{
    return MHD_lookup_connection_value(q->connection, MHD_GET_ARGUMENT_KIND, name);
}

static const char *header(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

/* No script but ours, no frame around it, nothing kept by anybody on the way. */
static void headers_add(struct MHD_Response *response, const struct http_answer *a)
{
    static const char *const always[][2] = {
        {"Content-Security-Policy",
         "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
         "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"},
        {"X-Content-Type-Options", "nosniff"},
        {"Referrer-Policy", "no-referrer"},
        {"Cache-Control", "no-store"},
    };
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        MHD_add_response_header(response, always[i][0], always[i][1]);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, a->type);
}

static enum MHD_Result answer_queue(struct MHD_Connection *connection, struct http_answer *a)
{
    struct MHD_Response *response =
        a->file ? MHD_create_response_from_fd64(a->bytes, a->file)
                : MHD_create_response_from_buffer(a->bytes, a->owned ? a->owned : (char *)a->body,
                                                  a->owned ? MHD_RESPMEM_MUST_FREE
                                                           : MHD_RESPMEM_PERSISTENT);
    if (!response) {
        free(a->owned);
        if (a->file)
            close(a->file);
        return MHD_NO; /* no memory: the connection is closed */
    }
    headers_add(response, a);
    enum MHD_Result queued = MHD_queue_response(connection, a->status, response);
    MHD_destroy_response(response);
    return queued;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status, const char *why)
{
    struct http_answer a = {.status = status, .type = "text/plain; charset=utf-8", .body = why};
    a.bytes = strlen(why);
    return answer_queue(connection, &a);
}

static void body_take(struct pending *p, const char *data, size_t bytes)
{
    if (bytes > HTTP_BODY_MAX - p->bytes)
        p->too_long = 1;
    else
        memcpy(p->body + p->bytes, data, bytes), p->bytes += bytes;
}

/* Called at the request's head, for each piece of its body, and when it is whole. */
static enum MHD_Result request_see(void *cls, struct MHD_Connection *connection, const char *url,
                                   const char *method, const char *version, const char *data,
                                   size_t *bytes, void **state)
{
    struct http *h = cls;
    struct pending *p = *state;
    (void)version;
    if (!p) {
        *state = p = calloc(1, sizeof *p);
        return p ? MHD_YES : MHD_NO;
    }
    if (*bytes) {
        body_take(p, data, *bytes);
        *bytes = 0;
        return MHD_YES;
    }
    int post = strcmp(method, "POST") == 0;
    if (!post && strcmp(method, "GET") != 0)
        return refuse(connection, 405, "GET and POST are accepted.\n");
    if (p->too_long)
        return refuse(connection, 413, "A text of at most 1,024 bytes is accepted.\n");
    struct http_request q = {
        .post = post,
        .path = url,
        .host = header(connection, "Host"),
        .origin = header(connection, "Origin"),
        .authorization = header(connection, "Authorization"),
        .body = p->body,
        .connection = connection,
    };
    struct http_answer a = {.status = 500, .type = "text/plain; charset=utf-8", .body = ""};
    h->answer(h->self, &q, &a);
    return answer_queue(connection, &a);
}

static void request_end(void *cls, struct MHD_Connection *connection, void **state,
                        enum MHD_RequestTerminationCode how)
{
    (void)cls, (void)connection, (void)how;
    free(*state);
    *state = NULL;
}

/* What it says of clients that break off is of no use to anybody. */
static void log_nothing(void *cls, const char *format, va_list args)
{
    (void)cls, (void)format, (void)args;
}

/* Whose the other end of a connection is, the kernel's table says. */
static enum MHD_Result client_see(void *cls, const struct sockaddr *address, socklen_t bytes)
{
    const struct http *h = cls;
    const struct sockaddr_in *from = (const struct sockaddr_in *)address;
    uid_t user;
    if (bytes < sizeof *from || from->sin_family != AF_INET ||
        web_peer_user(ntohs(from->sin_port), h->port, &user) < 0)
        return MHD_NO;
    return user == geteuid() || user == 0 ? MHD_YES : MHD_NO;
}

int http_open(struct http *h, uint16_t port, http_handler *answer, void *self, struct err *e)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *h = (struct http){.answer = answer, .self = self, .fd = -1};
    errno = 0;
    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, client_see, h, request_see, h,
        MHD_OPTION_EXTERNAL_LOGGER, log_nothing, NULL, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&at,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CLIENTS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)SILENCE_S_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CLIENT_BYTES_MAX,
        MHD_OPTION_NOTIFY_COMPLETED, request_end, NULL, MHD_OPTION_END);
    if (!h->daemon)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot listen on 127.0.0.1, port %u%s", port,
                         port ? "; another one is taken with --port" : "");
    h->port = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
    h->fd = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    return 0;
}

void http_close(struct http *h)
{
    if (h->daemon)
        MHD_stop_daemon(h->daemon);
    *h = (struct http){.fd = -1};
}

int http_turn(struct http *h)
{
    MHD_UNSIGNED_LONG_LONG wait_ms;
    int more = 1;
    for (int runs = 0; more && runs < TURN_RUNS_MAX; runs++) {
        MHD_run(h->daemon);
        more = MHD_get_timeout(h->daemon, &wait_ms) == MHD_YES && wait_ms == 0;
    }
    return more;
}
