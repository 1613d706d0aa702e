/* test_engine_schedule.c - engine/lr_schedule: the golden values of
 * torch.optim.lr_scheduler.OneCycleLR (1.13.1) and of transformers' cosine schedule with warm-up,
 * and what happens at the edges. */
#include "engine/lr_schedule.h"

#include <math.h>

#include "tests/test.h"

static void check_within(double found, double wanted, double tolerance)
{
    CHECK(fabs(found - wanted) <= tolerance);
}

static void check_near(double found, double wanted)
{
    check_within(found, wanted, 1e-12);
}

TEST(onecycle_is_torchs)
{
    static const double rates[] = {0.0004,     0.0052,     0.01,       0.00950485,  0.00811746,
                                   0.00611262, 0.00388742, 0.00188258, 0.000495194, 4e-08};
    static const double betas[] = {.95,     .9,      .85,     .854952, .868826,
                                   .888874, .911126, .931174, .945048, .95};
    struct lr_schedule s = {.kind = LR_ONECYCLE,
                            .steps = 10,
                            .rate = 1e-2,
                            .beta1 = 0.9,
                            .warmup_pct = 0.3,
                            .div_factor = 25,
                            .final_div_factor = 1e4,
                            .cycle_momentum = 1};
    for (uint64_t i = 0; i < 10; i++) {
        check_within(lr_schedule_at(&s, i).rate, rates[i], 5.1e-9); /* printed so */
        check_within(lr_schedule_at(&s, i).beta1, betas[i], 5.1e-7);
    }
    check_within(lr_schedule_at(&s, 9).rate, 4e-8, 1e-18);
    s.cycle_momentum = 0;
    CHECK_EQ(lr_schedule_at(&s, 4).beta1 == 0.9, 1);
}

/* torch divides by zero where the first phase has one step, and leaves its range where it has none.
 */
TEST(onecycle_with_hardly_any_steps)
{
    struct lr_schedule s = {
        .kind = LR_ONECYCLE, .rate = 1, .div_factor = 10, .final_div_factor = 10};
    for (s.steps = 1; s.steps < 8; s.steps++)
        for (s.warmup_pct = 0; s.warmup_pct <= 1; s.warmup_pct += 0.125)
            for (uint64_t i = 0; i < s.steps; i++) {
                double rate = lr_schedule_at(&s, i).rate;
                CHECK(rate >= 0.01 * (1 - 1e-12) && rate <= 1 + 1e-12);
                if (s.steps > 1 && s.warmup_pct < 1 && i == s.steps - 1)
                    check_near(rate, 0.01);
            }
}

TEST(cosine_with_warmup)
{
    static const double rates[] = {0, .25, .5, .75, 1, 0.853553390593, 0.5, 0.146446609407};
    struct lr_schedule s = {.kind = LR_COSINE_WARMUP, .steps = 8, .rate = 1, .warmup_pct = 0.5};
    for (uint64_t i = 0; i < 8; i++)
        check_near(lr_schedule_at(&s, i).rate, rates[i]);
    s.warmup_pct = 0;
    check_near(lr_schedule_at(&s, 0).rate, 1);
    s.warmup_pct = 1;
    check_near(lr_schedule_at(&s, 7).rate, 7.0 / 8);
}

TEST(constant_stays)
{
    struct lr_schedule s = {.kind = LR_CONSTANT, .steps = 3, .rate = 0.5, .beta1 = 0.8};
    for (uint64_t i = 0; i < 3; i++)
        CHECK(lr_schedule_at(&s, i).rate == 0.5 && lr_schedule_at(&s, i).beta1 == 0.8);
    CHECK_EQ(lr_schedule_kind_named("onecycle"), LR_ONECYCLE);
    CHECK_EQ(lr_schedule_kind_named("linear"), -1);
}
