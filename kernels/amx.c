// x86-64 with AMX: 16 rows by 16 outputs by one block of inputs in one instruction.
//
// Worth it from 16 rows on; what is left over goes to the AVX-512 kernel, which gives the same bits.
// A tile holds integers alone, so each block's products leave it to be scaled and added.
#include <immintrin.h>

#define TARGET __attribute__((target("evex512,avx512f,avx512bw,avx512vl,avx512vnni,fma,f16c,amx-tile,amx-int8")))
#define WIDTH 16
#define ROWS 1
#define ZERO_8 0
#include "affine.h"
#include "rows.h"

enum { TILE = 16, BLOCKS = 16, BLOCK_BYTES = BLOCK * LANES };

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} TileConfig;

// Tile 0 [16 rows, 16 outputs] of int32; 1 [16 rows, 32 inputs]; 2 [8 quads, 16 outputs, 4 inputs].
static const TileConfig CONFIG = {
    .palette = 1,
    .bytes = {LANES * 4, BLOCK, LANES * QUAD},
    .rows = {TILE, TILE, BLOCK / QUAD},
};

// One block as int8, from 4 bits.
TARGET INLINE void unpack(const uint8_t *packed, int8_t zero, int8_t *out) {
    const __m512i low = _mm512_set1_epi8(15), zeros = _mm512_set1_epi8(zero);
    for (int j = 0; j < 4; j++) {
        const __m512i both = _mm512_loadu_si512(packed + j * LANES * QUAD);
        const __m512i first = _mm512_and_si512(both, low);
        const __m512i fifth = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
        _mm512_storeu_si512(out + j * LANES * QUAD, _mm512_sub_epi8(first, zeros));
        _mm512_storeu_si512(out + (j + 4) * LANES * QUAD, _mm512_sub_epi8(fifth, zeros));
    }
}

TARGET INLINE __m512 floats(const _Float16 *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}

// Adds 16 rows' products with some blocks to y.
TARGET INLINE void add_blocks(const Weights *w, const Rows *x, int64_t group, int64_t row,
                              int64_t first, int64_t last, const int8_t *q, float *y,
                              const int affine) {
    const int64_t output = group * LANES, lanes = w->outputs - output;
    const __mmask16 mask = lanes >= LANES ? 0xffff : (1 << lanes) - 1;
    _Alignas(64) int32_t dots[TILE][LANES];
    __m512 total[TILE];
    for (int r = 0; r < TILE; r++)
        total[r] = first ? _mm512_maskz_loadu_ps(mask, y + (row + r) * w->outputs + output)
                         : _mm512_setzero_ps();
    for (int64_t block = first; block < last; block++) {
        const int64_t place = row * x->blocks + block;
        const int64_t lane = (group * w->scale_count + block / w->blocks_per_scale) * LANES;
        _tile_zero(0);
        _tile_loadd(1, x->values + place * BLOCK, x->blocks * BLOCK);
        _tile_loadd(2, q + (block - first) * BLOCK_BYTES, LANES * QUAD);
        _tile_dpbssd(0, 1, 2);
        _tile_stored(0, dots, sizeof dots[0]);
        const __m512 scale = floats(w->scales + lane);
        const __m512 offset = affine ? floats(w->offsets + lane) : _mm512_setzero_ps();
        for (int r = 0; r < TILE; r++) {
            const int64_t at = place + r * x->blocks;
            const __m512 step = _mm512_mul_ps(scale, _mm512_set1_ps(x->scales[at]));
            total[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(dots[r])), step, total[r]);
            if (affine) total[r] = _mm512_fmadd_ps(_mm512_set1_ps(x->totals[at]), offset, total[r]);
        }
    }
    const int done = last == w->blocks && w->bias;
    for (int r = 0; r < TILE; r++) {
        if (done) total[r] = _mm512_add_ps(total[r], _mm512_maskz_loadu_ps(mask, w->bias + output));
        _mm512_mask_storeu_ps(y + (row + r) * w->outputs + output, mask, total[r]);
    }
}

// All whole tiles of rows by one group, 16 blocks at a time, whose weights then lie in the L1 cache.
TARGET INLINE void tiles(const Weights *w, const Rows *x, int64_t group, float *y, const int affine) {
    _Alignas(64) int8_t unpacked[BLOCKS][BLOCK_BYTES];
    const uint8_t *packed = w->packed + group * w->blocks * (LANES * QUAD * w->bits);
    for (int64_t first = 0; first < w->blocks; first += BLOCKS) {
        const int64_t last = first + BLOCKS < w->blocks ? first + BLOCKS : w->blocks;
        const int8_t *q = (const int8_t *)packed + first * BLOCK_BYTES;
        if (w->bits == 4) {
            for (int64_t block = first; block < last; block++)
                unpack(packed + block * (BLOCK_BYTES / 2), affine ? 0 : 8, unpacked[block - first]);
            q = unpacked[0];
        }
        for (int64_t row = 0; row + TILE <= x->count; row += TILE)
            add_blocks(w, x, group, row, first, last, q, y, affine);
    }
}

TARGET static void multiply(const Weights *w, const Rows *x, int64_t group, float *y) {
    if (x->count >= TILE) {
        _tile_loadconfig(&CONFIG);
        if (w->offsets)
            tiles(w, x, group, y, 1);
        else
            tiles(w, x, group, y, 0);
        _tile_release();
    }
    avx512_multiply_from(w, x, group, x->count / TILE * TILE, y);
}

TARGET static void quantize(const float *x, int64_t columns, const Rows *rows, int64_t row) {
    quantize_row(x, columns, rows, row);
}

const Kernels amx_kernels = {"amx", quantize, multiply};
