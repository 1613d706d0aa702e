/* test_fisherdir.c - Fisher information on a disk of its own: where the link leads, what resumed,
 * moved and copied runs make of it, and what is never touched.
 */
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/durable.h"
#include "proto/fisherdir.h"
#include "proto/run.h"
#include "tests/test.h"

static struct err e;
static char target[PATH_MAX]; /* of the link that fisher_leads looked at */

/* Of two tasks, the second of which protects the first, or does not. */
static int prepare_tasks(const char *run, const char *fisher_dir, const char *ewc)
{
    static struct options o;
    char text[256], set[128];
    const char *sets[] = {set};
    int length = snprintf(text, sizeof text,
                          "data: {file: /x.h5}\nmodel: {layers: [{type: relu}]}\n"
                          "tasks: [{name: A}, {name: B, ewc: [%s]}]\n",
                          ewc);
    snprintf(set, sizeof set, "continual_learning.fisher_dir=%s", fisher_dir);
    FILE *out = fopen("p.yaml", "w"); /* no call of the hook's */
    CHECK(out && fwrite(text, 1, (size_t)length, out) == (size_t)length && fclose(out) == 0);
    CHECK_OK(options_read(&o, "p.yaml", sets, 1, &e), e);
    int result = run_prepare(run, &o, &e);
    options_free(&o);
    return result;
}

static int prepare(const char *run, const char *fisher_dir)
{
    return prepare_tasks(run, fisher_dir, "A");
}

static void file_make(const char *path, const char *text)
{
    CHECK_OK(durable_write(path, text, strlen(text), &e), e);
}

static void file_is(const char *path, const char *wanted)
{
    char *text;
    size_t bytes;
    CHECK_OK(durable_read(path, 2 * PATH_MAX, &text, &bytes, &e), e);
    CHECK_STR(text, wanted);
    free(text);
}

static int exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* RUN/fisher is a link to a directory below `parent` that says it is the run's. */
static void fisher_leads(const char *run, const char *parent)
{
    char real[PATH_MAX], path[PATH_MAX + 16], owner[PATH_MAX + 64];
    struct stat st;
    CHECK(realpath(parent, real));
    snprintf(path, sizeof path, "%s/fisher", run);
    ssize_t length = readlink(path, target, sizeof target - 1);
    CHECK(length > 0);
    target[length] = '\0';
    CHECK(strncmp(target, real, strlen(real)) == 0);
    CHECK_HAS(target + strlen(real), "/run-");
    CHECK_EQ(strlen(target + strlen(real)), 5 + 8);
    CHECK(lstat(target, &st) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & 0777) == 0700);
    CHECK(realpath(run, real));
    CHECK(stat(real, &st) == 0);
    snprintf(owner, sizeof owner, "Fisher information of the run in %s\ninode %" PRIu64 "\n", real,
             (uint64_t)st.st_ino);
    snprintf(path, sizeof path, "%.*s/run", PATH_MAX, target);
    file_is(path, owner);
}

static int is_directory(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static void disks_make(void)
{
    CHECK(mkdir("fast", 0777) == 0 && mkdir("other", 0777) == 0);
}

TEST(fisher_dir_is_where_the_option_says)
{
    disks_make();
    CHECK_OK(prepare("r", ""), e);
    CHECK(is_directory("r/fisher"));
    CHECK_OK(prepare("x", "fast"), e);
    fisher_leads("x", "fast");
    CHECK_EQ(fisherdir_holds("x"), 0);
    file_make("x/fisher/A.h5", "x");
    CHECK_EQ(fisherdir_holds("x"), 1);
    CHECK_OK(prepare("x", "fast"), e);
    fisher_leads("x", "fast");
    file_is("x/fisher/A.h5", "x");
    CHECK_OK(prepare_tasks("y", "fast", ""), e); /* nothing is protected, nothing is made */
    CHECK(is_directory("y/fisher"));
}

TEST(fisher_dir_that_is_not_there_is_not_made)
{
    CHECK(prepare("r", "fast") < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "cannot keep Fisher information in fast (continual_learning.fisher_dir)");
    CHECK(!exists("fast") && !exists("r/fisher"));
    CHECK_OK(prepare_tasks("y", "fast", ""), e);
    file_make("fast", "a file");
    CHECK(prepare("r", "fast") < 0);
    CHECK_HAS(e.text, "Not a directory");
    CHECK(unlink("fast") == 0 && mkdir("fast", 0777) == 0);
    CHECK_OK(prepare("r", "fast"), e);
    fisher_leads("r", "fast");
}

TEST(fisher_dir_may_change_until_something_lies_there)
{
    char old[PATH_MAX];
    disks_make();
    CHECK_OK(prepare("r", ""), e);
    file_make("r/checkpoints/step-000000000005-00.h5", "x");
    CHECK_OK(prepare("r", "fast"), e);
    fisher_leads("r", "fast");
    memcpy(old, target, sizeof old);
    CHECK_OK(prepare("r", "other"), e);
    fisher_leads("r", "other");
    CHECK(!exists(old));
    CHECK_OK(prepare("r", ""), e);
    CHECK(is_directory("r/fisher") && !exists(target));
    CHECK_OK(prepare("r", "fast"), e);
    file_make("r/fisher/A.h5", "x");
    CHECK(prepare("r", "other") < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "cannot resume the run with another continual_learning.fisher_dir");
    CHECK_HAS(e.text, "the Fisher information so far lies in the old one");
    fisher_leads("r", "fast");
    CHECK_OK(prepare("s", ""), e);
    file_make("s/checkpoints/step-000000000005-00.h5", "x");
    file_make("s/fisher/A.h5", "x");
    CHECK(prepare("s", "fast") < 0);
    CHECK_OK(prepare("s", ""), e);
}

TEST(fisher_dir_that_is_gone_is_not_replaced)
{
    disks_make();
    CHECK_OK(prepare("r", "fast"), e);
    fisher_leads("r", "fast");
    file_make("r/checkpoints/step-000000000005-00.h5", "x");
    file_make("r/fisher/A.h5", "x");
    CHECK(rename("fast", "unmounted") == 0 && mkdir("fast", 0777) == 0);
    CHECK(prepare("r", "fast") < 0);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, target);
    CHECK_HAS(e.text, "cannot be reached; mount its disk");
    CHECK(!exists(target));
    CHECK(prepare("r", "other") < 0);
    CHECK(fisherdir_reach("r", &e) < 0);
    CHECK(rmdir("fast") == 0 && rename("unmounted", "fast") == 0);
    CHECK_OK(prepare("r", "fast"), e);
    file_is("r/fisher/A.h5", "x");
}

