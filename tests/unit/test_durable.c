/* test_durable.c - Durable files: whole or not at all, whatever fails. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include "proto/durable.h"
#include "tests/test.h"

static struct err e;

static void content_is(const char *path, const char *text)
{
    char *data = NULL;
    size_t bytes = 0;
    CHECK_OK(durable_read(path, 4096, &data, &bytes, &e), e);
    CHECK_STR(data, text);
    CHECK_EQ(bytes, strlen(text));
    free(data);
}

TEST(durable_write_replaces_a_file)
{
    CHECK_OK(durable_write("f", "one", 3, &e), e);
    content_is("f", "one");
    CHECK_OK(durable_write("f", "", 0, &e), e);
    content_is("f", "");
    CHECK(access("f.tmp", F_OK) < 0);
}

TEST(durable_failures_leave_the_old_file)
{
    static const char *const hooks[] = {"write:1:ENOSPC", "fsync:1:EIO", "rename:1:EROFS"};
    CHECK_OK(durable_write("f", "old", 3, &e), e);
    for (int i = 0; i < 3; i++) {
        CHECK_OK(durable_fail_after(hooks[i], &e), e);
        CHECK(durable_write("f", "new", 3, &e) < 0);
        CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
        CHECK_OK(durable_fail_after(NULL, &e), e);
        content_is("f", "old");
        CHECK(access("f.tmp", F_OK) < 0);
    }
}

TEST(durable_directory_sync_failure_is_told)
{
    CHECK_OK(durable_fail_after("fsync:2:EIO", &e), e);
    CHECK(durable_write("f", "new", 3, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "cannot fsync .");
}

TEST(durable_hook_fails_once)
{
    CHECK_OK(durable_fail_after("write:2:ENOSPC:once", &e), e);
    CHECK_EQ(durable_may("write"), 0);
    CHECK_EQ(durable_may("write"), -1);
    CHECK_EQ(durable_may("write"), 0);
    CHECK(durable_fail_after("write:2:ENOSPC:twice", &e) < 0);
    CHECK_OK(durable_fail_after(NULL, &e), e);
}

TEST(durable_hook_counts_from_the_nth)
{
    CHECK_OK(durable_fail_after("write:3:ENOSPC", &e), e);
    CHECK_EQ(durable_may("fsync"), 0);
    CHECK_EQ(durable_may("write"), 0);
    CHECK_EQ(durable_may("write"), 0);
    CHECK_EQ(durable_may("write"), -1);
    CHECK_EQ(errno, ENOSPC);
    CHECK_EQ(durable_may("write"), -1);
    CHECK_OK(durable_fail_after("", &e), e);
    CHECK_EQ(durable_may("write"), 0);
}

#ifndef __SANITIZE_ADDRESS__ /* which has another malloc, and would tell of what is lost */
TEST(durable_hook_leaks)
{
    durable_leak();
    size_t before = mallinfo2().uordblks;
    durable_leak();
    CHECK_EQ(mallinfo2().uordblks, before);
    CHECK_OK(durable_fail_after("leak:5000", &e), e);
    durable_leak();
    durable_leak();
    size_t lost = mallinfo2().uordblks - before;
    CHECK_OK(durable_fail_after(NULL, &e), e);
    CHECK(lost >= 10000 && lost < 10100);
    before = mallinfo2().uordblks;
    durable_leak();
    CHECK_EQ(mallinfo2().uordblks, before);
}
#endif

TEST(durable_hook_refuses_nonsense)
{
    static const char *const texts[] = {"write",         "write:0:EIO",  "read:1:EIO",
                                        "write:1:EWHAT", "write:1:EIO ", "write:x:EIO",
                                        "leak:x",        "leak:5:EIO"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        CHECK(durable_fail_after(texts[i], &e) < 0);
        CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
        CHECK_EQ(durable_may("write"), 0);
    }
}

TEST(durable_commit_needs_the_temporary)
{
    CHECK(durable_commit("absent", "f", &e) < 0);
    CHECK_HAS(e.text, "cannot open absent");
}

TEST(durable_place_syncs_nothing_and_leaves_no_temporary)
{
    CHECK_OK(durable_fail_after("fsync:1:EIO", &e), e);
    for (int fails = 0; fails < 2; fails++) {
        FILE *f = fopen("f.tmp", "w");
        CHECK(f && fclose(f) == 0);
        CHECK_EQ(durable_place("f.tmp", "f", &e), fails ? -1 : 0);
        CHECK(access("f.tmp", F_OK) < 0 && access("f", F_OK) == 0);
        CHECK_OK(durable_fail_after("rename:1:EIO", &e), e);
    }
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "cannot rename f.tmp to f");
    CHECK_OK(durable_fail_after(NULL, NULL), e);
}

TEST(durable_read_has_a_limit)
{
    char *data = NULL;
    size_t bytes = 0;
    char text[200000];
    memset(text, 'x', sizeof text);
    CHECK_OK(durable_write("f", text, sizeof text, &e), e);
    CHECK_OK(durable_read("f", sizeof text, &data, &bytes, &e), e);
    CHECK_EQ(bytes, sizeof text);
    CHECK(memcmp(data, text, sizeof text) == 0 && data[bytes] == '\0');
    free(data);
    CHECK(durable_read("f", sizeof text - 1, &data, &bytes, &e) < 0);
    CHECK_HAS(e.text, "f is larger than 199999 bytes");
    CHECK(durable_read("absent", 10, &data, &bytes, &e) < 0);
    CHECK_HAS(e.text, "cannot open absent: No such file");
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
}

TEST(durable_pwrite_all_continues_short_writes)
{
    int fds[2];
    char text[1 << 17];
    CHECK(pipe(fds) == 0);
    CHECK(durable_pwrite_all(fds[1], "x", 1, 0, "pipe", &e) < 0); /* a pipe has no offsets */
    int fd = open("f", O_RDWR | O_CREAT, 0600);
    memset(text, 'y', sizeof text);
    CHECK_OK(durable_pwrite_all(fd, text, sizeof text, 7, "f", &e), e);
    CHECK_EQ(lseek(fd, 0, SEEK_END), 7 + sizeof text);
    close(fd);
}
