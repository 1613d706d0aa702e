/* dense.h - linear layers on few rows by kernels of our own: dense.cu tile by tile, narrow.cu where
 * there are few outputs. Each is one launch with all that follows the product. They return 0 where
 * it is not for them, by size or addresses, and have done nothing then; x_half, where it is not
 * NULL, is read instead of x.at. The arguments are those of the operations (ops.def). */
#ifndef ENGINE_CUDA_DENSE_H
#define ENGINE_CUDA_DENSE_H

#include "engine/cuda/cuda.h"

enum { DENSE_ROWS_MAX = 512, NARROW_OUTPUTS_MAX = 16 };

int dense_forward(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                  enum half half, uint16_t *kept, struct matrix y);
int dense_backward(struct matrix dy, struct matrix x, const uint16_t *x_half, struct matrix w,
                   int adds, struct matrix dw, float *db, enum activation kind, enum half half,
                   int rounds, struct matrix dx);
int narrow_forward(struct matrix x, struct matrix w, const float *bias, enum activation kind,
                   enum half half, uint16_t *kept, struct matrix y);
int narrow_backward(struct matrix dy, struct matrix x, const uint16_t *x_half, struct matrix w,
                    int adds, struct matrix dw, float *db, enum activation kind, enum half half,
                    int rounds, struct matrix dx);

#endif
