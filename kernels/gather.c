// The operator AffineGather: rows of the matrix that AffineMatMul multiplies with, as floats. An
// embedding that is tied to the output projection is read from the same bytes.
#include "operators.h"

typedef struct {
    const Weights *weights;
    const int64_t *ids;
    float *y;
} Call;

// A block's weights are scale * (q - zero) + offset, of which zero or offset is 0.
typedef struct {
    float scale, zero, offset;
} Figures;

// Those of a block of the output at `lane`.
static Figures figures_of(const Weights *w, int64_t group, int64_t block, int64_t lane) {
    const int64_t place = group * w->scale_count + block / w->blocks_per_scale;
    if (w->compact) {
        const uint8_t *compact = w->compact + place * 2 * LANES + lane;
        const float step = compact_step(w->row_scales[group * LANES + lane]);
        return (Figures){compact[0] * step, -compact[LANES] * compact_zero(w->bits), 0};
    }
    const float scale = (float)w->scales[place * LANES + lane];
    if (w->offsets) return (Figures){scale, 0, (float)w->offsets[place * LANES + lane]};
    return (Figures){scale, w->bits == 4 ? 8 : 0, 0};
}

static void gather_row(void *data, size_t task) {
    const Call *call = data;
    const Weights *w = call->weights;
    const int64_t group = call->ids[task] / LANES, lane = call->ids[task] % LANES;
    float *y = call->y + task * w->inputs;
    for (int64_t input = 0; input < w->inputs; input++) {
        const int64_t block = input / BLOCK;
        const uint8_t *packed =
            w->packed + (group * w->blocks + block) * (BLOCK * LANES / 8 * w->bits);
        const int q = value_in_block(packed, lane, input % BLOCK, w->bits);
        const Figures figures = figures_of(w, group, block, lane);
        y[input] = (q - figures.zero) * figures.scale + figures.offset;
    }
}

static OrtStatus *compute(void *kernel, OrtKernelContext *context) {
    const Weights *weights = kernel;
    const OrtValue *input = NULL;
    OrtValue *output = NULL;
    Tensor ids;
    TRY(ort->KernelContext_GetInput(context, 0, &input));
    TRY(read_tensor(input, &ids));
    Call call = {.weights = weights, .ids = ids.data};
    const int64_t count = elements(&ids, ids.rank);
    for (int64_t row = 0; row < count; row++)
        if (call.ids[row] < 0 || call.ids[row] >= weights->outputs)
            return ort->CreateStatus(ORT_INVALID_ARGUMENT, "AffineGather: an id is out of range.");
    if (ids.rank == RANK) return ort->CreateStatus(ORT_INVALID_ARGUMENT, "AffineGather: 8 axes.");
    ids.sizes[ids.rank] = weights->inputs;
    TRY(ort->KernelContext_GetOutput(context, 0, ids.sizes, ids.rank + 1, &output));
    TRY(ort->GetTensorMutableData(output, (void **)&call.y));
    return count ? ort->KernelContext_ParallelFor(context, gather_row, count, 0, &call) : NULL;
}

static const char *name(const OrtCustomOp *op) {
    (void)op;
    return "AffineGather";
}

static int type(const OrtCustomOp *op, size_t index) {
    static const int types[] = {ORT_INT64, ORT_UINT8, ORT_FLOAT16, ORT_FLOAT16};
    return index == 2 && op == &compact_gather ? ORT_UINT8 : types[index];
}

static size_t inputs(const OrtCustomOp *op) {
    (void)op;
    return 4;
}

const OrtCustomOp affine_gather = {OPERATOR(name, type, inputs, compute)};
const OrtCustomOp compact_gather = {OPERATOR(name, type, inputs, compute)};
