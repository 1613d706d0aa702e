/* trainer.h - all of trainerd's state in one struct, and which file does what with it.
 *
 * The cursor is struct checkpoint_meta itself: what a checkpoint says is what the run is. It
 * changes after an optimizer step (train.c), with the results of a task's end (evaluate.c) and at
 * the end of an epoch (tasks.c), nowhere else. The rest can be recomputed from it, from the options
 * and from the data.
 *
 *   main.c           the skeleton's table: start, turn, request, stop, --plan
 *   tasks.c          the task list: which state comes next
 *   data.c           which task's rows the streams bring
 *   setup.c          the data are known: check, plan, allocate, resume
 *   pretrained.c     weights of a file to begin with
 *   batch.c          rows from the arena or the mega-batch into the stepper
 *   train.c          one optimizer step
 *   dynamic.c        micro-batches that follow the memory there is
 *   recover.c        a step that gave no number
 *   evaluate.c       a split's metric
 *   ending.c         the weights that a task ends with
 *   protection.c     the EWC terms of a task
 *   fisher_client.c  asking fisherd for what is not there yet
 *   save.c           checkpoints: when, and reading them again
 *   saving.c         one on its way to the disk, and the names that keep it
 *   progress.c       what is published on the way
 *   compute.c        the device: the CPU, or a GPU
 *   plan.c           memory, before any of it is taken (plan_command.c: --plan); disk.h likewise;
 *                    plan_limits.c: is it there; advice.h: what would make it fit
 *   shapes.c         what loaderd says of a split, and what follows for model and stepper
 *   predict.c        --predict: outputs of a trained model for any file (predictions.h);
 *                    predict_sequences.c where it carries a state (sequences.h)
 *   weights_command.c  --weights: weights for other tools (weights.h), of a chosen checkpoint
 *                    (selection.h)
 *   megabatch.c schedule.c retention.c rate.c watch.c average.c   parts with headers of their own
 */
#ifndef TRAINERD_TRAINER_H
#define TRAINERD_TRAINER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/importance.h"
#include "engine/model.h"
#include "engine/plan.h"
#include "engine/step.h"
#include "proto/checkpoint.h"
#include "proto/checkpoint_map.h"
#include "proto/daemon.h"
#include "proto/feed.h"
#include "proto/lineage.h"
#include "trainerd/megabatch.h"
#include "trainerd/plan_bases.h"
#include "trainerd/rate.h"
#include "trainerd/retention.h"
#include "trainerd/schedule.h"

enum trainer_state {
    TRAINER_OPENING,  /* waiting for loaderd to describe both splits */
    TRAINER_BEGIN,    /* a task's first weights */
    TRAINER_PROTECT,  /* loading its EWC terms, waiting for fisherd if one is missing */
    TRAINER_TRAIN,    /* one optimizer step a turn */
    TRAINER_EVALUATE, /* position == rows: the epoch's steps are done */
    TRAINER_RENEW,    /* statistics of batchnorm for averaged weights, before the last evaluation */
    TRAINER_DONE,
};

struct split_shape { /* what loaderd says of a split */
    uint64_t rows, spans, span_rows, span_bytes_max, values;
    uint64_t row_bytes;                   /* of all its data sets */
    uint64_t chunk_bytes_max, kept_bytes; /* of a reader: messages.def */
    char layout[9];
    /* of the values: the parts that are joined to them, and their type; where there are several
     * that of the first which is of no whole numbers */
    uint64_t value_parts;
    char value_type[8];
    uint64_t targets; /* values a row; 0: there are none */
    char target_type[8];
    uint64_t weights; /* values a row that say what its targets weigh; 0: none do */
    /* of the graph layout, where values are a node's: features of an edge, and the most that come
     * together; sample_nodes: in a slice of fisherd's, about */
    uint64_t edge_values, batch_nodes, batch_edges, slice_nodes, sample_nodes;
};

