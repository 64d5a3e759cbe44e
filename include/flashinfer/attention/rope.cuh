// SPDX-License-Identifier: Apache-2.0
// Rotary embedding applied on the fly to a tile in shared memory (PosEncodingMode ROPE_LLAMA):
// element d of the first half pairs with d + D/2, angle = position / rope_scale * rope_theta^(-2d/D).
#pragma once
#include <flashinfer/convert.cuh>
#include <flashinfer/rope_angle.cuh>
#include <flashinfer/smem_tile.cuh>

namespace flashinfer {

/** Rotates the pair of 8-element chunks (chunk, chunk + D/16) of one row in place. */
template <class T, int D>
__device__ __forceinline__ void rotate_chunk_pair(char* tile, int row, int chunk, int position,
                                                  const RopeFrequency* frequencies) {
  uint4* first = reinterpret_cast<uint4*>(tile + SmemTile<D>::offset(row, chunk));
  uint4* second = reinterpret_cast<uint4*>(tile + SmemTile<D>::offset(row, chunk + D / 16));
  uint32_t a[4] = {first->x, first->y, first->z, first->w};
  uint32_t b[4] = {second->x, second->y, second->z, second->w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float a0, a1, b0, b1, s0, c0, s1, c1;
    unpack2<T>(a[i], a0, a1);
    unpack2<T>(b[i], b0, b1);
    rope_sincos(frequencies[chunk * 8 + 2 * i], position, s0, c0);
    rope_sincos(frequencies[chunk * 8 + 2 * i + 1], position, s1, c1);
    a[i] = pack2<T>(a0 * c0 - b0 * s0, a1 * c1 - b1 * s1);
    b[i] = pack2<T>(b0 * c0 + a0 * s0, b1 * c1 + a1 * s1);
  }
  *first = make_uint4(a[0], a[1], a[2], a[3]);
  *second = make_uint4(b[0], b[1], b[2], b[3]);
}

/** Rotates ROWS rows in place; `position_of(row)` is a row's position. Callers synchronise before and after. */
template <class T, int D, int ROWS, int THREADS, class PositionOf>
__device__ __forceinline__ void rope_tile(char* tile, const RopeFrequency* frequencies, int thread,
                                          PositionOf position_of) {
  constexpr int kPairs = D / 16;
  for (int index = thread; index < ROWS * kPairs; index += THREADS) {
    const int row = index / kPairs;
    rotate_chunk_pair<T, D>(tile, row, index % kPairs, position_of(row), frequencies);
  }
}

/** Fills the D/2 frequencies; callers synchronise before use. */
template <int D, int THREADS>
__device__ __forceinline__ void fill_rope_frequencies(RopeFrequency* frequencies, float rcp_scale, float log2_theta,
                                                      int thread) {
  for (int d = thread; d < D / 2; d += THREADS) frequencies[d] = rope_frequency(d, D, rcp_scale, log2_theta);
}

/** fp8 tile (linear) → 16-bit tile (swizzled). Callers synchronise before and after. */
template <class T, class Fp8, int D, int ROWS, int THREADS>
__device__ __forceinline__ void dequantize_tile(const char* raw, char* tile, int thread) {
  constexpr int kChunks = D / 16;
  for (int index = thread; index < ROWS * kChunks; index += THREADS) {
    const int row = index / kChunks, chunk = index % kChunks;
    const uint4 bytes = *reinterpret_cast<const uint4*>(raw + LinearTile<D>::offset(row, chunk));
    const uint32_t words[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
    uint32_t out[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out[2 * i] = fp8x2_to_pack2<T, Fp8>(words[i] & 0xffffu);
      out[2 * i + 1] = fp8x2_to_pack2<T, Fp8>(words[i] >> 16);
    }
    *reinterpret_cast<uint4*>(tile + SmemTile<D>::offset(row, 2 * chunk)) = make_uint4(out[0], out[1], out[2], out[3]);
    *reinterpret_cast<uint4*>(tile + SmemTile<D>::offset(row, 2 * chunk + 1)) =
        make_uint4(out[4], out[5], out[6], out[7]);
  }
}

}  // namespace flashinfer
