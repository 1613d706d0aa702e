/* arena.c - see arena.h.
 *
 * The descriptor crosses a process border, so whoever attaches believes nothing about it: the seals
 * say that its size cannot change under the mapping (a shrunk file would be a SIGBUS in the
 * writer), and the size must be exactly what the other side claims. What is in the slots, and whose
 * turn it is to touch them, is not known here: see consumer.c.
 */
#include "proto/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ARENA_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

/* What no machine this runs on has: keeps every product below far from 2^63. */
#define ARENA_BYTES_MAX (1ull << 46)

static int sizes_check(uint64_t slots, uint64_t slot_bytes, struct err *e)
{
    if (slots < 1 || slots > ARENA_SLOTS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot use an arena of %" PRIu64 " slots: 1 to %d are possible", slots,
                       ARENA_SLOTS_MAX);
    if (slot_bytes < 1 || slot_bytes > ARENA_BYTES_MAX / slots)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot use an arena of %" PRIu64 " slots of %" PRIu64
                       " bytes: 1 to %llu bytes in all are possible",
                       slots, slot_bytes, ARENA_BYTES_MAX);
    return 0;
}

/* Maps fd and fills *a; fd stays the caller's when it fails. Who makes the arena has all of it
 * resident from the start: what the process takes is then what was planned, however many of the
 * slots have been read, and no gather waits for a page. */
static int arena_map(struct arena *a, int fd, uint64_t slots, uint64_t slot_bytes, int populate,
                     struct err *e)
{
    uint64_t bytes = slots * slot_bytes;
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | populate, fd, 0);
    if (base == MAP_FAILED)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot map an arena of %" PRIu64 " bytes", bytes);
    *a = (struct arena){
        .fd = fd, .base = base, .slots = slots, .slot_bytes = slot_bytes, .bytes = bytes};
    return 0;
}

int arena_create(struct arena *a, uint64_t slots, uint64_t slot_bytes, struct err *e)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    *a = ARENA_CLOSED;
    if (sizes_check(slots, slot_bytes, e) < 0)
        return -1;
    slot_bytes = (slot_bytes + page - 1) / page * page;

    int fd = memfd_create("finetuned-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot make the shared memory of an arena");
    /* fallocate charges every page now: what is short of memory fails here, not in a page fault. */
    int failed;
    while ((failed = fallocate(fd, 0, 0, (off_t)(slots * slot_bytes))) < 0 && errno == EINTR)
        ;
    if (failed)
        err_errno(e, EXIT_CODE_TEMPORARY,
                  "cannot reserve %" PRIu64 " bytes of shared memory for an arena of %" PRIu64
                  " slots of %" PRIu64 " bytes",
                  slots * slot_bytes, slots, slot_bytes);
    else if ((failed = fcntl(fd, F_ADD_SEALS, ARENA_SEALS)) < 0)
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot seal the shared memory of an arena");
    else
        failed = arena_map(a, fd, slots, slot_bytes, MAP_POPULATE, e);
    if (failed)
        close(fd);
    return failed;
}

int arena_attach(struct arena *a, int fd, uint64_t slots, uint64_t slot_bytes, struct err *e)
{
    struct stat st;
    *a = ARENA_CLOSED;
    if (sizes_check(slots, slot_bytes, e) < 0)
        return -1;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & ARENA_SEALS) != ARENA_SEALS)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot use the descriptor as an arena: it is not a memfd sealed against "
                       "shrinking, growing and further seals");
    if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot use the descriptor as an arena: it is sealed against writing");
    if (fstat(fd, &st) < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot ask for the size of an arena");
    if ((uint64_t)st.st_size != slots * slot_bytes || slot_bytes % (uint64_t)sysconf(_SC_PAGESIZE))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot use an arena of %lld bytes: %" PRIu64 " slots of %" PRIu64
                       " bytes, whole pages, were announced",
                       (long long)st.st_size, slots, slot_bytes);
    return arena_map(a, fd, slots, slot_bytes, 0, e);
}

int arena_pin(struct arena *a, struct err *e)
{
    if (mlock(a->base, a->bytes) == 0)
        return 0;
    return err_errno(e, EXIT_CODE_PERMANENT,
                     "cannot lock %" PRIu64 " MiB of arena in memory (ulimit -l limits it, and "
                     "loader.pin_memory: false does without)",
                     a->bytes >> 20);
}

void arena_close(struct arena *a)
{
    if (a->fd < 0)
        return;
    munmap(a->base, a->bytes);
    close(a->fd);
    *a = ARENA_CLOSED;
}
