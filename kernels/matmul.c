// The operator AffineMatMul: y [.., N] = x [.., K] @ W, plus a bias where there is one.
#include <stdio.h>
#include <stdlib.h>

#include "operators.h"

// Bytes of weights that a task reads at least, to be worth a thread: some microseconds of work.
enum { TASK_BYTES = 48 * 1024, ROWS_PER_TASK = 8, FEW_ROWS = 16 };

typedef struct {
    const Weights *weights;
    Rows rows;
    const float *x;
    float *y;
    int64_t groups_per_task;
} Call;

static void quantize_rows(void *data, size_t task) {
    const Call *call = data;
    const int64_t first = task * ROWS_PER_TASK;
    const int64_t last = min(first + ROWS_PER_TASK, call->rows.count);
    for (int64_t row = first; row < last; row++)
        kernels->quantize(call->x + row * call->weights->inputs, call->weights->inputs, &call->rows,
                          row);
}

static void multiply_groups(void *data, size_t task) {
    const Call *call = data;
    const int64_t first = task * call->groups_per_task;
    const int64_t last = min(first + call->groups_per_task, call->weights->groups);
    for (int64_t group = first; group < last; group++)
        kernels->multiply(call->weights, &call->rows, group, call->y);
}

// Every row is quantised once, then every thread takes some groups of outputs for all rows.
static OrtStatus *run(Call *call, OrtKernelContext *context) {
    const Weights *w = call->weights;
    const int64_t count = call->rows.count;
    const int64_t bytes = w->blocks * 64 * w->bits * (1 + count / 2);
    const int64_t tasks_of_rows = (count + ROWS_PER_TASK - 1) / ROWS_PER_TASK;
    call->groups_per_task = (TASK_BYTES + bytes - 1) / bytes;
    if (count < FEW_ROWS)
        for (int64_t task = 0; task < tasks_of_rows; task++) quantize_rows(call, task);
    else
        TRY(ort->KernelContext_ParallelFor(context, quantize_rows, tasks_of_rows, 0, call));
    const int64_t tasks = (w->groups + call->groups_per_task - 1) / call->groups_per_task;
    return ort->KernelContext_ParallelFor(context, multiply_groups, tasks, 0, call);
}

static OrtStatus *with_scratch(Call *call, OrtKernelContext *context) {
    const size_t blocks = call->rows.count * call->rows.blocks;
    char *scratch = malloc(blocks * (BLOCK + 3 * sizeof(float)));
    if (!scratch) return ort->CreateStatus(ORT_FAIL, "AffineMatMul: no memory for activations.");
    call->rows.values = (int8_t *)scratch;
    call->rows.scales = (float *)(scratch + blocks * BLOCK);
    call->rows.totals = call->rows.scales + blocks;
    call->rows.sums = (int32_t *)(call->rows.totals + blocks);
    OrtStatus *status = run(call, context);
    free(scratch);
    return status;
}

static OrtStatus *check_width(const Tensor *x, int64_t inputs) {
    if (x->rank && x->sizes[x->rank - 1] == inputs) return NULL;
    char message[120];
    snprintf(message, sizeof message, "AffineMatMul: x is not %lld wide, as the weights are.",
             (long long)inputs);
    return ort->CreateStatus(ORT_INVALID_ARGUMENT, message);
}

static OrtStatus *compute(void *kernel, OrtKernelContext *context) {
    const Weights *weights = kernel;
    const OrtValue *input = NULL;
    OrtValue *output = NULL;
    Tensor x;
    TRY(ort->KernelContext_GetInput(context, 0, &input));
    TRY(read_tensor(input, &x));
    TRY(check_width(&x, weights->inputs));
    Call call = {.weights = weights, .x = x.data};
    call.rows.blocks = weights->blocks;
    call.rows.count = elements(&x, x.rank - 1);
    x.sizes[x.rank - 1] = weights->outputs;
    TRY(ort->KernelContext_GetOutput(context, 0, x.sizes, x.rank, &output));
    TRY(ort->GetTensorMutableData(output, (void **)&call.y));
    return call.rows.count ? with_scratch(&call, context) : NULL;
}

static const char *name(const OrtCustomOp *op) {
    (void)op;
    return "AffineMatMul";
}

static int type(const OrtCustomOp *op, size_t index) {
    static const int types[] = {ORT_FLOAT, ORT_UINT8, ORT_FLOAT16, ORT_FLOAT16, ORT_FLOAT};
    return index == 2 && op == &compact_matmul ? ORT_UINT8 : types[index];
}

static size_t inputs(const OrtCustomOp *op) {
    (void)op;
    return 5;
}

const OrtCustomOp affine_matmul = {OPERATOR(name, type, inputs, compute)};
const OrtCustomOp compact_matmul = {OPERATOR(name, type, inputs, compute)};
