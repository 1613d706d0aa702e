/* predict.c - `trainerd --predict`: what a trained model says of the rows of any file of its layout
 * (pipelines/predict.sh).
 *
 * The rows come from a loaderd as in training: it alone opens the file, so a hostile one ends as a
 * sentence. Both stand in a directory made for this purpose (--work), whose pipeline.yaml is that
 * of the run with the file in data.file; the run itself may be going on meanwhile. Batches and
 * slices are those of the run's evaluations, and so loss and metric have the same bits as there,
 * unless those were in 16 bits (training.use_amp): here it is float32. Where rows go on from one
 * another (data.stateful) they are one stream, of which a batch has the k-th row behind each that
 * begins (sequences.h): of a stream in which none begins, one row. A batch or a block at a time is
 * in memory; the file of predictions appears when all rows are done.
 */
#include "trainerd/predict_private.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/device.h"
#include "engine/loss.h"
#include "proto/log.h"
#include "proto/metric.h"
#include "proto/weighing.h"

static const char help[] = "usage: predict.sh --run DIR --out FILE [options]\n\n";

static const char help_rest[] =
    "  --data FILE        HDF5 file of the layout that the model was trained on, or rows to be "
    "prepared as the\n                     run's data were: a table, a directory of NumPy's "
    "arrays, "
    "of molecules a table\n                     with a column smiles, of prices a file of bars; "
    "targets may be missing, all or\n                     some (default: the run's data.file)\n"
    "  --split GROUP      group of the rows in it (default: the run's data.validation; \"\": the "
    "root)\n"
    "  --data-as TASK     features in the order of that task (tasks.permute_features); default: "
    "the "
    "task's own\n"
    "  --int8             weights and what they are multiplied with in 8 bits (dynamic "
    "quantisation); where the\n                     rows have targets, float32 is told besides\n"
    "  --set SECTION.KEY=VALUE    change one option, such as data.targets or training.threads\n"
    "  --out FILE         predictions in the order of the rows: .h5, .hdf5 or .csv\n"
    "  --help             this\n\n"
    "A file that ends in .csv has the columns row, class, name (where classes have names), p_0 .."
    "\n(probabilities), or row and one for each value, called as the target that it is of (y_0 .. "
    "where\ntargets have no names). Rows of prices have a column time besides: when they are "
    "decided, "
    "the end of\ntheir newest bar. An HDF5 file has the data sets outputs, probabilities, classes "
    "and times, and the\nattributes class_names and target_names. Where the rows have targets, the "
    "loss and its metrics are printed.\n\n"
    "Exit codes: 0 done; 100 cannot work; 111 may work later; 130 and 143 stopped.\n\n"
    "example: pipelines/predict.sh --run runs/fashion --task B --data new.h5 --out new.csv\n";

enum { LINE_S = 10, BAR_S = 1 }; /* between lines of progress; on a terminal */

static int arguments_read(struct predictor *p, int argc, char **argv, struct err *e)
{
    for (int i = 2; i < argc; i++) {
        const struct {
            const char *word;
            const char **value;
        } known[] = {{"--work", &p->work},   {"--out", &p->out},   {"--like", &p->like},
                     {"--times", &p->times}, {"--data", &p->data}, {"--data-as", &p->data_as}};
        int taken = selection_argument(&p->selection, argc, argv, &i, e);
        for (size_t k = 0; taken == 0 && k < sizeof known / sizeof known[0]; k++)
            if (strcmp(argv[i], known[k].word) == 0)
                taken = selection_value(argc, argv, &i, known[k].value, e) < 0 ? -1 : 1;
        if (taken == 0 && strcmp(argv[i], "--int8") == 0)
            taken = p->int8 = 1;
        if (taken < 0)
            return -1;
        if (!taken)
            return err_set(e, EXIT_CODE_PERMANENT, "argument \"%.100s\" is unknown (see --help)",
                           argv[i]);
    }
    if (p->selection.run && p->out && p->work)
        return predictions_name_check(p->out, e);
    return err_set(e, EXIT_CODE_PERMANENT, "%s is missing (see --help)",
                   !p->selection.run ? "--run DIR"
                   : !p->out         ? "--out FILE"
                                     : "--work DIR");
}

