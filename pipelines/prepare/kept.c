/* kept.c - see kept.h. */
#include "pipelines/prepare/kept.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipelines/prepare/prepare.h"
#include "proto/checkpoint.h"
#include "proto/h5file.h"

int kept_follows(const char *prepare)
{
    static const char *const kinds[] = {"csv", "npy", "molecules", "bars"};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(prepare, kinds[i]) == 0)
            return 1;
    return 0;
}

/* ---- keeping -------------------------------------------------------------------------------- */

struct copy {
    struct h5reader *from;
    struct h5writer *to;
    struct err *e;
};

static int set_copy(void *self, const struct h5array *array)
{
    struct copy *c = self;
    uint64_t dims[H5FILE_RANK_MAX];
    memcpy(dims, array->dims, sizeof dims);
    dims[0] = 0;
    return h5writer_array(c->to, array->name, array->type, array->rank, dims, NULL, c->e);
}

/* Attributes of the root that there are. */
static int attributes_copy(struct copy *c, struct err *e)
{
    static const char *const texts[] = {"fingerprint",       "source",         "layout",
                                        "columns",           "target_columns", "target_names",
                                        "classes",           "timeframe",      "node_feature_names",
                                        "edge_feature_names"};
    struct err absent;
    uint64_t count;
    char *text = malloc(H5FILE_TEXT_MAX + 1);
    int result =
        text ? 0 : err_set(e, EXIT_CODE_TEMPORARY, "no memory for attributes of a data file");
    for (size_t i = 0; result == 0 && i < sizeof texts / sizeof texts[0]; i++)
        if (h5reader_text(c->from, "", texts[i], text, H5FILE_TEXT_MAX + 1, &absent) == 0)
            result = h5writer_text(c->to, "", texts[i], text, e);
    if (result == 0 && h5reader_u64(c->from, "", "class_count", &count, &absent) == 0)
        result = h5writer_u64(c->to, "", "class_count", count, e);
    free(text);
    return result;
}

static int file_copy(const char *from, const char *to, struct err *e)
{
    struct copy c = {.e = e};
    int result = h5reader_open(&c.from, from, e) < 0 || h5writer_open(&c.to, to, e) < 0 ||
                         h5reader_each(c.from, "validation", set_copy, &c, e) < 0 ||
                         (h5reader_has(c.from, "normalise") &&
                          h5writer_copy(c.to, "normalise", c.from, e) < 0) ||
                         attributes_copy(&c, e) < 0
                     ? -1
                     : h5writer_commit(&c.to, e);
    h5writer_abandon(&c.to);
    h5reader_close(&c.from);
    return result;
}

/* What prepare entered into the file; -1: it is not there, or was not made by prepare. */
static int fingerprint_read(const char *path, char fingerprint[65], struct err *e)
{
    struct h5reader *r = NULL;
    int result = h5reader_open(&r, path, e);
    if (result == 0 && h5reader_text(r, "", "fingerprint", fingerprint, 65, e) < 0)
        result = err_set(e, EXIT_CODE_PERMANENT,
                         "%s was not made by prepare, which gives each file a fingerprint", path);
    h5reader_close(&r);
    return result;
}

/* 1 and the fingerprint of the data that the run is trained on; 0: it has no checkpoint yet; -1.
 * All of a run's checkpoints say the same. */
static int trained_on(const char *run, char fingerprint[65], struct err *e)
{
    char path[PATH_MAX];
    struct err other;
    struct checkpoint_meta *meta = malloc(sizeof *meta);
    int used = snprintf(path, sizeof path, "%s/checkpoints", run), found = 0;
    DIR *d = meta && used < PATH_MAX ? opendir(path) : NULL;
    if (!d) {
        int absent = meta && used < PATH_MAX && errno == ENOENT;
        free(meta);
        return absent ? 0 : err_errno(e, EXIT_CODE_PERMANENT, "cannot list %s/checkpoints", run);
    }
    for (struct dirent *entry; !found && (entry = readdir(d));) {
        if (entry->d_name[0] == '.' || snprintf(path + used, sizeof path - (size_t)used, "/%s",
                                                entry->d_name) >= PATH_MAX - used)
            continue;
        found = checkpoint_read_meta(path, meta, NULL, 0, &other) == 0; /* averages are none */
        if (found)
            memcpy(fingerprint, meta->fingerprint, 65);
    }
    closedir(d);
    free(meta);
    return found;
}

