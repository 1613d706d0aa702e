/* lr_schedule.c - see lr_schedule.h. */
#include "engine/lr_schedule.h"

#include <math.h>
#include <string.h>

#include "proto/err.h"

static const double BETA1_HIGH = 0.95, BETA1_LOW = 0.85; /* OneCycleLR's max and base momentum */

int lr_schedule_kind_named(const char *name)
{
    static const char *const names[] = {[LR_CONSTANT] = "constant",
                                        [LR_ONECYCLE] = "onecycle",
                                        [LR_COSINE_WARMUP] = "cosine_warmup"};
    for (int i = 0; i < (int)(sizeof names / sizeof names[0]); i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

/* Cosine from `from` at share 0 to `to` at share 1. */
static double anneal(double from, double to, double share)
{
    return to + (from - to) / 2 * (cos(M_PI * share) + 1);
}

static struct lr_point onecycle_at(const struct lr_schedule *s, double step)
{
    double first = s->rate / s->div_factor, last = first / s->final_div_factor;
    double peak = s->warmup_pct * (double)s->steps - 1, end = (double)s->steps - 1;
    struct lr_point at = {.beta1 = s->beta1};
    int rising =
        step <= peak && peak > 0; /* torch divides by zero where the first phase is one step */
    double share = rising ? step / peak : end > peak ? (step - peak) / (end - peak) : 1;
    at.rate = rising ? anneal(first, s->rate, share) : anneal(s->rate, last, share);
    if (s->cycle_momentum)
        at.beta1 =
            rising ? anneal(BETA1_HIGH, BETA1_LOW, share) : anneal(BETA1_LOW, BETA1_HIGH, share);
    return at;
}

static double cosine_warmup_at(const struct lr_schedule *s, double step)
{
    double warmup = floor(s->warmup_pct * (double)s->steps), rest = (double)s->steps - warmup;
    if (step < warmup)
        return s->rate * step / warmup;
    return s->rate * fmax(0, 0.5 * (1 + cos(M_PI * (step - warmup) / fmax(1, rest))));
}

struct lr_point lr_schedule_at(const struct lr_schedule *s, uint64_t step)
{
    struct lr_point at = {.rate = s->rate, .beta1 = s->beta1};
    ensure(step < s->steps);
    if (s->kind == LR_ONECYCLE)
        return onecycle_at(s, (double)step);
    if (s->kind == LR_COSINE_WARMUP)
        at.rate = cosine_warmup_at(s, (double)step);
    return at;
}

double lr_averaging_at(double from, double rate, uint64_t epoch, uint64_t anneal_epochs, int linear)
{
    double share = epoch < anneal_epochs ? (double)epoch / (double)anneal_epochs : 1;
    double swa = linear ? share : (1 - cos(M_PI * share)) / 2;
    return rate * swa + from * (1 - swa);
}
