// Reads and checks the attributes of a LinearAttention node and the tensors of a call.
#pragma once

#include "calls.h"

enum { QUERY, KEY, VALUE, DECAY, BETA, PAST_STATE, SEQLENS_K, QUERY_SEQLENS, INPUTS };

OrtStatus *read_linear_settings(const OrtKernelInfo *info, LinearSettings *out);

// Everything but scratch memory. A batch that does not fit is an error, never a wild write.
OrtStatus *read_linear_attention(const LinearSettings *settings, OrtKernelContext *context,
                                 LinearAttention *out);
