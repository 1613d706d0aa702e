/* link.c - messages over ZeroMQ. See link.h; the only file that includes zmq.h.
 *
 * A message is two frames, its name and its map; on a ROUTER the peer's routing id stands before
 * them. Multi-part messages arrive whole, so a message is taken or refused whole: frames beyond
 * those wanted are drained and the message counts as malformed. Everything is sent with
 * ZMQ_DONTWAIT. Facts that the options below rest on: a ROUTER drops silently unless
 * ROUTER_MANDATORY is set; a frame larger than ZMQ_MAXMSGSIZE costs its sender the connection
 * before it is buffered.
 */
#include "proto/link.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include <zmq.h>

enum {
    PATH_BYTES_MAX = 107,                 /* sun_path less its NUL */
    LINGER_MS = 200,                      /* given to unsent messages after link_close */
    RECONNECT_MS = 50,                    /* a restarted stage is found again this soon */
    FRAME_BYTES_MAX = MSG_BYTES_MAX + 64, /* a bit more, so that the codec says what is wrong */
    FRAMES_MAX = 3,
};

static pthread_mutex_t context_lock = PTHREAD_MUTEX_INITIALIZER;
static void *context; /* one a process, made with the first link */
static uint64_t own_incarnation;

void link_incarnation_set(uint64_t incarnation)
{
    own_incarnation = incarnation;
}

static void *context_get(void)
{
    pthread_mutex_lock(&context_lock);
    if (!context)
        context = zmq_ctx_new();
    void *made = context;
    pthread_mutex_unlock(&context_lock);
    return made;
}

void link_shutdown(void)
{
    pthread_mutex_lock(&context_lock);
    if (context)
        while (zmq_ctx_term(context) < 0 && errno == EINTR)
            ;
    context = NULL;
    pthread_mutex_unlock(&context_lock);
}

static int is_bound(enum link_kind kind)
{
    return kind == LINK_ROUTER || kind == LINK_PUB || kind == LINK_XPUB;
}

/* Writes the ipc address of `endpoint` in `run`, or refuses one that no socket path holds. */
static int address_make(char *address, size_t address_bytes, const char *run, const char *endpoint,
                        struct err *e)
{
    static const char scheme[] = "ipc://";
    const char *prefix = *run == '/' ? "" : "./"; /* "@run" would be an abstract name */
    int bytes =
        strcmp(run, ".") == 0
            ? snprintf(address, address_bytes, "%ssockets/%s", scheme, endpoint)
            : snprintf(address, address_bytes, "%s%s%s/sockets/%s", scheme, prefix, run, endpoint);
    bytes -= (int)strlen(scheme);
    if (bytes > PATH_BYTES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot use socket %s of run %s: its path has %d bytes, at most %d are "
                       "accepted; use a shorter run directory or a relative one",
                       endpoint, run, bytes, PATH_BYTES_MAX);
    return 0;
}

static int option_set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value);
}

static int options_set(struct link *l, const char *routing_id)
{
    const int64_t frame_bytes_max = FRAME_BYTES_MAX;
    void *s = l->socket;
    if (option_set(s, ZMQ_LINGER, LINGER_MS) < 0 || option_set(s, ZMQ_SNDHWM, LINK_QUEUE_MAX) < 0 ||
        option_set(s, ZMQ_RCVHWM, LINK_QUEUE_MAX) < 0 ||
        option_set(s, ZMQ_RECONNECT_IVL, RECONNECT_MS) < 0 ||
        zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &frame_bytes_max, sizeof frame_bytes_max) < 0)
        return -1;
    if (l->kind == LINK_ROUTER)
        return option_set(s, ZMQ_ROUTER_MANDATORY, 1);
    if (l->kind == LINK_DEALER)
        return zmq_setsockopt(s, ZMQ_ROUTING_ID, routing_id, strlen(routing_id));
    return 0;
}