/* Which task's order of features the rows get: number *task of the options. */
static int task_choose(const struct predictor *p, uint32_t *task, struct err *e)
{
    const struct options *o = &p->options;
    const char *name = p->data_as ? p->data_as : p->selection.task;
    int index = name ? options_task(o, name) : 0;
    if (index < 0)
        return err_set(e, EXIT_CODE_PERMANENT, "--data-as: the run has no task %.63s", name);
    *task = epochs_key_task(o, (uint32_t)index);
    for (uint32_t i = 1; !name && i < o->task_count; i++)
        if (o->tasks[i].permute_features != o->tasks[0].permute_features)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "the run's tasks order the features differently; --data-as TASK says "
                           "which of them the rows are for");
    return 0;
}

int predict_wait(struct feed *f, struct err *e)
{
    struct link_poll_item items[3];
    link_poll(items, feed_poll_items(f, items), feed_timeout_ms(f));
    return feed_pump(f, e);
}

/* The file is open and described: is it what a model can be asked about? */
static int rows_open(struct predictor *p, struct err *e)
{
    struct feed *f = &p->t.validation;
    struct feed_config c = setup_feed_config(&p->options, 1);
    struct msg_epoch_range once = {.count = 1};
    c.role = "predict";
    c.streams = 0;     /* the rows are in their order */
    c.incarnation = 1; /* the directory is ours alone */
    c.epochs = &once;
    c.epoch_count = 1;
    feed_open(f, &c);
    p->feed_open = 1;
    while (!feed_ready(f))
        if (predict_wait(f, e) < 0)
            return -1;
    if (!f->info.order.rows)
        return err_set(e, EXIT_CODE_PERMANENT, "%s of %s has no rows; at least one is needed",
                       c.split, c.file);
    p->has_targets = f->info.targets.name[0] != 0;
    return 0;
}

/* The model: what the weights say of themselves, else what the run's options and the rows give. */
static int model_make(struct predictor *p, struct err *e)
{
    const struct feed *f = &p->t.validation;
    struct split_shape shape = shape_of(f);
    struct model_input input = shape_input(&shape);
    uint64_t values = input.values;
    struct model *m = &p->t.model;
    if (p->weights.model ? model_from_text(m, p->weights.model, e) < 0 ||
                               (p->options.data_stateful && model_carry(m, e) < 0)
                         : setup_model(m, &p->options, &input, e) < 0)
        return -1;
    if (m->graphs != input.graphs)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is in the %s layout, the model of %s takes %s",
                       f->config.file, f->info.layout, p->path, m->graphs ? "graphs" : "no graphs");
    if (m->edge_inputs != input.edge_values)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "edges of %s have %" PRIu64 " features, the model of %s takes %" PRIu64,
                       f->config.file, input.edge_values, p->path, m->edge_inputs);
    if (m->inputs != values)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "features of %s in %s have %" PRIu64
                       " values a row, the model of %s takes %" PRIu64,
                       f->config.split, f->config.file, values, p->path, m->inputs);
    if (model_text(m, p->t.model_text, sizeof p->t.model_text, e) < 0)
        return -1;
    m->targets_missing = 1; /* of new rows any may be: what the model learned of is no matter */
    if (p->has_targets &&
        (model_targets_check(m, f->info.targets.type, f->info.targets.values, e) < 0 ||
         weighing_width_check(f->info.weights.values, model_row_targets(m), e) < 0))
        return err_prefix(e, "%s of %s (--set data.targets=none leaves them out)", f->config.split,
                          f->config.file);
    return 0;
}

static int model_open_all(struct predictor *p, uint32_t task, struct err *e)
{
    struct trainer *t = &p->t;
    const struct megabatch_size arena = {.kind = MEGABATCH_ARENA};
    struct split_shape shape = shape_of(&t->validation);
    struct step_config training;
    if (p->int8) /* products in 8 bits are the CPU's */
        t->device = &device_cpu;
    else if (compute_open(&t->device, &p->options, "", e) < 0)
        return -1;
    if (model_make(p, e) < 0 || shapes_step_config(&training, &p->options, t->device, &shape,
                                                   &shape, p->options.batch_size, e) < 0)
        return -1;
    struct step_config c = {.batch_rows_max = training.batch_rows_max,
                            .slice_rows = training.slice_rows,
                            .slice_parts = training.slice_parts,
                            .threads = training.threads,
                            .weights = training.weights,
                            .seed = training.seed,
                            .batch_nodes_max = training.batch_nodes_max,
                            .batch_edges_max = training.batch_edges_max,
                            .slice_nodes_max = training.slice_nodes_max,
                            .carried_rows = t->model.carried_values ? training.batch_rows_max : 0,
                            .device = training.device};
    if (setup_stepper(t, &c, e) < 0 ||
        weights_load(&p->weights, &t->model, stepper_parameters(t->stepper),
                     stepper_module_buffers(t->stepper), e) < 0)
        return -1;
    stepper_send(t->stepper);
    if (megabatch_open(&t->validation_rows, &t->validation, &arena, e) < 0 ||
        scores_open(&p->scores, &t->model, c.batch_rows_max, e) < 0 ||
        (p->int8 && (stepper_quantise(t->stepper, &p->size, e) < 0 ||
                     scores_open(&p->float_scores, &t->model, c.batch_rows_max, e) < 0)))
        return -1;
    p->outputs = calloc(c.batch_rows_max, t->model.outputs * sizeof *p->outputs);
    if (!p->outputs)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the outputs of a batch");
    if (t->model.carried_values && predict_sequences_open(p, c.batch_rows_max, e) < 0)
        return -1;
    t->gather_validation = setup_gather(&t->validation, p->options.data_scale);
    batch_permute(t, task);
    return known_open(p, c.batch_rows_max, e) < 0
               ? -1
               : predictions_open(&p->predictions, p->out, &t->model, &p->known,
                                  t->validation.info.order.rows, c.batch_rows_max, e);
}