struct data_set {     /* what tasks of one file and one batch size read */
    uint32_t task;    /* the first of them */
    const char *file; /* borrowed from the options */
    uint64_t batch_size;
    struct split_shape train, validation;
    char fingerprint[65], of_validation[65]; /* as the streams gave them */
};

struct data_stream { /* of the training or the validation rows */
    uint32_t set;    /* whose rows it brings */
    int ready;       /* it is open, and its mega-batch too */
};

struct data {
    struct data_set set[OPTION_TASKS_MAX];
    uint32_t set_count, set_of[OPTION_TASKS_MAX]; /* of each task */
    uint32_t known, first;                        /* sets described so far, and the first of them */
    struct split_shape train, validation;         /* the most of all sets */
    struct megabatch_size sizes[2];               /* as planned for those */
    struct data_stream stream[2];                 /* train, validation */
    char fingerprint[65];                         /* of all files */
};

/* Where the next micro-batch's rows lie, found while the device computes. */
struct batch_ahead {
    struct feed_row *rows;
    uint64_t epoch, position, count; /* count 0: none are known */
};

/* Rows of one micro-batch (or batch of evaluation) on their way from the arena into the stepper. */
struct batch {
    struct feed_row *rows; /* these have room for all of them */
    struct batch_ahead ahead;
    const void **features, **targets, **weights, **begins;
    struct graph_row *graphs; /* where rows are graphs, else NULL */
    uint64_t done;            /* rows of the training batch that are accumulated */
    uint64_t gathered;        /* rows after those already in the stepper */
};

enum evaluation_kind {
    EVALUATION_START, /* of the weights that the run begins with, on the data of all tasks */
    EVALUATION_EPOCH, /* of the task in training */
    EVALUATION_END,   /* of the weights that it ends with, on the data of all tasks so far */
};

struct evaluation {
    enum evaluation_kind kind;
    uint32_t list[OPTION_TASKS_MAX], count, index; /* whose data; which of them is in work */
    uint64_t position;                             /* rows of the split evaluated */
    uint64_t pass;                                 /* epoch of the validation stream */
    double own_value, own_loss;                    /* of the data the task is trained on */
    char weights_sha256[65];                       /* of EVALUATION_EPOCH: empty */
};

/* A step that was asked of the device, behind which the next one is prepared: train.c. */
struct step_ahead {
    uint64_t rows; /* 0: there is none */
    double rate;
};

struct protection { /* of one earlier task */
    struct importance fisher;
    struct checkpoint_map theta_star; /* at NULL: not mapped yet */
    char sha256[65];                  /* of theta_star */
};

struct fisher_client {
    struct link dealer;
    uint64_t attempt;           /* part of the routing id */
    double asked_s, answered_s; /* monotonic; 0: not yet */
    char estimated_job[129];    /* the job fisherd last called done */
    uint64_t samples_done, samples;
};

struct progress_mark { /* when an epoch or a task began, by the clocks of struct progress */
    uint64_t rows;
    double seconds, wait_s;
};

struct progress {
    struct rate rate;
    uint64_t steps, rows; /* done by this process, rows and times behind its checkpoint's */
    double seconds, running_since_s; /* the training clock; since when it runs, 0: paused */
    double wait_s, wait_since_s;     /* waiting for data; since when, 0: not now */
    double published_s;              /* wall time of the last trainer.step */
    struct progress_mark epoch, task;
    int statm; /* /proc/self/statm, kept open; -1: not there */
};

struct saving {    /* the checkpoint that is being written: saving.c */
    int under_way; /* begun, and not yet ended */
    int behind;    /* by the thread, which alone uses what follows until it is joined */
    pthread_t thread;
    atomic_int is_made;                   /* the thread is done; asked for before that */
    struct checkpoint_meta *meta, *other; /* the cursor as it was; room for another one's */
    struct checkpoint_meta copies[2];     /* they point there, or at the trainer's own */
    char path[CHECKPOINT_PATH_BYTES], digest[65];
    uint64_t bytes;
    uint32_t tensor_count;
    double began_s, ended_s; /* monotonic */
    int result;
    struct err why;
};

