/* lr_schedule.h - the learning rate of each step of a task (and with it AdamW's beta1 or SGD's
 * momentum, called beta1 here): pure functions of the step's place.
 *
 * One-cycle: Smith and Topin, "Super-Convergence" (arXiv 1708.07120), in the form and with the
 * names of torch.optim.lr_scheduler.OneCycleLR with two phases and cosine annealing: from rate /
 * div_factor up to rate at the end of the first warmup_pct of the steps, then down to rate /
 * (div_factor final_div_factor); beta1 goes the other way, 0.95 -> 0.85 -> 0.95. Cosine with linear
 * warm-up: transformers.get_cosine_schedule_with_warmup with half a cycle: rate step / warm-up
 * steps, then rate (1 + cos(pi p)) / 2.
 */
#ifndef ENGINE_LR_SCHEDULE_H
#define ENGINE_LR_SCHEDULE_H

#include <stdint.h>

enum lr_schedule_kind { LR_CONSTANT, LR_ONECYCLE, LR_COSINE_WARMUP };

struct lr_schedule {
    enum lr_schedule_kind kind;
    uint64_t steps;                      /* of the task, at least 1 */
    double rate;                         /* the largest one */
    double beta1;                        /* where it does not cycle */
    double warmup_pct;                   /* share of the steps, 0 to 1 */
    double div_factor, final_div_factor; /* one-cycle */
    int cycle_momentum;                  /* one-cycle: beta1 goes the other way */
};

struct lr_point {
    double rate, beta1;
};

/* "constant", "onecycle", "cosine_warmup". -1 for another word. */
int lr_schedule_kind_named(const char *name);

/* Of optimizer step `step` of the task, 0 .. steps - 1. A phase without steps is passed over. */
struct lr_point lr_schedule_at(const struct lr_schedule *s, uint64_t step);

/* The rate of weight averaging, from `from` to `rate`, in its `epoch`-th epoch (from 1):
 * torch.optim.swa_utils.SWALR, stepped before each epoch. anneal_epochs 0: `rate` at once. */
double lr_averaging_at(double from, double rate, uint64_t epoch, uint64_t anneal_epochs,
                       int linear);

#endif
