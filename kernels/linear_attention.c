// The operator LinearAttention: tokens of some rows, in order, through the recurrent states of their
// heads, which are updated in place.
#include <stdlib.h>

#include "linear_attention_inputs.h"

typedef struct {
    LinearAttention *attention;
    const float *query, *key;  // as they were given
    float *normalised;         // queries, then keys
    int64_t blocks;            // of columns in a head
} Call;

static int64_t key_elements(const LinearAttention *a) {
    return a->batch.rows * a->batch.tokens * a->settings->key_heads * a->key_size;
}

static void normalise_token(void *data, size_t task) {
    const Call *call = data;
    const LinearAttention *a = call->attention;
    if ((int64_t)task % a->batch.tokens >= a->batch.valid[task / a->batch.tokens]) return;
    float *query = call->normalised, *key = query + key_elements(a);
    for (int64_t head = 0; head < a->settings->key_heads; head++) {
        const int64_t place = (task * a->settings->key_heads + head) * a->key_size;
        const float epsilon = a->settings->norm_epsilon;
        kernels->normalise(call->query + place, a->key_size, epsilon, query + place);
        kernels->normalise(call->key + place, a->key_size, epsilon, key + place);
    }
}

static void scan_columns(void *data, size_t task) {
    const Call *call = data;
    const LinearAttention *a = call->attention;
    const int64_t head = task / call->blocks, row = head / a->settings->heads;
    if (a->batch.valid[row])
        kernels->linear_attention_scan(a, row, head % a->settings->heads,
                                       task % call->blocks * COLUMNS);
}

static OrtStatus *run(Call *call, OrtKernelContext *context) {
    LinearAttention *a = call->attention;
    const int64_t heads = a->batch.rows * a->settings->heads;
    if (call->normalised) {
        const int64_t tokens = a->batch.rows * a->batch.tokens;
        TRY(run_tasks(context, normalise_token, tokens, 2 * key_elements(a), call));
        a->query = call->normalised, a->key = call->normalised + key_elements(a);
    }
    call->blocks = ceil_div(a->value_size, COLUMNS);
    const int64_t multiplications = heads * a->batch.tokens * a->key_size * a->value_size;
    return run_tasks(context, scan_columns, heads * call->blocks, multiplications, call);
}

static OrtStatus *compute(void *kernel, OrtKernelContext *context) {
    LinearAttention a;
    TRY(read_linear_attention(kernel, context, &a));
    Call call = {.attention = &a, .query = a.query, .key = a.key};
    if (!a.batch.rows || !a.batch.tokens) return NULL;
    if (a.settings->norm_epsilon > 0) {
        call.normalised = malloc(2 * key_elements(&a) * sizeof(float));
        if (!call.normalised) return ort->CreateStatus(ORT_FAIL, "LinearAttention: no memory.");
    }
    clear_padding(&a.batch, a.settings->heads * a.value_size, a.output);
    OrtStatus *status = run(&call, context);
    free(call.normalised);
    return status;
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                         void **kernel) {
    (void)op, (void)api;
    LinearSettings *settings = calloc(1, sizeof *settings);
    if (!settings) return ort->CreateStatus(ORT_FAIL, "No memory for a node.");
    OrtStatus *status = read_linear_settings(info, settings);
    if (status) free(settings);
    *kernel = status ? NULL : settings;
    return status;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "LinearAttention"; }

static int type(const OrtCustomOp *op, size_t index) {
    return (void)op, index >= SEQLENS_K ? ORT_INT32 : ORT_FLOAT;
}

static size_t inputs(const OrtCustomOp *op) { return (void)op, INPUTS; }

static size_t outputs(const OrtCustomOp *op) { return (void)op, 2; }

static int need(const OrtCustomOp *op, size_t index) {
    return (void)op, index == DECAY || index == BETA ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp linear_attention = {
    EVERY_OPERATOR(name, type, inputs, compute), .GetOutputType = output_type,
    .GetOutputTypeCount = outputs, .GetInputCharacteristic = need, .CreateKernelV2 = create};
