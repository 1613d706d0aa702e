/* test_run.c - Run directories: made, resumed, refused; locks of stages; high-water pages. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/durable.h"
#include "proto/highwater.h"
#include "proto/lineage.h"
#include "proto/run.h"
#include "tests/test.h"

static struct err e;

static void options_take(struct options *o, const char *set)
{
    static const char text[] =
        "data: {file: /x.h5}\nmodel: {layers: [{type: relu}]}\ntasks: [{name: A}]\n";
    CHECK_OK(durable_write("p.yaml", text, sizeof text - 1, &e), e);
    CHECK_OK(options_read(o, "p.yaml", &set, 1, &e), e);
}

static int prepare(const char *set)
{
    static struct options o;
    options_take(&o, set);
    int result = run_prepare("runs/deep/r", &o, &e);
    options_free(&o);
    return result;
}

static void file_make(const char *path, const char *text)
{
    CHECK_OK(durable_write(path, text, strlen(text), &e), e);
}

/* From here on the run has something to lose. */
static void train(void)
{
    file_make("runs/deep/r/checkpoints/step-000000000005-00.h5", "x");
}

TEST(run_is_made_and_resumed)
{
    static struct options o, back;
    struct stat st;
    CHECK_OK(prepare("seed=7"), e);
    CHECK(stat("runs/deep/r/sockets", &st) == 0 && (st.st_mode & 0777) == 0700);
    CHECK(stat("runs/deep/r/logs/memory_profile", &st) == 0 && S_ISDIR(st.st_mode));
    options_take(&o, "seed=7");
    CHECK_OK(options_read(&back, "runs/deep/r/pipeline.yaml", NULL, 0, &e), e);
    CHECK(!options_difference(&o, &back));
    options_free(&o);
    options_free(&back);
    CHECK_OK(prepare("seed=7"), e);
}

TEST(run_with_other_options_is_refused)
{
    CHECK_OK(prepare("seed=7"), e);
    train();
    CHECK(prepare("seed=8") < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "another seed: runs/deep/r/pipeline.yaml says \"7\", p.yaml");
    CHECK_HAS(e.text, "says \"8\"; everything random so far came from it; choose another --run");
    CHECK_OK(prepare("seed=7"), e);
}

/* Of a machine of so much memory; returns the rows of a batch of the run. */
static uint64_t batch_of_machine(const char *limit, const char *batch, int accepted)
{
    static struct options o;
    const char *sets[] = {limit, batch};
    options_take(&o, "seed=7");
    options_free(&o);
    CHECK_OK(options_read(&o, "p.yaml", sets, 2, &e), e);
    CHECK_EQ(run_prepare("runs/deep/r", &o, &e) == 0, accepted);
    options_free(&o);
    CHECK_OK(options_read(&o, "runs/deep/r/pipeline.yaml", NULL, 0, &e), e);
    uint64_t rows = o.batch_size;
    options_free(&o);
    return rows;
}

TEST(batch_size_auto_keeps_the_number_of_the_machine_where_the_run_began)
{
    CHECK_EQ(batch_of_machine("memory.host_limit_mb=11900", "training.batch_size=auto", 1), 96);
    train();
    CHECK_EQ(batch_of_machine("memory.host_limit_mb=24000", "training.batch_size=auto", 1), 96);
    CHECK_EQ(batch_of_machine("memory.host_limit_mb=24000", "training.batch_size=192", 0), 96);
}

TEST(run_with_another_task_is_refused)
{
    CHECK_OK(prepare("tasks.A.permute_features=1"), e);
    train();
    CHECK(prepare("tasks.A.permute_features=2") < 0);
    CHECK_HAS(e.text, "another tasks.0.permute_features");
    CHECK_HAS(e.text, "; the tasks so far would have been others; choose another --run");
}

static void changed_is(const char *wanted)
{
    char *text;
    size_t bytes;
    CHECK_OK(durable_read("runs/deep/r/changed", RUN_CHANGES_MAX, &text, &bytes, &e), e);
    CHECK_STR(text, wanted);
    free(text);
}

