// SPDX-License-Identifier: Apache-2.0
// Online softmax (arXiv:2205.14135) over score fragments of mma.m16n8k16, and the warp's share of a tile product.
#pragma once
#include <flashinfer/attention/variant.cuh>
#include <flashinfer/convert.cuh>
#include <flashinfer/mma.cuh>
#include <flashinfer/smem_tile.cuh>

namespace flashinfer {

/**
 * Output and softmax state of one warp: M_TILES * 16 query rows against tiles of KV_TILE keys.
 * A thread holds rows g and g + 8 of each m16 tile; `m` is in units of the unscaled score.
 */
template <class T, int D_QK, int D_VO, int M_TILES, int KV_TILE>
struct WarpAttention {
  static constexpr int kNTiles = KV_TILE / 8, kKSteps = KV_TILE / 16;
  using Scores = float[M_TILES][kNTiles][4];

  float o[M_TILES][D_VO / 8][4];
  float m[M_TILES][2];
  float l[M_TILES][2];

  __device__ __forceinline__ void init() {
#pragma unroll
    for (int mi = 0; mi < M_TILES; ++mi) {
#pragma unroll
      for (int n = 0; n < D_VO / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) o[mi][n][e] = 0.0f;
      m[mi][0] = m[mi][1] = negative_infinity();
      l[mi][0] = l[mi][1] = 0.0f;
    }
  }

  // Where this lane's ldmatrix rows start: in the query tile from `q_row` on, in a K tile, in a V tile.
  static __device__ __forceinline__ uint32_t q_lane(int q_row, int lane) {
    return SmemTile<D_QK>::offset(q_row + (lane & 15), lane >> 4);
  }
  static __device__ __forceinline__ uint32_t k_lane(int lane) {
    return SmemTile<D_QK>::offset((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
  }
  static __device__ __forceinline__ uint32_t v_lane(int lane) { return SmemTile<D_VO>::offset(lane & 15, lane >> 4); }

  /** s = Q Kᵀ; `q` and `k` are tile addresses plus q_lane and k_lane. */
  static __device__ __forceinline__ void scores(Scores& s, uint32_t q, uint32_t k) {
#pragma unroll
    for (int kk = 0; kk < D_QK / 16; ++kk) {
      uint32_t a[M_TILES][4];
#pragma unroll
      for (int mi = 0; mi < M_TILES; ++mi) {
        ldmatrix_x4(SmemTile<D_QK>::step(q, mi * 16, kk), a[mi][0], a[mi][1], a[mi][2], a[mi][3]);
      }
#pragma unroll
      for (int n = 0; n < kKSteps; ++n) {
        uint32_t b0, b1, b2, b3;
        ldmatrix_x4(SmemTile<D_QK>::step(k, n * 16, kk), b0, b1, b2, b3);
#pragma unroll
        for (int mi = 0; mi < M_TILES; ++mi) {
          if (kk == 0) {
            mma_m16n8k16_zero<T>(s[mi][2 * n], a[mi], b0, b1);
            mma_m16n8k16_zero<T>(s[mi][2 * n + 1], a[mi], b2, b3);
          } else {
            mma_m16n8k16<T>(s[mi][2 * n], a[mi], b0, b1);
            mma_m16n8k16<T>(s[mi][2 * n + 1], a[mi], b2, b3);
          }
        }
      }
    }
  }

  /**
   * Makes m a usable maximum for the tile `s` and rescales o and l to it. The maximum a row is held against moves
   * only when it would let a weight pass 2^kSlack: most tiles then need no rescaling, and float32 has range to spare.
   */
  __device__ __forceinline__ void hold_maximum(const Scores& s, float scale) {
    constexpr float kSlack = 8.0f;
    bool moved = false;
    float row_max[M_TILES][2];
#pragma unroll
    for (int mi = 0; mi < M_TILES; ++mi) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float top = s[mi][0][2 * r];
#pragma unroll
        for (int n = 0; n < kNTiles; ++n) {
          top = max_nan(top, s[mi][n][2 * r]);
          top = max_nan(top, s[mi][n][2 * r + 1]);
        }
        top = max_nan(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = max_nan(top, __shfl_xor_sync(0xffffffffu, top, 2));
        row_max[mi][r] = top;
        // Written so that NaN and the first finite maximum (m = -inf) also count as moved.
        moved = moved || !((top - m[mi][r]) * scale <= kSlack || top == negative_infinity());
      }
    }
    if (__any_sync(0xffffffffu, moved)) rescale(row_max, scale);
  }

  __device__ __forceinline__ void rescale(const float (&row_max)[M_TILES][2], float scale) {
#pragma unroll
    for (int mi = 0; mi < M_TILES; ++mi) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float next = max_nan(m[mi][r], row_max[mi][r]);
        const float factor = next == negative_infinity() ? 1.0f : exp2_approx((m[mi][r] - next) * scale);
        m[mi][r] = next;
        l[mi][r] *= factor;
#pragma unroll
        for (int n = 0; n < D_VO / 8; ++n) {
          o[mi][n][2 * r] *= factor;
          o[mi][n][2 * r + 1] *= factor;
        }
      }
    }
  }

