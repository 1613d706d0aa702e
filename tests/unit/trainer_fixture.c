/* trainer_fixture.c - see trainer_fixture.h. */
#include "tests/unit/trainer_fixture.h"

#include <stdio.h>
#include <string.h>

void trainer_fixture_task(struct options *o, const char *name, const char *comparison_of,
                          uint64_t epochs)
{
    o->tasks[o->task_count++] = (struct task_options){.name = strdup(name),
                                                      .epochs = epochs,
                                                      .from = strdup("start"),
                                                      .comparison_of = strdup(comparison_of),
                                                      .file = strdup(""),
                                                      .source = strdup(""),
                                                      .permute_features = OPTION_NONE};
}

void trainer_fixture_tasks(struct options *o)
{
    o->batch_size = 128;
    o->gradient_accumulation_steps = 1;
    o->optimizer = "adamw";
    o->data_file = "x.h5";
    trainer_fixture_task(o, "A", "", 3);
    trainer_fixture_task(o, "B", "", 2);
    trainer_fixture_task(o, "B-without", "B", 2);
    trainer_fixture_task(o, "C", "", 1);
    trainer_fixture_task(o, "C-without", "C", 1);
}

void trainer_fixture_options(struct options *o)
{
    static char model_loss[] = "softmax_cross_entropy";
    static char metric[] = "auto", none[] = "", estimator[] = "exact";
    static const char *const layers[] = {"linear out=256", "relu", "linear out=10"};
    trainer_fixture_tasks(o);
    o->slice_rows = 64;
    o->threads = 2;
    o->data_shuffle = 1;
    o->order_window_spans = 4;
    o->arena_limit_mb = 16;
    o->fisher_block_size = 1000000;
    o->fisher_use_compression = 1;
    o->fisher_estimator = estimator;
    o->fisher_compression = "log_rank1";
    o->fisher_labels = "true";
    o->ewc_mode = "separate";
    o->loader_pin_memory = "auto";
    o->loader_use_chunk_loader = "false";
    o->fisher_samples = 4096;
    o->model_loss = model_loss;
    o->metric = metric;
    o->pretrained = o->pretrained_map = none;
    o->target_weights = o->data_weights = none;
    for (int i = 0; i < 3; i++)
        snprintf(o->layers[o->layer_count++], sizeof o->layers[0], "%s", layers[i]);
}

const struct plan_bases trainer_fixture_bases = {.trainerd = 24 << 20,
                                                 .fisherd = 24 << 20,
                                                 .fisherd_idle = 1,
                                                 .loaderd = 9 << 20,
                                                 .reader = 10 << 20,
                                                 .monitord = 12 << 20};

const struct split_shape trainer_fixture_images = {.rows = 60000,
                                                   .spans = 40,
                                                   .chunk_bytes_max = 1 << 17,
                                                   .kept_bytes = 1 << 10,
                                                   .span_rows = 1536,
                                                   .values = 784,
                                                   .span_bytes_max = 1 << 20};
