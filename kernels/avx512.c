// x86-64 with AVX-512 and VNNI, whose dpbusd multiplies four bytes without a sign by four with one
// and adds them to a lane. An int8 weight loses its sign by 128, which the sum of the row takes out.
#include <immintrin.h>

#define TARGET __attribute__((target("evex512,avx512f,avx512bw,avx512vl,avx512vnni,fma,f16c")))
#define WIDTH 16
#define ROWS 8
#define FEW 8
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

TARGET INLINE void dot(const uint8_t *packed, const int8_t *values, int rows, int vectors, int bits,
                       integers *dots) {
    (void)vectors;
#pragma clang loop unroll(full)
    for (int i = 0; i < 8; i++) {
        // 0, 4, 1, 5, ...: two quads have their low bits in the same bytes.
        const int j = bits == 8 ? i : i / 2 + i % 2 * 4;
        const bytes q = bits == 8 ? load_bytes(packed + j * LANES * QUAD) ^ ZERO_8
                                  : unpack(packed, j, bits);
        for (int r = 0; r < rows; r++)
            dots[r] = (integers)_mm512_dpbusd_epi32((__m512i)dots[r], (__m512i)q,
                                                    quad(values + r * BLOCK + j * QUAD));
    }
}

const Kernels avx512_kernels = {
    quantize, multiply, store_kv, scratch, attend, convolve, normalise, linear_attention_scan};
