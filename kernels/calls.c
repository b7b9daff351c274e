// Reads and checks what every operator over a batch of rows is given, and divides its work.
#include "calls.h"

#include <stdio.h>
#include <string.h>

enum { FEW_MULTIPLICATIONS = 64 * 1024 };  // some microseconds of work

OrtStatus *refuse_call(const char *name, const char *what) {
    char message[160];
    snprintf(message, sizeof message, "%s: %s.", name, what);
    return ort->CreateStatus(ORT_INVALID_ARGUMENT, message);
}

OrtStatus *read_inputs(OrtKernelContext *context, size_t count, Tensor *out) {
    size_t given = 0;
    TRY(ort->KernelContext_GetInputCount(context, &given));
    for (size_t index = 0; index < count; index++) {
        const OrtValue *value = NULL;
        out[index] = (Tensor){0};
        if (index < given) TRY(ort->KernelContext_GetInput(context, index, &value));
        if (value) TRY(read_tensor(value, &out[index]));
    }
    return NULL;
}

int has_shape(const Tensor *tensor, size_t rank, const int64_t *sizes) {
    for (size_t axis = 0; axis < rank && tensor->rank == rank; axis++)
        if (tensor->sizes[axis] != sizes[axis]) return 0;
    return tensor->rank == rank;
}

OrtStatus *read_lengths(const char *name, const Tensor *last, const Tensor *valid, Batch *batch) {
    if (!has_shape(last, 1, &batch->rows) || !has_shape(valid, 1, &batch->rows))
        return refuse_call(name, "seqlens_k and query_seqlens are not [rows]");
    batch->last = last->data, batch->valid = valid->data;
    for (int64_t row = 0; row < batch->rows; row++) {
        const int32_t count = batch->valid[row];
        if (count < 0 || count > batch->tokens)
            return refuse_call(name, "query_seqlens has a row with more tokens than there are, or "
                                     "less than 0");
        if (count && past_of(batch, row) < 0)
            return refuse_call(name, "seqlens_k + 1 is less than query_seqlens in a row");
    }
    return NULL;
}

OrtStatus *get_output(OrtKernelContext *context, size_t index, const Tensor *like, void **data) {
    OrtValue *output = NULL;
    TRY(ort->KernelContext_GetOutput(context, index, like->sizes, like->rank, &output));
    return ort->GetTensorMutableData(output, data);
}

void clear_padding(const Batch *batch, int64_t width, float *output) {
    for (int64_t row = 0; row < batch->rows; row++)
        memset(output + (row * batch->tokens + batch->valid[row]) * width, 0,
               (batch->tokens - batch->valid[row]) * width * sizeof(float));
}

OrtStatus *run_tasks(OrtKernelContext *context, void (*task)(void *data, size_t index),
                     int64_t tasks, int64_t multiplications, void *data) {
    if (multiplications >= FEW_MULTIPLICATIONS)
        return ort->KernelContext_ParallelFor(context, task, tasks, 0, data);
    for (int64_t index = 0; index < tasks; index++) task(data, index);
    return NULL;
}