int link_open(struct link *l, enum link_kind kind, const char *run, const char *endpoint,
              const char *routing_id, struct err *e)
{
    static const int types[] = {[LINK_ROUTER] = ZMQ_ROUTER,
                                [LINK_DEALER] = ZMQ_DEALER,
                                [LINK_PUB] = ZMQ_PUB,
                                [LINK_SUB] = ZMQ_SUB,
                                [LINK_XPUB] = ZMQ_XPUB};
    char address[sizeof "ipc://" + PATH_BYTES_MAX];
    ensure(kind == LINK_DEALER ? routing_id && *routing_id : !routing_id);
    ensure(!routing_id || strlen(routing_id) <= LINK_PEER_BYTES_MAX);
    *l = (struct link){.kind = kind};
    if (address_make(address, sizeof address, run, endpoint, e) < 0)
        return -1;
    memcpy(l->endpoint, address, sizeof address);

    void *made = context_get();
    l->socket = made ? zmq_socket(made, types[kind]) : NULL;
    if (!l->socket || options_set(l, routing_id) < 0)
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot make a socket for %s", l->endpoint);
    else if ((is_bound(kind) ? zmq_bind : zmq_connect)(l->socket, l->endpoint) < 0)
        err_errno(e, EXIT_CODE_PERMANENT, "cannot %s %s", is_bound(kind) ? "bind" : "connect to",
                  l->endpoint);
    else
        return 0;
    link_close(l);
    return -1;
}

void link_close(struct link *l)
{
    if (l->socket)
        zmq_close(l->socket);
    l->socket = NULL;
}

int link_subscribe(struct link *l, const char *prefix, struct err *e)
{
    ensure(l->kind == LINK_SUB);
    if (zmq_setsockopt(l->socket, ZMQ_SUBSCRIBE, prefix, strlen(prefix)) < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot subscribe to \"%s\" on %s", prefix,
                         l->endpoint);
    return 0;
}

/* Hands one frame to ZeroMQ. 0, or -1 when the queue is full or the peer is gone. */
static int frame_send(void *socket, const void *data, size_t bytes, int more)
{
    int sent;
    do
        sent = zmq_send(socket, data, bytes, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0));
    while (sent < 0 && errno == EINTR);
    ensure(sent >= 0 || errno == EAGAIN || errno == EHOSTUNREACH);
    return sent < 0 ? -1 : 0;
}

/* Takes one frame without waiting. 1, or 0 if none is there. */
static int frame_take(void *socket, zmq_msg_t *frame)
{
    int bytes;
    do
        bytes = zmq_msg_recv(frame, socket, ZMQ_DONTWAIT);
    while (bytes < 0 && errno == EINTR);
    ensure(bytes >= 0 || errno == EAGAIN);
    return bytes >= 0;
}

/* What subscribers of an XPUB say (subscribe, unsubscribe) has already been heeded by ZeroMQ, but
 * queues up until it is read. */
static void subscriptions_drain(struct link *l)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    while (frame_take(l->socket, &frame))
        ;
    zmq_msg_close(&frame);
}

static double unix_time_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int link_send(struct link *l, const struct link_peer *peer, enum msg_type type, void *m)
{
    unsigned char data[MSG_BYTES_MAX];
    struct msg_head *head = m;
    ensure(l->socket && l->kind != LINK_SUB && (l->kind == LINK_ROUTER) == (peer != NULL));
    *head = (struct msg_head){own_incarnation, ++l->seq[type], unix_time_s()};
    size_t bytes = msg_encode(type, m, data, sizeof data);
    const char *name = msg_name(type);
    if (l->kind == LINK_XPUB)
        subscriptions_drain(l);
    if (peer && frame_send(l->socket, peer->id, peer->bytes, 1) < 0)
        return -1;
    if (frame_send(l->socket, name, strlen(name), 1) < 0)
        return -1;
    return frame_send(l->socket, data, bytes, 0);
}

struct frames {
    zmq_msg_t frame[FRAMES_MAX];
    int kept, count; /* frames in `frame`; frames that came */
};

static void frames_open(struct frames *f)
{
    f->kept = f->count = 0;
    for (int i = 0; i < FRAMES_MAX; i++)
        zmq_msg_init(&f->frame[i]);
}

static void frames_close(struct frames *f)
{
    for (int i = 0; i < FRAMES_MAX; i++)
        zmq_msg_close(&f->frame[i]);
}

