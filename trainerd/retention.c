/* retention.c - see retention.h. Called by save.c after each checkpoint. A crash between the commit
 * of a checkpoint and the sweep leaves a file too many, which the next sweep removes.
 */
#include "trainerd/retention.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"
#include "proto/log.h"

void retention_step_path(char path[CHECKPOINT_PATH_BYTES], uint64_t step, uint64_t task)
{
    snprintf(path, CHECKPOINT_PATH_BYTES, "checkpoints/step-%010" PRIu64 "-%02" PRIu64 ".h5", step,
             task);
}

void retention_task_path(char path[CHECKPOINT_PATH_BYTES], const char *task)
{
    snprintf(path, CHECKPOINT_PATH_BYTES, "checkpoints/task-%s.h5", task);
}

void retention_best_path(char path[CHECKPOINT_PATH_BYTES], const char *task)
{
    snprintf(path, CHECKPOINT_PATH_BYTES, "checkpoints/best-%s.h5", task);
}

void retention_restore_path(char path[CHECKPOINT_PATH_BYTES])
{
    snprintf(path, CHECKPOINT_PATH_BYTES, "checkpoints/restore.h5");
}

void retention_average_path(char path[CHECKPOINT_PATH_BYTES], uint64_t step, uint64_t task)
{
    snprintf(path, CHECKPOINT_PATH_BYTES, "checkpoints/average-%010" PRIu64 "-%02" PRIu64 ".f32",
             step, task);
}

int retention_parse(const char *name, uint64_t *step, uint64_t *task)
{
    int end = 0;
    if (strncmp(name, "step-", 5) != 0 || name[5] < '0' || name[5] > '9')
        return 0;
    return sscanf(name, "step-%" SCNu64 "-%" SCNu64 ".h5%n", step, task, &end) == 2 && end &&
           !name[end];
}

static int average_parse(const char *name, uint64_t *step, uint64_t *task)
{
    int end = 0;
    if (strncmp(name, "average-", 8) != 0 || name[8] < '0' || name[8] > '9')
        return 0;
    return sscanf(name, "average-%" SCNu64 "-%" SCNu64 ".f32%n", step, task, &end) == 2 && end &&
           !name[end];
}

static int same_file(const char *a, const char *b)
{
    struct stat one, other;
    return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_ino == other.st_ino &&
           one.st_dev == other.st_dev;
}

int retention_link(const char *path, const char *link_path, struct err *e)
{
    char temporary[CHECKPOINT_PATH_BYTES + 8];
    if (same_file(path, link_path)) /* rename(2) between two names of one file does nothing */
        return 0;
    snprintf(temporary, sizeof temporary, "%s.tmp", link_path);
    if (unlink(temporary) < 0 && errno != ENOENT)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot remove the left-over file %s", temporary);
    if (link(path, temporary) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot give checkpoint %s the name %s", path,
                         link_path);
    return durable_commit(temporary, link_path, e);
}

struct candidate {
    uint64_t step, task;
};

static int candidate_newer_first(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->step != y->step)
        return x->step > y->step ? -1 : 1;
    return x->task > y->task ? -1 : x->task < y->task;
}

static void file_remove(const char *directory, const char *name)
{
    char path[CHECKPOINT_PATH_BYTES + 256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (unlink(path) < 0 && errno != ENOENT)
        log_warn("path=%s error=\"%s\" an old checkpoint could not be removed", path,
                 strerror(errno));
}

/* Names end in ".tmp" or ".tmp-<pid>". Whoever sweeps holds the stage's lock: their writers are
 * dead. */
static int is_left_over(const char *name)
{
    const char *suffix = strstr(name, ".h5.tmp");
    if (strncmp(name, "average-", 8) == 0)
        return strstr(name, ".f32.tmp") != NULL;
    return suffix && (suffix[7] == 0 || suffix[7] == '-');
}

/* All files of that kind of name, newest first, the caller frees; a listing cut short by memory
 * sweeps less, the next one the rest. */
static size_t candidates_list(const char *directory,
                              int (*parse)(const char *, uint64_t *, uint64_t *),
                              struct candidate **found_p)
{
    size_t count = 0, room = 0;
    DIR *listing = opendir(directory);
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        struct candidate c;
        if (is_left_over(entry->d_name))
            file_remove(directory, entry->d_name);
        if (!parse(entry->d_name, &c.step, &c.task))
            continue;
        if (count == room) {
            room = room ? 2 * room : 16;
            struct candidate *more = realloc(*found_p, room * sizeof *more);
            if (!more)
                break;
            *found_p = more;
        }
        (*found_p)[count++] = c;
    }
    if (listing)
        closedir(listing);
    if (count)
        qsort(*found_p, count, sizeof **found_p, candidate_newer_first);
    return count;
}

/* The oldest checkpoint that stays needs the newest average up to it, if that is of its task. */
static void averages_sweep(const char *directory, struct candidate oldest)
{
    struct candidate *found = NULL;
    size_t count = candidates_list(directory, average_parse, &found);
    int needed = 0; /* that one was passed */
    for (size_t i = 0; i < count; i++) {
        char path[CHECKPOINT_PATH_BYTES];
        if (!needed && found[i].task >= oldest.task) {
            needed = found[i].task == oldest.task && found[i].step <= oldest.step;
            continue;
        }
        retention_average_path(path, found[i].step, found[i].task);
        file_remove(directory, strrchr(path, '/') + 1);
    }
    free(found);
}

void retention_sweep(const char *directory, uint64_t keep, uint64_t step, uint64_t task)
{
    struct candidate *found = NULL, newest = {step, task};
    size_t count = candidates_list(directory, retention_parse, &found);
    struct candidate oldest = newest;
    uint64_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        char path[CHECKPOINT_PATH_BYTES];
        int later = candidate_newer_first(&found[i], &newest) < 0;
        if (!later && kept++ < keep) {
            oldest = found[i];
            continue;
        }
        retention_step_path(path, found[i].step, found[i].task);
        file_remove(directory, strrchr(path, '/') + 1);
    }
    free(found);
    averages_sweep(directory, oldest);
}
