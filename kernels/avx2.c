// x86-64 with AVX2, FMA and F16C: every CPU of Lambda and Cloud Run.
//
// maddubs multiplies bytes without a sign by bytes with one and adds neighbours in 16 bits. Eight
// steps of int4 stay below 8 * 2 * 15 * 127 = 30480, so the block is summed in 16 bits; int8 gets
// its sign moved to the activation, and 2 * 128 * 127 = 32512 fits once.
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

TARGET INLINE void dot_4(const uint8_t *packed, const int8_t *values, int64_t stride, int rows,
                         integers *dots) {
    const __m256i low = _mm256_set1_epi8(15);
    __m256i sums[ROWS];
    for (int r = 0; r < rows; r++) sums[r] = _mm256_setzero_si256();
    for (int j = 0; j < 4; j++) {
        const __m256i both = _mm256_loadu_si256((const __m256i *)(packed + j * LANES * QUAD));
        // With all rows the arithmetic is the limit, and this takes 18 % of its speed.
        if (rows < ROWS) __builtin_prefetch(packed + j * LANES * QUAD + AHEAD);
        const __m256i first = _mm256_and_si256(both, low);
        const __m256i fifth = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        for (int r = 0; r < rows; r++) {
            const int8_t *four = values + r * stride + j * QUAD;
            sums[r] = _mm256_add_epi16(sums[r], _mm256_maddubs_epi16(first, quad(four)));
            sums[r] = _mm256_add_epi16(sums[r], _mm256_maddubs_epi16(fifth, quad(four + 16)));
        }
    }
    for (int r = 0; r < rows; r++)
        dots[r] += (integers)_mm256_madd_epi16(sums[r], _mm256_set1_epi16(1));
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
    if (bits == 4)
        dot_4(packed, values, stride, rows, dots);
    else
        dot_8(packed, values, stride, rows, dots);
}

const Kernels avx2_kernels = {
    quantize, multiply, store_kv, scratch, attend, convolve, normalise, linear_attention_scan};