enum progress_fact { PROGRESS_TASK_START, PROGRESS_EPOCH_END, PROGRESS_TASK_END };

struct trainer {
    struct daemon *daemon;
    const struct options *options; /* of the present task: points at `present` */
    struct options present;        /* the run's, with that task's in their places */
    enum trainer_state state;
    struct checkpoint_meta meta;  /* the cursor */
    struct checkpoint_meta other; /* of another checkpoint, while it is looked at */
    char resume_path[4096];       /* checkpoint to begin with; empty: none */
    struct feed train, validation;
    struct megabatch train_rows, validation_rows; /* of those feeds */
    struct data data;
    struct schedule schedule;
    struct model model;
    char model_text[MODEL_TEXT_MAX];
    const struct device *device; /* open; NULL: not yet, or not any more */
    uint64_t device_context_bytes;
    struct stepper *stepper;
    struct checkpoint_tensor *tensors; /* the model's, pointing into the stepper */
    uint32_t tensor_count; /* of them: the parameters, then the module buffers; what is carried
                              follows */
    struct gather_config gather_train, gather_validation;
    uint32_t *permutation; /* of permutation_seed */
    uint64_t permutation_seed;
    uint64_t batch_rows_max; /* of an optimizer step, the most of all tasks */
    uint64_t micro_rows;     /* of a micro-batch: training.batch_size, or fewer that fit */
    uint64_t micro_rows_planned, micro_rows_step; /* what the plan gave; when they last changed */
    uint64_t micro_asked; /* the micro-batch that memory was last asked for; 0: none yet */
    struct batch batch;
    struct step_ahead ahead;
    int step_alone;            /* the next step is made while the host waits: it was refused */
    uint64_t renewal_position; /* rows that the statistics have seen */
    struct evaluation evaluation;
    struct protection protections[OPTION_NAMES_MAX];
    struct ewc_term terms[OPTION_NAMES_MAX]; /* borrow from protections */
    int term_count;
    struct fisher_client fisher;
    struct lineage lineage;
    int lineage_differs; /* it was told that a recomputed step differs */
    struct progress progress;
    struct saving saving;
    int checkpoint_asked, release_asked;
    int weights_chosen; /* ending_choose did: nothing is saved before the task has ended */
    double deadline_s;  /* monotonic, of training.max_hours; 0: none */
    int failed;         /* a turn did: what is in memory may be half changed and is not saved */
    double saved_s;     /* monotonic time of the newest checkpoint */
    uint64_t saved_task, saved_epoch, saved_position; /* its cursor; saved_task UINT64_MAX: none */
};

/* tasks.c */
int tasks_turn(struct trainer *t, int *sleep_ms, struct err *e);
double tasks_deadline(const struct options *o); /* monotonic seconds; 0: none */
const struct task_options *tasks_current(const struct trainer *t);
/* The epoch's steps and evaluation are done; value and loss are those of the task's own data, and
 * if it was the task's last all its results are there: on to the next epoch or task. */
int tasks_epoch_end(struct trainer *t, double value, double loss, int last, struct err *e);

/* setup.c */
int setup_start(struct trainer *t, struct err *e); /* options, what to resume, feeds */
int setup_turn(struct trainer *t, int *sleep_ms, struct err *e);
/* The cursor, and with it the state: fresh, or where the checkpoint of resume_path stands. */
int setup_cursor(struct trainer *t, struct err *e);
void setup_free(struct trainer *t); /* harmless twice */
int setup_options_check(const struct options *o, struct err *e);
const char *setup_metric(const struct options *o); /* name of what an evaluation tells */
int setup_threads(const struct options *o);
struct step_config setup_step_config(const struct options *o);
uint64_t setup_ahead_rows(const struct options *o); /* loader.prefetch_factor's; 0: auto */
/* Of the training or the validation stream; role and incarnation are the caller's. */
struct feed_config setup_feed_config(const struct options *o, int validation);
int setup_model(struct model *m, const struct options *o, const struct model_input *input,
                struct err *e);
