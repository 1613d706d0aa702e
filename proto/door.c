/* door.c - see door.h: the AF_UNIX side of a stream, through which the arena's descriptor passes.
 *
 * It knows packets and descriptors, not what is in them. Credentials are the kernel's
 * (SO_PEERCRED): at the accepting end those of the process that connected, at the connecting end
 * those of the process that listens. Nothing here waits.
 */
#include "proto/door.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { DOOR_BACKLOG = 64 };

static int address_fill(struct sockaddr_un *address, const char *path, struct err *e)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof address->sun_path)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot use %s as a socket: its path has %zu bytes, 1 to %zu are possible",
                       path, length, sizeof address->sun_path - 1);
    memcpy(address->sun_path, path, length + 1);
    return 0;
}

static int socket_make(struct err *e)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 ? err_errno(e, EXIT_CODE_TEMPORARY, "cannot make a socket for the door") : fd;
}

/* 0 and *pid if the peer runs under our user. */
static int peer_check(int fd, pid_t *pid, struct err *e)
{
    struct ucred peer;
    socklen_t bytes = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot ask who is at the door");
    if (peer.uid != geteuid())
        return err_set(e, EXIT_CODE_PERMANENT,
                       "refused process %d at the door: its user is %u, only our own, %u, may come",
                       (int)peer.pid, (unsigned)peer.uid, (unsigned)geteuid());
    *pid = peer.pid;
    return 0;
}

int door_listen(const char *path, struct err *e)
{
    struct sockaddr_un address;
    if (address_fill(&address, path, e) < 0)
        return -1;
    int fd = socket_make(e);
    if (fd < 0)
        return -1;
    unlink(path); /* an old one refuses connections; if it cannot go, bind says so */
    /* Linux gives the socket file the mode of the socket, so there is no moment with a wider one.
     */
    if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, DOOR_BACKLOG) < 0) {
        err_errno(e, EXIT_CODE_PERMANENT, "cannot listen on %s", path);
        close(fd);
        return -1;
    }
    return fd;
}

int door_accept(int listener, pid_t *pid, struct err *e)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) < 0 && errno == EINTR)
        ;
    if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED))
        return err_set(e, 0, "nobody is at the door");
    if (fd < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot open the door to a consumer");
    if (peer_check(fd, pid, e) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int door_connect(const char *path, pid_t *pid, struct err *e)
{
    struct sockaddr_un address;
    int connected;
    if (address_fill(&address, path, e) < 0)
        return -1;
    int fd = socket_make(e);
    if (fd < 0)
        return -1;
    while ((connected = connect(fd, (struct sockaddr *)&address, sizeof address)) < 0 &&
           errno == EINTR)
        ;
    if (connected < 0)
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot come to the door %s", path);
    if (connected < 0 || peer_check(fd, pid, e) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Ancillary data of a packet, aligned as the kernel wants it. */
union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(DOOR_FDS_MAX * sizeof(int))];
};

int door_send(int connection, const void *data, size_t bytes, const int *fds, int fd_count,
              struct err *e)
{
    struct iovec part = {(void *)data, bytes};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1};
    union control control;
    ssize_t sent;

    ensure(bytes > 0 && fd_count >= 0 && fd_count <= DOOR_FDS_MAX);
    if (fd_count > 0) {
        size_t fds_bytes = (size_t)fd_count * sizeof(int);
        memset(&control, 0, sizeof control);
        control.header = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(fds_bytes)};
        memcpy(CMSG_DATA(&control.header), fds, fds_bytes);
        packet.msg_control = &control;
        packet.msg_controllen = CMSG_SPACE(fds_bytes);
    }
    while ((sent = sendmsg(connection, &packet, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0 && errno == EINTR)
        ;
    if (sent < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot send a packet through the door");
    return 0;
}

/* Takes the descriptors out of a received packet; at most DOOR_FDS_MAX fitted into its room. */
static int fds_take(struct msghdr *packet, int *fds)
{
    int count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(packet); c; c = CMSG_NXTHDR(packet, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t bytes = c->cmsg_len - CMSG_LEN(0);
        ensure((size_t)count + bytes / sizeof(int) <= DOOR_FDS_MAX);
        memcpy(fds + count, CMSG_DATA(c), bytes);
        count += (int)(bytes / sizeof(int));
    }
    return count;
}

ssize_t door_recv(int connection, void *data, size_t capacity, int *fds, int *fd_count,
                  struct err *e)
{
    struct iovec part = {data, capacity};
    union control control;
    struct msghdr packet = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof control};
    ssize_t received;

    *fd_count = 0;
    while ((received = recvmsg(connection, &packet, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)) < 0 &&
           errno == EINTR)
        ;
    if (received < 0 && errno == EAGAIN)
        return err_set(e, 0, "nothing came through the door");
    if (received < 0 && errno == ECONNRESET)
        return 0; /* the peer died with a packet of ours unread */
    if (received < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot receive a packet through the door");

    *fd_count = fds_take(&packet, fds);
    if (!(packet.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return received;
    while (*fd_count > 0)
        close(fds[--*fd_count]);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "refused a packet at the door: more than %zu bytes or %d descriptors", capacity,
                   DOOR_FDS_MAX);
}
