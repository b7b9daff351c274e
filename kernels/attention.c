// The operator Attention: causal attention of new tokens over the caches of their rows, into which
// it writes their keys and values first.
#include <stdatomic.h>
#include <stdlib.h>

#include "attention_inputs.h"
#include "calls.h"

// A part takes as many tokens as share a chunk of the cache well, and fewer where that leaves threads
// without work. Workers take the next part that is left, so only those that run touch their scratch.
enum { ROWS_PER_PART = 48, PARTS_AT_LEAST = 8, WORKERS = 32, TOKENS_PER_WRITE = 64, FEW_TOKENS = 16 };

typedef struct {
    const Attention *attention;
    int64_t tokens_per_part, parts, runs_per_row;
    float *scratch;
    int64_t scratch_per_worker;
    _Atomic int64_t next;
} Call;

static void write_run(void *data, size_t task) {
    const Call *call = data;
    const int64_t row = task / call->runs_per_row;
    const int64_t first = task % call->runs_per_row * TOKENS_PER_WRITE;
    const int64_t stop = min(first + TOKENS_PER_WRITE, call->attention->batch.valid[row]);
    if (first < stop) kernels->store_kv(call->attention, row, first, stop);
}

static OrtStatus *write_cache(Call *call, OrtKernelContext *context) {
    const Attention *a = call->attention;
    call->runs_per_row = ceil_div(a->batch.tokens, TOKENS_PER_WRITE);
    const int64_t runs = a->batch.rows * call->runs_per_row;
    if (a->batch.rows * a->batch.tokens > FEW_TOKENS)
        return ort->KernelContext_ParallelFor(context, write_run, runs, 0, call);
    for (int64_t run = 0; run < runs; run++) write_run(call, run);
    return NULL;
}

// Computes parts until none is left. The last see the most positions, so they come first and the
// threads end together.
static void attend_parts(void *data, size_t worker) {
    Call *call = data;
    const Attention *a = call->attention;
    float *scratch = call->scratch + worker * call->scratch_per_worker;
    for (int64_t left; (left = call->parts - atomic_fetch_add(&call->next, 1)) > 0;) {
        const int64_t head = (left - 1) % (a->batch.rows * a->settings->kv_heads);
        Part part = {.row = head / a->settings->kv_heads, .kv_head = head % a->settings->kv_heads};
        part.first = (left - 1) / (a->batch.rows * a->settings->kv_heads) * call->tokens_per_part;
        part.count = min(call->tokens_per_part, a->batch.valid[part.row] - part.first);
        if (part.count > 0) kernels->attend(a, &part, scratch);
    }
}

static int64_t last_stop(const Attention *a) {
    int64_t stop = 0;
    for (int64_t row = 0; row < a->batch.rows; row++)
        if (a->batch.valid[row]) stop = max(stop, a->batch.last[row] + 1);
    return stop;
}

static void divide(Call *call) {
    const Attention *a = call->attention;
    const int64_t heads = a->batch.rows * a->settings->kv_heads;
    const int64_t largest = max(1, ROWS_PER_PART / a->settings->group);
    call->tokens_per_part = min(largest, ceil_div(a->batch.tokens * heads, PARTS_AT_LEAST));
    call->parts = heads * ceil_div(a->batch.tokens, call->tokens_per_part);
    const int64_t floats = kernels->scratch(a, call->tokens_per_part, last_stop(a));
    call->scratch_per_worker = round_up(floats, 16);
}

static OrtStatus *attend(const Attention *a, OrtKernelContext *context) {
    Call call = {.attention = a};
    divide(&call);
    const int64_t workers = min(call.parts, WORKERS);
    call.scratch = malloc(workers * call.scratch_per_worker * sizeof(float));
    if (!call.scratch) return ort->CreateStatus(ORT_FAIL, "Attention: no memory for scores.");
    OrtStatus *status = write_cache(&call, context);
    if (!status) status = ort->KernelContext_ParallelFor(context, attend_parts, workers, 0, &call);
    free(call.scratch);
    return status;
}

static OrtStatus *compute(void *kernel, OrtKernelContext *context) {
    Attention attention;
    TRY(read_attention(kernel, context, &attention));
    if (!attention.batch.rows || !attention.batch.tokens) return NULL;
    clear_padding(&attention.batch, attention.settings->heads * attention.size, attention.output);
    return attend(&attention, context);
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                         void **kernel) {
    (void)api;
    Node *node = calloc(1, sizeof *node);
    if (!node) return ort->CreateStatus(ORT_FAIL, "No memory for a node.");
    node->is_half = op == &attention_of_halves;
    OrtStatus *status = read_settings(info, &node->settings);
    if (status) free(node);
    *kernel = status ? NULL : node;
    return status;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "Attention"; }

static int type(const OrtCustomOp *op, size_t index) {
    if (index == PAST_KEY || index == PAST_VALUE)
        return op == &attention_of_halves ? ORT_FLOAT16 : ORT_FLOAT;
    return index == SEQLENS_K || index == QUERY_SEQLENS ? ORT_INT32 : ORT_FLOAT;
}

static int output_type_of(const OrtCustomOp *op, size_t index) {
    return index && op == &attention_of_halves ? ORT_FLOAT16 : ORT_FLOAT;
}

static size_t inputs(const OrtCustomOp *op) { return (void)op, INPUTS; }

static size_t outputs(const OrtCustomOp *op) { return (void)op, 3; }

static int need(const OrtCustomOp *op, size_t index) {
    (void)op;
    return index == KEY || index == VALUE || index >= COS ? ORT_OPTIONAL : ORT_REQUIRED;
}

#define ATTENTION                                                                              \
    EVERY_OPERATOR(name, type, inputs, compute), .GetOutputType = output_type_of,              \
    .GetOutputTypeCount = outputs, .GetInputCharacteristic = need, .CreateKernelV2 = create

const OrtCustomOp attention_of_floats = {ATTENTION};
const OrtCustomOp attention_of_halves = {ATTENTION};
