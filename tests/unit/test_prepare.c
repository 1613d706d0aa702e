/* test_prepare.c - `prepare run` and `prepare get`: what they make, print and refuse. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pipelines/prepare/own.h"
#include "pipelines/prepare/place.h"
#include "pipelines/prepare/prepare.h"
#include "proto/durable.h"
#include "proto/options.h"
#include "tests/test.h"

static struct err e;
static char printed[16384]; /* standard output and standard error of the last call */

static int call(int (*command)(int, char **), const char *a, const char *b, const char *c,
                const char *d, const char *f)
{
    char *argv[] = {"prepare",
                    (char *)(uintptr_t)a,
                    (char *)(uintptr_t)b,
                    (char *)(uintptr_t)c,
                    (char *)(uintptr_t)d,
                    (char *)(uintptr_t)f,
                    NULL};
    int argc = 0, saved[2] = {dup(1), dup(2)};
    while (argv[argc])
        argc++;
    FILE *capture = tmpfile();
    CHECK(capture);
    fflush(stdout);
    dup2(fileno(capture), 1);
    dup2(fileno(capture), 2);
    int code = command(argc, argv);
    fflush(stdout);
    dup2(saved[0], 1);
    dup2(saved[1], 2);
    close(saved[0]);
    close(saved[1]);
    rewind(capture);
    printed[fread(printed, 1, sizeof printed - 1, capture)] = '\0';
    fclose(capture);
    return code;
}

static void pipeline_write(void)
{
    static const char text[] =
        "data: {file: d/x.h5}\nmodel: {layers: [{type: relu}]}\ntasks: [{name: A}]\n"
        "continual_learning: {fisher_dir: fast}\n";
    CHECK_OK(durable_write("p.yaml", text, sizeof text - 1, &e), e);
}

TEST(prepare_run_makes_file_names_absolute)
{
    static struct options o;
    char expected[PATH_MAX + 16];
    pipeline_write();
    CHECK_EQ(call(prepare_run, "--config", "p.yaml", "--run", "r", NULL), EXIT_CODE_DONE);
    CHECK_STR(printed, "");
    CHECK_OK(options_read(&o, "r/pipeline.yaml", NULL, 0, &e), e);
    CHECK(getcwd(expected, PATH_MAX));
    strcat(expected, "/d/x.h5");
    CHECK_STR(o.data_file, expected);
    CHECK_STR(o.data_source, "");
    CHECK(getcwd(expected, PATH_MAX));
    strcat(expected, "/fast");
    CHECK_STR(o.fisher_dir, expected);
    options_free(&o);
    CHECK_EQ(call(prepare_run, "--config", "p.yaml", "--run", "r", NULL), EXIT_CODE_DONE);
}

TEST(prepare_get_prints_one_value)
{
    pipeline_write();
    CHECK_EQ(call(prepare_get, "--config", "p.yaml", "data.file", NULL, NULL), EXIT_CODE_DONE);
    CHECK_STR(printed, "d/x.h5\n");
    CHECK_EQ(call(prepare_get, "--config", "p.yaml", "--set", "seed=9", "seed"), EXIT_CODE_DONE);
    CHECK_STR(printed, "9\n");
    CHECK_EQ(call(prepare_get, "--config", "p.yaml", "sed", NULL, NULL), EXIT_CODE_PERMANENT);
    CHECK_HAS(printed, "prepare: there is no option sed");
}

TEST(prepare_refuses_bad_arguments)
{
    pipeline_write();
    CHECK_EQ(call(prepare_run, "--run", "r", NULL, NULL, NULL), EXIT_CODE_PERMANENT);
    CHECK_HAS(printed, "--config FILE is missing");
    CHECK_EQ(call(prepare_run, "--config", "p.yaml", "--run", NULL, NULL), EXIT_CODE_PERMANENT);
    CHECK_HAS(printed, "--run lacks its value");
    CHECK_EQ(call(prepare_run, "--config", "p.yaml", "--config", "q", NULL), EXIT_CODE_PERMANENT);
    CHECK_HAS(printed, "--config is given twice");
    CHECK_EQ(call(prepare_run, "--frob", NULL, NULL, NULL, NULL), EXIT_CODE_PERMANENT);
    CHECK_HAS(printed, "argument \"--frob\" is unknown");
    CHECK_EQ(call(prepare_get, "--config", "p.yaml", NULL, NULL, NULL), EXIT_CODE_PERMANENT);
    CHECK_HAS(printed, "KEY is missing");
    CHECK_EQ(call(prepare_get, "--config", "none.yaml", "seed", NULL, NULL), EXIT_CODE_PERMANENT);
    CHECK_HAS(printed, "cannot open none.yaml");
    CHECK_EQ(call(prepare_run, "--help", NULL, NULL, NULL, NULL), EXIT_CODE_DONE);
    CHECK_HAS(printed, "example: prepare run");
}

/* ---- the frame of the commands that make a data file ----------------------------------------- */

static int made; /* files, by small_make */

static void nothing(void)
{
}

static void (*meanwhile)(void) = nothing; /* while small_make is at work */

static int small_open(void **self_p, const struct options *o, struct err *error)
{
    (void)o, (void)error;
    *self_p = NULL;
    return 0;
}

static int small_stamp(void *self, char *stamp, size_t bytes, struct err *error)
{
    (void)self, (void)error;
    snprintf(stamp, bytes, "small option=1\nx.csv 7 1.5");
    return 0;
}

