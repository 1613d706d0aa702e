/* gpu.h - how the GPU does that the training computes on: when it is looked at, and what the log
 * says of it.
 *
 *   trainerd tells a GPU (event.device)   -> it is looked at once a second at most, while trainerd
 *                                            runs, and no more often than takes 1 % of the time
 *   ... the CPU, or nothing yet           -> nothing is opened, nothing is measured
 *   a look fails                          -> the reason is told once; the next look is a minute
 *                                            later, or when trainerd is started again
 *
 * What a trainerd told before anybody listened is found in its journal, once it is heard.
 */
#ifndef MONITORD_GPU_H
#define MONITORD_GPU_H

#include "monitord/nvml.h"
#include "proto/highwater.h"

enum { GPU_LINE_BYTES = 512 };

struct gpu {
    char bus[32];         /* empty: the training computes on the CPU, or it is not known yet */
    uint64_t incarnation; /* of the trainerd that told */
    struct nvml nvml;
    double due_s;                 /* monotonic: no look before */
    int there;                    /* `sample` is of the present trainerd's GPU */
    struct msg_gpu_sample sample; /* the newest */
    struct err told;              /* why the last look failed, as it was told */
    uint64_t lines;               /* of the log, that the steps so far were worth */
    double line_due_s;
};

void gpu_open(struct gpu *g);
void gpu_close(struct gpu *g); /* harmless twice */

void gpu_message(struct gpu *g, enum msg_type type, const union msg *m);

/* Look if it is time. 1: `sample` is a new one. */
int gpu_look(struct gpu *g, int trainerd_runs, double now_s);

/* Its figures count for the report, in monitord's page. */
void gpu_count(struct highwater_page *page, const struct msg_gpu_sample *m);

/* The line of the log that a step is worth, of which there is one for each `every` of them (0:
 * none), but one a second at most. 1: it is in `text`. */
int gpu_line(struct gpu *g, const struct msg_trainer_step *m, uint64_t every, double now_s,
             char text[GPU_LINE_BYTES]);

#endif
