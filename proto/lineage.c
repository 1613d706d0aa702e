/* lineage.c - see lineage.h. Called once a step by trainerd/train.c: one read and one write of 32
 * bytes, both in the page cache.
 */
#include "proto/lineage.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"

_Static_assert(sizeof(struct lineage_record) == 32, "a record of the lineage file is 32 bytes");

int lineage_open(struct lineage *l, const char *path, struct err *e)
{
    l->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (l->fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open the lineage file %s", path);
    return 0;
}

void lineage_close(struct lineage *l)
{
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
}

uint64_t lineage_task_epoch(uint64_t task, uint64_t epoch)
{
    return task << 32 | epoch;
}

uint32_t lineage_loss_bits(double loss)
{
    float rounded = (float)loss;
    uint32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    return bits;
}

double lineage_loss(const struct lineage_record *r)
{
    float loss;
    memcpy(&loss, &r->loss_bits, sizeof loss);
    return loss;
}

static ssize_t record_read(int fd, struct lineage_record *r, uint64_t offset)
{
    ssize_t n;
    do
        n = pread(fd, r, sizeof *r, (off_t)offset);
    while (n < 0 && errno == EINTR);
    return n;
}

int lineage_write(struct lineage *l, const struct lineage_record *now,
                  struct lineage_record *before, struct err *e)
{
    uint64_t offset = (now->step_plus_1 - 1) * sizeof *now;
    ssize_t n = record_read(l->fd, before, offset);
    if (n < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot read step %llu of the lineage file",
                         (unsigned long long)now->step_plus_1);
    int there = n == (ssize_t)sizeof *before && before->step_plus_1 == now->step_plus_1;
    int same = there && memcmp(before, now, sizeof *now) == 0;
    if (!same && durable_pwrite_all(l->fd, now, sizeof *now, offset, "lineage", e) < 0)
        return -1;
    return there && !same;
}

int lineage_cut(struct lineage *l, uint64_t step, struct err *e)
{
    struct stat st;
    off_t bytes = (off_t)(step * sizeof(struct lineage_record));
    if (fstat(l->fd, &st) < 0 || (st.st_size > bytes && ftruncate(l->fd, bytes) < 0))
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot cut the lineage file at step %llu",
                         (unsigned long long)step);
    return 0;
}

int lineage_last(const char *path, struct lineage_record *last, struct err *e)
{
    struct stat st;
    int result = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0
                               : err_errno(e, EXIT_CODE_PERMANENT, "cannot open the lineage file");
    if (fstat(fd, &st) < 0)
        result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot look at the lineage file");
    uint64_t count = result == 0 ? (uint64_t)st.st_size / sizeof *last : 0;
    if (count) {
        ssize_t n = record_read(fd, last, (count - 1) * sizeof *last);
        result = n < 0 ? err_errno(e, EXIT_CODE_TEMPORARY, "cannot read the lineage file")
                       : n == (ssize_t)sizeof *last && last->step_plus_1 == count;
    }
    close(fd);
    return result;
}

int lineage_is_beginning(const struct lineage_record *last)
{
    return last->task_epoch < lineage_task_epoch(0, 2);
}
