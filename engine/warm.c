/* warm.c - see warm.h. */
#include "engine/warm.h"

#include "engine/step.h"

enum { ROWS = 8, INPUTS = 16 };

static int batch_gather(struct stepper *s, struct err *e)
{
    static const float features[ROWS][INPUTS];
    static const uint8_t classes[ROWS];
    const struct gather_config g = {
        .feature_type = "f32", .target_type = "u8", .features = INPUTS, .targets = 1, .scale = 1};
    const void *rows[ROWS], *targets[ROWS];
    uint64_t bad;
    for (int i = 0; i < ROWS; i++) {
        rows[i] = features[i];
        targets[i] = &classes[i];
    }
    return stepper_gather(s, &g, 0, ROWS, rows, targets, &bad, e);
}

static int batch_work(struct stepper *s, const struct model *m, int with_optimizer, struct err *e)
{
    const struct optimizer_config adamw = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    float squares[1024] = {0}; /* is added to */
    struct step_result result;
    ensure(m->parameter_count <= sizeof squares / sizeof *squares);
    if (with_optimizer)
        return stepper_train(s, ROWS, 1, 1, &adamw, NULL, 0, &result, e);
    return stepper_fisher(s, ROWS,
                          &(struct fisher_sums){.count = m->parameter_count, .at = squares}, e);
}

int engine_warm(int with_optimizer, struct err *e)
{
    static const char *const layers[] = {"linear out=16", "relu", "linear out=2"};
    const struct step_config c = {
        .batch_rows_max = ROWS, .slice_rows = ROWS, .threads = 1, .with_optimizer = with_optimizer};
    struct model m = {0};
    struct stepper *s = NULL;
    int result = -1;
    if (model_open(&m, layers, 3, INPUTS, "softmax_cross_entropy", e) == 0 &&
        stepper_open(&s, &m, &c, e) == 0 && batch_gather(s, e) == 0)
        result = batch_work(s, &m, with_optimizer, e);
    if (s)
        stepper_close(&s);
    model_close(&m);
    return result;
}