TEST(run_tells_what_counts_from_then_on)
{
    CHECK_OK(prepare("training.learning_rate=0.5"), e);
    CHECK(access("runs/deep/r/changed", F_OK) != 0);
    train();
    CHECK_OK(prepare("training.learning_rate=0.25"), e);
    changed_is("training.learning_rate 0.5 -> 0.25");
    CHECK_OK(prepare("training.learning_rate=0.25"), e);
    CHECK_OK(prepare("training.learning_rate=2"), e); /* not told yet */
    changed_is("training.learning_rate 0.5 -> 0.25, training.learning_rate 0.25 -> 2");
    for (int i = 0; i < 200; i++)
        CHECK_OK(prepare(i % 2 ? "tasks.A.epochs=3" : "tasks.A.epochs=2"), e);
    struct stat st;
    CHECK(stat("runs/deep/r/changed", &st) == 0 && st.st_size <= RUN_CHANGES_MAX);
}

static uint64_t file_digest(const char *path)
{
    char *text;
    size_t bytes;
    uint64_t digest = 0;
    CHECK_OK(durable_read(path, 1 << 20, &text, &bytes, &e), e);
    for (size_t i = 0; i < bytes; i++)
        digest = digest * 31 + (uint8_t)text[i];
    free(text);
    return digest;
}

TEST(run_that_is_finished_keeps_its_options)
{
    CHECK_OK(prepare("tasks.A.epochs=3"), e);
    train();
    uint64_t before = file_digest("runs/deep/r/pipeline.yaml");
    CHECK_OK(durable_write("runs/deep/r/verdict", "0 tasks trained: 1\n", 19, &e), e);
    CHECK(prepare("tasks.A.epochs=6") < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "runs/deep/r is finished");
    CHECK_HAS(e.text, "other options (tasks.0.epochs 3 -> 6)");
    CHECK_HAS(e.text, "model.pretrained");
    CHECK(access("runs/deep/r/changed", F_OK) != 0);
    CHECK_EQ(file_digest("runs/deep/r/pipeline.yaml"), before);
    CHECK_OK(prepare("tasks.A.epochs=3"), e);
    CHECK_OK(durable_write("runs/deep/r/verdict", "75 training.max_hours\n", 22, &e), e);
    CHECK_OK(prepare("tasks.A.epochs=6"), e);
    changed_is("tasks.0.epochs 3 -> 6");
}

TEST(run_keeps_the_rows_of_a_step)
{
    static struct options o;
    const char *other[] = {"training.batch_size=32", "training.gradient_accumulation_steps=4"};
    CHECK_OK(prepare("training.batch_size=128"), e);
    train();
    CHECK(prepare("training.batch_size=64") < 0);
    CHECK_HAS(e.text, "the steps so far took as many rows as");
    options_take(&o, other[0]);
    options_free(&o);
    CHECK_OK(options_read(&o, "p.yaml", other, 2, &e), e);
    CHECK_OK(run_prepare("runs/deep/r", &o, &e), e);
    options_free(&o);
    changed_is("training.batch_size 128 -> 32, training.gradient_accumulation_steps 1 -> 4");
}

TEST(run_that_leaves_out_the_last_batch_keeps_its_size)
{
    static struct options o;
    const char *one[] = {"data.drop_last=true", "training.batch_size=128"};
    const char *other[] = {"data.drop_last=true", "training.batch_size=32",
                           "training.gradient_accumulation_steps=4"};
    options_take(&o, one[0]);
    options_free(&o);
    CHECK_OK(options_read(&o, "p.yaml", one, 2, &e), e);
    CHECK_OK(run_prepare("runs/deep/r", &o, &e), e);
    train();
    options_free(&o);
    CHECK_OK(options_read(&o, "p.yaml", other, 3, &e), e);
    CHECK(run_prepare("runs/deep/r", &o, &e) < 0);
    options_free(&o);
    CHECK_HAS(e.text, "another training.batch_size");
    CHECK_HAS(e.text, "data.drop_last leaves out");
}

TEST(run_takes_over_what_may_change)
{
    static struct options back;
    CHECK_OK(prepare("monitor.sample_s=1"), e);
    train();
    CHECK_OK(prepare("monitor.sample_s=2"), e);
    CHECK_OK(options_read(&back, "runs/deep/r/pipeline.yaml", NULL, 0, &e), e);
    CHECK(back.monitor_sample_s == 2);
    options_free(&back);
}

static int seed_is(uint64_t seed)
{
    static struct options o;
    CHECK_OK(options_read(&o, "runs/deep/r/pipeline.yaml", NULL, 0, &e), e);
    int same = o.seed == seed;
    options_free(&o);
    return same;
}

