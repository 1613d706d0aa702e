/* test_options_sections.c - Options below sections that are not ours (finetuning,
 * gpu_optimization), pretraining. */
#include <sys/stat.h>

#include "proto/options_parts.h"
#include "tests/test.h"

#define BARE  "data: {file: x.h5}\nmodel: {layers: [{type: relu}]}\n"
#define TASKS BARE "tasks: [{name: A}, {name: B, epochs: 3}]\n" /* 3 lines */

static struct options o, other;
static struct err e;

static int read_set(const char *text, const char *set)
{
    test_file_write("p.yaml", text);
    options_free(&o);
    return options_read(&o, "p.yaml", &set, set != NULL, &e);
}

static void taken(const char *text, const char *set)
{
    CHECK_OK(read_set(text, set), e);
}

/* The sentence for what must be refused. */
static const char *refused(const char *text, const char *set)
{
    if (read_set(text, set) == 0)
        test_fail(__FILE__, __LINE__, "accepted: %.200s", text);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK(!strchr(e.text, '\n'));
    return e.text;
}

static void sentence_add(void *self, const char *sentence)
{
    strcat(strcat(self, sentence), "\n");
}

static const char *idle(void)
{
    static char text[1 << 14];
    text[0] = '\0';
    options_idle(&o, sentence_add, text);
    return text;
}

/* What an alias is found by. */
TEST(sections_hold_options_by_their_last_words)
{
    size_t count;
    const struct option_row *rows = option_rows(&count);
    for (size_t i = 0; i < count; i++) {
        const char *word = key_word(rows[i].key);
        CHECK(strcmp(word, "epochs") != 0 && !alias_below(rows[i].key) &&
              !pretraining_key(rows[i].key) && !alias_section(word));
        for (size_t k = 0; k < i; k++)
            if (strcmp(word, key_word(rows[k].key)) == 0)
                test_fail(__FILE__, __LINE__, "%s and %s end with the same word", rows[i].key,
                          rows[k].key);
    }
}

