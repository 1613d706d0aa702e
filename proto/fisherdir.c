/* fisherdir.c - see fisherdir.h. A death leaves at most a directory that names this run and holds
 * nothing, which the next start takes: it is made before the link.
 */
#include "proto/fisherdir.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"
#include "proto/order.h"

/* The file `run` of such a directory: the run's, and the number of its inode, which a directory
 * keeps where it is moved, and a copy of it has not. */
static const char owner_begins[] = "Fisher information of the run in ", inode_begins[] = "inode ";

enum { OWNER_MAX = PATH_MAX + sizeof owner_begins + sizeof inode_begins + 24 };

/* Absolute names. `wanted` is where the option has it, empty: in the run's directory. */
struct place {
    char run[PATH_MAX], fisher[PATH_MAX], wanted[PATH_MAX];
};

/* run_make saw that names of directories fit; FISHER_DIR's is looked at below. */
static int path_join(char path[PATH_MAX], const char *directory, const char *name, struct err *e)
{
    return snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX
               ? 0
               : err_set(e, EXIT_CODE_PERMANENT,
                         "cannot keep Fisher information in %.200s: the name is too long",
                         directory);
}

int fisherdir_parent(const struct options *o, char parent[PATH_MAX], struct err *e)
{
    int protects = 0;
    for (uint32_t i = 0; i < o->task_count; i++)
        protects |= o->tasks[i].ewc.count > 0;
    if (!protects || !o->fisher_dir[0])
        return 0;
    if (!realpath(o->fisher_dir, parent))
        return err_errno(e, EXIT_CODE_PERMANENT,
                         "cannot keep Fisher information in %.300s "
                         "(continual_learning.fisher_dir); a directory that is there is accepted, "
                         "its disk mounted",
                         o->fisher_dir);
    return 1;
}

/* ---- what is there ---- */

static int is_owner_file(const char *name)
{
    return strcmp(name, "run") == 0 || strcmp(name, "run.tmp") == 0;
}

static int directory_holds(const char *path)
{
    struct stat st;
    int holds = 0;
    DIR *d = opendir(path);
    if (!d)
        return lstat(path, &st) == 0 || errno != ENOENT;
    for (struct dirent *entry; !holds && (entry = readdir(d));)
        holds = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                !is_owner_file(entry->d_name);
    closedir(d);
    return holds;
}

int fisherdir_holds(const char *run)
{
    char path[PATH_MAX];
    struct err ignored;
    return path_join(path, run, "fisher", &ignored) < 0 || directory_holds(path);
}

/* What the link says; ends with a NUL. */
static void link_read(const char *path, char target[PATH_MAX])
{
    ssize_t length = readlink(path, target, PATH_MAX - 1);
    target[length > 0 ? length : 0] = '\0';
}

void fisherdir_link(const char *run, char target[PATH_MAX])
{
    char path[PATH_MAX];
    struct err ignored;
    target[0] = '\0';
    if (path_join(path, run, "fisher", &ignored) == 0)
        link_read(path, target);
}

static int reach(const char *path, struct err *e)
{
    char target[PATH_MAX];
    struct stat st;
    if (stat(path, &st) == 0)
        return S_ISDIR(st.st_mode) ? 0
                                   : err_set(e, EXIT_CODE_PERMANENT,
                                             "cannot keep Fisher information in %.300s: it is no "
                                             "directory",
                                             path);
    int number = errno;
    link_read(path, target);
    if (!target[0] && number == ENOENT)
        return 0;
    errno = number;
    return err_errno(e, EXIT_CODE_TEMPORARY,
                     "the run's Fisher information is in %.250s, which cannot be reached; mount "
                     "its disk, or if it is lost remove the link %.150s, and what is needed is "
                     "made again",
                     target[0] ? target : path, path);
}

int fisherdir_reach(const char *run, struct err *e)
{
    char path[PATH_MAX];
    return path_join(path, run, "fisher", e) < 0 ? -1 : reach(path, e);
}

