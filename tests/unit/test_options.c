/* test_options.c - Options: defaults, sources and their order, values at their limits, sentences,
 * writing and reading back. */
#include <sys/stat.h>

#include "proto/limits.h"
#include "proto/options_parts.h"
#include "tests/test.h"

#define BASE "data:\n  file: x.h5\nmodel:\n  layers:\n    - {type: relu}\ntasks:\n  - name: A\n"

static struct options o;
static struct err e;

static int read_text(const char *text)
{
    test_file_write("p.yaml", text);
    options_free(&o);
    return options_read(&o, "p.yaml", NULL, 0, &e);
}

static int read_set(const char *text, const char *set)
{
    test_file_write("p.yaml", text);
    options_free(&o);
    return options_read(&o, "p.yaml", &set, 1, &e);
}

/* The sentence for a file that must be refused. */
static const char *refused(const char *text)
{
    if (read_text(text) == 0)
        test_fail(__FILE__, __LINE__, "accepted: %.200s", text);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK(!strchr(e.text, '\n'));
    return e.text;
}

static const char *refused_set(const char *set)
{
    if (read_set(BASE, set) == 0)
        test_fail(__FILE__, __LINE__, "accepted: %.200s", set);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK(!strchr(e.text, '\n'));
    return e.text;
}

TEST(options_defaults_come_from_the_table)
{
    CHECK_OK(read_text(BASE), e);
    CHECK_STR(o.name, "run");
    CHECK_EQ(o.seed, 1);
    CHECK_STR(o.device, "auto");
    CHECK_EQ(o.data_shuffle, 1);
    CHECK(o.learning_rate == 1e-3);
    CHECK_EQ(o.threads, 0); /* auto */
    CHECK_EQ(o.task_count, 1);
    CHECK_STR(o.tasks[0].from, "start");
    CHECK(o.tasks[0].permute_features == OPTION_NONE);
    CHECK_EQ(o.layer_count, 1);
    CHECK_STR(o.layers[0], "relu");
    CHECK_EQ(o.layer_lines[0], 5);
    CHECK_STR(o.layers_source, "p.yaml");
    options_free(&o);
    options_free(&o);
}

TEST(options_of_a_file_are_taken)
{
    CHECK_OK(read_text("name: x\nseed: 0\ndata: {file: \"a b.h5\", shuffle: false, scale: -1e-3}\n"
                       "training:\n  threads: auto\n  batch_size: 1048576\n"
                       "model:\n  layers:\n  - {type: linear, out: 256, bias: \"true\"}\n"
                       "  - {p: 0.15, type: dropout}\n"
                       "continual_learning:\n  ewc_config:\n    lambda: 1e12\n"
                       "tasks:\n- {name: A, epochs: 2}\n- {name: B_2-x, from: A, ewc: [A], "
                       "permute_features: 0}\n- {name: C, comparison_of: B_2-x, ewc: []}\n"),
             e);
    CHECK_EQ(o.seed, 0);
    CHECK_STR(o.data_file, "a b.h5");
    CHECK_EQ(o.data_shuffle, 0);
    CHECK(o.data_scale == -1e-3);
    CHECK_EQ(o.batch_size, 1048576);
    CHECK_STR(o.layers[0], "linear out=256 bias=true");
    CHECK_STR(o.layers[1], "dropout p=0.15");
    CHECK(o.ewc_lambda == 1e12);
    CHECK_EQ(o.task_count, 3);
    CHECK_EQ(o.tasks[1].ewc.count, 1);
    CHECK_STR(o.tasks[1].ewc.name[0], "A");
    CHECK_EQ(o.tasks[1].permute_features, 0);
    CHECK_EQ(options_task(&o, "C"), 2);
    CHECK_EQ(options_task(&o, "D"), -1);
    options_free(&o);
}

TEST(options_unknown_keys_name_file_line_and_the_nearest)
{
    CHECK_STR(refused(BASE "training:\n  learing_rate: 1\n"),
              "p.yaml:9: unknown option training.learing_rate; the nearest is "
              "training.learning_rate");
    CHECK_HAS(refused(BASE "batch_size: 1\n"), "the nearest is training.batch_size");
    CHECK_HAS(refused(BASE "trainning: {}\n"), "p.yaml:8: unknown option trainning");
    CHECK_HAS(refused(BASE "task: 1\n"), "the nearest is tasks");
    CHECK_HAS(refused("data: {file: x}\ntasks:\n- name: A\n  epoch: 3\n"),
              "p.yaml:4: unknown option tasks.0.epoch; the nearest is tasks.0.epochs");
    CHECK_HAS(refused_set("seeds=1"), "--set seeds=1: unknown option seeds; the nearest is seed");
    CHECK_HAS(refused_set("tasks.A.epoch=1"), "the nearest is tasks.A.epochs");
    CHECK_HAS(refused_set("tasks.Z.epochs=1"), "there is no task Z");
    CHECK_HAS(refused_set("tasks.1.epochs=1"), "there is no task 1; the pipeline has 1 tasks");
    CHECK_HAS(refused(BASE "epoch: 3\n"), "the nearest is tasks.NAME.epochs");
    CHECK_HAS(refused(BASE "file: x\n"), "the nearest is data.file");
    CHECK_HAS(refused(BASE "memory: {advice: 3}\n"),
              "unknown option memory.advice; none is like it, and docs/OPTIONS.md lists them");
    CHECK_HAS(refused_set("tasks.A.optimizer=sgd"), "unknown option tasks.A.optimizer; none is");
    char long_key[1000];
    memset(long_key, 'k', sizeof long_key);
    memcpy(long_key + sizeof long_key - 5, ": 1\n", 5);
    CHECK_HAS(refused(long_key), "unknown option kkkk");
}

