// Reads and checks the attributes of an Attention node and the tensors of a call.
#pragma once

#include "operators.h"

enum {
    QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, SEQLENS_K, QUERY_SEQLENS, COS, SIN, SINKS, INPUTS,
};

typedef struct {
    Settings settings;
    int is_half;
} Node;

OrtStatus *read_settings(const OrtKernelInfo *info, Settings *out);

// Everything but scratch memory. A batch that does not fit is an error, never a wild write.
OrtStatus *read_attention(const Node *node, OrtKernelContext *context, Attention *out);
