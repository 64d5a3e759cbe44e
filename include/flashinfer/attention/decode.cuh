// SPDX-License-Identifier: Apache-2.0
// Attention of few query rows over many keys: bound by reading K and V once.
//
// The (at most 16) packed query rows of a KV head form one m16 tile for the tensor cores, whatever the group size:
// padding costs arithmetic that a memory-bound kernel has to spare. Each warp streams its own tiles of keys through
// its own cp.async ring, so the main loop has no block barrier; the warps' states meet once at the end, and the
// last block of a row tile to finish merges the splits.
#pragma once
#include <flashinfer/arrive_last.cuh>
#include <flashinfer/attention/kv_source.cuh>
#include <flashinfer/attention/merge.cuh>
#include <flashinfer/attention/rope.cuh>
#include <flashinfer/attention/softmax.cuh>

namespace flashinfer {

template <class T_, class KvT_, int D_QK_, int D_VO_, int WARPS_, int KV_TILE_, int STAGES_, class Variant_,
          class Visible_, PosEncodingMode POS_, class Kv_ = ContiguousKv>
struct DecodeConfig {
  using T = T_;
  using KvT = KvT_;
  using Variant = Variant_;
  using Visible = Visible_;
  using Kv = Kv_;
  static constexpr int D_QK = D_QK_, D_VO = D_VO_, kWarps = WARPS_, KV_TILE = KV_TILE_, STAGES = STAGES_;
  static constexpr int kThreads = kWarps * 32, kRows = 16;
  static constexpr bool kConverts = sizeof(KvT) == 1;
  static constexpr bool kRope = POS_ == PosEncodingMode::kRopeLlama;
  /**
   * Keys and values of a tile are copied as groups of their own, each half of a stage refilled as soon as the one before
   * lands: the same memory keeps more bytes on their way. Three stages of tiles that are converted have enough there.
   */
  static constexpr int kGroups = kConverts && STAGES > 2 ? 1 : 2;

  static constexpr int kQBytes = kRows * D_QK * 2;
  static constexpr int kStageK = KV_TILE * D_QK * static_cast<int>(sizeof(KvT));
  static constexpr int kStageBytes = kStageK + KV_TILE * D_VO * static_cast<int>(sizeof(KvT));
  /** Where fp8 tiles are converted to before the tensor cores read them. */
  static constexpr int kOperandBytes = kConverts ? KV_TILE * (D_QK + D_VO) * 2 : 0;
  static constexpr int kWarpBytes = STAGES * kStageBytes + kOperandBytes;
  static constexpr int kFrequencies = kQBytes + kWarps * kWarpBytes;
  static constexpr int kMainBytes = kFrequencies + (kRope ? D_QK / 2 * 8 : 0);
  /** The end of the kernel reuses the memory: the warps' outputs, maxima and sums. */
  static constexpr int kMergeBytes = kWarps * kRows * (D_VO + 2) * 4;
  static constexpr int kSharedBytes = kMainBytes > kMergeBytes ? kMainBytes : kMergeBytes;
};

/** Where `column` of a published row lies: xor-swizzled, so that the rows one store writes fall into different banks. */
template <class C>
__device__ __forceinline__ int published(int row, int column) {
  return row * C::D_VO + (column ^ ((row & 7) << 3));
}

/** One warp's walk over its share of the keys. */
template <class C, class Params>
struct DecodeWarp {
  using T = typename C::T;
  using KvT = typename C::KvT;
  using Attention = WarpAttention<T, C::D_QK, C::D_VO, 1, C::KV_TILE>;

  const Params& params;
  char* memory;    // this warp's ring
  char* q_memory;  // the block's query tile
  const RopeFrequency* frequencies;
  uint32_t ring, q_tile;
  const int lane, kv_head, first_packed;
  const char *k_base, *v_base;
  int key_limit;
  PagedRow next_row;
  RowOffsets place{};  // of this lane's row of the tile whose keys were asked for last
  Attention state;
  PackedRow rows[2];
  typename Choose<C::Kv::kPaged, EvictionPolicy, NormalEviction>::type eviction;