/* As YAML has them, where they are not quoted. */
TEST(options_truths_may_begin_with_capitals)
{
    CHECK_OK(read_text(BASE "loader: {pin_memory: False}\nmonitor: {profile: TRUE, csv: True}\n"),
             e);
    CHECK(o.monitor_profile && o.monitor_csv);
    CHECK_STR(o.loader_pin_memory, "false");
    options_free(&o);
    CHECK_HAS(refused(BASE "monitor: {profile: 'True'}\n"), "true or false");
    CHECK_HAS(refused(BASE "monitor: {profile: tRUE}\n"), "true or false");
    CHECK_HAS(refused(BASE "seed: Null\n"), "null is no value");
}

TEST(options_repeated_keys_are_refused)
{
    CHECK_STR(refused("seed: 1\nname: x\nseed: 2\n" BASE),
              "p.yaml:3: seed is set twice; the first one is in line 1");
    CHECK_HAS(refused(BASE "training:\n  threads: 1\ntraining:\n  batch_size: 1\n"),
              "p.yaml:10: training is set twice; the first one is in line 8");
    CHECK_HAS(refused(BASE "    name: B\n"), "name is set twice");
    CHECK_HAS(refused(BASE "training.batch_size: 1\n"), "write training.batch_size as sections");
}

TEST(options_mistyped_values_are_refused)
{
    static const struct {
        const char *set, *has;
    } cases[] = {
        {"seed=one", "seed is \"one\"; accepted is a whole number from 0 to 4294967295"},
        {"seed=-1", "seed is \"-1\""},
        {"seed=4294967296", "from 0 to 4294967295"},
        {"seed=99999999999999999999", "whole number"},
        {"seed=1.0", "whole number"},
        {"seed=1e3", "whole number"},
        {"seed=0x10", "whole number"},
        {"seed=010", "whole number"},
        {"seed=", "seed is \"\""},
        {"seed= 1", "whole number"},
        {"seed=auto", "whole number"},
        {"training.threads=0", "from 1 to 256, or auto"},
        {"training.threads=none", "or auto"},
        {"training.batch_size=0", "from 1 to 1048576"},
        {"training.learning_rate=nan", "a number from 0 to 10"},
        {"training.learning_rate=inf", "a number"},
        {"training.learning_rate=0x1p-3", "a number"},
        {"training.learning_rate=1e", "a number"},
        {"training.learning_rate=10.1", "a number"},
        {"training.learning_rate=", "a number"},
        {"training.adam_beta1=1", "a number from 0 to 0.9999999"},
        {"data.shuffle=yes", "data.shuffle is \"yes\"; accepted is true or false"},
        {"device=gpu", "accepted is auto, cpu, cuda or cuda:GPU"},
        {"device=auto|cpu", "accepted is auto, cpu, cuda or cuda:GPU"},
        {"device=cuda:", "accepted is auto, cpu, cuda or cuda:GPU"},
        {"device=auto:1", "accepted is auto, cpu, cuda or cuda:GPU"},
        {"device=cuda:H\n100", "accepted is auto, cpu, cuda or cuda:GPU"},
        {"device=", "accepted is auto, cpu, cuda or cuda:GPU"},
        {"name=", "text of 1 to 64 bytes"},
        {"data.file=a\nb", "control characters"},
        {"data.file=\xff", "UTF-8"},
        {"data.file=\xed\xa0\x80", "UTF-8"},
        {"data.file=\xc0\xaf", "UTF-8"},
        {"tasks.A.permute_features=4294967296", "or none"},
        {"tasks.A.ewc=A,,B", "a list of 0 to 16 names"},
        {"tasks.A.ewc=B,B", "none twice"},
        {"tasks.A.ewc=B,", "a list"},
        {"tasks=A", "only be given in a pipeline file"},
        {"model.layers=relu", "only be given in a pipeline file"},
        {"include=x", "only be given in a pipeline file"},
        {"seed", "section.key=value"},
        {"=1", "section.key=value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_HAS(refused_set(cases[i].set), cases[i].has);
    CHECK_HAS(refused(BASE "seed: [1]\n"), "p.yaml:8: seed is a list; accepted is a whole number");
    CHECK_HAS(refused(BASE "seed: {a: 1}\n"), "seed is a section");
    CHECK_HAS(refused(BASE "training: 5\n"), "training is a section");
    CHECK_HAS(refused(BASE "seed: null\n"), "null is no value");
    CHECK_HAS(refused(BASE "    ewc: B\n"), "tasks.A.ewc names \"B\", which is no task");
    CHECK_HAS(refused(BASE "    ewc: B,C\n"), "tasks.0.ewc is one word");
    CHECK_HAS(refused(BASE "    ewc: ''\n"), "tasks.0.ewc is one word");
    CHECK_HAS(refused(BASE "    ewc: {B: C}\n"), "tasks.0.ewc is a section");
    CHECK_HAS(refused(BASE "    ewc: [[B]]\n"), "tasks.0.ewc is a list");
}

TEST(options_values_at_their_limits_are_accepted)
{
    char set[OPTION_PATH_MAX + 32] = "data.file=";
    memset(set + 10, 'x', OPTION_PATH_MAX);
    CHECK_OK(read_set(BASE, set), e);
    CHECK_EQ(strlen(o.data_file), OPTION_PATH_MAX);
    set[10 + OPTION_PATH_MAX] = 'x';
    CHECK_HAS(refused_set(set), "text of 1 to 4096 bytes");
    CHECK_OK(read_set(BASE, "order.span_rows=1000000000000"), e);
    CHECK_HAS(refused_set("order.span_rows=1000000000001"), "1000000000000, or auto");
    CHECK_OK(read_set(BASE, "training.adam_eps=1e-30"), e);
    CHECK_OK(read_set(BASE, "tasks.0.permute_features=4294967295"), e);
    CHECK_EQ(o.tasks[0].permute_features, 4294967295u);
    CHECK_OK(read_set(BASE, "tasks.A.permute_features=none"), e);
    CHECK(o.tasks[0].permute_features == OPTION_NONE);
    options_free(&o);
}

TEST(options_weights_of_targets_come_from_a_file)
{
    char text[OPTION_TEXT_MAX + 1], *many = malloc(1 << 18);
    size_t used = 0;
    test_file_write("w.csv", "0.5, 1\r\n2e3\t0.1234567891234\n\n7,\n");
    CHECK_OK(read_set(BASE, "model.target_weights=w.csv"), e);
    CHECK_OK(options_get(&o, "model.target_weights", text, sizeof text, &e), e);
    CHECK_STR(text, "0.5,1,2000,0.12345679,7");
    CHECK_OK(read_set(BASE, "model.target_weights=1, 4,.5e1"), e);
    CHECK_STR(o.target_weights, "1, 4,.5e1");
    CHECK_HAS(refused_set("model.target_weights=1;4"),
              "\"1;4\", neither numbers with commas between them nor a file: cannot open 1;4");
    test_file_write("w.csv", "1\n2,,3\n");
    CHECK_HAS(refused_set("model.target_weights=w.csv"),
              "line 2 of w.csv holds what is no finite number from 0 on");
    const char *refused_numbers[] = {"nan",   "-nan", "inf",   "1e39", "-1",
                                     "-1e-3", "0x10", "1e400", "one",  "1;2"};
    for (size_t i = 0; i < sizeof refused_numbers / sizeof *refused_numbers; i++) {
        sprintf(many, "1,2,\n%s\n", refused_numbers[i]);
        test_file_write("w.csv", many);
        CHECK_HAS(refused_set("model.target_weights=w.csv"),
                  "line 2 of w.csv holds what is no finite number from 0 on");
    }
    /* 17 digits are rounded once, as those of a list: here 9 of them would give another float32 */
    test_file_write("w.csv", "0.41465584935567079 0.1000000000000000056 0.41395588246519277");
    CHECK_OK(read_set(BASE, "model.target_weights=w.csv"), e);
    CHECK_STR(o.target_weights, "0.41465586,0.1,0.4139559");
    CHECK((float)strtod(o.target_weights, NULL) == (float)0.41465584935567079);
    CHECK(mkfifo("pipe", 0600) == 0);
    CHECK_HAS(refused_set("model.target_weights=pipe"), "\"pipe\", which is no regular file");
    test_file_write("w.csv", " \n");
    CHECK_HAS(refused_set("model.target_weights=w.csv"), "w.csv is empty");
    for (int i = 0; i < 4096; i++) /* 8 bytes each; the last has no comma */
        used += (size_t)sprintf(many + used, "0.%05d\n", 10001 + i * 2);
    test_file_write("w.csv", many);
    CHECK_OK(read_set(BASE, "model.target_weights=w.csv"), e);
    CHECK_EQ(strlen(o.target_weights), OPTION_TEXT_MAX - 1);
    sprintf(many + used, "0.1");
    test_file_write("w.csv", many);
    CHECK_HAS(refused_set("model.target_weights=w.csv"), "more than 32768 bytes of text");
    free(many);
}

TEST(options_missing_ones_are_named)
{
    CHECK_HAS(refused(""), "p.yaml: data.file is missing: HDF5 file");
    CHECK_HAS(refused("# nothing\n"), "data.file is missing");
    CHECK_HAS(refused("data: {file: x}\ntasks: [{name: A}]\n"), "model.layers is missing");
    CHECK_HAS(refused("data: {file: x}\nmodel: {layers: [{type: relu}]}\n"), "tasks is missing");
    CHECK_HAS(refused("data: {file: x}\nmodel: {layers: [{type: relu}]}\ntasks:\n- {name: A}\n"
                      "- epochs: 1\n"),
              "p.yaml:5: tasks.1.name is missing");
    CHECK_HAS(refused(BASE "data:\n  file: ''\n"), "twice");
    CHECK_HAS(refused_set("data.prepare=idx"), "data.source is missing");
    CHECK_HAS(refused_set("arena.slots=4"), "at least 5 or auto");
    CHECK_OK(read_set(BASE, "arena.slots=5"), e);
    options_free(&o);
}

TEST(options_leave_a_layer_behind_the_backbone)
{
#define THREE                                                                                      \
    "data: {file: x}\ntasks: [{name: A}]\nmodel: {layers: [{type: x}, {type: relu}, {type: y}]}\n"
    CHECK_OK(read_set(THREE, "training.backbone_layers=2"), e);
    CHECK_HAS(refused(THREE "training: {backbone_layers: 3}\n"),
              "p.yaml: training.backbone_layers is 3, but model.layers has 3 entries");
    CHECK_HAS(refused(THREE "training: {backbone_layers: 200, backbone_lr: 1e-3}\n"),
              "accepted are 0 to 2");
}

TEST(options_tasks_refer_to_earlier_ones)
{
#define TASKS "data: {file: x}\nmodel: {layers: [{type: relu}]}\ntasks:\n"
    CHECK_HAS(refused(TASKS "- {name: A}\n- {name: A}\n"), "p.yaml:5: tasks.1.name is \"A\"");
    CHECK_HAS(refused(TASKS "- {name: a b}\n"), "accepted are 1 to 63 letters, digits, - and _");
    CHECK_HAS(refused(TASKS "- {name: ../x}\n"), "accepted are 1 to 63 letters");
    CHECK_HAS(refused(TASKS "- {name: start}\n"), "none of the words start");
    CHECK_HAS(refused(TASKS "- {name: A}\n- name: B\n\n  from: C\n"),
              "p.yaml:7: tasks.B.from names \"C\", which is no task");
    CHECK_HAS(refused(TASKS "- {name: A, ewc: [B]}\n- {name: B}\n"), "which is a later task");
    CHECK_HAS(refused(TASKS "- {name: A, comparison_of: A}\n"), "which is this task itself");
    CHECK_HAS(refused(TASKS "- {name: A}\n- {name: B, ewc: [A], comparison_of: A}\n"),
              "has both ewc and comparison_of");
    CHECK_HAS(refused(TASKS "- A\n"), "tasks.0 is no map");
    CHECK_HAS(refused(TASKS), "tasks is a list of 1 to 64 tasks");
    CHECK_HAS(refused_set("tasks.A.from=Q"), "--set tasks.A.from=Q: tasks.A.from names \"Q\"");
    CHECK_HAS(refused_set("name=../x"), "--set name=../x: name is \"../x\"");
}

static char *entries(const char *head, const char *format, int count)
{
    static char text[65536];
    int used = snprintf(text, sizeof text, "%s", head);
    for (int i = 0; i < count; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, format, i);
    CHECK((size_t)used < sizeof text);
    return text;
}

TEST(options_lists_end_at_their_limits)
{
    CHECK_OK(read_text(entries(TASKS, "- name: t%d\n", OPTION_TASKS_MAX)), e);
    CHECK_EQ(o.task_count, OPTION_TASKS_MAX);
    CHECK_HAS(refused(entries(TASKS, "- name: t%d\n", OPTION_TASKS_MAX + 1)), "1 to 64 tasks");
#define LAYERS "data: {file: x}\ntasks: [{name: A}]\nmodel:\n  layers:\n"
    CHECK_OK(read_text(entries(LAYERS, "  - {type: linear, out: %d}\n", OPTION_LAYERS_MAX)), e);
    CHECK_EQ(o.layer_count, OPTION_LAYERS_MAX);
    CHECK_STR(o.layers[255], "linear out=255");
    CHECK_HAS(refused(entries(LAYERS, "  - {type: linear, out: %d}\n", OPTION_LAYERS_MAX + 1)),
              "1 to 256 layers");
    CHECK_HAS(refused(entries(LAYERS "  - {type: x", ", key%d: 123456789", 20)), "not YAML");
    char *text = entries(LAYERS "  - {type: x", ", key%d: 123456789", 20);
    CHECK_HAS(refused(strcat(text, "}\n")), "longer than 255 bytes");
    CHECK_HAS(refused(LAYERS "  - {out: 1}\n"), "model.layers.0 has no type");
    CHECK_HAS(refused(LAYERS "  - relu\n"), "model.layers.0 is no map");
    CHECK_HAS(refused(LAYERS "  - {type: 'a b'}\n"), "no word");
    CHECK_HAS(refused(LAYERS "  - {type: x, k: \"a\\nb\"}\n"), "no word");
    CHECK_HAS(refused(LAYERS "  - {type: x, k: [1]}\n"), "no word");
    options_free(&o);
}

TEST(options_hostile_yaml_is_refused)
{
    CHECK_HAS(refused("a: &x 1\n"), "p.yaml:1: anchors");
    CHECK_HAS(refused("a: *x\n"), "p.yaml:1: aliases");
    CHECK_HAS(refused("seed: !!int 1\n"), "p.yaml:1: tags");
    CHECK_HAS(refused("- 1\n"), "made of sections");
    CHECK_HAS(refused("word\n"), "made of sections");
    CHECK_HAS(refused("a: 1\n---\nb: 1\n"), "p.yaml:2: a second document");
    CHECK_HAS(refused("[a]: 1\n"), "a key is a word");
    CHECK_HAS(refused("[a, b]\n"), "made of sections");
    CHECK_HAS(refused("? [a]\n: 1\n"), "a key is a word");
    CHECK_HAS(refused("a: \"x\\0y\"\n"), "NUL");
    CHECK_HAS(refused("a: [1\n"), "p.yaml:2: this is not YAML");
    CHECK_HAS(refused("a: 1\n b: 2\n"), "p.yaml:2: this is not YAML");
    CHECK_HAS(refused("a: \xff\n"), "p.yaml: this is not YAML");
    CHECK_HAS(refused(strcat(entries("", "{a: ", 16), "1}}}}}}}}}}}}}}}}")),
              "unknown option a.a.a");
    CHECK_HAS(refused(strcat(entries("", "{a: ", 17), "1}}}}}}}}}}}}}}}}}")), "more than 16 deep");
    CHECK_HAS(refused(entries("a:\n", "- %d\n", 1025)), "at most 1024 in one list");
}

TEST(options_large_files_are_refused)
{
    enum { MIB = 1 << 20 };
    char *text = malloc(MIB + 2);
    memset(text, '#', MIB + 1);
    memcpy(text, BASE, strlen(BASE));
    text[MIB] = '\0';
    CHECK_OK(read_text(text), e);
    text[MIB] = '#';
    text[MIB + 1] = '\0';
    CHECK_HAS(refused(text), "larger than 1048576 bytes");
    memset(text, '[', MIB);
    text[MIB] = '\0';
    refused(text);
    free(text);
    options_free(&o);
    CHECK(options_read(&o, "absent.yaml", NULL, 0, &e) < 0);
    CHECK_HAS(e.text, "cannot open absent.yaml: No such file");
    CHECK(options_read(&o, ".", NULL, 0, &e) < 0);
    CHECK_HAS(e.text, "cannot read .: Is a directory");
}

TEST(options_includes_come_first_and_lists_are_replaced)
{
    CHECK(mkdir("d", 0700) == 0);
    test_file_write("d/b.yaml", BASE "seed: 5\ntraining: {batch_size: 7, threads: 3}\n");
    test_file_write("d/a.yaml", "include: b.yaml\nseed: 6\n");
    CHECK_OK(read_set("training:\n  threads: 4\ninclude: d/a.yaml\ntasks: [{name: Z}, {name: Y}]\n",
                      "tasks.Y.epochs=9"),
             e);
    CHECK_EQ(o.seed, 6);
    CHECK_EQ(o.batch_size, 7);
    CHECK_EQ(o.threads, 4);
    CHECK_STR(o.layers_source, "d/b.yaml");
    CHECK_EQ(o.layer_lines[0], 5);
    CHECK_EQ(o.task_count, 2);
    CHECK_STR(o.tasks[0].name, "Z");
    CHECK_EQ(o.tasks[1].epochs, 9);
    CHECK_HAS(refused("include: p.yaml\n"), "more than 8 deep");
    CHECK_HAS(refused("include: d/none.yaml\n"), "include of p.yaml: cannot open d/none.yaml");
    CHECK_HAS(refused("include: [a]\n"), "include is no file name");
    test_file_write("d/a.yaml", "include: b.yaml\nsed: 6\n");
    CHECK_HAS(refused("include: d/a.yaml\n"), "d/a.yaml:2: unknown option sed");
    CHECK_HAS(refused("include: d/b.yaml\nmodel: {include: x}\n"), "unknown option model.include");
    options_free(&o);
}

static void write_effective(const struct options *from, const char *path)
{
    FILE *f = fopen(path, "w");
    CHECK(f);
    CHECK_OK(options_write(from, f, &e), e);
    fclose(f);
}

TEST(options_written_are_read_back_the_same)
{
    static struct options back;
    const char *set[] = {"data.file=a \"q\" \\ # : é€😀 \xe2\x80\xa8\xef\xbb\xbf x",
                         "training.learning_rate=0.1234567890123456789",
                         "data.scale=0.003921568627450980392156862745",
                         "continual_learning.ewc_config.lambda=1e11",
                         "training.adam_eps=1e-30",
                         "data.source=null",
                         "order.span_rows=1000000000000",
                         "tasks.B.permute_features=0",
                         "tasks.B.ewc=A,C",
                         "training.max_grad_norm=1e30",
                         "data.train="};
    test_file_write(
        "p.yaml",
        "data: {file: x}\nmodel: {layers: [{type: linear, out: 1e3, k: 'null', l: -.5, m: '+'}, "
        "{type: relu}]}\ntasks: [{name: A}, {name: C}, {name: B, from: A}]\n");
    CHECK_OK(options_read(&o, "p.yaml", set, sizeof set / sizeof set[0], &e), e);
    write_effective(&o, "q.yaml");
    CHECK_OK(options_read(&back, "q.yaml", NULL, 0, &e), e);
    const char *different = options_difference(&o, &back);
    CHECK_STR(different ? different : "", "");
    CHECK(back.learning_rate == o.learning_rate && back.data_scale == o.data_scale);
    CHECK_STR(back.data_file, o.data_file);
    CHECK_STR(back.layers[0], "linear out=1e3 k=null l=-.5 m=+");
    CHECK_EQ(back.tasks[2].ewc.count, 2);
    options_free(&o);
    options_free(&back);
}

TEST(options_random_values_are_read_back_the_same)
{
    static struct options back;
    static const char *const keys[] = {"data.scale", "training.learning_rate", "data.file",
                                       "training.max_grad_norm"};
    for (int round = 0; round < 300; round++) {
        char set[4][128];
        const char *sets[4];
        for (int i = 0; i < 4; i++) {
            double unit = (double)(test_random() >> 11) / 9007199254740992.0;
            int used = snprintf(set[i], sizeof set[i], "%s=", keys[i]);
            if (i != 2)
                snprintf(set[i] + used, sizeof set[i] - (size_t)used, "%.*e",
                         (int)(test_random() % 18), unit);
            else
                for (int c = (int)(test_random() % 40); c >= 0; c--, set[i][used] = '\0')
                    set[i][used++] = (char)(' ' + test_random() % 95);
            sets[i] = set[i];
        }
        test_file_write("p.yaml", BASE);
        CHECK_OK(options_read(&o, "p.yaml", sets, 4, &e), e);
        write_effective(&o, "q.yaml");
        CHECK_OK(options_read(&back, "q.yaml", NULL, 0, &e), e);
        CHECK(!options_difference(&o, &back));
        CHECK(o.data_scale == back.data_scale && o.learning_rate == back.learning_rate);
        options_free(&o);
        options_free(&back);
    }
}

static const char *conflict(const struct options *a, const struct options *b)
{
    const char *reason;
    return options_conflict(a, b, &reason);
}

static const char *difference_of(const char *a, const char *b,
                                 const char *(*compare)(const struct options *,
                                                        const struct options *))
{
    static struct options other;
    CHECK_OK(read_set(BASE, a), e);
    options_free(&other);
    test_file_write("q.yaml", BASE);
    CHECK_OK(options_read(&other, "q.yaml", &b, 1, &e), e);
    const char *key = compare(&o, &other);
    return key ? key : "";
}

TEST(options_differences_are_named)
{
    CHECK_STR(difference_of("seed=1", "seed=1", options_difference), "");
    CHECK_STR(difference_of("seed=1", "seed=2", options_difference), "seed");
    CHECK_STR(difference_of("tasks.A.epochs=1", "tasks.A.epochs=2", options_difference),
              "tasks.0.epochs");
    CHECK_STR(difference_of("monitor.sample_s=1", "monitor.sample_s=2", options_difference),
              "monitor.sample_s");
    CHECK_STR(difference_of("monitor.sample_s=1", "monitor.sample_s=2", conflict), "");
    CHECK_STR(difference_of("loader.num_workers=1", "loader.num_workers=2", conflict), "");
    CHECK_STR(difference_of("training.threads=1", "training.threads=2", conflict), "");
    CHECK_STR(difference_of("training.slice_rows=64", "training.slice_rows=32", conflict),
              "training.slice_rows");
    CHECK_STR(difference_of("training.adam_eps=1e-8", "training.adam_eps=1e-7", conflict), "");
    CHECK_STR(difference_of("training.adam_beta2=0.999", "training.adam_beta2=0.99", conflict), "");
    CHECK_STR(difference_of("training.momentum=0.5", "training.momentum=0.6", conflict), "");
    CHECK_STR(difference_of("training.momentum=0.5", "training.momentum=0", conflict),
              "training.momentum");
}

/* Which divides by 1 - beta2^t: that of the steps made, not of those to come. */
TEST(options_keep_the_beta2_of_the_estimator_adam)
{
    static struct options other;
    static const char text[] = BASE "continual_learning:\n  ewc_config:\n    "
                                    "fisher_computation: {estimator: adam}\n";
    const char *set = "training.adam_beta2=0.99", *reason = NULL;
    CHECK_OK(read_text(text), e);
    CHECK_OK(options_read(&other, "p.yaml", &set, 1, &e), e);
    CHECK_STR(options_conflict(&o, &other, &reason), "training.adam_beta2");
    CHECK_HAS(reason, "the estimator adam");
    options_free(&other);
}

/* changes.def says of every option what becomes of it. */
TEST(options_all_have_a_rule_for_resuming)
{
    FILE *out = fopen("options.md", "w");
    CHECK(out != NULL);
    options_print_docs(out); /* ensures it */
    CHECK_EQ(fclose(out), 0);
}

TEST(options_single_values_are_printed)
{
    char text[OPTION_TEXT_MAX + 1];
    CHECK_OK(read_set(BASE, "tasks.A.permute_features=3"), e);
    CHECK_OK(options_get(&o, "data.file", text, sizeof text, &e), e);
    CHECK_STR(text, "x.h5");
    CHECK_OK(options_get(&o, "training.threads", text, sizeof text, &e), e);
    CHECK_STR(text, "auto");
    CHECK_OK(options_get(&o, "tasks.A.permute_features", text, sizeof text, &e), e);
    CHECK_STR(text, "3");
    CHECK_OK(options_get(&o, "tasks.0.ewc", text, sizeof text, &e), e);
    CHECK_STR(text, "");
    CHECK(options_get(&o, "data.flie", text, sizeof text, &e) < 0);
    CHECK_HAS(e.text, "there is no option data.flie");
    options_free(&o);
}

/* Mutations of a valid file: whatever they are, an answer comes and nothing leaks. */
TEST(options_mutated_files_are_survived)
{
    static const char valid[] =
        BASE "    ewc: []\n  - {name: B, from: A, ewc: [A]}\ntraining:\n  batch_size: 3\n"
             "finetuning:\n  epochs: 2\n  a: {seed: 3}\npretraining: {enabled: false}\n";
    static const char bytes[] = "\0\n :-[]{}&*!|>'\"%@`#,?~\t\xc3\xff"
                                "9a.";
    int accepted = 0;
    for (int round = 0; round < 3000; round++) {
        char text[sizeof valid];
        memcpy(text, valid, sizeof valid);
        for (int n = 1 + (int)(test_random() % 3); n > 0; n--)
            text[test_random() % (sizeof valid - 1)] = bytes[test_random() % (sizeof bytes - 1)];
        test_file_forget("m.yaml");
        FILE *f = fopen("m.yaml", "w");
        fwrite(text, 1, sizeof valid - 1, f);
        fclose(f);
        if (options_read(&o, "m.yaml", NULL, 0, &e) == 0)
            accepted++;
        else
            CHECK(e.code == EXIT_CODE_PERMANENT && strstr(e.text, "m.yaml"));
        options_free(&o);
    }
    CHECK(accepted > 0 && accepted < 3000);
}

static size_t stream_bytes(void (*print)(FILE *), const char *has)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    print(f);
    fclose(f);
    CHECK_HAS(text, has);
    free(text);
    return bytes;
}

TEST(options_help_and_docs_name_every_option)
{
    static const char *const keys[] = {
#define OPT(type, field, key, value, low, high, unit, meaning)  key,
#define TASK(type, field, key, value, low, high, unit, meaning) "tasks[]." key,
#include "proto/options.def"
#undef OPT
#undef TASK
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char cell[128];
        snprintf(cell, sizeof cell, "  %s = ", keys[i]);
        stream_bytes(options_print_help, cell);
        const char *dot = strrchr(keys[i], '.');
        snprintf(cell, sizeof cell, "| `%s` | ", dot ? dot + 1 : keys[i]);
        stream_bytes(options_print_docs, cell);
    }
}

/* The other schedules have a rise of their own. */
TEST(options_of_a_warmup_in_epochs_go_with_a_constant_rate)
{
    CHECK_OK(read_text(BASE "training: {warmup_epochs: 2}\n"), e);
    CHECK_OK(read_text(BASE "training: {warmup_epochs: 2, scheduler_type: plateau}\n"), e);
    CHECK_OK(read_text(BASE "training: {warmup_epochs: 0, scheduler_type: onecycle}\n"), e);
    CHECK_HAS(refused(BASE "training: {warmup_epochs: 2, scheduler_type: onecycle}\n"),
              "p.yaml: training.warmup_epochs is 2 and training.scheduler_type is onecycle, which "
              "rises over training.warmup_pct");
    CHECK_HAS(refused(BASE "training: {warmup_epochs: 1}\npreset: conservative\n"),
              "scheduler_type is cosine_warmup");
}

static void preset_read(const char *text, const char *set)
{
    CHECK_OK(set ? read_set(text, set) : read_text(text), e);
}

TEST(options_batch_size_auto_is_of_the_device)
{
    preset_read(BASE "training: {batch_size: auto}\nmemory: {device_limit_mb: 11900}\n", NULL);
    CHECK_EQ(o.batch_size, 96);
    preset_read(BASE "training: {batch_size: auto}\nmemory: {device_limit_mb: 11900, "
                     "host_limit_mb: 24000}\n",
                "device=cpu");
    CHECK_EQ(o.batch_size, 192);
}

TEST(options_of_a_preset_stand_between_defaults_and_what_is_given)
{
    preset_read(BASE "preset: saving\n", NULL);
    CHECK_EQ(o.batch_size, 32);
    CHECK_EQ(o.gradient_accumulation_steps, 8);
    CHECK_EQ(o.batch_size_auto, 0);
    CHECK_EQ(o.use_gradient_checkpointing, 1);
    CHECK_EQ(o.loader_persistent_workers, 0);
    CHECK(o.learning_rate == 1e-3);
    preset_read("training: {batch_size: 16}\npreset: saving\n" BASE, NULL); /* in any order */
    CHECK_EQ(o.batch_size, 16);
    CHECK_EQ(o.use_gradient_checkpointing, 1);
    preset_read(BASE "preset: saving\ntraining: {batch_size: 16}\n", "preset=roomy");
    CHECK_EQ(o.batch_size, 16);
    CHECK_EQ(o.use_gradient_checkpointing, 0);
    preset_read(BASE "preset: saving\n", "training.batch_size=128"); /* the default, but given */
    CHECK_EQ(o.batch_size, 128);
    preset_read(BASE "preset: saving\n", "preset=none");
    CHECK_EQ(o.batch_size, 128);
    CHECK_EQ(o.gradient_accumulation_steps, 1);
    test_file_write("base.yaml",
                    BASE "preset: roomy\ntraining: {checkpoint_segments: 3, use_swa: false}\n");
    preset_read("include: base.yaml\npreset: tight\n", NULL);
    CHECK_EQ(o.batch_size, 48);
    CHECK_EQ(o.use_swa, 0);
    CHECK_HAS(refused(BASE "preset: huge\n"), "p.yaml:8: preset is \"huge\"");
}

/* A step of a preset that got one of its two numbers from elsewhere would be of nobody's size. */
TEST(options_of_a_preset_give_both_numbers_of_a_step_or_none)
{
    static const struct {
        const char *given, *set;
        uint64_t rows, steps;
    } trials[] = {
        {"training: {batch_size: 128}\n", NULL, 128, 1},
        {"training: {batch_size: 96, gradient_accumulation_steps: 3}\n", NULL, 96, 3},
        {"training: {gradient_accumulation_steps: 3}\n", NULL, 128, 3},
        {"training: {use_swa: true}\n", NULL, 32, 8},
        {"", "training.batch_size=32", 32, 1},
        {"", "training.gradient_accumulation_steps=8", 128, 8},
        {"", "tasks.A.batch_size=64", 128, 1},
        {"training: {batch_size: 16}\n", "preset=none", 16, 1},
    };
    for (size_t i = 0; i < sizeof trials / sizeof trials[0]; i++) {
        char text[512];
        snprintf(text, sizeof text, BASE "preset: saving\n%s", trials[i].given);
        preset_read(text, trials[i].set);
        CHECK_EQ(o.batch_size, trials[i].rows);
        CHECK_EQ(o.gradient_accumulation_steps, trials[i].steps);
        CHECK_EQ(o.use_gradient_checkpointing, strcmp(o.preset, "saving") == 0);
    }
    test_file_write("base.yaml", BASE "training: {batch_size: 16}\n");
    preset_read("include: base.yaml\npreset: saving\n", NULL);
    CHECK_EQ(o.gradient_accumulation_steps, 1);
    test_file_write("base.yaml", BASE "    batch_size: 16\n"); /* a task that another replaces */
    preset_read("include: base.yaml\npreset: saving\ntasks: [{name: A}]\n", NULL);
    CHECK_EQ(o.batch_size, 32);
    CHECK_EQ(o.gradient_accumulation_steps, 8);
}

TEST(options_of_a_preset_take_no_more_threads_than_there_are_cores)
{
    uint64_t cores = (uint64_t)limits_threads("");
    preset_read(BASE "preset: roomy\n", NULL);
    CHECK_EQ(o.loader_num_workers, cores < 8 ? cores : 8);
    preset_read(BASE "preset: roomy\nloader: {num_workers: 8}\n", NULL);
    CHECK_EQ(o.loader_num_workers, 8);
}

TEST(options_of_a_preset_are_marked_in_the_effective_file)
{
    static const char *const names[] = {"standard", "saving", "tight", "roomy", "conservative"};
    static struct options back;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char set[64], text[1 << 16];
        snprintf(set, sizeof set, "preset=%s", names[i]);
        preset_read(BASE "training: {batch_size: 7}\n", set);
        CHECK_STR(o.preset, names[i]);
        write_effective(&o, "q.yaml");
        FILE *f = fopen("q.yaml", "r");
        CHECK(f != NULL);
        text[fread(text, 1, sizeof text - 1, f)] = '\0';
        fclose(f);
        CHECK_HAS(text, "  batch_size: 7\n");
        snprintf(set, sizeof set, " # as preset %s has it\n", names[i]);
        CHECK_HAS(text, set);
        CHECK_OK(options_read(&back, "q.yaml", NULL, 0, &e), e);
        CHECK(!options_difference(&o, &back));
        options_free(&back);
    }
    preset_read(BASE, "preset=conservative");
    CHECK_STR(o.scheduler_type, "cosine_warmup");
}

