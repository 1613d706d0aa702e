/* test.c - runs the unit tests: see test.h. Last line: N passed, N failed, N skipped. */
#include "tests/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_SKIPPED = 77, JOBS_MAX = 16 /* cases at a time */ };

static struct test_case *cases;
static uint64_t seed, random_state;

/* The cases with the longest time limits run first, so that the end is not one of them on one core.
 */
static int case_order(const struct test_case *a, const struct test_case *b)
{
    if (a->limit_s != b->limit_s)
        return a->limit_s > b->limit_s ? -1 : 1;
    int files = strcmp(a->file, b->file);
    return files ? files : strcmp(a->name, b->name);
}

void test_register(struct test_case *c)
{
    struct test_case **at = &cases;
    while (*at && case_order(*at, c) < 0)
        at = &(*at)->next;
    c->next = *at;
    *at = c;
}

void test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "%s:%d: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " (TEST_SEED=%llu)\n", (unsigned long long)seed);
    exit(1);
}

void test_skip(const char *why)
{
    fprintf(stderr, "%s\n", why);
    exit(EXIT_SKIPPED);
}

void test_file_forget(const char *path)
{
    unlink(path);
}

void test_file_write(const char *path, const char *text)
{
    test_file_forget(path);
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

uint64_t test_seed(void)
{
    return seed;
}

uint64_t test_random(void)
{
    uint64_t z = (random_state += 0x9e3779b97f4a7c15ull); /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void child_run(const struct test_case *c, const char *directory, int output)
{
    setpgid(0, 0);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    if (chdir(directory) != 0)
        _exit(1);
    const char *times = getenv("TEST_LIMIT_TIMES");
    alarm((unsigned)(c->limit_s * (times ? atoi(times) : 1)));
    c->run();
    exit(0);
}

/* A case that runs in a child. */
struct running {
    const struct test_case *c; /* NULL: none */
    pid_t pid;
    FILE *output;
    char directory[32];
    struct timespec started;
};

static void case_start(struct running *r, const struct test_case *c)
{
    *r = (struct running){.c = c, .output = tmpfile(), .directory = "/tmp/finetuned-test-XXXXXX"};
    if (!r->output || !mkdtemp(r->directory)) {
        perror("cannot make a place for a test");
        exit(1);
    }
    fflush(stdout);
    clock_gettime(CLOCK_MONOTONIC, &r->started);
    r->pid = fork();
    if (r->pid == 0)
        child_run(c, r->directory, fileno(r->output));
}

static double seconds_of(struct timeval t)
{
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
}

static void case_time_print(const struct running *r, const struct rusage *used)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("ok   %s %s %.1f s (%.1f s of CPU)\n", r->c->file, r->c->name,
           (double)(now.tv_sec - r->started.tv_sec) +
               1e-9 * (double)(now.tv_nsec - r->started.tv_nsec),
           seconds_of(used->ru_utime) + seconds_of(used->ru_stime));
}

/* Its child has ended with `status`: 0 passed, 1 failed, 2 skipped. */
static int case_end(struct running *r, int status, const struct rusage *used)
{
    const struct test_case *c = r->c;
    kill(-r->pid, SIGKILL); /* whatever the case left running */
    nftw(r->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);

    int skipped = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED;
    int failed = !skipped && !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (failed && WIFSIGNALED(status))
        printf("FAIL %s %s: signal %d%s\n", c->file, c->name, WTERMSIG(status),
               WTERMSIG(status) == SIGALRM ? " (time limit)" : "");
    else if (failed || skipped)
        printf("%s %s %s\n", failed ? "FAIL" : "SKIP", c->file, c->name);
    else if (getenv("TEST_TIMES"))
        case_time_print(r, used);
    if (failed || skipped) {
        char line[1024];
        rewind(r->output);
        while (fgets(line, sizeof line, r->output))
            printf("     %s", line);
    }
    fclose(r->output);
    r->c = NULL;
    return failed ? 1 : skipped ? 2 : 0;
}

/* Waits for one of the cases to end; returns its result. */
static int case_await(struct running *running, int jobs)
{
    int status = 0;
    struct rusage used;
    for (;;) {
        pid_t pid = wait4(-1, &status, 0, &used);
        if (pid < 0 && errno == EINTR)
            continue;
        for (int i = 0; i < jobs; i++)
            if (running[i].c && running[i].pid == pid)
                return case_end(&running[i], status, &used);
        if (pid < 0) {
            perror("a test's process is lost");
            exit(1);
        }
    }
}

/* One more than cores: each waits now and then. */
static int jobs_find(void)
{
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof cores, &cores) != 0)
        return 1;
    return CPU_COUNT(&cores) < JOBS_MAX ? CPU_COUNT(&cores) + 1 : JOBS_MAX;
}

int main(int argc, char **argv)
{
    struct running running[JOBS_MAX] = {0};
    const char *given = getenv("TEST_SEED");
    int counts[3] = {0, 0, 0}, busy = 0, jobs = jobs_find();
    seed = given ? strtoull(given, NULL, 10) : 20260101;
    for (const struct test_case *c = cases; c; c = c->next) {
        if (argc > 1 && !strstr(c->file, argv[1]) && !strstr(c->name, argv[1]))
            continue;
        if (busy == jobs) {
            counts[case_await(running, jobs)]++;
            busy--;
        }
        int i = 0;
        while (running[i].c)
            i++;
        random_state = seed;
        case_start(&running[i], c);
        busy++;
    }
    for (; busy; busy--)
        counts[case_await(running, jobs)]++;
    printf("%d passed, %d failed, %d skipped\n", counts[0], counts[1], counts[2]);
    return counts[1] != 0;
}
