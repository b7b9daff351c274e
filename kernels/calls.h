// Helpers of all operators over a batch of rows: reading and checking tensors, running tasks.
#pragma once

#include "operators.h"

// Makes an error status whose sentence names the operator.
OrtStatus *refuse_call(const char *name, const char *what);

// Reads the first `count` inputs. One that is left out has rank 0, which no given input has.
OrtStatus *read_inputs(OrtKernelContext *context, size_t count, Tensor *out);

int has_shape(const Tensor *tensor, size_t rank, const int64_t *sizes);

// Reads seqlens_k and query_seqlens of a batch whose rows and tokens are known.
OrtStatus *read_lengths(const char *name, const Tensor *last, const Tensor *valid, Batch *batch);

// The memory of an output that has the shape of `like`.
OrtStatus *get_output(OrtKernelContext *context, size_t index, const Tensor *like, void **data);

// Writes zeros after the rows' new tokens, where nothing is computed. A token of the output has
// `width` floats.
void clear_padding(const Batch *batch, int64_t width, float *output);

// Runs tasks on all threads, or on this one if there is so little to multiply that it would be done
// before another wakes.
OrtStatus *run_tasks(OrtKernelContext *context, void (*task)(void *data, size_t index),
                     int64_t tasks, int64_t multiplications, void *data);
