/* ahead.c - steps that are asked of a device apart before the results of the one before are known,
 * so that it does not stand still while the host does its part.
 *
 *   stepper_update_ask    the device decides what depends on the step's numbers: the clipping
 *                         factor, and whether the step is refused (step_verdict); the update
 *                         follows, and the numbers come to the host when they are there
 *   stepper_update_take   the numbers of the oldest step asked for
 *
 * A refused step changes nothing, and neither do those behind it: the verdict stays until the host
 * has seen it. The host then makes that step again with stepper_update, which is refused for the
 * same numbers and says why. What is sent from the host's memory, the places of rows and the step's
 * number, has STEPS_AHEAD places there in turn, and rows' places have them on the device too, where
 * they arrive while the step before is computed. Rows that the host has gathered are sent from one
 * place, which it writes again when they are there (batch_claim): it gathers the next ones beside
 * what is computed, too. Graphs arrive at a place of their own there meanwhile, from which a copy
 * on the device begins their step.
 */
#include <string.h>

#include "engine/stepper.h"

static void stage_use(struct stepper *s, int ahead)
{
    s->ahead = ahead;
    s->host.step = s->stage_step + ahead;
    uint64_t places = (uint64_t)ahead * ROW_PLACES * s->config.batch_rows_max;
    s->host.rows = s->stage_rows + places;
    s->at.rows = s->device_rows + places;
}

void ahead_place(struct stepper *s)
{
    ensure(!stepper_asked(s));
    s->stage_step = s->host.step;
    s->stage_rows = s->host.rows;
    s->device_rows = s->at.rows;
    stage_use(s, 0);
    memset(s->places_sent, 0, sizeof s->places_sent);
    s->permuted = 0;
}

int stepper_asked(const struct stepper *s)
{
    int asked = 0;
    for (int i = 0; i < STEPS_AHEAD; i++)
        asked += s->asked_rows[i] > 0;
    return asked;
}

/* A loss scale follows from the step before. */
int stepper_asks(const struct stepper *s)
{
    return s->device->apart && s->layout.half != HALF_F16 && !s->batch.unsent &&
           !s->pieces_forgotten;
}

static struct step_limits limits_make(const struct stepper *s, const struct optimizer_config *a)
{
    struct step_limits l = {.loss_max = a->loss_max,
                            .max_grad_norm = a->max_grad_norm,
                            .target_steps = (double)s->model->target_steps,
                            .batch_rows = (double)s->batch.rows,
                            .weighted = s->weighted,
                            .pieces = s->piece_count};
    for (uint32_t i = 0; i < s->piece_count; i++) {
        const struct gather_piece *p = &s->pieces[i]; /* as pieces_check looks at it */
        l.rows[i][0] = p->count;
        l.rows[i][1] = p->targets ? p->count : 0;
        l.rows[i][2] = p->targets && s->config.weights ? p->count : 0;
    }
    return l;
}

void stepper_update_ask(struct stepper *s, uint64_t t, const struct optimizer_config *a)
{
    struct step_limits limits = limits_make(s, a);
    struct step_verdict *verdict = &s->results->verdict;
    ensure(stepper_asks(s) && !s->asked_rows[s->ahead]);
    ensure(s->batch.rows > 0 && s->batch.done == s->batch.rows && t > 0);
    op_step_verdict(s->backend, s->gradient, gradient_count(s), &s->results->norm2, s->results->bad,
                    &limits, verdict, &s->told[s->ahead]);
    s->sums_clear = 1;
    statistics_commit(s, verdict);
    carried_commit(s, verdict);
    update_run(s, a, t, 0, verdict);
    s->device->compute_mark(DEVICE_MARK_STEPS + s->ahead);
    s->asked_rows[s->ahead] = s->batch.rows;
    s->batch.rows = s->batch.done = 0;
    s->bad_number = 0;
    stage_use(s, (s->ahead + 1) % STEPS_AHEAD);
}

/* Nothing of what was asked for is to be done any more, and what is in work is forgotten. */
static void asked_drop(struct stepper *s)
{
    s->device->wait();
    s->device->clear(&s->results->verdict, sizeof s->results->verdict);
    memset(s->asked_rows, 0, sizeof s->asked_rows);
    memset(s->places_sent, 0, sizeof s->places_sent);
    s->batch.rows = s->batch.done = 0;
}

int stepper_update_take(struct stepper *s, struct step_result *r, struct err *e)
{
    int oldest = s->ahead;
    ensure(stepper_asked(s));
    while (!s->asked_rows[oldest])
        oldest = (oldest + 1) % STEPS_AHEAD;
    const struct step_told *told = &s->told[oldest];
    stepper_wait_for(s, DEVICE_MARK_STEPS + oldest);
    int failed = s->device->failure(e) < 0;
    if (failed || told->verdict.refused) {
        asked_drop(s);
        return failed ? -1 : 0;
    }
    *r = (struct step_result){0};
    step_result_fill(s, s->asked_rows[oldest], told->sums, r);
    s->asked_rows[oldest] = 0;
    s->places_sent[oldest] = 0;
    return 1;
}