/* ---- whose it is ---- */

enum owner { OWNER_NONE, OWNER_RUN, OWNER_MOVED, OWNER_OTHER };

static int is_same(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static uint64_t inode_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

/* Cuts the lines of `text` behind its beginning: the run's name, and its inode's number, else 0. */
static uint64_t owner_lines(char *text, char named[PATH_MAX])
{
    char *next = strchr(text, '\n');
    if (next)
        *next++ = '\0';
    snprintf(named, PATH_MAX, "%s", text);
    return next && strncmp(next, inode_begins, sizeof inode_begins - 1) == 0
               ? strtoull(next + sizeof inode_begins - 1, NULL, 10)
               : 0;
}

/* The run that the directory's file names, into `named`. One of another name is this one, moved, if
 * it has its inode; a copy has another. */
static enum owner owner_of(const char *directory, const char *run, char named[PATH_MAX])
{
    char path[PATH_MAX], *text;
    size_t bytes, begins = sizeof owner_begins - 1;
    struct err ignored;
    named[0] = '\0';
    if (path_join(path, directory, "run", &ignored) < 0 ||
        durable_read(path, OWNER_MAX, &text, &bytes, &ignored) < 0)
        return OWNER_NONE;
    int ours =
        bytes > begins + 1 && strncmp(text, owner_begins, begins) == 0 && text[begins] == '/';
    uint64_t inode = ours ? owner_lines(text + begins, named) : 0;
    free(text);
    if (!ours)
        return OWNER_NONE;
    if (strcmp(named, run) == 0)
        return OWNER_RUN;
    return is_same(named, run) || (inode && inode == inode_of(run)) ? OWNER_MOVED : OWNER_OTHER;
}

static int owner_write(const char *directory, const char *run, struct err *e)
{
    char path[PATH_MAX], text[OWNER_MAX];
    int length = snprintf(text, sizeof text, "%s%s\n%s%" PRIu64 "\n", owner_begins, run,
                          inode_begins, inode_of(run));
    return path_join(path, directory, "run", e) < 0 ? -1
                                                    : durable_write(path, text, (size_t)length, e);
}

/* Of a link that is there. */
static int link_check(const struct place *p, struct err *e)
{
    char named[PATH_MAX], target[PATH_MAX];
    if (reach(p->fisher, e) < 0)
        return -1;
    enum owner owner = owner_of(p->fisher, p->run, named);
    link_read(p->fisher, target);
    if (owner == OWNER_OTHER)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%.150s is a link to %.150s, which is the Fisher information of the run in "
                       "%.150s, of which this one is a copy; remove the link, and what is needed "
                       "is made again (or put a copy of that directory in its place)",
                       p->fisher, target, named);
    if (access(p->fisher, W_OK | X_OK) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot write Fisher information in %.300s",
                         target);
    return owner == OWNER_MOVED ? owner_write(p->fisher, p->run, e) : 0;
}

/* ---- making it ---- */

static int place_find(struct place *p, const char *run, struct err *e)
{
    if (!realpath(run, p->run))
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot name the run's directory %.300s", run);
    p->wanted[0] = '\0';
    return path_join(p->fisher, p->run, "fisher", e);
}

/* The run's directory is in the name because several have one `name`, and the machine's, since
 * several may have that directory and share the disk. */
static int wanted_find(struct place *p, const struct options *o, struct err *e)
{
    char parent[PATH_MAX], name[96], whose[PATH_MAX + HOST_NAME_MAX + 2] = "";
    int given = fisherdir_parent(o, parent, e);
    if (given <= 0)
        return given;
    size_t length = strlen(p->run);
    memcpy(whose, p->run, length + 1);
    gethostname(whose + length + 1, HOST_NAME_MAX);
    uint64_t hash = order_hash(whose, length + 1 + strlen(whose + length + 1));
    snprintf(name, sizeof name, "%.64s-%08" PRIx32, o->name, (uint32_t)(hash >> 32));
    return path_join(p->wanted, parent, name, e);
}

