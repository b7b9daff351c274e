// What the operators over a batch of rows share: a call's tensors, their checks, and its tasks.
#pragma once

#include "operators.h"

// An error status whose sentence names the operator.
OrtStatus *refuse_call(const char *name, const char *what);

// The first `count` inputs. One that is left out has no axes: none of the operators' has none.
OrtStatus *read_inputs(OrtKernelContext *context, size_t count, Tensor *out);

int has_shape(const Tensor *tensor, size_t rank, const int64_t *sizes);

// seqlens_k and query_seqlens of a batch whose rows and tokens are known.
OrtStatus *read_lengths(const char *name, const Tensor *last, const Tensor *valid, Batch *batch);

// The memory of an output that has the shape of `like`.
OrtStatus *get_output(OrtKernelContext *context, size_t index, const Tensor *like, void **data);

// Zeros for what is behind the rows' new tokens: padding is nothing that was computed. A token of
// the output has `width` floats.
void clear_padding(const Batch *batch, int64_t width, float *output);

// On all threads, or on this one where there is so little to multiply that it would be done before
// another wakes.
OrtStatus *run_tasks(OrtKernelContext *context, void (*task)(void *data, size_t index),
                     int64_t tasks, int64_t multiplications, void *data);
