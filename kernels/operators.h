// Declarations that all operators share: reading constant inputs, and shapes.
#pragma once

#include "kernels.h"
#include "onnxruntime.h"

enum { RANK = 8 };  // axes that an input may have

typedef struct {
    int64_t sizes[RANK];
    size_t rank;
    const void *data;
} Tensor;

extern const OrtApi *ort;         // set once, while the library is registered
extern const Kernels *kernels;    // what all sessions of the process compute with

extern const OrtCustomOp affine_matmul, affine_gather, compact_matmul, compact_gather;
extern const OrtCustomOp attention_of_floats, attention_of_halves, causal_convolution;
extern const OrtCustomOp linear_attention;

// Hands a failure of ONNX Runtime's on to the caller.
#define TRY(call)                        \
    do {                                 \
        OrtStatus *status_ = (call);     \
        if (status_) return status_;     \
    } while (0)

// Shape and data of a tensor, which stay the tensor's.
OrtStatus *read_tensor(const OrtValue *value, Tensor *out);

// Elements in the first `axes` axes.
static inline int64_t elements(const Tensor *tensor, size_t axes) {
    int64_t count = 1;
    for (size_t axis = 0; axis < axes; axis++) count *= tensor->sizes[axis];
    return count;
}

// The weights of a node: attributes K (inputs), N (outputs), bits and block_size; packed, scales and
// offsets, or row scales of compact ones, are the constant inputs 1, 2 and 3, and bias is 4 where
// there is one. All shapes are checked, since a kernel reads what they promise.
OrtStatus *read_weights(const OrtKernelInfo *info, int is_compact, Weights *out);

// What OrtCustomOp asks of both alike.
OrtStatus *create_kernel(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                         void **kernel);
void destroy_kernel(void *kernel);
const char *provider(const OrtCustomOp *op);
int output_type(const OrtCustomOp *op, size_t index);
int in_main_memory(const OrtCustomOp *op, size_t index);
int input_need(const OrtCustomOp *op, size_t index);
int output_need(const OrtCustomOp *op, size_t index);
size_t output_count(const OrtCustomOp *op);
int version(const OrtCustomOp *op);

// What is the same in every operator.
#define EVERY_OPERATOR(name, input_type, input_count, compute)                                  \
    .version = ORT_VERSION, .GetName = name, .GetExecutionProviderType = provider,              \
    .GetInputType = input_type, .GetInputTypeCount = input_count, .KernelComputeV2 = compute,   \
    .GetOutputCharacteristic = output_need, .GetInputMemoryType = in_main_memory,               \
    .KernelDestroy = destroy_kernel, .GetStartVersion = version, .GetEndVersion = version

// An operator over weights.
#define OPERATOR(name, input_type, input_count, compute)                                        \
    EVERY_OPERATOR(name, input_type, input_count, compute), .GetOutputType = output_type,       \
    .GetOutputTypeCount = output_count, .GetInputCharacteristic = input_need,                   \
    .CreateKernelV2 = create_kernel
