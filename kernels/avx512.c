// x86-64 with AVX-512 and VNNI, whose dpbusd multiplies four bytes without a sign by four with one
// and adds them to a lane. An int8 weight loses its sign by 128, which the sum of the row takes out.
#include <immintrin.h>

#define TARGET __attribute__((target("evex512,avx512f,avx512bw,avx512vl,avx512vnni,fma,f16c")))
#define WIDTH 16
#define ROWS 8
#define ZERO_8 128
#define TILE_UNITS 4
#include "attend.h"
#include "convolve.h"
#include "linear_attention_scan.h"

TARGET INLINE __m512i quad(const int8_t *values) {
    int32_t four;
    __builtin_memcpy(&four, values, sizeof four);
    return _mm512_set1_epi32(four);
}

TARGET INLINE void dot(const uint8_t *packed, const int8_t *values, int64_t stride, int rows,
                       int bits, integers *dots) {
    const __m512i low = _mm512_set1_epi8(15), sign = _mm512_set1_epi8((char)128);
    for (int j = 0; j < bits; j++) {
        const __m512i bytes = _mm512_loadu_si512(packed + j * LANES * QUAD);
        __builtin_prefetch(packed + j * LANES * QUAD + AHEAD);
        const __m512i first = bits == 8 ? _mm512_xor_si512(bytes, sign) : _mm512_and_si512(bytes, low);
        const __m512i fifth = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
        for (int r = 0; r < rows; r++) {
            const int8_t *four = values + r * stride + j * QUAD;
            __m512i sum = _mm512_dpbusd_epi32((__m512i)dots[r], first, quad(four));
            if (bits == 4) sum = _mm512_dpbusd_epi32(sum, fifth, quad(four + 16));
            dots[r] = (integers)sum;
        }
    }
}

const Kernels avx512_kernels = {
    quantize, multiply, store_kv, scratch, attend, convolve, normalise, linear_attention_scan};
