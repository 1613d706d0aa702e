/* main.c - trainerd: arena -> better weights.
 *
 * The one authority over a run's progress: it walks the task list of the pipeline file, takes rows
 * from loaderd through two arenas, asks fisherd which weights matter, and commits what it reached
 * as checkpoints. Killed at any moment it goes on from the newest one and ends with the same
 * weights, bit for bit. All its state is struct trainer (trainer.h); the flow is drawn in tasks.c.
 */
#include "trainerd/trainer.h"

#include <stdio.h>
#include <string.h>

#include "engine/layer_reference.h"
#include "engine/warm.h"
#include "proto/log.h"

static int trainer_start(void *self, struct daemon *d, struct err *e)
{
    struct trainer *t = self;
    t->daemon = d;
    t->present = d->options;
    t->options = &t->present;
    if (setup_start(t, e) == 0)
        return 0;
    setup_free(t);
    return -1;
}

static int trainer_turn(void *self, struct daemon *d, int *sleep_ms, struct err *e)
{
    struct trainer *t = self;
    (void)d;
    int result = tasks_turn(t, sleep_ms, e);
    t->failed = result == DAEMON_FAILED;
    return result;
}

static int trainer_request(void *self, struct daemon *d, const struct link_peer *peer,
                           enum msg_type type, const union msg *m)
{
    struct trainer *t = self;
    struct msg_done answer = {0};
    (void)m;
    if (type != MSG_checkpoint && type != MSG_release)
        return 0;
    if (type == MSG_checkpoint)
        t->checkpoint_asked = 1; /* written by the next turn that stands between two steps */
    else
        t->release_asked = 1; /* likewise */
    MSG_STR(answer.verb, msg_name(type));
    daemon_reply(d, peer, MSG_done, &answer);
    return 1;
}

/* Saves seconds of work, not the run: a kill instead of a stop costs no more than those. After a
 * failure there may be half a change to the cursor, so nothing is saved. */
static void trainer_stop(void *self, struct daemon *d)
{
    struct trainer *t = self;
    struct err e;
    (void)d;
    int has_state = t->state > TRAINER_BEGIN && t->state < TRAINER_DONE;
    int saves = has_state && !t->failed;
    if (saves && (train_settle(t, &e) < 0 || save_checkpoint(t, &e) < 0))
        log_error("code=%d %s", e.code, e.text);
    if (saving_end(t, &e) < 0) /* in any case: what it writes is freed now */
        log_error("code=%d %s", e.code, e.text);
    setup_free(t);
}

static int trainer_command(void *self, int argc, char **argv)
{
    (void)self;
    if (argc > 1 && strcmp(argv[1], "--weights") == 0)
        return weights_command(argc, argv);
    if (argc > 1 && strcmp(argv[1], "--predict") == 0)
        return predict_command(argc, argv);
    if (argc > 1 && strcmp(argv[1], "--device") == 0)
        return compute_command(argc, argv);
    if (argc != 2 || strcmp(argv[1], "--layers-reference") != 0)
        return plan_command(argc, argv);
    layer_reference_print(stdout);
    return fflush(stdout) == 0 ? EXIT_CODE_DONE : EXIT_CODE_TEMPORARY;
}

static int trainer_warm(void *self, struct err *e)
{
    static struct checkpoint_meta meta; /* large */
    float numbers[3] = {0};
    struct checkpoint_tensor tensor = {.name = "0.bias", .rank = 1, .dims = {1}};
    char digest[65];
    uint64_t bytes;
    tensor.parameter = &numbers[0];
    tensor.m = &numbers[1];
    tensor.v = &numbers[2];
    memset(self, 0, sizeof(struct trainer));
    if (engine_warm(1, e) < 0)
        return -1;
    return checkpoint_write("warm.h5", &meta, "", &tensor, 1, digest, &bytes, e);
}

static const char *const help_of[] = {"--weights", "--predict", NULL};

static const struct daemon_spec spec = {
    .stage = "trainerd",
    .purpose = "trains the tasks of a run, one after the other, on the rows that loaderd delivers",
    .example = "trainerd --run runs/fashion",
    .deadline_s =
        120, /* a turn is one optimizer step, a few batches of evaluation or a checkpoint */
    .warm = trainer_warm,
    .start = trainer_start,
    .turn = trainer_turn,
    .request = trainer_request,
    .stop = trainer_stop,
    .command = trainer_command,
    .help_of = help_of,
    .extra_help =
        "  --plan --config FILE [--set section.key=value]...\n"
        "               print the memory plan of a run and end; standard input is what\n"
        "               `loaderd --describe` prints of its data\n"
        "  --device --config FILE [--set section.key=value]...\n"
        "               look whether layers and other options of a run are right, print the\n"
        "               MiB that its device has, 0 for the CPU, and end\n"
        "  --weights export|list ...\n"
        "               weights for other tools; see pipelines/weights.sh --help\n"
        "  --predict ...\n"
        "               outputs of a trained model; see pipelines/predict.sh --help\n"
        "  --layers-reference\n"
        "               print docs/LAYERS.md, what model.layers and model.loss accept\n",
};

int main(int argc, char **argv)
{
    static struct trainer self;
    return daemon_run(argc, argv, &spec, &self);
}
