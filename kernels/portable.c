// The kernels for any CPU, as the compiler vectorises loops: NEON on 64-bit ARM.
#define TARGET
#define WIDTH 16
#define ROWS 2
#define FEW 2
#define ZERO_8 0
#define TILE_UNITS 1
#include "attend.h"
#include "convolve.h"
#include "linear_attention_scan.h"

INLINE void dot(const uint8_t *packed, const int8_t *values, int rows, int vectors,
                int bits, integers *dots) {
    (void)vectors;
    for (int r = 0; r < rows; r++) {
        for (int input = 0; input < BLOCK; input++) {
            for (int lane = 0; lane < LANES; lane++) {
                const int32_t q = value_in_block(packed, lane, input, bits);
                dots[r][lane] += q * values[r * BLOCK + input];
            }
        }
    }
}

const Kernels portable_kernels = {
    quantize, multiply, store_kv, scratch, attend, convolve, normalise, linear_attention_scan};
