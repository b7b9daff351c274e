// The arguments of one call of the operator CausalConvolution.
#pragma once

#include "batch.h"

enum {
    CHANNELS = 512,   // that are computed together: their taps and inputs stay in the core's cache
    WIDEST_TAPS = 8,  // inputs that an output sees, at most
};

typedef struct {
    Batch batch;
    int64_t channels, width;  // width: inputs of its own channel that an output sees
    const float *x;           // [rows, tokens, channels]
    const float *weight;      // [channels, width]
    const float *bias;        // [channels], or NULL
    float *state;             // [rows, width - 1, channels]: the last inputs, the oldest first
    float *output;            // as x
} Convolution;