/* How rows of the feed become the model's input. */
struct gather_config setup_gather(const struct feed *f, double scale);
/* t->stepper and the row pointers of a batch, for t->model. */
int setup_stepper(struct trainer *t, const struct step_config *c, struct err *e);

/* compute.c */
/* The one that the options name, to go on with what was computed on `before` ("": nothing); -1
 * where it cannot be had, and *d is NULL. */
int compute_open(const struct device **d, const struct options *o, const char *before,
                 struct err *e);
void compute_close(const struct device **d);                      /* harmless twice */
void compute_bases(struct plan_bases *b, const struct device *d); /* that one, and its driver */
int compute_fact(struct trainer *t, struct err *e); /* which one it is, to everybody */
int compute_command(int argc, char **argv);         /* trainerd --device ...: the exit code */
/* What bits hold for one of: a CPU's arithmetic and its name, or "cuda: " and a GPU's name. */
/* Are rows kept in mega-batches in the memory of d (NULL: the host)? */
int compute_keeps_rows(const struct options *o, const struct device *d);

void compute_name(const struct device *d, char *text, size_t bytes);
/* The device (NULL: the CPU) copies from the feed's arena, unless loader.pin_memory forbids that it
 * is locked. */
void compute_feed_config(struct feed_config *c, const struct options *o, const struct device *d);
/* The device's memory, 0 on the CPU, into the message and the stage's page of peaks. */
void compute_measure(struct trainer *t, struct msg_trainer_step *m);
uint64_t compute_threads(const struct trainer *t); /* of the engine */

/* data.c */
/* Opens the streams of the first set of data to be described. Needs the cursor's task. */
int data_begin(struct trainer *t, struct err *e);
/* Both streams are ready: what they hold goes into t->data. 1: all sets are described, and the
 * streams are those of the present task; 0: the next one is being opened; -1. */
int data_describe(struct trainer *t, struct err *e);
/* Set set[], set_count and set_of[] as the run's options say; *view is room for those of a task. */
void data_sets_find(struct data *d, const struct options *o, struct options *view);
/* *most has room for *s too. */
void data_shapes_join(struct split_shape *most, const struct split_shape *s);
/* Do both files hold rows of one kind? -1 (permanent) if not. */
int data_shapes_agree(const struct split_shape *a, const struct split_shape *b, const char *file_a,
                      const char *file_b, struct err *e);
/* The stream brings rows of that task's data: 1; 0: it is being opened; -1. */
int data_train(struct trainer *t, uint32_t task, struct err *e);
int data_validation(struct trainer *t, uint32_t task, struct err *e);
int data_wait(int there, int *sleep_ms); /* what a turn returns where those gave no 1 */
/* Is that so already? */
int data_holds(const struct trainer *t, const struct feed *f, uint32_t task);
/* The mega-batches' memory, on the device or, if `all`, on the host. They come again. */
void data_give_back(struct trainer *t, int all);
void data_task(struct trainer *t); /* the options of the cursor's task */

/* pretrained.c */
int pretrained_options_check(const struct options *o, struct err *e);
/* Can the model begin with model.pretrained, which is given? known: the digest of the file that the
 * run began with, or "". -1 (permanent) if not. */
int pretrained_fits(const struct options *o, const struct model *m, const char *known,
                    struct err *e);
/* Can the tasks that are still to begin `from: start` begin with model.pretrained, if that is
 * given? Needs the model and the cursor. */
int pretrained_check(struct trainer *t, struct err *e);
/* Its weights over fresh ones, its digest into the cursor; nothing where it is not given. */
int pretrained_load(struct trainer *t, float *parameters, float *buffers, struct err *e);