static int is_as_wanted(const struct place *p, const struct stat *st)
{
    char target[PATH_MAX];
    if (!S_ISLNK(st->st_mode))
        return !p->wanted[0];
    link_read(p->fisher, target);
    return strcmp(target, p->wanted) == 0;
}

/* What holds nothing goes; the directory behind a link only if it is this run's. */
static int place_clear(const struct place *p, const struct stat *st, struct err *e)
{
    char target[PATH_MAX], path[PATH_MAX], named[PATH_MAX];
    int is_link = S_ISLNK(st->st_mode);
    int ours = is_link && owner_of(p->fisher, p->run, named) == OWNER_RUN;
    link_read(p->fisher, target);
    if ((is_link ? unlink(p->fisher) : rmdir(p->fisher)) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot remove %.300s", p->fisher);
    if (ours && path_join(path, target, "run", e) == 0 && unlink(path) == 0)
        rmdir(target);
    return 0;
}

/* A directory of that name: what a death left of making it. */
static int wanted_take(const struct place *p, struct err *e)
{
    char named[PATH_MAX];
    struct stat st;
    if (lstat(p->wanted, &st) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot look at %.300s", p->wanted);
    int mine = S_ISDIR(st.st_mode) && st.st_uid == geteuid();
    enum owner owner = mine ? owner_of(p->wanted, p->run, named) : OWNER_OTHER;
    if (!mine || owner >= OWNER_MOVED || (owner == OWNER_NONE && directory_holds(p->wanted)))
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "cannot keep Fisher information in %.300s, which is somebody else's%s%.200s; "
            "choose another continual_learning.fisher_dir, or another name",
            p->wanted, mine && named[0] ? ", of the run in " : "", mine ? named : "");
    if (directory_holds(p->wanted))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%.300s holds the Fisher information of an earlier run in %.200s; remove "
                       "that directory, or if that run was moved choose another --run",
                       p->wanted, p->run);
    return 0;
}

static int linked_make(const struct place *p, struct err *e)
{
    int made = mkdir(p->wanted, 0700) == 0;
    if (!made && errno != EEXIST)
        return err_errno(e, EXIT_CODE_PERMANENT,
                         "cannot make the directory %.300s for the run's Fisher information",
                         p->wanted);
    if ((!made && wanted_take(p, e) < 0) || owner_write(p->wanted, p->run, e) < 0 ||
        durable_entry_sync(p->wanted, e) < 0)
        return -1;
    if (symlink(p->wanted, p->fisher) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot make the link %.300s", p->fisher);
    return durable_entry_sync(p->fisher, e);
}

int fisherdir_make(const char *run, const struct options *o, struct err *e)
{
    struct place p;
    struct stat st;
    if (place_find(&p, run, e) < 0)
        return -1;
    int there = lstat(p.fisher, &st) == 0;
    if (!there && errno != ENOENT)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot look at %.300s", p.fisher);
    if (there && !S_ISLNK(st.st_mode) && !S_ISDIR(st.st_mode))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot make the directory %.300s: a file of that name is there", p.fisher);
    if (there && S_ISLNK(st.st_mode) && link_check(&p, e) < 0)
        return -1;
    if (there && directory_holds(p.fisher))
        return 0;
    if (wanted_find(&p, o, e) < 0)
        return -1;
    if (there && is_as_wanted(&p, &st))
        return 0;
    if (there && place_clear(&p, &st, e) < 0)
        return -1;
    if (p.wanted[0])
        return linked_make(&p, e);
    return mkdir(p.fisher, 0700) == 0
               ? 0
               : err_errno(e, EXIT_CODE_PERMANENT, "cannot make the directory %.300s", p.fisher);
}
