/* test_options_unknown.c - Files with many unknown keys: all are told in one sentence. */
#include <sys/stat.h>

#include "proto/options_parts.h"
#include "tests/test.h"

#define BARE  "data: {file: x.h5}\nmodel: {layers: [{type: relu}]}\n"
#define TASKS BARE "tasks: [{name: A}, {name: B, epochs: 3}]\n" /* 3 lines */

static struct options o;
static struct err e;

/* The sentence for what must be refused. */
static const char *refused(const char *text, const char *set)
{
    test_file_write("p.yaml", text);
    if (options_read(&o, "p.yaml", &set, set != NULL, &e) == 0)
        test_fail(__FILE__, __LINE__, "accepted: %.200s", text);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK(!strchr(e.text, '\n'));
    return e.text;
}

TEST(options_unknown_are_named_all_at_once)
{
    CHECK(mkdir("d", 0700) == 0);
    test_file_write("d/base.yaml", TASKS "sed: 1\n");
    CHECK_STR(
        refused("include: d/base.yaml\nfinetuning:\n  learning_rat: 1\n  zzz: 1\n"
                "tasks:\n  - {name: A, epoch: 1}\n",
                "trainig.batch_size=1"),
        "p.yaml: 5 unknown options, each with the nearest there is: d/base.yaml:4 sed (seed), "
        "line 3 finetuning.learning_rat (training.learning_rate), line 4 finetuning.zzz "
        "(none), line 6 tasks.0.epoch (tasks.0.epochs), --set trainig.batch_size=1 "
        "(training.batch_size); docs/OPTIONS.md lists them all");
    /* other mistakes wait, before them or behind */
    CHECK_STR(refused(TASKS "seed: x\nsed: 1\nname: ../x\n", NULL),
              "p.yaml:5: unknown option sed; the nearest is seed");
    CHECK_HAS(refused(TASKS "sed: 1\npretraining: {a: 1}\ntrainin: {a: 1}\n", NULL),
              "line 4 sed (seed), line 6 trainin.a (none);");
    CHECK_HAS(refused(TASKS "seed: x\ntraining: {use_amp: maybe}\n", NULL), "p.yaml:4: seed is");
}

/* As many as the sentence has room for, none cut, and the number of the others. */
TEST(options_unknown_end_where_the_sentence_has_no_room)
{
    for (int bytes = 1; bytes < 60; bytes++) {
        char text[1 << 13] = TASKS, *at, *end;
        for (int i = 0; i < 60; i++)
            sprintf(text + strlen(text), "%.*s%d: 1\n", bytes,
                    "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", i);
        CHECK_HAS(refused(text, NULL),
                  "p.yaml: 60 unknown options, each with the nearest there is: ");
        CHECK(strlen(e.text) < sizeof e.text - 1);
        at = strstr(e.text, ", and ");
        CHECK(at != NULL);
        long more = strtol(at + 6, &end, 10), listed = 0;
        CHECK_STR(end, " more; docs/OPTIONS.md lists them all");
        for (const char *line = e.text; (line = strstr(line, "line ")); line++)
            listed++;
        CHECK_EQ(listed + more, 60);
        CHECK(at[-1] == ')' && listed >= 5);
    }
    char path[300], text[1 << 13] = "";
    memset(path, 'd', 240); /* a long name leaves less room */
    strcpy(path + 240, ".yaml");
    for (int i = 0; i < 900; i++)
        sprintf(text + strlen(text), "k%d: 1\n", i);
    test_file_write(path, text);
    CHECK(options_read(&o, path, NULL, 0, &e) < 0);
    CHECK_HAS(e.text, "900 unknown options");
    CHECK_STR(strstr(e.text, "more; "), "more; docs/OPTIONS.md lists them all");
}
