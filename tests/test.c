/* test.c - runs the unit tests: see test.h. Last line: N passed, N failed, N skipped. */
#include "tests/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_SKIPPED = 77 };

static struct test_case *cases;
static uint64_t seed, random_state;

void test_register(struct test_case *c)
{
    struct test_case **at = &cases;
    while (*at && (strcmp((*at)->file, c->file) < 0 ||
                   (strcmp((*at)->file, c->file) == 0 && strcmp((*at)->name, c->name) < 0)))
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
    alarm((unsigned)c->limit_s);
    c->run();
    exit(0);
}

/* Runs one case: 0 passed, 1 failed, 2 skipped. */
static int case_run(const struct test_case *c)
{
    char directory[] = "/tmp/finetuned-test-XXXXXX";
    FILE *output = tmpfile();
    if (!output || !mkdtemp(directory)) {
        perror("cannot make a place for a test");
        exit(1);
    }
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        child_run(c, directory, fileno(output));
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    kill(-pid, SIGKILL); /* whatever the case left running */
    nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);

    int skipped = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED;
    int failed = !skipped && !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (failed && WIFSIGNALED(status))
        printf("FAIL %s %s: signal %d%s\n", c->file, c->name, WTERMSIG(status),
               WTERMSIG(status) == SIGALRM ? " (time limit)" : "");
    else if (failed || skipped)
        printf("%s %s %s\n", failed ? "FAIL" : "SKIP", c->file, c->name);
    if (failed || skipped) {
        char line[1024];
        rewind(output);
        while (fgets(line, sizeof line, output))
            printf("     %s", line);
    }
    fclose(output);
    return failed ? 1 : skipped ? 2 : 0;
}

int main(int argc, char **argv)
{
    const char *given = getenv("TEST_SEED");
    int counts[3] = {0, 0, 0};
    seed = given ? strtoull(given, NULL, 10) : 20260101;
    for (const struct test_case *c = cases; c; c = c->next) {
        if (argc > 1 && !strstr(c->file, argv[1]) && !strstr(c->name, argv[1]))
            continue;
        random_state = seed;
        counts[case_run(c)]++;
    }
    printf("%d passed, %d failed, %d skipped\n", counts[0], counts[1], counts[2]);
    return counts[1] != 0;
}
