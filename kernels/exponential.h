// exp and tanh for softmax, with the same bits for any width of vectors.
//
// exp: x = n ln 2 + r with |r| <= ln 2 / 2 (Cody and Waite), a polynomial for exp(r), and n added to
// the exponent. The coefficients are a weighted least squares fit, 3e-9 from exp relatively; with
// the rounding of floats the result is within 1.5e-7 (tests/kernels/test_attention_exact.py).
#pragma once

#include "rows.h"
#include "vectors.h"

// Below this the result is 0: the smallest normal float is exp(-87.34).
#define LEAST_EXPONENT -87.0f

TARGET INLINE vector choose(integers which, vector yes, vector no) {
    return (vector)((which & (integers)yes) | (~which & (integers)no));
}

// exp(x) for x <= 0; NaN for a NaN as arithmetic makes it, whose lowest 9 bits are 0.
TARGET INLINE vector exponential(vector x) {
    const vector rounder = broadcast(ROUNDER);
    const vector shifted = __builtin_elementwise_fma(x, broadcast(1.44269504f), rounder);
    const vector n = shifted - rounder;
    vector r = __builtin_elementwise_fma(n, broadcast(-0.693147182f), x);
    r = __builtin_elementwise_fma(n, broadcast(1.90465421e-9f), r);
    vector sum = broadcast(0.00138145394f);
    sum = __builtin_elementwise_fma(sum, r, broadcast(0.00836874545f));
    sum = __builtin_elementwise_fma(sum, r, broadcast(0.0416683890f));
    sum = __builtin_elementwise_fma(sum, r, broadcast(0.166665211f));
    sum = __builtin_elementwise_fma(sum, r, broadcast(0.499999940f));
    sum = __builtin_elementwise_fma(sum, r, broadcast(1));
    sum = __builtin_elementwise_fma(sum, r, broadcast(1));
    const vector scaled = (vector)((integers)sum + ((integers)shifted << 23));
    return choose((integers)(x < LEAST_EXPONENT), (vector){0}, scaled);
}

// cap * tanh(x / cap). Its error is some 1e-7 of cap.
TARGET INLINE vector softcap(vector x, float cap) {
    const integers sign = (integers)x & INT32_MIN;
    const vector size = (vector)((integers)x & INT32_MAX);
    const vector e = exponential(size * (-2 / cap));
    const vector tanh = (1 - e) / (1 + e);
    return (vector)((integers)(tanh * cap) | sign);
}
