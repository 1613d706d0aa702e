/* advisor.c - see advisor.h. */
#include "monitord/advisor.h"

#include <string.h>

#include "proto/journal.h"
#include "proto/log.h"

/* Advice that no journal takes, as on a full disk, is worth telling all the same. */
static void advice_publish(void *self, struct msg_memory_advice *m)
{
    struct advisor *a = self;
    struct err why = {0};
    log_warn("what=%s option=%s Advice: %s", m->what, m->option, m->sentence);
    if (daemon_fact(a->daemon, MSG_memory_advice, m, &why) == 0)
        return;
    log_warn("The advice is not in the journal: %s", why.text);
    daemon_publish(a->daemon, MSG_memory_advice, m);
}

static int told_visit(void *self, enum msg_type type, const union msg *m)
{
    struct advisor *a = self;
    if (type == MSG_memory_advice)
        advice_was_told(&a->advice, &m->memory_advice);
    if (type != MSG_event_stage || strcmp(m->event_stage.what, "start") != 0)
        return 0;
    uint64_t launch = m->event_stage.launch;
    if (launch == 0 || launch != a->launch)
        advice_forget(&a->advice);
    a->launch = launch;
    return 0;
}

static int fact_visit(void *self, enum msg_type type, const union msg *m)
{
    advice_fact(self, type, m);
    return 0;
}

void advisor_open(struct advisor *a, struct daemon *d)
{
    struct err why = {0};
    *a = (struct advisor){.daemon = d};
    advice_open(&a->advice, &d->options, advice_publish, a);
    if (journal_read("journals/monitord", told_visit, a, &why) < 0)
        log_warn("What was advised before is not known: %s", why.text);
}

static void facts_read(struct advisor *a)
{
    struct err why = {0};
    advice_facts_begin(&a->advice);
    if (journal_read("journals/trainerd", fact_visit, &a->advice, &why) < 0)
        log_warn("The plan and the epochs so far are not known: %s", why.text);
}

void advisor_samples(struct advisor *a, const struct sample_round *round)
{
    advice_samples(&a->advice, round);
}

void advisor_message(struct advisor *a, enum msg_type type, const union msg *m)
{
    if (type == MSG_trainer_step && m->head.incarnation != a->incarnation) {
        a->incarnation = m->head.incarnation;
        facts_read(a);
    }
    advice_message(&a->advice, type, m);
}