/* ---- options that do nothing --------------------------------------------------------------------
 */

static void sentence_add(void *self, const char *sentence)
{
    strcat(strcat(self, sentence), "\n");
}

/* The sentences about what was read last. */
static const char *idle(void)
{
    static char text[1 << 16];
    text[0] = '\0';
    options_idle(&o, sentence_add, text);
    return text;
}

TEST(options_that_do_nothing_are_told_where_they_were_given)
{
    CHECK_OK(read_text(BASE), e);
    CHECK_STR(idle(), "");
    CHECK_OK(read_text(BASE "training:\n  momentum: 0.9\n  plateau_factor: 0.5\n"), e);
    CHECK_STR(idle(), "training.momentum is set and does nothing: training.optimizer is adamw; it "
                      "counts with sgd\n"
                      "training.plateau_factor is set and does nothing: training.scheduler_type is "
                      "constant and training.use_reduce_on_plateau is false; it counts with "
                      "training.scheduler_type plateau or training.use_reduce_on_plateau true\n");
    CHECK_OK(read_text(BASE "training: {momentum: 0.9, optimizer: sgd, plateau_factor: 0.5,\n"
                            "  use_reduce_on_plateau: true}\n"),
             e);
    CHECK_STR(idle(), "");
    CHECK_OK(read_set(BASE, "training.swa_lr=1e-3"), e);
    CHECK_STR(idle(), "training.swa_lr is set and does nothing: training.use_swa is false; it "
                      "counts with true\n");
    CHECK_OK(read_set(BASE, "training.cycle_momentum=false"), e); /* a switch that is off */
    CHECK_STR(idle(), "");
    CHECK_OK(read_set(BASE, "training.warmup_pct=0.1"), e);
    CHECK_HAS(idle(), "is constant; it counts with onecycle or cosine_warmup\n");
    CHECK_OK(read_set(BASE, "model.pretrained_head=fresh"), e);
    CHECK_HAS(idle(), "model.pretrained is empty; it counts with a value\n");
}

