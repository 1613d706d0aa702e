/* handle.h - what needs CUDA's libraries: not in the emulated build. */
#ifndef ENGINE_CUDA_HANDLE_H
#define ENGINE_CUDA_HANDLE_H

#include <cublas_v2.h>

extern cublasHandle_t cuda_handle; /* on the computing stream; NULL: its lane has none */

/* cuBLAS's own, so that it allocates nothing: what NVIDIA recommends for Hopper. */
enum { CUDA_WORKSPACE_BYTES = 32 << 20 };
extern void *cuda_workspace;

/* The first failure is kept until device.failure asks. */
void cuda_note(cudaError_t error, const char *what);
void cuda_blas(cublasStatus_t status, const char *what);

#endif
