// The entry point: ONNX Runtime calls RegisterCustomOps when it loads the library.
#include <stdlib.h>

#include "operators.h"

#define EXPORTED __attribute__((visibility("default")))

const OrtApi *ort;
const Kernels *kernels;

OrtStatus *create_kernel(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                         void **kernel) {
    (void)api;
    Weights *weights = calloc(1, sizeof *weights);
    if (!weights) return ort->CreateStatus(ORT_FAIL, "No memory for a node.");
    const int is_compact = op == &compact_matmul || op == &compact_gather;
    OrtStatus *status = read_weights(info, is_compact, weights);
    if (status) free(weights);
    *kernel = status ? NULL : weights;
    return status;
}

void destroy_kernel(void *kernel) { free(kernel); }

const char *provider(const OrtCustomOp *op) { return (void)op, "CPUExecutionProvider"; }

int output_type(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, ORT_FLOAT; }

int in_main_memory(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, 0; }

int input_need(const OrtCustomOp *op, size_t index) {
    return (void)op, index < 3 ? ORT_REQUIRED : ORT_OPTIONAL;
}

int output_need(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, ORT_REQUIRED; }

size_t output_count(const OrtCustomOp *op) { return (void)op, 1; }

int version(const OrtCustomOp *op) { return (void)op, 1; }

// Once for each session. The domain is made once and lives as long as the process; Python calls this
// with the interpreter's lock held, so never twice at a time.
EXPORTED OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    static OrtCustomOpDomain *domain;
    if (!domain) {
        ort = base->GetApi(ORT_VERSION);
        if (!ort) return base->GetApi(1)->CreateStatus(ORT_FAIL, "ONNX Runtime is older than 1.17.");
        if (!kernels) kernels = kernels_for_this_cpu(NULL);
        OrtCustomOpDomain *fresh = NULL;
        TRY(ort->CreateCustomOpDomain("kindling", &fresh));
        TRY(ort->CustomOpDomain_Add(fresh, &affine_matmul));
        TRY(ort->CustomOpDomain_Add(fresh, &affine_gather));
        TRY(ort->CustomOpDomain_Add(fresh, &compact_matmul));
        TRY(ort->CustomOpDomain_Add(fresh, &compact_gather));
        TRY(ort->CustomOpDomain_Add(fresh, &attention_of_floats));
        TRY(ort->CustomOpDomain_Add(fresh, &attention_of_halves));
        TRY(ort->CustomOpDomain_Add(fresh, &causal_convolution));
        TRY(ort->CustomOpDomain_Add(fresh, &linear_attention));
        domain = fresh;  // only now: the next session must not find it half made
    }
    return ort->AddCustomOpDomain(options, domain);
}
