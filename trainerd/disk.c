/* disk.c - see disk.h. Logs, journals and memory profiles are not in it: they grow with time and
 * are some MiB. */
#include "trainerd/disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "engine/optimizer.h"
#include "proto/log.h"
#include "trainerd/trainer.h"

enum {
    HEAD_BYTES = 64 << 10, /* of a file of checkpoints or blocks: attributes, results, the model */
    SUMS = 3 /* fisherd's files of sums: two generations, and those of half the samples */
};

/* Bytes of a parameter in a Fisher file, rounded up; with compression as docs/FISHER.md measures.
 */
static double fisher_bytes(const struct options *o)
{
    static const struct {
        const char *name;
        double bytes;
    } kinds[] = {{"gzip", 4}, {"int8", 1.1}, {"int4", 0.6}, {"log_rank1", 0.5}};
    if (!o->fisher_use_compression)
        return 4;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(o->fisher_compression, kinds[i].name) == 0)
            return kinds[i].bytes;
    return 4 * o->fisher_compression_ratio; /* lowrank */
}

/* Fisher files: of each task that another one protects, and online their sums, one a task behind
 * the second. */
static uint64_t fisher_files(const struct options *o)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < o->task_count; i++) {
        int is_protected = 0;
        for (uint32_t k = 0; k < o->task_count; k++)
            for (uint32_t n = 0; n < o->tasks[k].ewc.count; n++)
                is_protected |= strcmp(o->tasks[k].ewc.name[n], o->tasks[i].name) == 0;
        count += (uint64_t)is_protected +
                 (strcmp(o->ewc_mode, "online") == 0 && o->tasks[i].ewc.count > 1);
    }
    return count;
}

struct disk_forecast disk_forecast_make(const struct options *o, const struct model *m,
                                        uint64_t frozen, uint64_t steps)
{
    uint64_t moments = (uint64_t)optimizer_moments(setup_step_config(o).optimizer);
    uint64_t vector = m->parameter_count * sizeof(float), files = fisher_files(o);
    struct disk_forecast f = {.lineage = steps * sizeof(struct lineage_record)};
    f.checkpoint = vector + moments * (m->parameter_count - frozen) * sizeof(float) +
                   m->buffer_values * sizeof(float) + HEAD_BYTES;
    f.carried = m->carried_values * setup_step_config(o).carried_rows * sizeof(float);
    int restores = strcmp(o->on_nan, "restore") == 0;
    f.checkpoints = o->checkpoint_keep + 1 + 2 * o->task_count + (uint64_t)restores;
    f.averages = o->use_swa ? (o->checkpoint_keep + 1) * vector : 0;
    uint64_t file = (uint64_t)(fisher_bytes(o) * (double)m->parameter_count) + HEAD_BYTES;
    f.fisher = files * file;
    int sums = files && m->parameter_count > o->fisher_block_size;
    if (sums)
        f.fisher += SUMS * vector + file; /* until the parts are joined, and they beside it */
    f.fisher_least = o->fisher_use_compression ? 0 : files * vector;
    if (sums && strcmp(o->fisher_estimator, "exact") == 0)
        f.fisher_least += SUMS * vector;
    f.metrics = o->monitor_csv ? 2 * (o->monitor_csv_limit_mb << 20) : 0;
    f.most =
        f.checkpoints * (f.checkpoint + f.carried) + f.averages + f.fisher + f.lineage + f.metrics;
    f.least = (o->task_count + 1) * f.checkpoint;
    return f;
}