/* batch.c */
/* Move rows [position, position + rows), at most training.batch_size of an epoch, into the stepper.
 * 1: all are there; 0: some are still missing, call again; -1: *e names a row of the file that is
 * not fit to train on. */
int batch_gather(struct trainer *t, struct megabatch *m, const struct gather_config *g,
                 uint64_t epoch, uint64_t position, uint64_t rows, struct err *e);
/* -1: puts in front of *e where in the file the row at that position stands, which is not fit. */
int batch_row_error(const struct feed *f, uint64_t epoch, uint64_t position, struct err *e);
/* The first `count` rows of t->batch.rows become all there is in the stepper; on failure *bad is
 * the one that is not fit. */
int batch_gather_found(struct trainer *t, const struct megabatch *m, const struct gather_config *g,
                       uint64_t count, uint64_t *bad, struct err *e);
/* Find those rows now, to be gathered later, if that can be said and stays true: all rows of the
 * split are on the device. Until rows are given back (data_give_back) or come from elsewhere. */
void batch_look_ahead(struct trainer *t, struct megabatch *m, uint64_t epoch, uint64_t position,
                      uint64_t rows);
/* Rows of the micro-batch behind the first `done` of a step or a pass, of which `left` are to come.
 * Where fewer are resident than `whole`, the task's batch_size, asks for none reaches over the end
 * of a batch of that size, so the slices, and with them bits and largest graphs, are the same. */
uint64_t batch_micro_rows(const struct trainer *t, uint64_t whole, uint64_t done, uint64_t left);
void batch_permute(struct trainer *t,
                   uint32_t task); /* features as that task has them, for both splits */

/* dynamic.c */
/* Before a micro-batch is gathered: fewer rows of it where memory is short, more where there is
 * room again. -1 (temporary) when there is none at all. */
int dynamic_turn(struct trainer *t, struct err *e);

/* train.c */
/* The cursor becomes what the device has: the step that was asked for is taken, and counts. 1; 0:
 * it was refused, and is made again; -1. Before anything but training looks at the device. */
int train_settle(struct trainer *t, struct err *e);
int train_turn(struct trainer *t, int *sleep_ms, struct err *e);
void train_follow(struct trainer *t); /* tell loaderd where reading stands, and what comes next */

/* recover.c */
/* *e says why the step of `rows` rows was refused: 1, training goes on behind it; 0, from another
 * state; -1, and *e says more. */
int recover_step(struct trainer *t, uint64_t rows, const struct step_result *r, struct err *e);
/* The same of an evaluation whose loss is not finite. */
int recover_evaluation(struct trainer *t, struct err *e);

/* evaluate.c */
int evaluate_begin(struct trainer *t, struct err *e);
int evaluate_end(struct trainer *t, struct err *e); /* of a task, with its weights chosen */
/* Before the first step of the run, on the data of all tasks; PROTECT comes next. */
int evaluate_first(struct trainer *t, struct err *e);
int evaluate_turn(struct trainer *t, int *sleep_ms, struct err *e);

/* ending.c */
int ending_chooses(const struct trainer *t); /* may a task end with others than its last weights? */
/* 1: the epoch whose evaluation gave value and loss is the task's last one; 0; -1. */
int ending_due(struct trainer *t, double value, double loss, struct err *e);
/* The weights that the task ends with into the stepper; value: the last epoch's. 1: their
 * statistics of batchnorm must be renewed: ending_renew_begin, then the state's turns; 0; -1. */
int ending_choose(struct trainer *t, double value, struct err *e);
void ending_renew_begin(struct trainer *t);
int ending_renew_turn(struct trainer *t, int *sleep_ms, struct err *e);
/* At the end of an epoch: add its weights to the average, if they are to be; one that was begun
 * before they are is given up. */
int ending_average(struct trainer *t, struct err *e);

/* protection.c */
int protection_turn(struct trainer *t, int *sleep_ms, struct err *e);
void protection_free(struct trainer *t);