static void record_make(uint64_t epoch)
{
    struct lineage_record r = {.step_plus_1 = 1, .task_epoch = lineage_task_epoch(0, epoch)};
    CHECK_OK(durable_write("runs/deep/r/lineage", &r, sizeof r, &e), e);
}

TEST(run_without_a_checkpoint_begins_anew_with_other_options)
{
    static const char *const told[] = {
        "runs/deep/r/changed", "runs/deep/r/lineage", "runs/deep/r/journals/trainerd",
        "runs/deep/r/highwater/trainerd", "runs/deep/r/prepared/A.h5"};
    CHECK_EQ(prepare("seed=7"), 0);
    CHECK(mkdir("runs/deep/r/prepared", 0700) == 0);
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++)
        file_make(told[i], "x");
    record_make(0);
    file_make("runs/deep/r/locks/trainerd", "3 1\n");
    file_make("runs/deep/r/verdict", "100 the outputs do not fit\n");
    CHECK_EQ(prepare("seed=7"), 0);
    CHECK(access(told[1], F_OK) == 0);
    CHECK_EQ(prepare("seed=8"), 1);
    CHECK(seed_is(8));
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++)
        CHECK(access(told[i], F_OK) != 0);
    CHECK(access("runs/deep/r/locks/trainerd", F_OK) == 0); /* numbers do not come again */
}