void predict_progress(struct predictor *p, uint64_t done)
{
    double now = clock_monotonic_s();
    int terminal = isatty(STDERR_FILENO);
    if (now - p->shown_s < (terminal ? BAR_S : LINE_S))
        return;
    p->shown_s = now;
    fprintf(stderr, "%spredict: %" PRIu64 " of %" PRIu64 " rows%s", terminal ? "\r" : "", done,
            p->t.validation.info.order.rows, terminal ? "" : "\n");
}

int predict_score(struct predictor *p, struct scores *scores, uint64_t rows, int int8,
                  struct err *e)
{
    stepper_int8(p->t.stepper, int8);
    if (stepper_predict(p->t.stepper, rows, p->outputs, e) < 0)
        return -1;
    if (p->has_targets)
        scores_add(scores, p->t.stepper, p->outputs, rows);
    return 0;
}

/* The next batch, from row `position` on. */
static int batch_predict(struct predictor *p, uint64_t position, uint64_t rows, struct err *e)
{
    struct trainer *t = &p->t;
    int whole;
    t->batch.gathered = 0;
    do {
        megabatch_seek(&t->validation_rows, 0, position + t->batch.gathered, 0);
        whole = batch_gather(t, &t->validation_rows, &t->gather_validation, 0, position, rows, e);
        if (whole == 0 && predict_wait(&t->validation, e) < 0)
            return -1;
    } while (whole == 0);
    if (whole < 0 ||
        (p->int8 && p->has_targets && predict_score(p, p->float_scores, rows, 0, e) < 0))
        return -1;
    if (predict_score(p, p->scores, rows, p->int8, e) < 0)
        return -1;
    return known_add(p, p->outputs, position, rows, e);
}

/* For people, and into the file's attributes, whose names begin with `prefix`. */
static int scores_tell(struct predictor *p, const struct scores *scores, const char *what,
                       const char *prefix, struct err *e)
{
    struct score list[SCORES_MAX];
    char value[METRIC_TEXT_MAX], name[64];
    uint32_t count = scores_read(scores, list);
    for (uint32_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s%s", prefix, list[i].name);
        metric_format(value, list[i].name, list[i].value);
        if (!strchr(value, '%')) /* what 8 bits cost shows behind the fourth digit */
            snprintf(value, sizeof value, "%.6g", list[i].value);
        printf("%s%s %s", i ? ", " : what, list[i].name, value);
        if (predictions_number(p->predictions, name, list[i].value, e) < 0)
            return -1;
    }
    putchar('\n');
    return 0;
}

static int all_tell(struct predictor *p, struct err *e)
{
    int counted = p->has_targets && scores_counted(p->scores);
    if (!counted)
        printf("predict: %s, so there is no loss\n",
               p->has_targets ? "none of the rows has a target that counts"
                              : "the rows have no targets");
    if (p->int8)
        printf("predict: weights of products: %.1f KiB in float32, %.1f KiB in 8 bits\n",
               (double)p->size.float_bytes / 1024, (double)p->size.bytes / 1024);
    if (!counted)
        return 0;
    if (!p->int8)
        return scores_tell(p, p->scores, "predict: ", "", e);
    if (scores_tell(p, p->float_scores, "predict: float32: ", "float32_", e) < 0)
        return -1;
    return scores_tell(p, p->scores, "predict: 8 bits: ", "", e);
}