  __device__ __forceinline__ DecodeWarp(const Params& p, char* smem, int warp, int lane_, int first_row, int head)
      : params(p),
        memory(smem + C::kQBytes + warp * C::kWarpBytes),
        q_memory(smem),
        frequencies(reinterpret_cast<const RopeFrequency*>(smem + C::kFrequencies)),
        ring(shared_address(memory)),
        q_tile(shared_address(smem)),
        lane(lane_),
        kv_head(head),
        first_packed(first_row) {
    k_base = static_cast<const char*>(p.k) + head * p.k_stride_h * static_cast<int64_t>(sizeof(KvT));
    v_base = static_cast<const char*>(p.v) + head * p.v_stride_h * static_cast<int64_t>(sizeof(KvT));
    rows[0] = PackedRow::at(p, first_packed + (lane >> 2), head);
    rows[1] = PackedRow::at(p, first_packed + 8 + (lane >> 2), head);
    if constexpr (C::Kv::kPaged) eviction = evict_first_if(p.evicts_first != 0);
  }

  template <bool IS_K, int D>
  __device__ __forceinline__ void load(uint32_t dst, const char* base, int tile) {
    using Tile = typename Choose<C::kConverts, LinearTile<D>, SmemTile<D>>::type;
    if constexpr (C::Kv::kPaged) {
      const int64_t mine = IS_K ? place.k : place.v;
      load_rows_async<Tile, C::KV_TILE, 32>(
          dst, base, tile * C::KV_TILE, key_limit, lane, [&](int row) { return __shfl_sync(0xffffffffu, mine, row); },
          eviction);
    } else {
      const int64_t stride = (IS_K ? params.k_stride_n : params.v_stride_n) * static_cast<int64_t>(sizeof(KvT));
      load_tile_async<Tile, C::KV_TILE, 32>(dst, base, stride, tile * C::KV_TILE, key_limit, lane);
    }
  }

  /** Starts finding this lane's row of a tile that load_keys will be asked for next; `first`: of those start() loads. */
  __device__ __forceinline__ void find_row(int tile, int end, bool first) {
    if constexpr (C::Kv::kPaged) {
      if (tile >= end) return;
      const int key = min(tile * C::KV_TILE + lane % C::KV_TILE, key_limit - 1);
      next_row = first ? PagedRow::find_listed(params, key) : PagedRow::find(params, key);
    }
  }

  /** Starts the first STAGES - 1 tiles of a walk that begins with `tile`. */
  __device__ __forceinline__ void start(int tile, int end) {
    find_row(tile, end, true);
#pragma unroll
    for (int s = 0; s < C::STAGES - 1; ++s) {
      load_keys(tile + s * C::kWarps, end, s, s + 1 < C::STAGES - 1);
      load_values(tile + s * C::kWarps, end, s);
    }
  }

  /** Tiles must be asked for in order, WARPS apart, the keys of each first. */
  __device__ __forceinline__ void load_keys(int tile, int end, int stage, bool next_is_first = false) {
    if (tile < end) {
      if constexpr (C::Kv::kPaged) place = next_row.template offsets<KvT>(params);
      find_row(tile + C::kWarps, end, next_is_first);
      load<true, C::D_QK>(ring + stage * C::kStageBytes, k_base, tile);
    }
    if constexpr (C::kGroups == 2) cp_async_commit();
  }

  __device__ __forceinline__ void load_values(int tile, int end, int stage) {
    if (tile < end) load<false, C::D_VO>(ring + stage * C::kStageBytes + C::kStageK, v_base, tile);
    cp_async_commit();
  }

  /** Waits for the oldest group of STAGES - 1 tiles. */
  __device__ __forceinline__ void await_group() {
    cp_async_wait<C::kGroups*(C::STAGES - 1) - 1>();
    __syncwarp();
  }