TEST(sections_give_what_our_own_give)
{
    taken(TASKS "finetuning:\n  learning_rate: 1e-4\n  scheduler_type: onecycle\n"
                "  early_stopping: {early_stopping_patience: 7}\n  loss: l1\n  seed: 5\n"
                "gpu_optimization:\n  use_amp: true\n  chunk_size_gb: 2\n  num_workers: 3\n"
                "  loading:\n    prefetch_factor: 2\n  empty_cache_every_n_epochs: 4\n"
                "  log_gpu_stats_every_n_batches: 9\n  batch_size: 16\n  drop_last: true\n",
          NULL);
    char *set[] = {"training.learning_rate=1e-4",
                   "training.scheduler_type=onecycle",
                   "training.early_stopping_patience=7",
                   "model.loss=l1",
                   "seed=5",
                   "training.use_amp=true",
                   "loader.chunk_size_gb=2",
                   "loader.num_workers=3",
                   "loader.prefetch_factor=2",
                   "memory.empty_cache_every_n_epochs=4",
                   "monitor.log_gpu_stats_every_n_batches=9",
                   "training.batch_size=16",
                   "data.drop_last=true"};
    test_file_write("q.yaml", TASKS);
    CHECK_OK(options_read(&other, "q.yaml", (const char *const *)set, sizeof set / sizeof *set, &e),
             e);
    CHECK(!options_difference(&o, &other));
    CHECK(memcmp(o.given, other.given, sizeof o.given) == 0);

    FILE *f = fopen("effective.yaml", "w");
    char text[1 << 15];
    CHECK(f);
    CHECK_OK(options_write(&o, f, &e), e);
    fclose(f);
    f = fopen("effective.yaml", "r");
    CHECK(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    CHECK(!strstr(text, "finetuning") && !strstr(text, "gpu_optimization"));
    options_free(&other);
    CHECK_OK(options_read(&other, "effective.yaml", NULL, 0, &e), e);
    CHECK(!options_difference(&o, &other));
    options_free(&other);
}

/* Words that mean something else where steps and GPUs are spoken of, and what is too deep. */
TEST(sections_do_not_take_every_option)
{
    CHECK_STR(refused(TASKS "finetuning: {gamma: 0.9}\n", NULL),
              "p.yaml:4: unknown option finetuning.gamma; the nearest is "
              "continual_learning.ewc_config.gamma");
    CHECK_HAS(refused(TASKS "gpu_optimization: {half: true}\n", NULL), "ewc_config.half");
    CHECK_HAS(refused(TASKS "finetuning: {on_end: rm}\n", NULL), "the nearest is run.on_end");
    CHECK_HAS(refused(TASKS "finetuning: {span_rows: 3}\n", NULL), "is order.span_rows");
    CHECK_HAS(refused(TASKS "finetuning: {a: {b: {use_amp: true}}}\n", NULL),
              "unknown option finetuning.a.b.use_amp; the nearest is training.use_amp");
    CHECK_HAS(refused(TASKS "gpu: {use_amp: true}\n", NULL), "unknown option gpu.use_amp");
    CHECK_HAS(refused(TASKS "finetuning: {from: A}\n", NULL), "the nearest is tasks.NAME.from");
    CHECK_HAS(refused(TASKS "finetuning: {epoch: 3}\n", NULL), "the nearest is finetuning.epochs");
    CHECK_HAS(refused(TASKS "gpu_optimization: {epochs: 3}\n", NULL), "is finetuning.epochs");
    CHECK_HAS(refused(TASKS "finetuning: {scheduler: x}\n", NULL), "training.scheduler_type");
    CHECK_HAS(refused(TASKS "gpu_optimization: {amp: 1}\n", NULL), "is training.use_amp");
    CHECK_HAS(refused(TASKS "finetuning: {zzz: 3}\n", NULL), "finetuning.zzz; none is like it");
    CHECK_HAS(refused(TASKS "finetuning: {layers: [{type: relu}]}\n", NULL), "unknown option");
    CHECK_HAS(refused(TASKS "finetuning: {learning_rate: {a: 1}}\n", NULL),
              "p.yaml:4: finetuning.learning_rate is a section; accepted is a number");
    CHECK_HAS(refused(TASKS "finetuning.learning_rate: 1\n", NULL), "as sections: finetuning:");
    CHECK_HAS(refused(TASKS "finetuning.epochs: 1\n", NULL), "as sections: finetuning:");
    CHECK_HAS(refused(TASKS "finetuning: {training.use_amp: true}\n", NULL), "as sections:");
    CHECK_HAS(refused(TASKS "finetuning: 3\n", NULL), "finetuning is a section; accepted are");
    char key[OPTION_KEY_MAX + 64], text[1024]; /* what is cut is not the word that is left of it */
    memset(key, 'k', sizeof key);
    strcpy(key + OPTION_KEY_MAX - 19, ".use_amp_of_something");
    snprintf(text, sizeof text, TASKS "finetuning: {%s: true}\n", key);
    CHECK_HAS(refused(text, NULL), "unknown option finetuning.kkk");
    taken(TASKS "finetuning:\ngpu_optimization: {}\n", NULL);
}

/* One level deeper a word of one part, and the rows and the rate of a part, are somebody else's. */
TEST(sections_one_level_deeper_say_what_they_mean)
{
    static const char *const foreign[] = {
        "finetuning: {model: {name: resnet}}",
        "finetuning: {augmentation: {scale: 0.5}}",
        "gpu_optimization: {amp: {scale: 1024}}",
        "finetuning: {evaluation: {batch_size: 9}}",
        "finetuning: {scheduler: {epochs: 7}}",
        "finetuning: {head: {learning_rate: 1}}",
        "finetuning: {weights: model.pt}",
        "finetuning: {validation: 0.1}",
        "finetuning: {scale: 2}",
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        char text[512];
        snprintf(text, sizeof text, TASKS "%s\n", foreign[i]);
        CHECK_HAS(refused(text, NULL), "unknown option");
    }
    taken(TASKS
          "finetuning: {training: {batch_size: 8, learning_rate: 0.5}, swa: {use_swa: true}}\n",
          NULL);
    CHECK(o.batch_size == 8 && o.learning_rate == 0.5 && o.use_swa);
}

TEST(sections_name_keys_as_they_were_written)
{
    CHECK_STR(refused(TASKS "finetuning:\n  learning_rate: 11\n", NULL),
              "p.yaml:5: finetuning.learning_rate is \"11\"; accepted is a number from 0 to 10");
    CHECK_STR(
        refused(TASKS "finetuning:\n  epochs: two\n", NULL),
        "p.yaml:5: finetuning.epochs is \"two\"; accepted is a whole number from 1 to 1000000");
    CHECK_HAS(refused(TASKS, "gpu_optimization.use_amp=yes"),
              "--set gpu_optimization.use_amp=yes: gpu_optimization.use_amp is \"yes\"");
    CHECK_HAS(refused(TASKS "finetuning: {name: ../x}\n", NULL), "p.yaml:4: name is \"../x\"");
}

TEST(sections_say_an_option_once)
{
    CHECK_STR(
        refused(TASKS "training:\n  learning_rate: 1\nfinetuning:\n  learning_rate: 1\n", 0),
        "p.yaml:7: training.learning_rate is set twice, here as finetuning.learning_rate; the "
        "first one, in another section, is in line 5");
    CHECK_HAS(
        refused(TASKS "finetuning: {use_amp: true}\ntraining: {use_amp: true}\n", NULL),
        "p.yaml:5: training.use_amp is set twice, here as training.use_amp; the first one, in "
        "another section, is in line 4");
    CHECK_HAS(refused(TASKS "finetuning: {use_amp: true}\ngpu_optimization: {use_amp: 1}\n", NULL),
              "p.yaml:5: training.use_amp is set twice, here as gpu_optimization.use_amp");
    CHECK_HAS(refused(TASKS "finetuning: {use_amp: true, a: {use_amp: true}}\n", NULL),
              "training.use_amp is set twice, here as finetuning.a.use_amp");
    CHECK_HAS(refused(TASKS "seed: 1\nfinetuning: {seed: 1}\n", NULL), "seed is set twice");
    CHECK_HAS(refused(TASKS "finetuning: {use_amp: true, use_amp: true}\n", NULL), "set twice");
}

/* Whichever section: the later source counts. */
TEST(sections_of_later_sources_override)
{
    test_file_write("base.yaml", TASKS "finetuning: {learning_rate: 0.5, epochs: 4}\n"
                                       "training: {batch_size: 8}\nseed: 3\n");
    taken("include: base.yaml\n", NULL);
    CHECK(o.learning_rate == 0.5 && o.batch_size == 8 && o.tasks[0].epochs == 4);
    taken("include: base.yaml\ntraining: {learning_rate: 0.25}\n"
          "gpu_optimization: {batch_size: 16, seed: 4}\nfinetuning: {epochs: 5}\n",
          NULL);
    CHECK(o.learning_rate == 0.25 && o.batch_size == 16 && o.seed == 4);
    CHECK(o.tasks[0].epochs == 5 && o.tasks[1].epochs == 3);
    taken("include: base.yaml\n", "finetuning.learning_rate=0.125");
    CHECK(o.learning_rate == 0.125);
    taken("include: base.yaml\n", "training.learning_rate=0.125");
    CHECK(o.learning_rate == 0.125);
    const char *both[] = {"gpu_optimization.a.max_grad_norm=1", "training.max_grad_norm=2"};
    options_free(&o);
    CHECK_OK(options_read(&o, "p.yaml", both, 2, &e), e);
    CHECK(o.max_grad_norm == 2);
}

TEST(sections_may_name_a_preset)
{
    taken(TASKS "gpu_optimization: {preset: saving}\n", NULL);
    CHECK_STR(o.preset, "saving");
    CHECK(o.batch_size == 32 && o.gradient_accumulation_steps == 8);
    CHECK_EQ(o.use_gradient_checkpointing, 1);
    taken(TASKS "preset: saving\ngpu_optimization: {batch_size: 16}\n", NULL); /* of a pair */
    CHECK(o.batch_size == 16 && o.gradient_accumulation_steps == 1);
    CHECK_EQ(o.use_gradient_checkpointing, 1);
    taken(TASKS "preset: saving\n", "finetuning.preset=roomy");
    CHECK_STR(o.preset, "roomy");
    CHECK_EQ(o.use_gradient_checkpointing, 0);
    taken(TASKS "finetuning: {preset: roomy}\n", "preset=saving");
    CHECK_EQ(o.use_gradient_checkpointing, 1);
    CHECK_HAS(refused(TASKS "finetuning: {preset: huge}\n", NULL), "finetuning.preset is \"huge\"");
}

/* The epochs of tasks that say none; without tasks they make one. */
TEST(sections_finetuning_epochs_are_of_tasks)
{
    taken(TASKS "finetuning: {epochs: 7}\n", NULL);
    CHECK(o.tasks[0].epochs == 7 && o.tasks[1].epochs == 3);
    CHECK_STR(idle(), "");
    taken("finetuning: {epochs: 7}\n" TASKS, "tasks.A.epochs=2");
    CHECK(o.tasks[0].epochs == 2 && o.tasks[1].epochs == 3);
    CHECK_STR(idle(), "finetuning.epochs is set and does nothing: each task says its own epochs; "
                      "it counts for those that say none\n");
    taken(TASKS, "finetuning.epochs=9");
    CHECK(o.tasks[0].epochs == 9 && o.tasks[1].epochs == 3);

    taken(BARE "finetuning: {epochs: 7, learning_rate: 0.5}\n", NULL);
    CHECK_EQ(o.task_count, 1);
    CHECK_STR(o.tasks[0].name, "finetuning");
    CHECK_STR(o.tasks[0].from, "start");
    CHECK_EQ(o.tasks[0].epochs, 7);
    CHECK_STR(idle(), "");
    taken(BARE "finetuning: {epochs: 7}\n", "tasks.finetuning.permute_features=1");
    CHECK(o.tasks[0].epochs == 7 && o.tasks[0].permute_features == 1);
    taken(BARE, "finetuning.epochs=9");
    CHECK_EQ(o.tasks[0].epochs, 9);
    taken(BARE "finetuning: {epochs: 7}\n", "finetuning.epochs=9");
    CHECK(o.tasks[0].epochs == 9 && o.task_count == 1);
    test_file_write("base.yaml", BARE "finetuning: {epochs: 4}\n");
    taken("include: base.yaml\ntasks: [{name: Z}]\n", NULL); /* no task of its own then */
    CHECK(o.task_count == 1 && o.tasks[0].epochs == 4);
    CHECK_STR(o.tasks[0].name, "Z");
    CHECK_HAS(refused(BARE "finetuning: {learning_rate: 1}\n", NULL), "or finetuning.epochs");
    /* a comparison that is added has the same */
    taken(BARE "finetuning: {epochs: 7}\ntasks: [{name: A}, {name: B, from: A, ewc: A}]\n"
               "continual_learning: {compare_without_ewc: true}\n",
          NULL);
    CHECK_EQ(o.task_count, 3);
    CHECK(o.tasks[1].epochs == 7 && o.tasks[2].epochs == 7);
    options_free(&o);
}

TEST(sections_of_pretraining_are_a_run_of_their_own)
{
    static const char *const off[] = {"", " {}", " false",
                                      " {enabled: false, epochs: 5, what: [ever]}",
                                      "\n  data: {x: y}\n  use_pretraining: false"};
    static const char *const on[] = {" true", " {enabled: true}", " {epochs: 3}", " [a]",
                                     " {enabled: {enabled: false}}"};
    char text[512];
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        snprintf(text, sizeof text, TASKS "pretraining:%s\n", off[i]);
        taken(text, NULL);
    }
    taken(TASKS, "pretraining.enabled=false");
    for (size_t i = 0; i < sizeof on / sizeof *on; i++) {
        snprintf(text, sizeof text, TASKS "pretraining:%s\n", on[i]);
        CHECK_HAS(refused(text, NULL), "p.yaml:4: pretraining is a run of its own: write");
    }
    CHECK_HAS(e.text, "model.pretrained: runs/NAME/checkpoints/task-TASK.h5");
    CHECK_HAS(e.text, "use_pretraining: false is passed over");
    CHECK_HAS(refused(TASKS, "pretraining.epochs=3"), "--set pretraining.epochs=3: pretraining is");
    CHECK_HAS(refused(TASKS, "pretraining.enabled=true"), "is a run of its own");
    CHECK_HAS(refused(TASKS "pretrained: {epochs: 3}\n", NULL), "unknown option pretrained.epochs");
}
