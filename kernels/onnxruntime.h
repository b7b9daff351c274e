// The part of ONNX Runtime's C interface that a custom operator needs.
//
// The wheel carries no header. The interface is a table of functions that only ever grows at its
// end, so an entry is named by its place: include/onnxruntime/core/session/onnxruntime_c_api.h and
// the static_asserts of onnxruntime_c_api.cc, which fix the last place of every version. All that
// is used here came with version 17 or before, and GetApi(17) is NULL in a library that is older.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define ORT_VERSION 17

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtShape OrtShape;  // OrtTensorTypeAndShapeInfo
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtCustomOp OrtCustomOp;
typedef struct OrtApi OrtApi;

enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 };                            // OrtErrorCode
enum { ORT_FLOAT = 1, ORT_UINT8 = 2, ORT_INT32 = 6, ORT_INT64 = 7, ORT_FLOAT16 = 10 };  // elements
enum { ORT_REQUIRED = 0, ORT_OPTIONAL = 1 };                                // characteristics

struct OrtApi {
    OrtStatus *(*CreateStatus)(int code, const char *message);  // 0
    void *unused_1[25];
    OrtStatus *(*CreateCustomOpDomain)(const char *name, OrtCustomOpDomain **out);  // 26
    OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *domain, const OrtCustomOp *op);
    OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
    void *unused_29[22];
    OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **out);  // 51
    void *unused_52[9];
    OrtStatus *(*GetDimensionsCount)(const OrtShape *shape, size_t *out);  // 61
    OrtStatus *(*GetDimensions)(const OrtShape *shape, int64_t *out, size_t count);
    void *unused_63[2];
    OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value, OrtShape **out);  // 65
    void *unused_66[19];
    OrtStatus *(*KernelInfoGetAttribute_float)(const OrtKernelInfo *info, const char *name,
                                               float *out);  // 85
    OrtStatus *(*KernelInfoGetAttribute_int64)(const OrtKernelInfo *info, const char *name,
                                               int64_t *out);
    void *unused_87[1];
    OrtStatus *(*KernelContext_GetInputCount)(const OrtKernelContext *context, size_t *out);  // 88
    void *unused_89[1];
    OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *context, size_t index,
                                         const OrtValue **out);  // 90
    OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *context, size_t index,
                                          const int64_t *dimensions, size_t count,
                                          OrtValue **out);
    void *unused_92[7];
    void (*ReleaseTensorTypeAndShapeInfo)(OrtShape *shape);  // 99
    void *unused_100[130];
    OrtStatus *(*KernelInfo_GetInputCount)(const OrtKernelInfo *info, size_t *out);  // 230
    void *unused_231[1];
    OrtStatus *(*KernelInfo_GetInputName)(const OrtKernelInfo *info, size_t index, char *out,
                                          size_t *size);  // 232
    void *unused_233[16];
    OrtStatus *(*KernelInfoGetConstantInput_tensor)(const OrtKernelInfo *info, size_t index,
                                                    int *is_constant,
                                                    const OrtValue **out);  // 249
    void *unused_250[24];
    OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *context,
                                            void (*task)(void *data, size_t index), size_t tasks,
                                            size_t batches, void *data);  // 274
};

typedef struct {
    const OrtApi *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

struct OrtCustomOp {
    uint32_t version;
    void *CreateKernel;  // version 15 and before
    const char *(*GetName)(const OrtCustomOp *op);
    const char *(*GetExecutionProviderType)(const OrtCustomOp *op);
    int (*GetInputType)(const OrtCustomOp *op, size_t index);
    size_t (*GetInputTypeCount)(const OrtCustomOp *op);
    int (*GetOutputType)(const OrtCustomOp *op, size_t index);
    size_t (*GetOutputTypeCount)(const OrtCustomOp *op);
    void *KernelCompute;  // version 15 and before
    void (*KernelDestroy)(void *kernel);
    int (*GetInputCharacteristic)(const OrtCustomOp *op, size_t index);
    int (*GetOutputCharacteristic)(const OrtCustomOp *op, size_t index);
    int (*GetInputMemoryType)(const OrtCustomOp *op, size_t index);
    void *variadic[4];
    OrtStatus *(*CreateKernelV2)(const OrtCustomOp *op, const OrtApi *api,
                                 const OrtKernelInfo *info, void **kernel);
    OrtStatus *(*KernelComputeV2)(void *kernel, OrtKernelContext *context);
    void *InferOutputShapeFn;
    int (*GetStartVersion)(const OrtCustomOp *op);
    int (*GetEndVersion)(const OrtCustomOp *op);
};

_Static_assert(offsetof(OrtApi, AddCustomOpDomain) == 28 * sizeof(void *), "place");
_Static_assert(offsetof(OrtApi, GetTensorMutableData) == 51 * sizeof(void *), "place");
_Static_assert(offsetof(OrtApi, GetDimensions) == 62 * sizeof(void *), "place");
_Static_assert(offsetof(OrtApi, KernelContext_GetOutput) == 91 * sizeof(void *), "place");
_Static_assert(offsetof(OrtApi, ReleaseTensorTypeAndShapeInfo) == 99 * sizeof(void *), "place");
_Static_assert(offsetof(OrtApi, KernelInfo_GetInputName) == 232 * sizeof(void *), "place");
_Static_assert(offsetof(OrtApi, KernelContext_ParallelFor) == 274 * sizeof(void *), "place");
