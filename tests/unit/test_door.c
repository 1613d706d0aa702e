/* test_door.c - proto/door: packets and descriptors pass, hang-up shows, strangers and excess do
 * not. */
#include "proto/door.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/test.h"

struct pair {
    int listener, near, far; /* near connected, far accepted */
};

static struct pair pair_make(void)
{
    struct pair p;
    struct err e;
    pid_t pid = 0;
    CHECK_OK(p.listener = door_listen("door", &e), e);
    CHECK_OK(p.near = door_connect("door", &pid, &e), e);
    CHECK_EQ(pid, getpid());
    pid = 0;
    CHECK_OK(p.far = door_accept(p.listener, &pid, &e), e);
    CHECK_EQ(pid, getpid());
    return p;
}

static void wait_readable(int fd)
{
    struct pollfd item = {.fd = fd, .events = POLLIN};
    CHECK(poll(&item, 1, 10000) == 1);
}

TEST(a_packet_takes_its_descriptors_along)
{
    struct pair p = pair_make();
    struct door_hello hello = {.magic = DOOR_MAGIC, .stream = 7, .slots = 3, .slot_bytes = 4096};
    struct door_hello got;
    int sent[2], fds[DOOR_FDS_MAX], count = -1;
    struct err e;
    CHECK(pipe(sent) == 0);
    CHECK_OK(door_send(p.near, &hello, sizeof hello, sent, 2, &e), e);
    CHECK_EQ(door_recv(p.far, &got, sizeof got, fds, &count, &e), sizeof hello);
    CHECK_EQ(count, 2);
    CHECK(memcmp(&got, &hello, sizeof got) == 0);
    CHECK(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
    CHECK(write(fds[1], "x", 1) == 1);
    char c = 0;
    CHECK(read(sent[0], &c, 1) == 1 && c == 'x');
}

TEST(packets_keep_their_borders)
{
    struct pair p = pair_make();
    char data[16];
    int fds[DOOR_FDS_MAX], count;
    struct err e;
    CHECK_OK(door_send(p.near, "one", 3, NULL, 0, &e), e);
    CHECK_OK(door_send(p.near, "three", 5, NULL, 0, &e), e);
    CHECK_EQ(door_recv(p.far, data, sizeof data, fds, &count, &e), 3);
    CHECK_EQ(door_recv(p.far, data, sizeof data, fds, &count, &e), 5);
    CHECK_EQ(count, 0);
    e.code = 1;
    CHECK_EQ(door_recv(p.far, data, sizeof data, fds, &count, &e), -1);
    CHECK_EQ(e.code, 0);
}

TEST(nothing_waits)
{
    struct err e = {.code = 1};
    pid_t pid;
    int listener;
    CHECK_OK(listener = door_listen("door", &e), e);
    CHECK(door_accept(listener, &pid, &e) == -1 && e.code == 0);
    CHECK(fcntl(listener, F_GETFL) & O_NONBLOCK);
}

TEST(too_much_is_refused_and_closed)
{
    struct pair p = pair_make();
    char data[8] = {0};
    int sent[DOOR_FDS_MAX + 1], fds[DOOR_FDS_MAX], count;
    struct err e;
    for (int i = 0; i <= DOOR_FDS_MAX; i++)
        sent[i] = dup(0);
    CHECK_OK(door_send(p.near, "ninebytes", 9, sent, DOOR_FDS_MAX, &e), e);
    CHECK_EQ(door_recv(p.far, data, sizeof data, fds, &count, &e), -1);
    CHECK(e.code == EXIT_CODE_PERMANENT && count == 0);
    CHECK(dup(0) == sent[DOOR_FDS_MAX] + 1); /* what had come was closed again */

    /* one descriptor more than door_send would send */
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof sent)];
    } control;
    struct iovec part = {data, 4};
    struct msghdr packet = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof control};
    memset(&control, 0, sizeof control);
    control.header = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof sent)};
    memcpy(CMSG_DATA(&control.header), sent, sizeof sent);
    CHECK(sendmsg(p.near, &packet, 0) == 4);
    CHECK_EQ(door_recv(p.far, data, sizeof data, fds, &count, &e), -1);
    CHECK(e.code == EXIT_CODE_PERMANENT && count == 0);

    CHECK_OK(door_send(p.near, "eight___", 8, sent, DOOR_FDS_MAX, &e), e); /* the limit itself */
    CHECK_EQ(door_recv(p.far, data, sizeof data, fds, &count, &e), 8);
    CHECK_EQ(count, DOOR_FDS_MAX);
}