/* As cp -a does, of what matters here. */
static void run_copy(const char *from, const char *to)
{
    char command[256];
    snprintf(command, sizeof command, "cp -a %s %s", from, to);
    CHECK(system(command) == 0);
}

TEST(fisher_dir_of_a_copied_run_is_the_first_ones)
{
    disks_make();
    CHECK_OK(prepare("r", "fast"), e);
    file_make("r/fisher/A.h5", "x");
    run_copy("r", "copy");
    CHECK(prepare("copy", "fast") < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "of which this one is a copy; remove the link");
    CHECK_OK(prepare("r", "fast"), e);
    CHECK(unlink("copy/fisher") == 0);
    CHECK_OK(prepare("copy", "fast"), e);
    fisher_leads("copy", "fast");
    CHECK(!exists("copy/fisher/A.h5"));
}

TEST(fisher_dir_follows_a_run_that_was_moved)
{
    disks_make();
    CHECK_OK(prepare("r", "fast"), e);
    file_make("r/fisher/A.h5", "x");
    CHECK(rename("r", "moved") == 0);
    CHECK(prepare("r", "fast") < 0); /* a new run of the old name */
    CHECK_HAS(e.text, "holds the Fisher information of an earlier run in");
    CHECK_OK(prepare("moved", "fast"), e);
    fisher_leads("moved", "fast");
    file_is("moved/fisher/A.h5", "x");
    CHECK(prepare("r", "fast") < 0);
    CHECK_HAS(e.text, "which is somebody else's, of the run in");
    CHECK_HAS(e.text, "/moved;");
    CHECK_OK(prepare("moved", "fast"), e);
}

/* A copy of one that is not where its file says is a copy all the same. */
TEST(fisher_dir_does_not_follow_a_copy_of_a_moved_run)
{
    disks_make();
    CHECK_OK(prepare("r", "fast"), e);
    file_make("r/fisher/A.h5", "x");
    CHECK(rename("r", "moved") == 0);
    run_copy("moved", "copy");
    CHECK(prepare("copy", "fast") < 0);
    CHECK_HAS(e.text, "of which this one is a copy");
    CHECK_OK(prepare("moved", "fast"), e);
    file_is("moved/fisher/A.h5", "x");
}

TEST(fisher_dir_of_somebody_is_left_alone)
{
    disks_make();
    file_make("other/theirs", "x");
    CHECK_OK(prepare("r", ""), e);
    CHECK(rmdir("r/fisher") == 0 && symlink("../other", "r/fisher") == 0); /* by hand */
    CHECK_OK(prepare("r", ""), e);
    CHECK_OK(fisherdir_reach("r", &e), e);
    CHECK(!exists("other/run"));
    CHECK(unlink("other/theirs") == 0);
    CHECK_OK(prepare("r", "fast"), e);
    fisher_leads("r", "fast");
    CHECK(exists("other"));
    CHECK(unlink("r/fisher") == 0 && rmdir("fast") < 0);
    file_make("there", "run");
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s/run", target);
    CHECK(rename("there", path) == 0); /* the name is taken, by an unknown one */
    snprintf(path, sizeof path, "%s/x", target);
    file_make(path, "x");
    CHECK(prepare("r", "fast") < 0);
    CHECK_HAS(e.text, "which is somebody else's;");
    file_is(path, "x");
}

TEST(fisher_dir_whose_making_fails_is_made_by_the_next_start)
{
    static const char *const calls[] = {"write:%d:ENOSPC:once", "fsync:%d:EIO:once",
                                        "rename:%d:EIO:once"};
    char text[64], run[16];
    int failures = 0;
    disks_make();
    for (size_t c = 0; c < sizeof calls / sizeof calls[0]; c++)
        for (int n = 1; n < 8; n++) {
            snprintf(run, sizeof run, "r%zu-%d", c, n);
            snprintf(text, sizeof text, calls[c], n);
            CHECK_OK(durable_fail_after(text, &e), e);
            int result = prepare(run, "fast");
            CHECK_OK(durable_fail_after(NULL, &e), e);
            CHECK(result == 0 || e.code == EXIT_CODE_TEMPORARY);
            failures += result < 0;
            CHECK_OK(prepare(run, "fast"), e);
            fisher_leads(run, "fast");
        }
    CHECK_EQ(failures, 2 + 6 + 2);
}
