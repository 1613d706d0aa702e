/* advisor.h - takes what monitord measures and hears to advice.h, and tells what comes of it: as
 * memory.advice in monitord's journal and on the stream, which the foreground shows, and in its
 * log.
 *
 * After a restart it goes on where it was: what was told in this launch stands in monitord's
 * journal, and the facts of training in trainerd's, which is read when a trainerd is heard for the
 * first time.
 */
#ifndef MONITORD_ADVISOR_H
#define MONITORD_ADVISOR_H

#include "monitord/advice.h"
#include "proto/daemon.h"

struct advisor {
    struct daemon *daemon; /* borrowed */
    struct advice advice;
    uint64_t launch;      /* of the start that was read last in our journal */
    uint64_t incarnation; /* of the trainerd whose facts are known; 0: none */
};

void advisor_open(struct advisor *a, struct daemon *d);
void advisor_samples(struct advisor *a, const struct sample_round *round);
void advisor_message(struct advisor *a, enum msg_type type, const union msg *m);

#endif