  /** Brings landed keys into operand form; returns their offset below `ring`. */
  __device__ __forceinline__ int prepare_keys(int tile, int stage) {
    int offset = stage * C::kStageBytes;
    if constexpr (C::kConverts) {
      const int raw = offset;
      offset = C::STAGES * C::kStageBytes;
      dequantize_tile<T, KvT, C::D_QK, C::KV_TILE, 32>(memory + raw, memory + offset, lane);
      if constexpr (C::kGroups == 1) convert_values(stage);
      __syncwarp();
    }
    if constexpr (C::kRope) {
      rope_tile<T, C::D_QK, C::KV_TILE, 32>(memory + offset, frequencies, lane,
                                            [&](int row) { return tile * C::KV_TILE + row; });
      __syncwarp();
    }
    return offset;
  }

  /** Where converted values lie below `ring`, behind the keys. */
  static constexpr int kConvertedValues = C::STAGES * C::kStageBytes + C::KV_TILE * C::D_QK * 2;

  __device__ __forceinline__ void convert_values(int stage) {
    const char* landed = memory + stage * C::kStageBytes + C::kStageK;
    dequantize_tile<T, KvT, C::D_VO, C::KV_TILE, 32>(landed, memory + kConvertedValues, lane);
  }

  /** As prepare_keys, for values; where these are no group of their own, prepare_keys has converted them. */
  __device__ __forceinline__ int prepare_values(int stage) {
    if constexpr (!C::kConverts) return stage * C::kStageBytes + C::kStageK;
    if constexpr (C::kGroups == 2 && C::kConverts) {
      convert_values(stage);
      __syncwarp();
    }
    return kConvertedValues;
  }

  __device__ __forceinline__ void transform_and_mask(typename Attention::Scores& s, int tile, bool masks) {
#pragma unroll
    for (int n = 0; n < C::KV_TILE / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int kv_idx = tile * C::KV_TILE + n * 8 + (lane & 3) * 2 + (e & 1);
        const PackedRow& row = rows[e >> 1];
        float& logit = s[0][n][e];
        const LogitPosition at{row.qo_idx, kv_idx, row.qo_head, kv_head};
        finish_logit<typename C::Variant, typename C::Visible>(params, logit, at, key_limit, masks);
      }
    }
  }

  /** Walks tiles first, first + WARPS, ... below end, of which start() loads the first. */
  __device__ __forceinline__ void attend(int first, int end, int first_row, int last_row, float scale) {
    int stage = 0;
    // Rows past the last one are no business of a custom variant.
    const bool guards = C::Variant::kGuardsLogits && first_packed + C::kRows > params.qo_len * params.group_size;
    for (int tile = first; tile < end; tile += C::kWarps) {
      const int ahead = stage == 0 ? C::STAGES - 1 : stage - 1, next = tile + (C::STAGES - 1) * C::kWarps;
      await_group();
      load_keys(next, end, ahead);
      if constexpr (C::kGroups == 1) load_values(next, end, ahead);
      const int k_offset = prepare_keys(tile, stage);
      typename Attention::Scores s;
      state.scores(s, q_tile + Attention::q_lane(0, lane), ring + k_offset + Attention::k_lane(lane));
      const int end_key = (tile + 1) * C::KV_TILE;
      const bool masks = guards || end_key > key_limit ||
                         !C::Visible::all_visible(params, first_row, last_row, tile * C::KV_TILE, end_key);
      if (masks) transform_and_mask(s, tile, true);
      else if constexpr (C::Variant::kTransformsLogits) transform_and_mask(s, tile, false);
      if constexpr (C::Variant::kUsesSoftmax) state.hold_maximum(s, scale);
      if constexpr (C::kGroups == 2) {
        await_group();
        load_values(next, end, ahead);
      }
      const int v_offset = prepare_values(stage);
      state.template accumulate<C::Variant::kUsesSoftmax>(s, scale, ring + v_offset + Attention::v_lane(lane));
      stage = stage + 1 == C::STAGES ? 0 : stage + 1;
    }
    cp_async_wait<0>();
    state.finish_sums();
  }