/* Takes all frames of one message, keeping the first `wanted`. 1, or 0 if no message is there. */
static int frames_take(struct frames *f, void *socket, int wanted)
{
    zmq_msg_t spare;
    int more = 1;
    zmq_msg_init(&spare);
    while (more) {
        zmq_msg_t *frame = f->count < wanted ? &f->frame[f->count] : &spare;
        if (!frame_take(socket, frame))
            break;
        f->count += f->count <= wanted; /* one more than wanted is enough to know */
        more = zmq_msg_more(frame);
    }
    zmq_msg_close(&spare);
    f->kept = f->count < wanted ? f->count : wanted;
    return f->count > 0;
}

/* Checks and decodes the frames of one message, and says who sent it. 0, or -1 and *e. */
static int frames_decode(struct frames *f, int wanted, struct link_peer *peer, enum msg_type *type,
                         union msg *m, struct err *e)
{
    if (wanted == FRAMES_MAX) {
        size_t bytes = zmq_msg_size(&f->frame[0]);
        peer->bytes = 0;
        if (bytes > LINK_PEER_BYTES_MAX)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "message refused: its sender has a routing id of %zu bytes; at most %d "
                           "are accepted",
                           bytes, LINK_PEER_BYTES_MAX);
        memcpy(peer->id, zmq_msg_data(&f->frame[0]), bytes);
        peer->bytes = (uint32_t)bytes;
    }
    if (f->count != wanted)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "message refused: it has %s two frames; a name and a map are accepted",
                       f->count < wanted ? "less than" : "more than");
    zmq_msg_t *name = &f->frame[wanted - 2], *map = &f->frame[wanted - 1];
    int found = msg_type_of(zmq_msg_data(name), zmq_msg_size(name));
    if (found < 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "message refused: its name, %zu bytes long, is not one of messages.def",
                       zmq_msg_size(name));
    *type = (enum msg_type)found;
    return msg_decode(*type, zmq_msg_data(map), zmq_msg_size(map), m, e);
}

int link_recv(struct link *l, struct link_peer *peer, enum msg_type *type, union msg *m,
              struct err *e)
{
    struct link_peer unasked;
    struct frames f;
    int wanted = l->kind == LINK_ROUTER ? FRAMES_MAX : FRAMES_MAX - 1;
    ensure(l->socket && l->kind != LINK_PUB);
    if (l->kind == LINK_XPUB) {
        subscriptions_drain(l);
        return 0;
    }
    frames_open(&f);
    int result = frames_take(&f, l->socket, wanted);
    if (result && frames_decode(&f, wanted, peer ? peer : &unasked, type, m, e) < 0) {
        l->malformed++;
        result = -1;
    }
    frames_close(&f);
    return result;
}

int link_forward(struct link *from, struct link *to, enum msg_type *type, union msg *m,
                 struct err *e)
{
    struct frames f;
    ensure(from->socket && from->kind == LINK_SUB);
    ensure(to->socket && (to->kind == LINK_XPUB || to->kind == LINK_PUB));
    if (to->kind == LINK_XPUB)
        subscriptions_drain(to);
    frames_open(&f);
    int result = frames_take(&f, from->socket, FRAMES_MAX - 1);
    if (result && frames_decode(&f, FRAMES_MAX - 1, NULL, type, m, e) < 0) {
        from->malformed++;
        result = -1;
    }
    for (int i = 0; result == 1 && i < f.kept; i++)
        if (frame_send(to->socket, zmq_msg_data(&f.frame[i]), zmq_msg_size(&f.frame[i]),
                       i + 1 < f.kept) < 0)
            break; /* as PUB does: dropped */
    frames_close(&f);
    return result;
}

int link_poll(struct link_poll_item *items, int count, int timeout_ms)
{
    zmq_pollitem_t polled[LINK_POLL_ITEMS_MAX];
    ensure(count >= 0 && count <= LINK_POLL_ITEMS_MAX);
    for (int i = 0; i < count; i++) {
        void *socket = items[i].link ? items[i].link->socket : NULL;
        int fd = items[i].link ? -1 : items[i].fd; /* a closed link is never ready */
        polled[i] = (zmq_pollitem_t){socket, fd, ZMQ_POLLIN | ZMQ_POLLERR, 0};
        items[i].ready = 0;
    }
    int ready = zmq_poll(polled, count, timeout_ms);
    ensure(ready >= 0 || errno == EINTR);
    for (int i = 0; ready > 0 && i < count; i++)
        items[i].ready = polled[i].revents != 0;
    return ready < 0 ? 0 : ready;
}