  /**
   * o += P V with P = exp2((s - m) * scale) rounded to T, l += its sums; `v` is a tile address plus v_lane. Weights
   * are made one depth step ahead of their use, so the special function units run under the tensor cores.
   * Without SOFTMAX P = s, and m and l stay as they are.
   */
  template <bool SOFTMAX>
  __device__ __forceinline__ void accumulate(const Scores& s, float scale, uint32_t v) {
    float held[M_TILES][2];
#pragma unroll
    for (int mi = 0; mi < M_TILES; ++mi)
#pragma unroll
      for (int r = 0; r < 2; ++r) held[mi][r] = m[mi][r] == negative_infinity() ? 0.0f : m[mi][r] * scale;
#pragma unroll
    for (int kk = 0; kk < kKSteps; ++kk) {
      uint32_t p[M_TILES][4];
#pragma unroll
      for (int mi = 0; mi < M_TILES; ++mi) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          float w[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float logit = s[mi][2 * kk + (i >> 1)][2 * r + (i & 1)];
            w[i] = SOFTMAX ? exp2_approx(fmaf(logit, scale, -held[mi][r])) : logit;
          }
          if constexpr (SOFTMAX) l[mi][r] += (w[0] + w[1]) + (w[2] + w[3]);
          p[mi][r] = pack2<T>(w[0], w[1]);
          p[mi][r + 2] = pack2<T>(w[2], w[3]);
        }
      }
#pragma unroll
      for (int n = 0; n < D_VO / 16; ++n) {
        uint32_t b0, b1, b2, b3;
        ldmatrix_x4_trans(SmemTile<D_VO>::step(v, kk * 16, n), b0, b1, b2, b3);
#pragma unroll
        for (int mi = 0; mi < M_TILES; ++mi) {
          mma_m16n8k16<T>(o[mi][2 * n], p[mi], b0, b1);
          mma_m16n8k16<T>(o[mi][2 * n + 1], p[mi], b2, b3);
        }
      }
    }
  }

  /** Adds up each row's weights over the four threads that share it. */
  __device__ __forceinline__ void finish_sums() {
#pragma unroll
    for (int mi = 0; mi < M_TILES; ++mi) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        l[mi][r] += __shfl_xor_sync(0xffffffffu, l[mi][r], 1);
        l[mi][r] += __shfl_xor_sync(0xffffffffu, l[mi][r], 2);
      }
    }
  }
};

/** Weight of the normaliser: 1 / l, and 0 for a row that saw no key. NaN stays NaN. Without softmax there is none. */
template <class Variant>
__device__ __forceinline__ float normalizer(float l) {
  if constexpr (!Variant::kUsesSoftmax) return 1.0f;
  return l == 0.0f ? 0.0f : 1.0f / l;
}

/** Base-2 log-sum-exp of a row; -inf for a row that saw no key. */
__device__ __forceinline__ float row_lse(float m, float l, float scale) {
  return l == 0.0f ? negative_infinity() : fmaf(m, scale, log2f(l));
}

}  // namespace flashinfer
