/* test_hold.c - loaderd's lock on data files: shared, without a right to write, of the file that
 * has the name.
 */
#include "loaderd/hold.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/durable.h"
#include "tests/test.h"

static struct err e;

static int is_held(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    int held = flock(fd, LOCK_EX | LOCK_NB) != 0;
    close(fd);
    return held;
}

TEST(hold_is_shared_and_once_a_file)
{
    struct holds one = {.count = 0}, other = {.count = 0};
    CHECK_OK(durable_write("a.h5", "a", 1, &e), e);
    CHECK(chmod("a.h5", 0400) == 0 && link("a.h5", "b.h5") == 0);
    hold_file(&one, "a.h5");
    hold_file(&one, "a.h5");
    hold_file(&one, "b.h5");
    hold_file(&one, "absent.h5");
    hold_file(&one, ".");
    CHECK_EQ(one.count, 1);
    hold_file(&other, "a.h5");
    CHECK_EQ(other.count, 1);
    holds_close(&one);
    CHECK(is_held("a.h5"));
    holds_close(&other);
    holds_close(&other);
    CHECK(!is_held("a.h5"));
}

TEST(hold_follows_a_name_to_another_file)
{
    struct holds h = {.count = 0};
    CHECK_OK(durable_write("a.h5", "a", 1, &e), e);
    hold_file(&h, "a.h5");
    CHECK(rename("a.h5", "old.h5") == 0);
    CHECK_OK(durable_write("a.h5", "b", 1, &e), e);
    hold_file(&h, "a.h5");
    CHECK(h.count == 2 && is_held("a.h5") && is_held("old.h5"));
    holds_close(&h);
}

TEST(hold_is_of_all_tasks)
{
    static const char text[] =
        "data: {file: a.h5}\nmodel: {layers: [{type: relu}]}\n"
        "tasks: [{name: A}, {name: B, file: b.h5}, {name: C}, {name: D, file: absent.h5}]\n";
    static struct options o;
    struct holds h = {.count = 0};
    CHECK_OK(durable_write("p.yaml", text, sizeof text - 1, &e), e);
    CHECK_OK(durable_write("a.h5", "a", 1, &e), e);
    CHECK_OK(durable_write("b.h5", "b", 1, &e), e);
    CHECK_OK(options_read(&o, "p.yaml", NULL, 0, &e), e);
    hold_tasks(&h, &o);
    CHECK(h.count == 2 && is_held("a.h5") && is_held("b.h5"));
    holds_close(&h);
    options_free(&o);
}