static int batches_predict(struct predictor *p, struct err *e)
{
    uint64_t all = p->t.validation.info.order.rows, most = p->options.batch_size;
    for (uint64_t at = 0, rows; at < all; at += rows) {
        rows = all - at < most ? all - at : most;
        if (batch_predict(p, at, rows, e) < 0)
            return -1;
        predict_progress(p, at + rows);
    }
    return 0;
}

static int all_predict(struct predictor *p, struct err *e)
{
    struct trainer *t = &p->t;
    const struct feed *f = &t->validation;
    stepper_evaluate_begin(t->stepper);
    p->shown_s = clock_monotonic_s();
    if ((t->model.carried_values ? predict_sequences(p, e) : batches_predict(p, e)) < 0)
        return -1;
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    if (predictions_text(p->predictions, "model", t->model_text, e) < 0 ||
        predictions_text(p->predictions, "weights_file_sha256", p->weights.sha256, e) < 0 ||
        predictions_text(p->predictions, "data_fingerprint", f->info.fingerprint, e) < 0 ||
        predictions_text(p->predictions, "arithmetic", p->int8 ? "int8" : "float32", e) < 0 ||
        all_tell(p, e) < 0 || predictions_commit(&p->predictions, e) < 0)
        return -1;
    printf("predict: %" PRIu64 " rows of %s, weights of %s -> %s\n", f->info.order.rows,
           p->data ? p->data : f->config.file, p->path, p->out);
    return fflush(stdout) == 0 ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot print the result");
}

static void predictor_close(struct predictor *p)
{
    struct trainer *t = &p->t;
    predictions_abandon(&p->predictions);
    scores_close(&p->scores);
    scores_close(&p->float_scores);
    free(p->outputs);
    free(p->block);
    known_close(p);
    sequences_close(&p->sequences);
    if (p->feed_open)
        feed_close(&t->validation);
    setup_free(t);
    link_shutdown();
    weights_close(&p->weights);
    options_free(&p->options);
    options_free(&p->of_run);
}

/* The file would take the place of one that predictions are made of, or were learned of. */
static int out_check(const struct predictor *p, struct err *e)
{
    const struct options *o = &p->of_run;
    const char *const reads[] = {p->path,      p->data,        p->options.data_file,
                                 o->data_file, o->data_source, p->like};
    struct stat out, in;
    if (stat(p->out, &out) < 0)
        return 0;
    for (size_t i = 0; i < sizeof reads / sizeof reads[0]; i++)
        if (reads[i] && stat(reads[i], &in) == 0 && in.st_ino == out.st_ino &&
            in.st_dev == out.st_dev)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "predictions cannot be written as %s, which is %s; choose another "
                           "--out",
                           p->out,
                           i == 0  ? "the file of the weights"
                           : i < 3 ? "the data file"
                                   : "a file that the run was trained on");
    return 0;
}

static int predictor_run(struct predictor *p, struct err *e)
{
    uint32_t task = 0;
    if (selection_find(&p->selection, &p->of_run, p->path, sizeof p->path, e) < 0 ||
        weights_open(&p->weights, p->path, e) < 0)
        return -1;
    if (chdir(p->work) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot enter %s", p->work);
    if (options_read(&p->options, "pipeline.yaml", NULL, 0, e) < 0 || out_check(p, e) < 0 ||
        setup_options_check(&p->options, e) < 0 || task_choose(p, &task, e) < 0)
        return -1;
    p->t.options = &p->options;
    if (rows_open(p, e) < 0 || model_open_all(p, task, e) < 0)
        return -1;
    return all_predict(p, e);
}

int predict_command(int argc, char **argv)
{
    static struct predictor p; /* large */
    struct err e = {0};
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0) {
            printf("%s%s%s", help, selection_help, help_rest);
            return fflush(stdout) == 0 ? EXIT_CODE_DONE : EXIT_CODE_TEMPORARY;
        }
    log_stage_set("predict");
    log_level_set(LOG_LEVEL_WARN);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* without the script there is nobody to start a loaderd */
    p.times_fd = p.t.lineage.fd = -1;
    p.t.progress.statm = -1;
    p.t.permutation_seed = OPTION_NONE;
    int result = arguments_read(&p, argc, argv, &e);
    if (result == 0)
        result = predictor_run(&p, &e);
    predictor_close(&p);
    if (result == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "predict: %s\n", e.text);
    return e.code;
}
