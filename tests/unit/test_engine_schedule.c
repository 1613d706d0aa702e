/* test_engine_schedule.c - engine/lr_schedule and engine/plateau: the golden values of
 * torch.optim.lr_scheduler.OneCycleLR and ReduceLROnPlateau and of swa_utils.SWALR (1.13.1) and of
 * transformers' cosine schedule with warm-up, and what happens at the edges. */
#include "engine/lr_schedule.h"

#include <math.h>

#include "engine/plateau.h"
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

TEST(plateau_is_torchs)
{
    static const double values[] = {1, .995, .994, .993, .992, .5, .5, .5, .5, .5, .5, .5};
    static const double rates[] = {.1, .1, .1, .05, .05, .05, .05, .05, .025, .025, .025, .025};
    struct plateau_config c = {
        .threshold = 1e-2, .factor = .5, .patience = 2, .cooldown = 1, .step_min = 1e-8 / .1};
    struct plateau p = plateau_begin(0);
    for (int i = 0; i < 12; i++) {
        int reduced = plateau_step(&p, &c, values[i]);
        check_near(.1 * p.scale, rates[i]);
        CHECK_EQ(reduced, i == 3 || i == 8);
    }
}

/* torch.optim.lr_scheduler.ReduceLROnPlateau(mode="max", threshold_mode="abs", threshold=.1,
 * patience=0, factor=.1, min_lr=2e-3) from 0.1. */
TEST(plateau_of_what_is_better_when_larger)
{
    static const double values[] = {1, 1.05, 1.2, NAN, 1.3, 1.31, 2};
    static const double rates[] = {.1, .01, .01, 2e-3, 2e-3, 2e-3, 2e-3};
    struct plateau_config c = {.larger_is_better = 1,
                               .absolute = 1,
                               .threshold = .1,
                               .factor = .1,
                               .scale_min = 2e-2,
                               .step_min = 1e-7};
    struct plateau p = plateau_begin(1);
    for (int i = 0; i < 7; i++) {
        plateau_step(&p, &c, values[i]);
        check_near(.1 * p.scale, rates[i]);
    }
    CHECK(p.best == 2);
}

/* A reduction too small to make still begins a cooldown, as torch's. */
TEST(plateau_at_its_least_rate)
{
    struct plateau_config c = {.factor = .5, .scale_min = 1, .cooldown = 3};
    struct plateau p = plateau_begin(0);
    CHECK(!plateau_step(&p, &c, 1) && !plateau_step(&p, &c, 1));
    CHECK(p.scale == 1 && p.cooldown == 3 && p.bad == 0);
}

/* SWALR(swa_lr=0.05, anneal_epochs=4) on SGD of rate 0.1, before each epoch. */
TEST(averaging_rates_are_torchs)
{
    static const double cosine[] = {0.09267766952966369, 0.075, 0.05732233047033632, .05, .05};
    static const double linear[] = {.0875, .075, .0625, .05, .05};
    for (uint64_t i = 0; i < 5; i++) {
        check_near(lr_averaging_at(.1, .05, i + 1, 4, 0), cosine[i]);
        check_near(lr_averaging_at(.1, .05, i + 1, 4, 1), linear[i]);
        check_near(lr_averaging_at(.1, .05, i + 1, 0, 1), .05);
    }
}
