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
