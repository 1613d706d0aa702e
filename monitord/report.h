/* report.h - the report of a run, a pure function of what the run left on disk.
 *
 *   options, newest checkpoint, journals, high-water pages, sizes of the Fisher files, deaths
 *       -> struct report -> report.json, report.md, pictures, table
 *
 * So it can be made again at any time, and a kill while it is made costs nothing.
 */
#ifndef MONITORD_REPORT_H
#define MONITORD_REPORT_H

#include <stdint.h>
#include <stdio.h>

#include "monitord/continual.h"
#include "monitord/history.h"
#include "monitord/json.h"
#include "monitord/stages.h"
#include "proto/checkpoint.h"
#include "proto/highwater.h"
#include "proto/options.h"

struct report_task { /* a value that is not known is NaN */
    char name[64], metric[32];
    double after_own_training; /* at the end of the task itself */
    double final;              /* at the end of the last task that is no comparison */
    double final_without_ewc;  /* at the end of the comparison */
};

/* A task's Fisher information as it is stored; online, also that of all tasks up to it. */
struct report_ewc {
    char task[80], form[16];             /* "B", "B, online" */
    uint64_t bytes, parameters, samples; /* bytes: of the file */
    double error;                        /* fisher_code.h's */
};

enum { REPORT_DEATHS_MAX = 64 };

/* Of a stage, which did not end the run. */
struct report_death {
    char time[32], stage[17]; /* UTC */
    uint32_t code;            /* 256 and more: a signal */
    char sentence[1024];
};

struct report {
    const struct options *options;      /* borrowed */
    const struct checkpoint_meta *meta; /* borrowed; zeroed if there is no checkpoint yet */
    const struct history *history;      /* borrowed */
    struct highwater_page pages[STAGE_COUNT];
    int finished; /* all tasks are done */
    const char *device;
    struct report_task tasks[OPTION_TASKS_MAX]; /* without the comparisons */
    uint32_t task_count;
    int compared; /* there is a comparison task */
    struct continual continual;
    int curve_drawn;                             /* curve_draw's picture is there */
    struct report_ewc ewc[2 * OPTION_TASKS_MAX]; /* report_ewc_read */
    uint32_t ewc_count;
    struct report_death deaths[REPORT_DEATHS_MAX]; /* report_deaths_read; the newest come last */
    uint32_t death_count;
    char weights_sha256[65]; /* empty: not known */
    uint64_t steps;          /* that were made; the schedule's may be more */
    double samples_per_second, wall_seconds, cpu_seconds;
    double data_wait_share; /* of the time of training, 0 to 1; NaN: no epoch was finished */
    uint64_t arena_bytes;
    uint64_t plan_bytes[STAGE_COUNT]; /* history's plan; 0: the plan does not speak of it */
    uint64_t plan_device_bytes;       /* the same of a GPU's memory */
};

/* Pure: everything from options, newest checkpoint's attributes, history and pages (STAGE_COUNT of
 * them, zeroed where a stage left none). */
void report_make(struct report *r, const struct options *o, const struct checkpoint_meta *meta,
                 const struct history *h, const struct highwater_page *pages);

/* The report of the run in the present directory into *r, which borrows *o (the caller frees it)
 * and static storage of the last call. */
int report_load(struct report *r, struct options *o, struct err *e);

/* report_write.c */
void report_print_json(const struct report *r, FILE *out);
void report_print_markdown(const struct report *r, FILE *out);
void report_print_table(const struct report *r, FILE *out); /* for a terminal */

/* curve_plot.c: report/curve.png. Where fewer than two epochs have both losses there is nothing to
 * see: 0 and no picture. 1: it was drawn; -1 and *e. */
int curve_draw(const struct history *h, struct err *e);

/* report_ewc.c: from fisher/ of the present directory */
void report_ewc_read(struct report *r);
void report_ewc_json(const struct report *r, struct json *j);
void report_ewc_markdown(const struct report *r, FILE *out);
void report_ewc_table(const struct report *r, FILE *out); /* a line, or nothing */

/* report_gpu.c: from monitord's page */
void report_gpu_json(const struct report *r, struct json *j);
void report_gpu_markdown(const struct report *r, FILE *out);

/* report_deaths.c: from logs/deaths of the present directory */
void report_deaths_read(struct report *r);
void report_deaths_json(const struct report *r, struct json *j);
void report_deaths_markdown(const struct report *r, FILE *out);

/* report_notes.c: from the history */
void report_notes_json(const struct report *r, struct json *j);
void report_notes_markdown(const struct report *r, FILE *out);
void report_notes_table(const struct report *r, FILE *out); /* a line, or nothing */

/* `monitord --report RUN`: returns the exit code. */
int report_command(const char *run);

/* compare.c: `monitord --compare RUN...`: returns the exit code. */
int compare_command(int count, char **runs);

#endif