TEST(hangup_shows_at_both_ends)
{
    char data[8];
    int fds[DOOR_FDS_MAX], count;
    struct err e;
    struct pair p = pair_make();
    close(p.near);
    CHECK_EQ(door_recv(p.far, data, sizeof data, fds, &count, &e), 0);
    CHECK(door_send(p.far, "x", 1, NULL, 0, &e) < 0 && e.code != 0);
    close(p.far);
    close(p.listener);

    p = pair_make();
    CHECK_OK(door_send(p.near, "unread", 6, NULL, 0, &e), e);
    close(p.far); /* with a packet unread: the other end sees a reset, which is the same */
    CHECK_EQ(door_recv(p.near, data, sizeof data, fds, &count, &e), 0);
}

/* The proof of death: while any process holds the far end there is no hang-up, then there is. */
TEST(hangup_comes_when_the_last_holder_dies)
{
    struct pair p = pair_make();
    char data[8];
    int fds[DOOR_FDS_MAX], count;
    struct err e;
    pid_t child = fork();
    if (child == 0) {
        close(p.near);
        pause();
        _exit(0);
    }
    close(p.far);
    CHECK_EQ(door_recv(p.near, data, sizeof data, fds, &count, &e), -1);
    CHECK_EQ(e.code, 0);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    wait_readable(p.near);
    CHECK_EQ(door_recv(p.near, data, sizeof data, fds, &count, &e), 0);
}

TEST(socket_file_is_ours_alone_and_replaces_an_old_one)
{
    struct err e;
    struct stat st;
    pid_t pid;
    int first, second;
    CHECK_OK(first = door_listen("door", &e), e);
    CHECK(stat("door", &st) == 0 && (st.st_mode & 0777) == 0600);
    CHECK_OK(second = door_listen("door", &e), e);
    CHECK_OK(door_connect("door", &pid, &e), e);
    CHECK(door_accept(first, &pid, &e) == -1 && e.code == 0);
    CHECK_OK(door_accept(second, &pid, &e), e);
}

TEST(no_listener_is_temporary)
{
    struct err e;
    pid_t pid;
    CHECK(door_connect("nowhere", &pid, &e) < 0 && e.code == EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "nowhere");
    int listener;
    CHECK_OK(listener = door_listen("door", &e), e);
    close(listener); /* the file stays behind, as after a kill */
    CHECK(door_connect("door", &pid, &e) < 0 && e.code == EXIT_CODE_TEMPORARY);
    char path[200];
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    CHECK(door_listen(path, &e) < 0 && e.code == EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "199");
}

TEST(another_user_is_refused)
{
    struct err e;
    int listener, status;
    pid_t pid;
    if (geteuid() != 0)
        test_skip("only root can become another user");
    CHECK_OK(listener = door_listen("door", &e), e);
    CHECK(chmod("door", 0666) == 0 && chmod(".", 0755) == 0);
    pid_t child = fork();
    if (child == 0) {
        int refused = setuid(65534) == 0 && door_connect("door", &pid, &e) < 0 &&
                      e.code == EXIT_CODE_PERMANENT && strstr(e.text, "user");
        _exit(refused ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0); /* neither end serves the other */
    CHECK(door_accept(listener, &pid, &e) == -1);
    CHECK(e.code == EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "65534");
}