/* Nor does a preset or what nobody gave. */
TEST(options_of_presets_and_of_effective_files_are_not_told)
{
    preset_read(BASE, "preset=saving");
    CHECK_STR(idle(), "");
    preset_read(BASE "training: {swa_lr: 1e-3}\n", "preset=saving"); /* use_swa: false */
    CHECK_HAS(idle(), "training.swa_lr is set and does nothing");
    write_effective(&o, "q.yaml");
    options_free(&o);
    CHECK(options_is_effective("q.yaml") && !options_is_effective("p.yaml"));
    CHECK_OK(options_read(&o, "q.yaml", NULL, 0, &e), e);
    CHECK_STR(idle(), "");
}

TEST(options_of_ewc_count_with_a_task_that_protects)
{
#define LAMBDA "continual_learning: {ewc_config: {lambda: 5, gamma: 0.5}}\n"
    CHECK_OK(read_text(BASE LAMBDA), e);
    CHECK_HAS(idle(), "ewc_config.lambda is set and does nothing: tasks.*.ewc is empty; it counts");
    CHECK_HAS(idle(), "ewc_config.gamma is set and does nothing: tasks.*.ewc is empty");
    CHECK_OK(read_text(BASE "  - {name: B, from: A, ewc: A}\n" LAMBDA), e);
    CHECK_STR(idle(), "continual_learning.ewc_config.gamma is set and does nothing: "
                      "continual_learning.ewc_config.mode is separate; it counts with online\n");
#undef LAMBDA
}