/* Where the file of task number `task` is kept. */
static int path_make(const char *run, const struct options *o, uint32_t task, char path[PATH_MAX],
                     struct err *e)
{
    const char *name = o->tasks[options_data_task(o, task)].name;
    int used = snprintf(path, PATH_MAX, "%s/prepared/%s.h5", run, name);
    return used < PATH_MAX ? 0
                           : err_set(e, EXIT_CODE_PERMANENT,
                                     "the run directory's name is too long: %.200s", run);
}

/* The task's own data file, borrowed. */
static const char *file_of(const struct options *o, uint32_t task)
{
    static struct options view; /* large */
    options_of_task(o, task, &view);
    return view.data_file;
}

static int file_keep(const char *run, const struct options *o, uint32_t task, struct err *e)
{
    const char *file = file_of(o, task);
    char path[PATH_MAX], kept[65], now[65];
    struct err other;
    if (path_make(run, o, task, path, e) < 0)
        return -1;
    if (access(file, F_OK) != 0) /* by hand a run may be made before its data */
        return 0;
    if (fingerprint_read(file, now, e) < 0)
        return err_prefix(e, "cannot keep how %s was prepared", file);
    if (fingerprint_read(path, kept, &other) == 0 && strcmp(kept, now) == 0)
        return 0;
    return file_copy(file, path, e) < 0 ? err_prefix(e, "cannot keep how %s was prepared", file)
                                        : 0;
}

int kept_write(const char *run, const struct options *o, struct err *e)
{
    char path[PATH_MAX], fingerprint[65];
    if (!kept_follows(o->data_prepare))
        return 0;
    int trained = trained_on(run, fingerprint, e);
    if (trained)
        return trained < 0 ? -1 : 0;
    snprintf(path, sizeof path, "%s/prepared", run);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot make the directory %s", path);
    for (uint32_t i = 0; i < o->task_count; i++)
        if (options_data_task(o, i) == i && file_keep(run, o, i, e) < 0)
            return -1;
    return 0;
}

/* ---- finding -------------------------------------------------------------------------------- */

/* What a checkpoint would say of the files as they are kept, or as the data files are now. */
static int fingerprint_all(const char *run, const struct options *o, int kept, char all[65],
                           struct err *e)
{
    char each[OPTION_TASKS_MAX][65], path[PATH_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < o->task_count; i++) {
        if (options_data_task(o, i) != i)
            continue;
        if (path_make(run, o, i, path, e) < 0 ||
            fingerprint_read(kept ? path : file_of(o, i), each[count++], e) < 0)
            return -1;
    }
    return checkpoint_fingerprint((const char(*)[65])each, count, all, e);
}

/* Of data to which weights or begins were added loaderd's fingerprint is another than prepare's. */
static int is_comparable(const struct options *o)
{
    return !o->data_weights[0] && !o->data_stateful;
}

int kept_find(const char *run, const struct options *o, uint32_t task, char path[PATH_MAX],
              struct err *e)
{
    char trained[65], all[65] = "";
    const char *file = file_of(o, task);
    struct err other;
    int known = trained_on(run, trained, e), comparable = is_comparable(o);
    if (known < 0 || path_make(run, o, task, path, e) < 0)
        return -1;
    int kept = fingerprint_all(run, o, 1, all, &other) == 0;
    if (kept && (!known || !comparable || strcmp(all, trained) == 0))
        return 0;
    snprintf(path, PATH_MAX, "%s", file);
    if (fingerprint_all(run, o, 0, all, e) == 0) {
        if (!known || (comparable && strcmp(all, trained) == 0))
            return 0;
        if (comparable)
            err_set(e, EXIT_CODE_PERMANENT,
                    "%s was prepared anew since (fingerprint %.12s, the run's data had %.12s); "
                    "bring the old file back, or ask with an HDF5 file",
                    file, all, trained);
        else
            err_set(e, EXIT_CODE_PERMANENT,
                    "with data.weights or data.stateful it cannot be told whether %s is still what "
                    "it was trained on; ask with an HDF5 file",
                    file);
    } else {
        struct err reason = *e;
        err_set(e, reason.code, "%s; ask with an HDF5 file of its layout", reason.text);
    }
    return err_prefix(e, "new rows cannot be prepared as those of the run in %s were", run);
}

int kept_data_changed(const char *run, const struct options *o)
{
    char trained[65], all[65];
    struct err unknown;
    return is_comparable(o) && trained_on(run, trained, &unknown) > 0 &&
           fingerprint_all(run, o, 0, all, &unknown) == 0 && strcmp(all, trained) != 0;
}