static int small_make(void *self, const char *out, const char *stamp, struct err *error)
{
    struct h5writer *w;
    struct digest *d;
    (void)self;
    made++;
    CHECK_OK(digest_open(&d, error), *error);
    own_digest_options(d, stamp);
    CHECK_OK(place_begin(&w, out, error), *error);
    CHECK_OK(own_attributes(w, &d, "x.csv", stamp, "dense", error), *error);
    meanwhile();
    return place_commit(&w, out, error);
}

static void small_close(void *self)
{
    (void)self;
}

static struct maker small = {
    .name = "small",
    .does = "",
    .version = "small 1",
    .open = small_open,
    .stamp = small_stamp,
    .make = small_make,
    .close = small_close,
};

static int small_prepare(int argc, char **argv)
{
    return own_prepare(argc, argv, &small);
}

static void small_run(int made_now)
{
    static const char text[] =
        "data: {source: x.csv, file: x.h5}\nmodel: {layers: [{type: relu}]}\n"
        "tasks: [{name: A}]\n";
    CHECK_OK(durable_write("p.yaml", text, sizeof text - 1, &e), e);
    made = 0;
    CHECK_EQ(call(small_prepare, "--config", "p.yaml", "--out", "x.h5", NULL), EXIT_CODE_DONE);
    CHECK_EQ(made, made_now);
}

static void fingerprint_read(char text[65])
{
    struct h5reader *r;
    CHECK_OK(h5reader_open(&r, "x.h5", &e), e);
    CHECK_OK(h5reader_text(r, "", "fingerprint", text, 65, &e), e);
    h5reader_close(&r);
}

TEST(prepare_makes_a_file_again_when_the_way_it_is_made_has_changed)
{
    char first[65], second[65];
    small_run(1);
    small_run(0);
    fingerprint_read(first);
    small.version = "small 2";
    small_run(1);
    small_run(0);
    fingerprint_read(second);
    CHECK(strcmp(first, second) != 0);
}

TEST(prepare_makes_the_directories_of_its_file)
{
    pipeline_write();
    CHECK_EQ(call(small_prepare, "--config", "q.yaml", "--out", "x/y/z.h5", NULL),
             EXIT_CODE_PERMANENT);
    CHECK(access("x", F_OK) < 0);
    small_run(1);
    CHECK_EQ(call(small_prepare, "--config", "p.yaml", "--out", "x/y/z.h5", NULL), EXIT_CODE_DONE);
    CHECK(access("x/y/z.h5", F_OK) == 0);
}

/* ---- a file that a run uses ------------------------------------------------------------------ */

static int users[2], user_count; /* who have x.h5 */

static void use_begin(void)
{
    int fd = open("x.h5", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == 0);
    users[user_count++] = fd;
}

static void use_end(void)
{
    close(users[--user_count]);
}

static void small_refused(int made_now)
{
    struct stat before, after;
    made = 0;
    CHECK(stat("x.h5", &before) == 0);
    CHECK_EQ(call(small_prepare, "--config", "p.yaml", "--out", "x.h5", NULL), EXIT_CODE_PERMANENT);
    CHECK_HAS(printed, "prepare small: x.h5 is in use by a run or another program, so it is not "
                       "made anew; accepted are the source and the options it was made with");
    CHECK_EQ(made, made_now);
    CHECK(stat("x.h5", &after) == 0 && before.st_ino == after.st_ino);
}

TEST(prepare_replaces_no_file_that_a_run_uses)
{
    small_run(1);
    CHECK(chmod("x.h5", 0400) == 0);
    use_begin();
    small_run(0); /* as it is it serves any number of runs */
    use_begin();
    small.version = "small 3";
    small_refused(0);
    use_end();
    CHECK(chmod("x.h5", 0600) == 0);
    small_refused(0); /* the other one is still there */
    use_end();
    small_run(1);
}

TEST(prepare_replaces_no_file_that_a_run_has_begun_to_use_meanwhile)
{
    char temporary[64];
    small_run(1);
    meanwhile = use_begin;
    small.version = "small 4";
    small_refused(1);
    snprintf(temporary, sizeof temporary, "x.h5.tmp-%d", (int)getpid());
    CHECK(access(temporary, F_OK) < 0 && errno == ENOENT);
    use_end();
    meanwhile = nothing;
    small_run(1);
}

/* ---- one that is interrupted ----------------------------------------------------------------- */

static int fatal; /* the signal that ends small_make */

static void be_ended(void)
{
    raise(fatal);
}

static int files_count(const char *pattern)
{
    glob_t found;
    int failed = glob(pattern, 0, NULL, &found), count = failed ? 0 : (int)found.gl_pathc;
    if (!failed)
        globfree(&found);
    return count;
}

TEST(prepare_leaves_nothing_when_a_signal_ends_it)
{
    static const int signals[] = {SIGHUP, SIGINT, SIGTERM, SIGKILL};
    for (int i = 0; i < 4; i++) {
        int status;
        fatal = signals[i];
        meanwhile = be_ended;
        pid_t child = fork();
        if (child == 0) {
            if (fatal != SIGKILL)
                signal(fatal, SIG_DFL); /* a shell's background job ignores some */
            small_run(1);
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == fatal);
        CHECK_EQ(files_count("x.h5.tmp-*"), fatal == SIGKILL);
        CHECK(access("x.h5", F_OK) < 0);
    }
    meanwhile = nothing;
    small_run(1); /* which removes what could not be removed then */
    CHECK_EQ(files_count("x.h5.tmp-*"), 0);
}
