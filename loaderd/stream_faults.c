/* stream_faults.c - which files fault their readers, and how often.
 *
 * One fault may be the machine's; a file that faults every reader would otherwise be read again and
 * again, each consumer's restart beginning anew. The table forgets after an hour, and its oldest
 * entry when it is full.
 */
#include "loaderd/stream_private.h"

#include <sys/stat.h>

enum { FORGET_MS = 3600 * 1000 };

struct faulty_file stream_file_identity(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return (struct faulty_file){0};
    return (struct faulty_file){
        .device = st.st_dev,
        .inode = st.st_ino,
        .bytes = (uint64_t)st.st_size,
        .changed_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec,
    };
}

static int same_file(const struct faulty_file *a, const struct faulty_file *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes &&
           a->changed_ns == b->changed_ns;
}

int stream_fault_count(struct streams *s, const struct faulty_file *identity, uint64_t now_ms)
{
    struct faulty_file *place = &s->faulty[0];
    for (int i = 0; i < STREAMS_MAX; i++) {
        struct faulty_file *f = &s->faulty[i];
        if (f->faults && now_ms - f->last_ms > FORGET_MS)
            *f = (struct faulty_file){0};
        if (f->faults && same_file(f, identity)) {
            place = f;
            break;
        }
        if (f->last_ms < place->last_ms)
            place = f;
    }
    if (!place->faults || !same_file(place, identity)) {
        *place = *identity;
        place->faults = 0;
    }
    place->last_ms = now_ms;
    return ++place->faults;
}
