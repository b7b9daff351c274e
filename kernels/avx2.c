// x86-64 with AVX2, FMA and F16C: every CPU of Lambda and Cloud Run.
//
// maddubs multiplies bytes without a sign by bytes with one and adds neighbours in 16 bits. They hold
// eight steps of 4 bits, which is a block: 8 * 2 * 15 * 127 = 30480; four of 5 bits, 31496; and two
// of 6, 32004. int8 gets its sign moved to the activation, and 2 * 128 * 127 = 32512 fits once.
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define WIDTH 8
#define ROWS 8
#define FEW 4
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
                             int rows, int vectors, int start, int stop, integers *dots) {
    __m256i sums[ROWS];
    for (int i = 0; i < rows * vectors; i++) sums[i] = _mm256_setzero_si256();
    for (int j = start; j < stop; j++) {
        __m256i first[VECTORS], fifth[VECTORS];
        for (int v = 0; v < vectors; v++) {
            const uint8_t *from = packed + v * WIDTH * QUAD;
            first[v] = (__m256i)(unpacked ? unpacked[j * vectors + v] : unpack(from, j, 4));
            fifth[v] = (__m256i)(unpacked ? unpacked[(j + 4) * vectors + v] : unpack(from, j + 4, 4));
        }
        for (int r = 0; r < rows; r++) {
            const __m256i four = quad(values + r * BLOCK + j * QUAD);
            const __m256i more = quad(values + r * BLOCK + j * QUAD + 16);
            for (int v = 0; v < vectors; v++) {
                __m256i *sum = sums + r * vectors + v;
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(first[v], four));
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(fifth[v], more));
            }
        }
    }
    for (int i = 0; i < rows * vectors; i++)
        dots[i] += (integers)_mm256_madd_epi16(sums[i], _mm256_set1_epi16(1));
}

// 5 or 6 bits. All quads are unpacked first: the shifts have to be constants, and a loop over the
// quads that is unrolled for all rows needs more registers than there are.
TARGET INLINE void dot_5_or_6(const uint8_t *packed, const int8_t *values, int rows, int vectors,
                              int bits, integers *dots) {
    const int together = bits == 5 ? 2 : 1;
    bytes unpacked[8 * VECTORS];
#pragma clang loop unroll(full)
    for (int i = 0; i < 8; i++)
        for (int v = 0; v < vectors; v++)
            unpacked[i * vectors + v] = unpack(packed + v * WIDTH * QUAD, i, bits);
    for (int start = 0; start < 4; start += together)
        dot_quads(packed, unpacked, values, rows, vectors, start, start + together, dots);
}

TARGET INLINE void dot_8(const uint8_t *packed, const int8_t *values, int rows, int vectors,
                         integers *dots) {
    for (int j = 0; j < 8; j++) {
        __m256i q[VECTORS], size[VECTORS];
        for (int v = 0; v < vectors; v++) {
            q[v] = (__m256i)load_bytes(packed + j * LINE + v * WIDTH * QUAD);
            size[v] = _mm256_abs_epi8(q[v]);
        }
        for (int r = 0; r < rows; r++) {
            const __m256i four = quad(values + r * BLOCK + j * QUAD);
            for (int v = 0; v < vectors; v++) {
                const __m256i pairs = _mm256_maddubs_epi16(size[v], _mm256_sign_epi8(four, q[v]));
                dots[r * vectors + v] += (integers)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            }
        }
    }
}

TARGET INLINE void dot(const uint8_t *packed, const int8_t *values, int rows, int vectors, int bits,
                       integers *dots) {
    if (bits == 8)
        dot_8(packed, values, rows, vectors, dots);
    else if (bits == 4)
        dot_quads(packed, 0, values, rows, vectors, 0, 4, dots);
    else
        dot_5_or_6(packed, values, rows, vectors, bits, dots);
}

const Kernels avx2_kernels = {
    quantize, multiply, store_kv, scratch, attend, convolve, normalise, linear_attention_scan};