/* fisher_client.c */
/* A Fisher file that is wanted: that of a task's end, or of several tasks as one. */
struct fisher_wish {
    char task[64], sha256[65]; /* theta*; of several the newest's */
    char merge[1025];          /* the others, oldest first, separated by spaces */
    char job[129], path[128];
};
void fisher_client_wish(const struct trainer *t, const char *task, const char *sha256,
                        struct fisher_wish *w);
/* *sum becomes what it is (zeroes: nothing) and one newer task. */
void fisher_client_merge(const struct trainer *t, struct fisher_wish *sum,
                         const struct fisher_wish *newer);
/* Ask for it, or go on waiting: 0; -1 when fisherd refuses. */
int fisher_client_turn(struct trainer *t, const struct fisher_wish *w, int *sleep_ms,
                       struct err *e);
void fisher_client_close(struct trainer *t); /* harmless twice */

/* save.c */
/* Nothing if the newest one says the same. On a device apart it is under way afterwards. */
int save_checkpoint(struct trainer *t, struct err *e);
/* That at an epoch's end, which needs no file of its own unless is_needed: then, while the
 * checkpoint before is still being written behind training, training does not wait for it, and none
 * is made. */
int save_epoch(struct trainer *t, int is_needed, struct err *e);
int save_is_due(const struct trainer *t); /* the newest one is training.checkpoint_every_s old */
int save_load(struct trainer *t, struct err *e); /* weights, moments and cursor of resume_path */
/* Parameters, and unless buffers is NULL module buffers, at the end of a task; t->other says the
 * rest.
 */
int save_read_end(struct trainer *t, const char *task, float *parameters, float *buffers,
                  struct err *e);
/* The parameters there, mapped. */
int save_map_end(struct trainer *t, const char *task, struct checkpoint_map *map, struct err *e);
/* The weights of the present task's best epoch into the stepper; t->other says the rest. */
int save_read_best(struct trainer *t, struct err *e);

/* saving.c */
/* The state as it is now, behind what is under way: on the CPU it is there afterwards. */
int saving_begin(struct trainer *t, uint32_t tensor_count, struct err *e);
/* Is one still being written behind training? */
int saving_writes(const struct trainer *t);
/* What is under way is there, and told; 0 if nothing is. -1: it could not be written. */
int saving_end(struct trainer *t, struct err *e);
/* The same, without waiting for it where training goes on meanwhile: for so long, since none is
 * begun before it is there, and a disk that hangs is to show as a turn that does. */
enum { SAVING_BEHIND_S = 120 };
int saving_turn(struct trainer *t, struct err *e);
/* The device's vectors into the host's copies, from which nothing is being written any more. */
int saving_fetch(struct trainer *t, struct err *e);
uint64_t saving_bytes(void); /* most memory that writing behind training takes */
/* The names that the checkpoint at `path`, whose meta is *m, must have besides its own; *other is
 * room for another one's. */
int saving_links(const struct options *o, const struct checkpoint_meta *m,
                 struct checkpoint_meta *other, const char *path, struct err *e);

/* progress.c */
void progress_open(struct trainer *t);
void progress_close(struct trainer *t);
void progress_run(struct trainer *t); /* the training clock goes on; harmless twice */
void progress_pause(struct trainer *t);
void progress_wait(struct trainer *t, int missing); /* rows are missing, or have come */
void progress_step(struct trainer *t, uint64_t rows, double rate, const struct step_result *r);
void progress_task_begin(struct trainer *t);
void progress_epoch_begin(struct trainer *t);
/* What the epoch took so far into the cursor, before that is saved; and from the cursor with which
 * this process goes on, before it makes a step. */
void progress_keep(struct trainer *t);
void progress_resume(struct trainer *t);
int progress_task_fact(struct trainer *t, enum progress_fact what, struct err *e);
/* A decision of the loop: messages.def, event.training. */
int progress_training_fact(struct trainer *t, const char *what, double value, const char *sentence,
                           struct err *e);
