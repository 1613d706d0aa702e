/* test_trainer_setup.c - what trainerd chooses before it has data: the device it computes on, and
 * the metric that goes with the loss. */
#include "engine/device.h"
#include "tests/test.h"
#include "tests/unit/trainer_fixture.h"
#include "trainerd/trainer.h"

static struct options options; /* large; each case is a process of its own */

TEST(compute_without_a_cuda_library)
{
    static char automatic[] = "auto", cuda[] = "cuda:1";
    const struct device *d;
    struct err e = {0};
    setenv("FINETUNED_CUDA_LIBRARY", "none.so", 1);
    trainer_fixture_options(&options);
    options.device = automatic;
    CHECK_OK(compute_open(&d, &options, "", &e), e);
    CHECK(d == &device_cpu);
    compute_close(&d);
    options.device = cuda;
    CHECK_EQ(compute_open(&d, &options, "", &e), -1);
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK_HAS(e.text, "no CUDA backend");
    CHECK(!d);
    compute_close(&d);
}

TEST(setup_refuses_layers_with_file_and_line)
{
    static const struct {
        const char *layer, *sentence;
    } cases[] = {
        {"poool kind=mean", "p.yaml:7: model.layers, layer 1: unknown type 'poool'; accepted: "},
        {"poool kind=mean", "embedding; the nearest is pool"},
        {"pool knd=mean", "layer 1 (pool): unknown key 'knd'; accepted: kind; the nearest is kind"},
        {"lstm out=4 layer=2", "unknown key 'layer'; accepted: out, layers, bidirectional, "
                               "dropout; the nearest is layers"},
        {"linear out=sixty", "key 'out' is 'sixty'; accepted: a whole number from 1"},
        {"linear out=-64", "p.yaml:7: model.layers, layer 1 (linear): key 'out' is '-64'"},
        {"pool", "layer 1 (pool): key 'kind' is missing"},
        {"relu out=3", "layer 1 (relu): unknown key 'out'; it has no keys"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = {0};
        trainer_fixture_options(&options);
        options.layer_lines[1] = 7;
        strcpy(options.layers_source, "p.yaml");
        strcpy(options.layers[1], cases[i].layer);
        CHECK_EQ(setup_options_check(&options, &e), -1);
        CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
        CHECK_HAS(e.text, cases[i].sentence);
    }
}

TEST(setup_refuses_a_metric_of_another_loss)
{
    char automatic[] = "auto", r2[] = "r2", l1[] = "l1";
    struct err e = {0};
    trainer_fixture_options(&options);
    options.device = automatic;
    CHECK_STR(setup_metric(&options), "accuracy");
    options.metric = r2;
    CHECK_EQ(setup_options_check(&options, &e), -1);
    CHECK_HAS(e.text, "training.metric is r2, which does not go with the loss "
                      "softmax_cross_entropy; accepted: loss, accuracy");
    options.model_loss = l1;
    CHECK_OK(setup_options_check(&options, &e), e);
    CHECK_STR(setup_metric(&options), "r2");
}
