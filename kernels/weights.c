// Reads a node's weights where they lie, in ONNX Runtime's mapping of the file, and checks shapes.
#include <stdio.h>

#include "operators.h"

OrtStatus *read_tensor(const OrtValue *value, Tensor *out) {
    OrtShape *shape = NULL;
    TRY(ort->GetTensorTypeAndShape(value, &shape));
    OrtStatus *status = ort->GetDimensionsCount(shape, &out->rank);
    if (!status && out->rank > RANK)
        status = ort->CreateStatus(ORT_INVALID_ARGUMENT, "A tensor has more than 8 axes.");
    if (!status) status = ort->GetDimensions(shape, out->sizes, out->rank);
    ort->ReleaseTensorTypeAndShapeInfo(shape);
    if (!status) status = ort->GetTensorMutableData((OrtValue *)value, (void **)&out->data);
    return status;
}

static OrtStatus *refuse(const char *what) {
    char message[160];
    snprintf(message, sizeof message, "Kindling's kernels: %s. Export the model again.", what);
    return ort->CreateStatus(ORT_INVALID_ARGUMENT, message);
}

// The tensor of a constant input; no data where an optional input is left out.
static OrtStatus *read_constant(const OrtKernelInfo *info, size_t index, Tensor *out) {
    size_t count = 0, name = 0;
    int is_constant = 0;
    const OrtValue *value = NULL;
    *out = (Tensor){0};
    TRY(ort->KernelInfo_GetInputCount(info, &count));
    if (index >= count) return NULL;
    TRY(ort->KernelInfo_GetInputName(info, index, NULL, &name));
    if (name <= 1) return NULL;  // its closing zero alone
    TRY(ort->KernelInfoGetConstantInput_tensor(info, index, &is_constant, &value));
    return is_constant ? read_tensor(value, out) : refuse("weights must be initialisers");
}

static int is_shape(const Tensor *tensor, int64_t first, int64_t second, int64_t third) {
    return tensor->rank == 3 && tensor->sizes[0] == first && tensor->sizes[1] == second &&
           tensor->sizes[2] == third;
}

static OrtStatus *read_attributes(const OrtKernelInfo *info, Weights *w) {
    int64_t block_size = 0;
    TRY(ort->KernelInfoGetAttribute_int64(info, "K", &w->inputs));
    TRY(ort->KernelInfoGetAttribute_int64(info, "N", &w->outputs));
    TRY(ort->KernelInfoGetAttribute_int64(info, "bits", &w->bits));
    TRY(ort->KernelInfoGetAttribute_int64(info, "block_size", &block_size));
    if (w->inputs < 1 || w->outputs < 1) return refuse("K and N must be positive");
    if (w->bits != 4 && w->bits != 5 && w->bits != 6 && w->bits != 8)
        return refuse("bits must be 4, 5, 6 or 8");
    if (block_size < BLOCK || block_size % BLOCK)
        return refuse("block_size must be a multiple of 32");
    w->blocks_per_scale = block_size / BLOCK;
    w->blocks = (w->inputs + BLOCK - 1) / BLOCK;
    w->groups = (w->outputs + LANES - 1) / LANES;
    w->scale_count = (w->blocks + w->blocks_per_scale - 1) / w->blocks_per_scale;
    return NULL;
}

// Scales and offsets in float16.
static OrtStatus *read_wide(const OrtKernelInfo *info, Weights *w) {
    Tensor scales, offsets;
    TRY(read_constant(info, 2, &scales));
    TRY(read_constant(info, 3, &offsets));
    if (!is_shape(&scales, w->groups, w->scale_count, LANES))
        return refuse("scales is not [groups, scales, 16]");
    if (offsets.rank && !is_shape(&offsets, w->groups, w->scale_count, LANES))
        return refuse("offsets is not [groups, scales, 16]");
    if (!offsets.rank && (w->bits == 5 || w->bits == 6))
        return refuse("5 and 6 bits must have offsets");
    w->scales = scales.data;
    w->offsets = offsets.data;
    return NULL;
}

// Scales and zero points of a byte each.
static OrtStatus *read_compact(const OrtKernelInfo *info, Weights *w) {
    Tensor scales, row_scales;
    TRY(read_constant(info, 2, &scales));
    TRY(read_constant(info, 3, &row_scales));
    if (w->bits == 8) return refuse("8 bits must have scales in float16");
    if (!is_shape(&scales, w->groups, w->scale_count, 2 * LANES))
        return refuse("compact scales is not [groups, scales, 32]");
    if (!is_shape(&row_scales, w->groups, 1, LANES))
        return refuse("row scales is not [groups, 1, 16]");
    w->compact = scales.data;
    w->row_scales = row_scales.data;
    return NULL;
}

OrtStatus *read_weights(const OrtKernelInfo *info, int is_compact, Weights *w) {
    Tensor packed, bias;
    TRY(read_attributes(info, w));
    TRY(read_constant(info, 1, &packed));
    TRY(read_constant(info, 4, &bias));
    if (!is_shape(&packed, w->groups, w->blocks, BLOCK * LANES * w->bits / 8))
        return refuse("packed is not [groups, blocks, 64 * bits]");
    TRY(is_compact ? read_compact(info, w) : read_wide(info, w));
    if (bias.rank && (bias.rank != 1 || bias.sizes[0] != w->outputs))
        return refuse("bias is not [outputs]");
    w->packed = packed.data;
    w->bias = bias.data;
    return NULL;
}
