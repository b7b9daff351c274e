// x86-64 with AVX2, FMA and F16C: every CPU of Lambda and Cloud Run.
//
// maddubs multiplies bytes without a sign by bytes with one and adds neighbours in 16 bits. They hold
// eight steps of 4 bits, which is a block: 8 * 2 * 15 * 127 = 30480; four of 5 bits, 31496; and two
// of 6, 32004. int8 gets its sign moved to the activation, and 2 * 128 * 127 = 32512 fits once.
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define WIDTH 8
#define ROWS 8
#define ZERO_8 0
#define TILE_UNITS 1
#include "attend.h"
#include "convolve.h"
#include "linear_attention_scan.h"

TARGET INLINE __m256i quad(const int8_t *values) {
    int32_t four;
    __builtin_memcpy(&four, values, sizeof four);
    return _mm256_set1_epi32(four);
}

// Adds the products of the quads `start` to `stop` - 1 and of those four after each, summed in 16 bits.
// Without `unpacked` they have 4 bits, and are unpacked where they are needed.
TARGET INLINE void dot_quads(const uint8_t *packed, const bytes *unpacked, const int8_t *values,
                             int64_t stride, int rows, int start, int stop, integers *dots) {
    __m256i sums[ROWS];
    for (int r = 0; r < rows; r++) sums[r] = _mm256_setzero_si256();
    for (int j = start; j < stop; j++) {
        const __m256i first = (__m256i)(unpacked ? unpacked[j] : unpack(packed, j, 4));
        const __m256i fifth = (__m256i)(unpacked ? unpacked[j + 4] : unpack(packed, j + 4, 4));
        // With all rows the arithmetic is the limit, and this takes 18 % of its speed.
        if (rows < ROWS) __builtin_prefetch(packed + j * LANES * QUAD + AHEAD);
        for (int r = 0; r < rows; r++) {
            const int8_t *four = values + r * stride + j * QUAD;
            sums[r] = _mm256_add_epi16(sums[r], _mm256_maddubs_epi16(first, quad(four)));
            sums[r] = _mm256_add_epi16(sums[r], _mm256_maddubs_epi16(fifth, quad(four + 16)));
        }
    }
    for (int r = 0; r < rows; r++)
        dots[r] += (integers)_mm256_madd_epi16(sums[r], _mm256_set1_epi16(1));
}

// 5 or 6 bits. All quads are unpacked first: the shifts have to be constants, and a loop over the
// quads that is unrolled for all rows needs more registers than there are.
TARGET INLINE void dot_5_or_6(const uint8_t *packed, const int8_t *values, int64_t stride, int rows,
                              int bits, integers *dots) {
    const int together = bits == 5 ? 2 : 1;
    bytes unpacked[8];
#pragma clang loop unroll(full)
    for (int i = 0; i < 8; i++) unpacked[i] = unpack(packed, i, bits);
    for (int start = 0; start < 4; start += together)
        dot_quads(packed, unpacked, values, stride, rows, start, start + together, dots);
    for (int line = 4; line < bits && rows < ROWS; line++)
        __builtin_prefetch(packed + line * LANES * QUAD + AHEAD);
}

TARGET INLINE void dot_8(const uint8_t *packed, const int8_t *values, int64_t stride, int rows,
                         integers *dots) {
    for (int j = 0; j < 8; j++) {
        const __m256i q = _mm256_loadu_si256((const __m256i *)(packed + j * LANES * QUAD));
        const __m256i size = _mm256_abs_epi8(q);
        __builtin_prefetch(packed + j * LANES * QUAD + AHEAD);
        for (int r = 0; r < rows; r++) {
            const __m256i four = _mm256_sign_epi8(quad(values + r * stride + j * QUAD), q);
            const __m256i pairs = _mm256_maddubs_epi16(size, four);
            dots[r] += (integers)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        }
    }
}

TARGET INLINE void dot(const uint8_t *packed, const int8_t *values, int64_t stride, int rows,
                       int bits, integers *dots) {
    if (bits == 8)
        dot_8(packed, values, stride, rows, dots);
    else if (bits == 4)
        dot_quads(packed, 0, values, stride, rows, 0, 4, dots);
    else
        dot_5_or_6(packed, values, stride, rows, bits, dots);
}

const Kernels avx2_kernels = {
    quantize, multiply, store_kv, scratch, attend, convolve, normalise, linear_attention_scan};
