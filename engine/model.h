/* model.h - a model is a list of layers; this file turns their text into shapes and names.
 *
 * Layers come as one line of text each ("linear out=256", "relu", "dropout p=0.15"), the form in
 * which the pipeline file's model.layers and a checkpoint's `model` attribute keep them. Each layer
 * type is one file in engine/layers/ that declares its keys, infers its output shape, names its
 * parameters as PyTorch's nn.Sequential does ("0.weight" [out, in], "0.bias" [out]; the number is
 * the layer's place in the list), and gives forward, backward and per-sample squared gradients. See
 * engine/layer.h.
 */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "proto/err.h"

enum { MODEL_LAYERS_MAX = 256, MODEL_TENSORS_MAX = 1024, MODEL_TEXT_MAX = 65536 };

struct tensor_info {
    char name[64];
    int rank;
    uint64_t dims[2];
    uint64_t first, count; /* its range in the flat parameter vector */
};

struct layer_instance; /* engine/layer.h */

/* What a row of the data is. */
struct model_input {
    uint64_t values;      /* of a row; of a node where rows are graphs */
    int graphs;           /* a row is a graph: nodes, and edges between them */
    uint64_t edge_values; /* graphs: features of an edge; 0: they have none */
};

struct model {
    uint64_t inputs, outputs; /* values a row; inputs: of a node where rows are graphs */
    int graphs;               /* the data's rows are */
    uint64_t edge_inputs;     /* features of an edge */
    int edges_used;           /* some layer takes them */
    uint64_t token_count;     /* inputs are whole numbers below it; 0: numbers */
    uint64_t
        target_steps;  /* where the loss takes classes: steps that are left, a class each; else 1 */
    char loss[32];     /* its type's name */
    double loss_delta; /* Huber's; 1 for the others */
    int targets_missing;          /* a NaN among values, a class below 0: it counts for nothing */
    uint64_t target_weight_count; /* outputs / target_steps; 0: all alike */
    double *target_weights;       /* of each output's target, or of each class */
    uint32_t layer_count;
    struct layer_instance *layers;
    uint32_t tensor_count;
    struct tensor_info *tensors;
    uint64_t parameter_count; /* length of the flat vector: tensors end to end, row-major */
    /* PyTorch's buffers of modules (running statistics): state that is no parameter, in a vector of
     * its own. */
    uint32_t buffer_count;
    struct tensor_info *buffers;
    uint64_t buffer_values; /* length of that vector */
    /* What layers carry from a row of a batch to that row of the next one, since model_carry:
     * values a row, each tensor's `first` those of the tensors before it. */
    uint32_t carried_count;
    struct tensor_info *carried;
    uint64_t carried_values;
};

/* Parse and infer shapes; allocates no parameters. inputs: features a row; loss: "l1", "huber
 * delta=0.5" (1 where it is not given), "l1 missing weights=1,4" (engine/loss_text.h). Errors
 * (permanent) name the layer's place and type, the key, and what is accepted. */
int model_open(struct model *m, const char *const *layers, uint32_t count, uint64_t inputs,
               const char *loss, struct err *e);
/* The same of rows of any kind. */
int model_open_input(struct model *m, const char *const *layers, uint32_t count,
                     const struct model_input *input, const char *loss, struct err *e);

/* Layers that have a state go on, where a batch's row goes on, from what that row of the batch
 * before left (data.stateful), and do not begin at 0. Gradients end at the row's first step. -1
 * (permanent) and the layer where one cannot. */
int model_carry(struct model *m, struct err *e);

/* Do `values` targets of a type ("u8" .. "f64") a row go with the loss and the outputs? */
int model_targets_check(const struct model *m, const char *type, uint64_t values, struct err *e);

/* Targets of a row, each of which may have a weight: outputs, or steps that have a class. */
uint64_t model_row_targets(const struct model *m);

/* Does training draw random numbers in a layer? */
int model_draws(const struct model *m);
/* In one whose rows are nodes of graphs? */
int model_draws_nodes(const struct model *m);

/* Have all channels of layers with statistics more than one value in a micro-batch of `rows`? */
int model_rows_check(const struct model *m, uint64_t rows, struct err *e);

void model_close(struct model *m); /* harmless twice */

/* The model as one text, and back: "inputs=784 loss=softmax_cross_entropy\nlinear
 * out=256\nrelu\n..."; of graphs its first line is "graphs inputs=38 edge_inputs=5 loss=...". */
int model_text(const struct model *m, char *text, size_t bytes, struct err *e);
int model_from_text(struct model *m, const char *text, struct err *e);

/* Fresh weights into parameters[parameter_count]: PyTorch's defaults (linear: U(-1/sqrt(in),
 * 1/sqrt(in)) for weight and bias), counter-based, keyed by (seed, tensor, index): the same on
 * every machine. */
void model_initialise(const struct model *m, uint64_t seed, float *parameters);
/* The module buffers as they begin: running_mean 0, running_var 1. */
void model_initialise_buffers(const struct model *m, float *buffers);

#endif
