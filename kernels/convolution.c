// The operator CausalConvolution: each channel has a short filter of its own over the row's last
// inputs; those of earlier calls lie in a state that is updated in place.
#include "calls.h"

enum { X, WEIGHT, BIAS, PAST_STATE, SEQLENS_K, QUERY_SEQLENS, INPUTS };

static OrtStatus *refuse(const char *what) { return refuse_call("CausalConvolution", what); }

static OrtStatus *check_shapes(const Tensor *t, Convolution *c) {
    if (t[X].rank != 3) return refuse("x is not [rows, tokens, channels]");
    c->batch.rows = t[X].sizes[0], c->batch.tokens = t[X].sizes[1], c->channels = t[X].sizes[2];
    if (t[WEIGHT].rank != 2 || t[WEIGHT].sizes[0] != c->channels)
        return refuse("weight is not [channels, width]");
    c->width = t[WEIGHT].sizes[1];
    if (c->width < 2 || c->width > WIDEST_TAPS) return refuse("width is not from 2 to 8");
    if (t[BIAS].rank && !has_shape(&t[BIAS], 1, &c->channels))
        return refuse("bias is not [channels]");
    if (!has_shape(&t[PAST_STATE], 3, (int64_t[]){c->batch.rows, c->width - 1, c->channels}))
        return refuse("past_state is not [rows, width - 1, channels]");
    c->x = t[X].data, c->weight = t[WEIGHT].data, c->bias = t[BIAS].data;
    return NULL;
}

static OrtStatus *read_convolution(OrtKernelContext *context, Convolution *c) {
    Tensor t[INPUTS];
    *c = (Convolution){0};
    TRY(read_inputs(context, INPUTS, t));
    TRY(check_shapes(t, c));
    TRY(read_lengths("CausalConvolution", &t[SEQLENS_K], &t[QUERY_SEQLENS], &c->batch));
    TRY(get_output(context, 0, &t[X], (void **)&c->output));
    TRY(get_output(context, 1, &t[PAST_STATE], (void **)&c->state));
    if (c->state == t[PAST_STATE].data) return NULL;
    return refuse("present_state must be bound to past_state's memory");
}

static void convolve_channels(void *data, size_t task) {
    const Convolution *c = data;
    const int64_t parts = ceil_div(c->channels, CHANNELS), row = task / parts;
    if (c->batch.valid[row]) kernels->convolve(c, row, task % parts * CHANNELS);
}

static OrtStatus *compute(void *kernel, OrtKernelContext *context) {
    (void)kernel;
    Convolution c;
    TRY(read_convolution(context, &c));
    clear_padding(&c.batch, c.channels, c.output);
    const int64_t tasks = c.batch.rows * ceil_div(c.channels, CHANNELS);
    const int64_t multiplications = c.batch.rows * c.batch.tokens * c.channels * c.width;
    return run_tasks(context, convolve_channels, tasks, multiplications, &c);
}

// The operator has no attributes: all that a call needs are its inputs.
static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                         void **kernel) {
    (void)op, (void)api, (void)info;
    *kernel = NULL;
    return NULL;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "CausalConvolution"; }

static int type(const OrtCustomOp *op, size_t index) {
    return (void)op, index >= SEQLENS_K ? ORT_INT32 : ORT_FLOAT;
}

static size_t inputs(const OrtCustomOp *op) { return (void)op, INPUTS; }

static size_t outputs(const OrtCustomOp *op) { return (void)op, 2; }

static int need(const OrtCustomOp *op, size_t index) {
    return (void)op, index == BIAS ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp causal_convolution = {
    EVERY_OPERATOR(name, type, inputs, compute), .GetOutputType = output_type,
    .GetOutputTypeCount = outputs, .GetInputCharacteristic = need, .CreateKernelV2 = create};