static int free_find(const char *path, uint64_t *bytes, struct err *e)
{
    struct statvfs v;
    if (statvfs(path, &v) < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot ask how much room there is at %s", path);
    *bytes = (uint64_t)v.f_bavail * v.f_frsize;
    return 0;
}

int disk_room_find(struct disk_room *r, const char *run, const char *fisher, struct err *e)
{
    struct stat at_run, at_fisher;
    *r = (struct disk_room){0};
    if (free_find(run, &r->run, e) < 0)
        return -1;
    r->apart = stat(run, &at_run) == 0 && stat(fisher, &at_fisher) == 0 &&
               at_run.st_dev != at_fisher.st_dev;
    if (!r->apart)
        return 0;
    if (!realpath(fisher, r->place))
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot name the directory %.300s", fisher);
    return free_find(fisher, &r->fisher, e);
}

uint64_t disk_most(const struct disk_forecast *f, const struct disk_room *r)
{
    return f->most - (r->apart ? f->fisher : 0);
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

void disk_text(const struct disk_forecast *f, const struct disk_room *r, char *text, size_t bytes)
{
    char table[48] = "", fisher[PATH_MAX + 96];
    int used = snprintf(fisher, sizeof fisher, "Fisher information %.1f MiB", mib(f->fisher));
    if (r->apart)
        snprintf(fisher + used, sizeof fisher - (size_t)used,
                 " on another disk, %.0f MiB free at %.200s", mib(r->fisher), r->place);
    if (f->metrics)
        snprintf(table, sizeof table, ", metrics.csv %.1f MiB", mib(f->metrics));
    snprintf(text, bytes,
             "disk: up to %.1f MiB of %.0f MiB free: %" PRIu64 " checkpoints of %.1f MiB, averages "
             "%.1f MiB, a record a step %.1f MiB%s, %s",
             mib(disk_most(f, r)), mib(r->run), f->checkpoints, mib(f->checkpoint + f->carried),
             mib(f->averages), mib(f->lineage), table, fisher);
}

/* What stands in a directory of the run; a file of several names once for each. */
static uint64_t directory_bytes(const char *path)
{
    uint64_t sum = 0;
    DIR *listing = opendir(path);
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        struct stat st;
        if (fstatat(dirfd(listing), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode) && st.st_nlink > 0)
            sum += (uint64_t)st.st_blocks * 512 / (uint64_t)st.st_nlink;
    }
    if (listing)
        closedir(listing);
    return sum;
}

/* What lies apart, against its own disk. */
static int fisher_check(const struct disk_forecast *f, const struct disk_room *r, uint64_t there,
                        int fresh, struct err *e)
{
    if (fresh && f->fisher_least > r->fisher + there)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the Fisher information will take at least %.1f MiB and the file system of "
                       "%.300s has %.1f MiB free; make room there or choose another "
                       "continual_learning.fisher_dir",
                       mib(f->fisher_least), r->place, mib(r->fisher));
    if (f->fisher > r->fisher + there)
        log_warn("most_mib=%.1f free_mib=%.1f there_mib=%.1f the Fisher information may not fit at "
                 "%.300s; make room there: with a full disk a run waits and ends with 70",
                 mib(f->fisher), mib(r->fisher), mib(there), r->place);
    return 0;
}

int disk_check(const struct disk_forecast *f, int fresh, struct err *e)
{
    uint64_t there = directory_bytes("checkpoints"), fisher = directory_bytes("fisher");
    struct disk_room r;
    char text[768];
    if (disk_room_find(&r, ".", "fisher", e) < 0)
        return -1;
    if (r.apart && fisher_check(f, &r, fisher, fresh, e) < 0)
        return -1;
    there += r.apart ? 0 : fisher;
    disk_text(f, &r, text, sizeof text);
    if (fresh && f->least > r.run + there)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the run will write at least %.1f MiB and its file system has %.1f MiB free "
                       "(%.300s); make room (pipelines/clean.sh lists finished runs) or choose "
                       "another --run",
                       mib(f->least), mib(r.run), text);
    if (disk_most(f, &r) > r.run + there)
        log_warn("most_mib=%.1f free_mib=%.1f there_mib=%.1f %s; lower training.checkpoint_keep or "
                 "make room (pipelines/clean.sh): with a full disk a run waits and ends with 70",
                 mib(disk_most(f, &r)), mib(r.run), mib(there), text);
    return 0;
}