int progress_evaluation_fact(struct trainer *t, const struct checkpoint_result *r, uint64_t rows,
                             struct err *e);

/* shapes.c */
struct split_shape shape_of(const struct feed *f);
uint64_t shape_row_bytes(const struct split_shape *s); /* of a row, on average where it is ragged */
int shape_is_graph(const struct split_shape *s);
struct model_input shape_input(const struct split_shape *s);
/* Of a set of data, and `o` the run's options. Do both splits hold rows of one kind and width, with
 * targets, and can the tasks of these data permute them? -1 (permanent) if not. */
int shapes_check(const struct options *o, const struct data_set *s, struct err *e);
/* Can the model take those rows and learn those targets? -1 (permanent) if not. */
int shapes_model_check(const struct options *o, const struct data_set *s, const struct model *m,
                       struct err *e);
/* An epoch's last micro-batch is a shorter one: is it long enough? -1 (permanent) if not. */
int shapes_rows_check(const struct options *o, const struct data *d,
                      const struct schedule *schedule, const struct model *m, struct err *e);
/* setup_step_config with room for the batches of both, on that device (NULL: the CPU). -1
 * (permanent) where a batch is too large. */
int shapes_step_config(struct step_config *c, const struct options *o, const struct device *device,
                       const struct split_shape *train, const struct split_shape *validation,
                       uint64_t micro_rows, struct err *e);

/* All stages' memory, in each phase that of the task that takes most, and how the rows of the
 * training and the validation split are kept; of_tasks: the training rows of each task, NULL: they
 * are the same. -1 (permanent) when an arena cannot hold
 * what the order needs, or loader.chunk_size_gb no window. */
int plan_make(struct plan *p, const struct options *o, const struct model *m,
              const struct plan_bases *bases, const struct split_shape *train,
              const struct split_shape *validation, const struct split_shape *const *of_tasks,
              uint64_t *micro_rows, struct megabatch_size sizes[2], struct err *e);
/* Half of a micro-batch of training.dynamic_batch_size, up to whole slices; 0: there is none that
 * gives the same bits. */
uint64_t plan_micro_rows_half(const struct options *o, const struct model *m, uint64_t rows);
/* Of loader.chunk_size_gb, on a device apart or (NULL) the host. */
uint64_t plan_chunk_bytes(const struct options *o, const struct device *d);

/* plan_limits.c */
/* Does it fit both limits? -1 (permanent) and what is missing where, if not; advice.h says what
 * would help. */
int plan_check(const struct plan *p, const struct options *o, const struct device *d,
               struct err *e);
uint64_t plan_host_limit(const struct options *o); /* bytes, of memory.host_limit */
/* Memory of the device (NULL: the CPU); 0: it has none of its own. */
uint64_t plan_device_limit(const struct options *o, const struct device *d);
uint64_t plan_mib(uint64_t bytes); /* as a refusal tells it, rounded up */
/* What memory.host_limit leaves for trainerd's regions (engine/memory.h), where the rest of the
 * plan is held all the time: what a plan that fits has of them in any of its tasks, or more. */
uint64_t plan_regions_limit(const struct plan *p, const struct options *o);

/* plan_command.c */
/* From the lines that `loaderd --describe`, once for each set of data, and `prepare bases` print:
 * the most of all sets, and each. */
struct plan_shapes {
    struct split_shape train, validation, of_sets[OPTION_TASKS_MAX][2]; /* both splits of each */
    uint32_t sets;
};
int plan_read_shapes(FILE *in, struct plan_shapes *shapes, struct plan_bases *bases, struct err *e);
int plan_command(int argc, char **argv); /* --plan; -1: not such a call */

/* weights_command.c */
int weights_command(int argc, char **argv); /* trainerd --weights ...: the exit code */

/* predict.c */
int predict_command(int argc, char **argv); /* trainerd --predict ...: the exit code */

#endif