  /** Leaves unnormalised outputs, maxima (scaled) and sums of the first `num_rows` rows in shared memory. */
  __device__ __forceinline__ void publish(float* outputs, float* maxima, float* sums, float scale, int num_rows) {
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (g + 8 * r >= num_rows) break;
#pragma unroll
      for (int n = 0; n < C::D_VO / 8; ++n) {
        *reinterpret_cast<float2*>(outputs + published<C>(g + 8 * r, n * 8 + t * 2)) =
            make_float2(state.o[0][n][2 * r], state.o[0][n][2 * r + 1]);
      }
      if (t == 0) {
        maxima[g + 8 * r] = state.l[0][r] == 0.0f ? negative_infinity() : state.m[0][r] * scale;
        sums[g + 8 * r] = state.l[0][r];
      }
    }
  }
};

/** Combines the warps' states of one row's four columns; `lse` is the row's base-2 log-sum-exp. */
template <class C>
__device__ __forceinline__ float merge_warps(const float* outputs, const float* maxima, const float* sums, int row,
                                             int column, float (&out)[4]) {
  if constexpr (!C::Variant::kUsesSoftmax) {
    return sum_states4(
        C::kWarps,
        [&](int w) { return *reinterpret_cast<const float4*>(outputs + published<C>(w * C::kRows + row, column)); },
        out);
  }
  float top = negative_infinity();
#pragma unroll
  for (int w = 0; w < C::kWarps; ++w) top = max_nan(top, maxima[w * C::kRows + row]);
  out[0] = out[1] = out[2] = out[3] = 0.0f;
  if (top == negative_infinity()) return top;
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < C::kWarps; ++w) {
    const float weight = exp2_approx(maxima[w * C::kRows + row] - top);
    const float4 v = *reinterpret_cast<const float4*>(outputs + published<C>(w * C::kRows + row, column));
    sum = fmaf(weight, sums[w * C::kRows + row], sum);
    out[0] = fmaf(weight, v.x, out[0]);
    out[1] = fmaf(weight, v.y, out[1]);
    out[2] = fmaf(weight, v.z, out[2]);
    out[3] = fmaf(weight, v.w, out[3]);
  }
  const float factor = 1.0f / sum;
#pragma unroll
  for (int e = 0; e < 4; ++e) out[e] *= factor;
  return top + log2f(sum);
}

/**
 * One block's share: split `split` of the rows `row_tile` * 16.. of one KV head, of a request whose splits cover keys
 * kv_begin + [i * kv_chunk, (i + 1) * kv_chunk), both multiples of KV_TILE. The last split to finish merges.
 * partial_o `[row tiles, KV heads, splits, 16, D_VO]`, partial_lse the same without D_VO, counters `[row tiles, KV
 * heads]` zeros.
 */