TEST(run_with_lost_checkpoints_a_stage_or_a_file_of_somebody_keeps_its_options)
{
    CHECK_EQ(prepare("seed=7"), 0);
    file_make("runs/deep/r/lineage", "a record");
    CHECK(prepare("seed=8") < 0);
    record_make(2);
    CHECK(prepare("seed=8") < 0);
    record_make(1);
    file_make("runs/deep/r/verdict", "0 tasks trained: 1\n");
    CHECK(prepare("seed=8") < 0);
    file_make("runs/deep/r/verdict", "100 no\n");
    int fd = open("runs/deep/r/locks/loaderd", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    CHECK(prepare("seed=8") < 0);
    close(fd);
    file_make("runs/deep/r/pipeline.yaml",
              "seed: 7\ndata: {file: /x.h5}\nmodel: {layers: [{type: relu}]}\n"
              "tasks: [{name: A}]\n");
    CHECK(prepare("seed=8") < 0);
    CHECK_HAS(e.text, "another seed");
    CHECK(seed_is(7));
}

TEST(run_that_cannot_be_made_says_why)
{
    CHECK_OK(durable_write("runs", "", 0, &e), e);
    CHECK(prepare("seed=7") < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "cannot make the directory runs: a file of that name is there");
    CHECK(unlink("runs") == 0);
    CHECK_OK(durable_fail_after("write:2:ENOSPC", &e), e); /* the first write is p.yaml's */
    CHECK(prepare("seed=7") < 0);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_HAS(e.text, "pipeline.yaml.tmp: No space left");
    CHECK_OK(durable_fail_after(NULL, &e), e);
    CHECK_OK(prepare("seed=7"), e);
}

TEST(run_with_damaged_file_is_refused)
{
    CHECK_OK(prepare("seed=7"), e);
    CHECK_OK(durable_write("runs/deep/r/pipeline.yaml", "seed: [", 7, &e), e);
    CHECK(prepare("seed=7") < 0);
    CHECK_HAS(e.text, "cannot resume the run: runs/deep/r/pipeline.yaml:");
}

TEST(run_lock_counts_incarnations)
{
    struct run_lock lock;
    CHECK(mkdir("locks", 0700) == 0);
    CHECK_EQ(run_lock_holder("loaderd"), 0);
    for (uint64_t i = 1; i <= 12; i++) {
        CHECK_OK(run_lock_take(&lock, "loaderd", 0, &e), e);
        CHECK_EQ(lock.incarnation, i);
        CHECK_EQ(run_lock_holder("loaderd"), getpid());
        CHECK(fcntl(lock.fd, F_GETFD) & FD_CLOEXEC);
        run_lock_drop(&lock);
        run_lock_drop(&lock);
        CHECK_EQ(run_lock_holder("loaderd"), 0);
    }
}

TEST(run_lock_names_its_holder)
{
    struct run_lock mine, other;
    char holder[32];
    CHECK(mkdir("locks", 0700) == 0);
    CHECK_OK(run_lock_take(&mine, "loaderd", 0, &e), e);
    CHECK(run_lock_take(&other, "loaderd", 50, &e) < 0);
    CHECK_EQ(other.fd, -1);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    snprintf(holder, sizeof holder, "process %d", (int)getpid());
    CHECK_HAS(e.text, holder);
    CHECK_OK(run_lock_take(&other, "fisherd", 0, &e), e);
    run_lock_drop(&mine);
    run_lock_drop(&other);
}

/* The holder is killed while another waits: the waiter has it, with the next number. */
TEST(run_lock_passes_on_at_death)
{
    struct run_lock lock;
    int ready[2];
    char byte;
    CHECK(mkdir("locks", 0700) == 0 && pipe(ready) == 0);
    pid_t child = fork();
    if (child == 0) {
        if (run_lock_take(&lock, "loaderd", 0, &e) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    CHECK_EQ(run_lock_holder("loaderd"), child);
    kill(child, SIGKILL);
    CHECK_OK(run_lock_take(&lock, "loaderd", 5000, &e), e);
    CHECK_EQ(lock.incarnation, 2);
    run_lock_drop(&lock);
    waitpid(child, NULL, 0);
}

TEST(run_lock_refuses_damage_and_full_disks)
{
    struct run_lock lock;
    CHECK(mkdir("locks", 0700) == 0);
    CHECK_OK(run_lock_take(&lock, "loaderd", 0, &e), e);
    run_lock_drop(&lock);
    CHECK_OK(durable_fail_after("fsync:1:EIO", &e), e);
    CHECK(run_lock_take(&lock, "loaderd", 0, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_TEMPORARY);
    CHECK_OK(durable_fail_after(NULL, &e), e);
    CHECK_OK(run_lock_take(&lock, "loaderd", 0, &e), e);
    CHECK(lock.incarnation >= 2);
    run_lock_drop(&lock);
    CHECK_OK(durable_write("locks/loaderd", "rubbish", 7, &e), e);
    CHECK(run_lock_take(&lock, "loaderd", 0, &e) < 0);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
}

TEST(highwater_survives_the_process)
{
    struct highwater h;
    struct highwater_page page;
    CHECK(mkdir("highwater", 0700) == 0);
    pid_t child = fork();
    if (child == 0) {
        if (highwater_open(&h, "loaderd", &e) < 0)
            _exit(1);
        size_t bytes = 64 << 20;
        volatile char *memory = malloc(bytes);
        for (size_t i = 0; i < bytes; i += 4096)
            memory[i] = 1;
        h.page->arena_peak_bytes = 12345;
        highwater_raise(&h);
        raise(SIGKILL);
    }
    waitpid(child, NULL, 0);
    CHECK_OK(highwater_read("highwater/loaderd", &page, &e), e);
    CHECK(page.rss_peak_bytes > 64 << 20);
    CHECK_EQ(page.arena_peak_bytes, 12345);
    CHECK(page.cpu_us > 0);
#ifndef __SANITIZE_ADDRESS__ /* which has another malloc */
    CHECK(page.heap_bytes > 64 << 20 && page.heap_bytes < 80 << 20);
#endif

    CHECK_OK(highwater_open(&h, "loaderd", &e), e);
    CHECK_EQ(h.page->arena_peak_bytes, 12345);
    CHECK_EQ(h.page->heap_bytes, 0); /* of this process it says nothing yet */
    highwater_close(&h);
    highwater_close(&h);
    struct highwater_page later;
    CHECK_OK(highwater_read("highwater/loaderd", &later, &e), e);
    CHECK(later.cpu_us >= page.cpu_us && later.rss_peak_bytes == page.rss_peak_bytes);
}

/* Pages of earlier versions count on, those of later ones begin anew. */
TEST(highwater_of_an_earlier_version_is_read)
{
    struct highwater h;
    struct highwater_page page;
    CHECK(mkdir("highwater", 0700) == 0);
    for (uint64_t version = 1; version <= 5; version++) {
        int known = version >= 2 && version <= 4;
        CHECK_OK(highwater_open(&h, "loaderd", &e), e);
        h.page->version = version;
        h.page->arena_peak_bytes = version;
        highwater_close(&h);
        CHECK_EQ(highwater_read("highwater/loaderd", &page, &e), known ? 0 : -1);
        CHECK_OK(highwater_open(&h, "loaderd", &e), e);
        CHECK_EQ(h.page->arena_peak_bytes, known ? version : 0);
        highwater_close(&h);
        CHECK_OK(highwater_read("highwater/loaderd", &page, &e), e);
    }
}

/* A process that holds the lock of the stage it is named after. */
static pid_t holder_start(const char *stage)
{
    struct run_lock lock;
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_NAME, stage);
        if (run_lock_take(&lock, "fisherd", 0, &e) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

TEST(only_a_stopped_stage_is_killed)
{
    siginfo_t info;
    int status = 0;
    CHECK(mkdir("locks", 0700) == 0);
    CHECK_EQ(run_stopped_kill("fisherd"), 0);
    pid_t stage = holder_start("fisherd");
    CHECK_EQ(run_stopped_kill("fisherd"), 0); /* it runs */
    kill(stage, SIGSTOP);
    CHECK(waitid(P_PID, (id_t)stage, &info, WSTOPPED | WNOWAIT) == 0);
    CHECK_EQ(run_stopped_kill("fisherd"), 1);
    CHECK(waitpid(stage, &status, 0) == stage && WIFSIGNALED(status));
    CHECK_EQ(run_stopped_kill("fisherd"), 0); /* it is dead */

    pid_t other = holder_start("somebody"); /* a number that was given anew */
    kill(other, SIGSTOP);
    CHECK(waitid(P_PID, (id_t)other, &info, WSTOPPED | WNOWAIT) == 0);
    CHECK_EQ(run_stopped_kill("fisherd"), 0);
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
}

/* A helper of `bytes` resident bytes that has used some CPU time and goes on living. */
static pid_t helper_start(size_t bytes)
{
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        volatile char *memory = malloc(bytes);
        for (clock_t begin = clock(); clock() - begin < CLOCKS_PER_SEC / 20;)
            for (size_t i = 0; i < bytes; i += 4096)
                memory[i]++;
        if (write(ready[1], "r", 1) == 1)
            pause();
        _exit(1);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

TEST(highwater_counts_live_helpers_once)
{
    struct highwater h;
    CHECK(mkdir("highwater", 0700) == 0);
    CHECK_OK(highwater_open(&h, "loaderd", &e), e);
    pid_t a = helper_start(16 << 20), b = helper_start(32 << 20);
    highwater_helper_add(&h, a);
    highwater_helper_add(&h, b);
    highwater_raise(&h);
    uint64_t peak = h.page->helpers_peak_bytes, cpu_us = h.page->cpu_us;
    CHECK(peak >= 48 << 20);
    CHECK(cpu_us >= 100000 && cpu_us < 5000000); /* before anybody was waited for */
    pid_t all[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        highwater_helper_remove(&h, all[i]);
        highwater_helper_remove(&h, all[i]);
        kill(all[i], SIGKILL);
        CHECK(waitpid(all[i], NULL, 0) == all[i]);
    }
    highwater_raise(&h);
    CHECK(h.page->helpers_peak_bytes == peak);
    CHECK(h.page->cpu_us >= cpu_us && h.page->cpu_us < cpu_us + 90000); /* not twice */
    CHECK_EQ(h.helpers, 0);
    highwater_close(&h);
}

TEST(highwater_of_another_kind_is_refused)
{
    struct highwater h;
    struct highwater_page page;
    char noise[4096];
    memset(noise, 'x', sizeof noise);
    CHECK(highwater_read("absent", &page, &e) < 0);
    CHECK(mkdir("highwater", 0700) == 0);
    CHECK_OK(durable_write("highwater/loaderd", noise, 10, &e), e);
    CHECK(highwater_read("highwater/loaderd", &page, &e) < 0);
    CHECK_OK(durable_write("highwater/loaderd", noise, sizeof noise, &e), e);
    CHECK(highwater_read("highwater/loaderd", &page, &e) < 0);
    CHECK_OK(highwater_open(&h, "loaderd", &e), e);
    CHECK_EQ(h.page->arena_peak_bytes, 0);
    highwater_close(&h);
    CHECK_OK(highwater_read("highwater/loaderd", &page, &e), e);
}
