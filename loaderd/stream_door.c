/* stream_door.c - who comes through loader.door: a visitor says which stream it is for and brings
 * the arena; after that its connection only tells, by hanging up, that the consumer is gone.
 */
#include "loaderd/stream_private.h"

#include <stdio.h>
#include <unistd.h>

#include "proto/door.h"
#include "proto/log.h"

void stream_door_answer(int connection, int ok, const char *reason)
{
    struct door_welcome welcome = {.magic = DOOR_MAGIC, .ok = ok};
    struct err ignored; /* a consumer that is gone shows as a hang-up */
    snprintf(welcome.text, sizeof welcome.text, "%s", reason);
    door_send(connection, &welcome, sizeof welcome, NULL, 0, &ignored);
}

static void door_open(struct streams *s)
{
    struct err e = {0};
    pid_t pid;
    int connection;
    while ((connection = door_accept(s->listener, &pid, &e)) >= 0) {
        int i = 0;
        while (i < STREAMS_MAX && s->visitor[i].connection >= 0)
            i++;
        if (i == STREAMS_MAX || streams_wake_add(s, connection) != 0) {
            stream_door_answer(connection, 0, "too many consumers stand in the door");
            close(connection);
            continue;
        }
        s->visitor[i].connection = connection;
        s->visitor[i].since_ms = stream_now_ms();
    }
    if (e.code)
        log_warn("part=door %s", e.text);
}

/* A visitor's hello names its stream and brings the arena. Takes over connection and fds. */
static void visitor_hello(struct streams *s, int connection, const struct door_hello *hello,
                          size_t bytes, int *fds, int fd_count)
{
    struct stream **st_p = NULL;
    const char *why = NULL;
    if (bytes != sizeof *hello || hello->magic != DOOR_MAGIC || hello->reserved || fd_count != 1)
        why = "this is no hello of this version: expected its struct with one memfd";
    else if (!(st_p = stream_find(s, hello->stream)))
        why = "there is no such stream; open it again";
    else if ((*st_p)->door >= 0 || (*st_p)->server.state != SERVER_OPENED)
        why = "the stream already has its arena or was not opened yet";
    if (why) {
        stream_door_answer(connection, 0, why);
        close(connection);
        while (fd_count > 0)
            close(fds[--fd_count]);
        return;
    }
    (*st_p)->door = connection;
    (*st_p)->arena = fds[0];
    (*st_p)->slots = hello->slots;
    (*st_p)->slot_bytes = hello->slot_bytes;
    stream_step(s, st_p,
                &(struct server_event){.type = SERVER_EV_HELLO,
                                       .now_ms = stream_now_ms(),
                                       .slots = hello->slots,
                                       .slot_bytes = hello->slot_bytes});
    if (*st_p && (*st_p)->server.state == SERVER_OPENED) { /* refused: another may come */
        close((*st_p)->door);
        close((*st_p)->arena);
        (*st_p)->door = (*st_p)->arena = -1;
    }
}

static void visitor_hear(struct streams *s, int i)
{
    struct door_hello hello;
    struct err e = {0};
    int fds[DOOR_FDS_MAX], fd_count = 0, connection = s->visitor[i].connection;
    ssize_t got = door_recv(connection, &hello, sizeof hello, fds, &fd_count, &e);
    if (got > 0) {
        s->visitor[i].connection = -1;
        visitor_hello(s, connection, &hello, (size_t)got, fds, fd_count);
    } else if (got == 0 || e.code ||
               stream_now_ms() - s->visitor[i].since_ms > STREAM_DOOR_TIMEOUT_MS) {
        s->visitor[i].connection = -1;
        close(connection);
    }
}

/* After the hello a consumer says nothing more here: whatever comes is its end. */
void stream_door_hear(struct streams *s, struct stream **st_p)
{
    char data[16];
    struct err e = {0};
    int fds[DOOR_FDS_MAX], fd_count = 0;
    ssize_t got = door_recv((*st_p)->door, data, sizeof data, fds, &fd_count, &e);
    while (fd_count > 0)
        close(fds[--fd_count]);
    if (got >= 0 || e.code)
        stream_step(s, st_p,
                    &(struct server_event){.type = SERVER_EV_HANGUP, .now_ms = stream_now_ms()});
}

void streams_visitors_hear(struct streams *s, int knocked)
{
    if (knocked)
        door_open(s);
    for (int i = 0; i < STREAMS_MAX; i++)
        if (s->visitor[i].connection >= 0)
            visitor_hear(s, i);
}