template <class C, class Params>
__device__ __forceinline__ void decode_rows(const Params& params, char* smem, int split, int kv_head, int row_tile) {
  using T = typename C::T;
  const int thread = threadIdx.x, warp = thread >> 5, lane = thread & 31;
  const int first_packed = row_tile * C::kRows;
  const int num_rows = min(C::kRows, params.qo_len * params.group_size - first_packed);

  const int first_row = first_packed / params.group_size, last_row = (first_packed + num_rows - 1) / params.group_size;
  int first_key, end_key;
  C::Visible::key_range(params, first_row, last_row, first_key, end_key);
  first_key = max(first_key, params.kv_begin + split * params.kv_chunk);
  end_key = min(end_key, params.kv_begin + (split + 1) * params.kv_chunk);
  const int first_tile = first_key / C::KV_TILE + warp, end_tile = ceil_div(max(end_key, 0), C::KV_TILE);

  DecodeWarp<C, Params> worker(params, smem, warp, lane, first_packed, kv_head);
  worker.key_limit = end_key;
  worker.state.init();
  load_query_async<T, C::D_QK, C::kRows, C::kThreads>(params, shared_address(smem), first_packed, kv_head, thread);
  cp_async_commit();
  worker.start(first_tile, end_tile);
  cp_async_wait<C::kGroups*(C::STAGES - 1)>();
  if constexpr (C::kRope) {
    fill_rope_frequencies<C::D_QK, C::kThreads>(reinterpret_cast<RopeFrequency*>(smem + C::kFrequencies),
                                                params.rope_rcp_scale, params.rope_log2_theta, thread);
  }
  __syncthreads();
  if constexpr (C::kRope) {
    rope_tile<T, C::D_QK, C::kRows, C::kThreads>(smem, worker.frequencies, thread, [&](int row) {
      return params.kv_len - params.qo_len + PackedRow::at(params, first_packed + row, kv_head).qo_idx;
    });
    __syncthreads();
  }
  if constexpr (C::Variant::kTransformsQuery) {
    transform_query_tile<typename C::Variant, T, C::D_QK, C::kRows, C::kThreads>(params, smem, first_packed, kv_head,
                                                                                 thread);
    __syncthreads();
  }
  const float scale = C::Variant::kTransformsLogits ? kLog2e : params.sm_scale * kLog2e;
  worker.attend(first_tile, end_tile, first_row, last_row, scale);

  __syncthreads();
  float* outputs = reinterpret_cast<float*>(smem);
  float* maxima = outputs + C::kWarps * C::kRows * C::D_VO;
  float* sums = maxima + C::kWarps * C::kRows;
  worker.publish(outputs + warp * C::kRows * C::D_VO, maxima + warp * C::kRows, sums + warp * C::kRows, scale,
                 num_rows);
  __syncthreads();

  const int state = row_tile * (params.num_qo_heads / params.group_size) + kv_head;
  const int64_t first_state = static_cast<int64_t>(state) * params.num_splits * C::kRows;
  const int64_t state_row = first_state + split * C::kRows;
  float* partial_o = static_cast<float*>(params.partial_o);
  float* partial_lse = static_cast<float*>(params.partial_lse);
  constexpr int kColumns = C::D_VO / 4;
  for (int index = thread; index < num_rows * kColumns; index += C::kThreads) {
    const int row = index / kColumns, column = index % kColumns * 4;
    float out[4];
    const float lse = merge_warps<C>(outputs, maxima, sums, row, column, out);
    if (params.num_splits == 1) {
      const PackedRow at = PackedRow::at(params, first_packed + row, kv_head);
      finish_output4<T, typename C::Variant>(params, at, column, lse, out);
    } else {
      *reinterpret_cast<float4*>(partial_o + (state_row + row) * C::D_VO + column) =
          make_float4(out[0], out[1], out[2], out[3]);
      if (column == 0) partial_lse[state_row + row] = lse;
    }
  }
  if (params.num_splits == 1) return;

  __shared__ unsigned is_last;
  if (!arrive_last(static_cast<unsigned*>(params.counters) + state, params.num_splits, &is_last)) return;
  for (int index = thread; index < num_rows * kColumns; index += C::kThreads) {
    const int row = index / kColumns, column = index % kColumns * 4;
    float out[4];
    // __ldcg: the states were written by other blocks, so the first-level cache must not answer.
    const auto lse_of = [&](int i) { return __ldcg(partial_lse + first_state + i * C::kRows + row); };
    const auto value_of = [&](int i) {
      const float* value = partial_o + (first_state + i * C::kRows + row) * C::D_VO + column;
      return __ldcg(reinterpret_cast<const float4*>(value));
    };
    constexpr bool kSoftmax = C::Variant::kUsesSoftmax;
    // Sixteen at once take registers that small blocks, of which a multiprocessor holds many, do not have.
    const float lse = C::kWarps > 4 && params.num_splits > 8
                          ? merge_states4<kSoftmax, 16>(params.num_splits, lse_of, value_of, out)
                          : merge_states4<kSoftmax, 8>(params.num_splits, lse_of, value_of, out);
    const PackedRow at = PackedRow::at(params, first_packed + row, kv_head);
    finish_output4<T, typename C::Variant>(params, at, column, lse, out);
  }
}

/** One request. Grid: (splits, KV heads, tiles of 16 packed rows). */
template <class C, class Params>
__device__ __forceinline__ void single_decode(const Params& params) {
  extern __shared__ __align__(128) char smem[];
  require_shared_bytes(C::kSharedBytes);
  decode_rows<C>(params, smem, blockIdx.x, blockIdx.y, blockIdx.z);
}

}  // namespace flashinfer