/* Each row of idle.def speaks of an option, and its conditions of options and their words. */
TEST(options_of_the_idle_table_are_there)
{
    size_t count, options;
    const struct idle_row *idle_of = idle_rows(&count);
    const struct option_row *rows = option_rows(&options);
    CHECK_OK(read_text(BASE), e);
    for (size_t c = 0; c < count; c++) {
        int fits = 0;
        for (size_t i = 0; i < options; i++)
            fits |= idle_row_fits(&idle_of[c], rows[i].key);
        if (!fits)
            test_fail(__FILE__, __LINE__, "no option is like %s", idle_of[c].key);
    }
    memset(o.given, 1, sizeof o.given);
    idle(); /* ensures that a condition's options are there */
    for (size_t c = 0; c < count; c++) {
        char condition[512];
        snprintf(condition, sizeof condition, "%s", idle_of[c].condition);
        for (char *save, *one = strtok_r(condition, ",", &save); one;
             one = strtok_r(NULL, ",", &save)) {
            char *words, *key = strtok_r(one, " ", &words);
            const struct option_row *row = row_find(rows, options, key);
            for (char *word = strtok_r(NULL, "|", &words); row && word;
                 word = strtok_r(NULL, "|", &words))
                if (row->type == OPTION_TYPE_IS_CHOICE && !strstr(row->unit, word))
                    test_fail(__FILE__, __LINE__, "%s is never %s", key, word);
        }
    }
}
