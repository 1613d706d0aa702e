/* test.h - unit tests: TEST(name) { ... CHECK(condition); ... }.
 *
 * Each case runs in a child process of its own with a time limit (TEST_LIMIT(name, seconds) for
 * another than 20 s), one more at a time than there are cores; its output is shown only when it
 * fails. test_skip("why") ends a case as skipped. The child's working directory is a fresh one,
 * removed afterwards. `unit [substring]` runs the cases whose file or name contains it; with
 * TEST_TIMES=1 in the environment it also prints what each took, and TEST_LIMIT_TIMES=n gives each
 * n times its limit, for a tool that makes them slow.
 */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test_case {
    const char *file, *name;
    int limit_s;
    void (*run)(void);
    struct test_case *next;
};

void test_register(struct test_case *c);
_Noreturn void test_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
_Noreturn void test_skip(const char *why);

/* Before a file is written that an earlier round has written: where a file is emptied and not new,
 * ext4 puts it on the disk when it is closed, which takes ten times as long. */
void test_file_forget(const char *path);

/* A new file with that text. */
void test_file_write(const char *path, const char *text);

/* Deterministic random numbers; the seed is printed with a failure and taken from TEST_SEED if set.
 */
uint64_t test_random(void);
uint64_t test_seed(void);

/* How often a case of many rounds goes round. Under a sanitizer everything takes several times as
 * long: what compares results goes round seldom there, what looks for faults of memory often.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEST_ROUNDS(plain, sanitized) (sanitized)
#else
#define TEST_ROUNDS(plain, sanitized) (plain)
#endif

#define TEST_LIMIT(id, seconds)                                                                    \
    static void test_##id(void);                                                                   \
    __attribute__((constructor)) static void test_add_##id(void)                                   \
    {                                                                                              \
        static struct test_case test_entry_ = {__FILE__, #id, seconds, test_##id, NULL};           \
        test_register(&test_entry_);                                                               \
    }                                                                                              \
    static void test_##id(void)
#define TEST(id) TEST_LIMIT(id, 20)

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            test_fail(__FILE__, __LINE__, "CHECK(%s)", #condition);                                \
    } while (0)
#define CHECK_EQ(a, b)                                                                             \
    do {                                                                                           \
        long long check_a_ = (long long)(a), check_b_ = (long long)(b);                            \
        if (check_a_ != check_b_)                                                                  \
            test_fail(__FILE__, __LINE__, "%s = %lld, %s = %lld", #a, check_a_, #b, check_b_);     \
    } while (0)
#define CHECK_STR(a, b)                                                                            \
    do {                                                                                           \
        const char *check_a_ = (a), *check_b_ = (b);                                               \
        if (strcmp(check_a_, check_b_) != 0)                                                       \
            test_fail(__FILE__, __LINE__, "%s = \"%s\", %s = \"%s\"", #a, check_a_, #b, check_b_); \
    } while (0)
/* text contains part */
#define CHECK_HAS(text, part)                                                                      \
    do {                                                                                           \
        const char *check_a_ = (text), *check_b_ = (part);                                         \
        if (!strstr(check_a_, check_b_))                                                           \
            test_fail(__FILE__, __LINE__, "%s = \"%s\" lacks \"%s\"", #text, check_a_, check_b_);  \
    } while (0)
/* a call that fills a struct err e */
#define CHECK_OK(call, e)                                                                          \
    do {                                                                                           \
        if ((call) < 0)                                                                            \
            test_fail(__FILE__, __LINE__, "%s: %s", #call, (e).text);                              \
    } while (0)

#endif
