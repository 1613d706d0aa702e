/* test_arena.c - proto/arena: what is shared, and what is refused. */
#include "proto/arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/test.h"

static const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

static int memfd_make(uint64_t bytes, int with_seals)
{
    int fd = memfd_create("test", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    CHECK(fcntl(fd, F_ADD_SEALS, with_seals) == 0);
    return fd;
}

TEST(both_ends_see_the_same_memory)
{
    struct arena ours = ARENA_CLOSED, theirs = ARENA_CLOSED;
    struct err e;
    CHECK_OK(arena_create(&ours, 3, 5000, &e), e);
    CHECK_EQ(ours.slot_bytes % (uint64_t)sysconf(_SC_PAGESIZE), 0);
    CHECK_EQ(ours.bytes, 3 * ours.slot_bytes);
    CHECK_OK(arena_attach(&theirs, dup(ours.fd), ours.slots, ours.slot_bytes, &e), e);
    for (uint64_t i = 0; i < 3; i++)
        memset(arena_slot(&theirs, i), (int)i + 1, theirs.slot_bytes);
    for (uint64_t i = 0; i < 3; i++) {
        const unsigned char *slot = arena_slot(&ours, i);
        CHECK(slot[0] == i + 1 && slot[ours.slot_bytes - 1] == i + 1);
    }
    arena_close(&ours);
    arena_close(&ours);
    CHECK(*(unsigned char *)arena_slot(&theirs, 2) == 3); /* outlives the one who made it */
    arena_close(&theirs);
    CHECK(theirs.fd == -1);
}

TEST(size_cannot_change)
{
    struct arena a;
    struct err e;
    CHECK_OK(arena_create(&a, 2, 4096, &e), e);
    CHECK(ftruncate(a.fd, 4096) < 0);
    CHECK(ftruncate(a.fd, 1 << 20) < 0);
    CHECK(fcntl(a.fd, F_ADD_SEALS, F_SEAL_WRITE) < 0);
    CHECK_EQ(fcntl(a.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    arena_close(&a);
}

TEST(impossible_sizes_are_refused)
{
    struct arena a;
    struct err e;
    CHECK(arena_create(&a, 0, 4096, &e) < 0 && e.code == EXIT_CODE_PERMANENT);
    CHECK(arena_create(&a, ARENA_SLOTS_MAX + 1, 4096, &e) < 0 && e.code == EXIT_CODE_PERMANENT);
    CHECK(arena_create(&a, 1, 0, &e) < 0 && e.code == EXIT_CODE_PERMANENT);
    CHECK(arena_create(&a, 4096, UINT64_MAX / 4096 + 2, &e) < 0 && e.code == EXIT_CODE_PERMANENT);
    CHECK_OK(arena_create(&a, ARENA_SLOTS_MAX, 1, &e), e); /* the limit itself is possible */
    arena_close(&a);
}

/* arena_create with a resource used up for its duration (the sanitizers need it back afterwards).
 */
static int create_limited(struct arena *a, int resource, rlim_t limit, struct err *e)
{
    struct rlimit before, now;
    CHECK(getrlimit(resource, &before) == 0);
    now = before;
    now.rlim_cur = limit;
    CHECK(setrlimit(resource, &now) == 0);
    int result = arena_create(a, 4, 1 << 20, e);
    CHECK(setrlimit(resource, &before) == 0);
    return result;
}

/* What the machine refuses now it may grant later. */
TEST(short_resources_are_temporary)
{
    struct arena a;
    struct err e;
    CHECK(create_limited(&a, RLIMIT_AS, 1 << 20, &e) < 0 && a.fd == -1);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "cannot map");
    CHECK(create_limited(&a, RLIMIT_NOFILE, 0, &e) < 0 && a.fd == -1);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
}

TEST(foreign_descriptors_are_refused)
{
    struct arena a;
    struct err e;
    int fd = open("plain", O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && ftruncate(fd, 8192) == 0);
    CHECK(arena_attach(&a, fd, 2, 4096, &e) < 0 && e.code == EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "sealed");
    close(fd);
    CHECK(arena_attach(&a, -1, 2, 4096, &e) < 0);

    fd = memfd_make(8192, F_SEAL_SHRINK | F_SEAL_GROW); /* one seal is missing */
    CHECK(arena_attach(&a, fd, 2, 4096, &e) < 0 && a.fd == -1);
    close(fd);
    fd = memfd_make(8192, seals | F_SEAL_WRITE);
    CHECK(arena_attach(&a, fd, 2, 4096, &e) < 0);
    CHECK_HAS(e.text, "against writing");
    close(fd);
}

TEST(sizes_must_be_as_announced)
{
    struct arena a;
    struct err e;
    int fd = memfd_make(8192, seals);
    CHECK(arena_attach(&a, fd, 3, 4096, &e) < 0 && e.code == EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "announced");
    CHECK(arena_attach(&a, fd, 1, 4096, &e) < 0);
    CHECK(arena_attach(&a, fd, 4, 2048, &e) < 0); /* no whole pages */
    CHECK(arena_attach(&a, fd, 4096, (UINT64_MAX - 8191) / 4096, &e) < 0);
    CHECK(fcntl(fd, F_GETFD) >= 0); /* a refused descriptor stays the caller's */
    CHECK_OK(arena_attach(&a, fd, 2, 4096, &e), e);
    arena_close(&a);
}
