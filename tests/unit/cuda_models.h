/* cuda_models.h - whole models for the tests of a device, and how near it comes to the CPU. */
#ifndef TESTS_UNIT_CUDA_MODELS_H
#define TESTS_UNIT_CUDA_MODELS_H

#include "tests/unit/engine_fixture.h"

enum cuda_model {
    CUDA_MODEL_DENSE,
    CUDA_MODEL_DENSE_SQUARED_ERROR,
    CUDA_MODEL_DENSE_COSINE,
    CUDA_MODEL_DENSE_HUBER,  /* layers are frozen */
    CUDA_MODEL_DENSE_BINARY, /* checkpointing */
    CUDA_MODEL_NORMED,
    CUDA_MODEL_NORMED_L1,
    CUDA_MODEL_RESIDUAL,
    CUDA_MODEL_RECURRENT,
    CUDA_MODEL_RECURRENT_CHECKPOINTING,
    CUDA_MODEL_GRAPHS, /* with batchnorm: as many nodes are computed as there are */
    CUDA_MODEL_GRAPHS_DRAWN,
    CUDA_MODEL_CHAINED,
    CUDA_MODEL_CHAINED_LONG,
    CUDA_MODEL_CARRIED_CHECKPOINTING,
    CUDA_MODEL_CARRIED,
    CUDA_MODEL_WEIGHED_ERROR,
    CUDA_MODEL_WEIGHED,
    CUDA_MODEL_NARROW,
    CUDA_MODEL_NARROW_BEHIND,
    CUDA_MODEL_TOKENS,
    CUDA_MODELS
};

extern const struct fixture_config cuda_models[CUDA_MODELS];

enum { CUDA_STEPS = 4 };

/* The same model on the device and on the CPU, which takes the batch as one slice (close both). */
void pair_open(struct fixture *on, struct fixture *cpu, struct fixture_config c);

/* sqrt(sum (a - b)^2 / sum b^2) */
double vectors_distance(const float *a, const float *b, uint64_t count);

/* These end the test where something is farther off than `bar` of it, with the model's number. */
void number_near(double got, double wanted, double bar, const char *what, int model);
void vectors_near(struct fixture *on, struct fixture *cpu, double bar, int model);
/* The last batch's, tensor by tensor, in a model of which nothing is frozen. */
void gradients_near(struct fixture *on, struct fixture *cpu, double bar, int model);

#endif
