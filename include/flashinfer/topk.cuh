// SPDX-License-Identifier: Apache-2.0
// The k largest elements of rows. A threshold that is a little too low is guessed from a sample; one pass keeps the few
// elements above it, from which the exact ones are selected. Where the guess fails, or k is large, the row itself is
// selected from. All decisions follow one total order, so results do not depend on which way was taken, nor on timing.
#pragma once
#include <flashinfer/arrive_last.cuh>
#include <flashinfer/vector.cuh>

namespace flashinfer {

/** VEC: elements an access. THREADS: of a block, which works on one row or on one of its splits. */
template <class T_, int VEC, int THREADS>
struct TopKConfig {
  using T = T_;
  static constexpr int kVec = VEC;
  static constexpr int kThreads = THREADS;
  static constexpr int kWarps = THREADS / 32;
  /** Accesses in flight a thread, and as many ahead: what 64 registers hold. */
  static constexpr int kUnroll = VEC == 1 ? 4 : (sizeof(T_) == 2 ? 2 : 3);
  static_assert(kUnroll * VEC <= 32, "one bit an element");
};

namespace detail {

constexpr int kTopKBinBits = 11;
constexpr int kTopKBins = 1 << kTopKBinBits;

/** Integers in the order of the values: -0 equals 0, all NaN are equal and the largest. No key is 0. */
template <class T>
__device__ __forceinline__ uint32_t topk_key(uint32_t bits) {
  constexpr uint32_t kSign = sizeof(T) == 4 ? 0x80000000u : 0x8000u;
  constexpr uint32_t kAll = kSign | (kSign - 1);
  constexpr uint32_t kInfinity = sizeof(T) == 4                         ? 0x7f800000u
                                 : DTypeOf<T>::value == DType::kFloat16 ? 0x7c00u
                                                                        : 0x7f80u;
  if ((bits & ~kSign) > kInfinity) return kAll;
  if (bits == kSign) return kSign;
  return (bits & kSign) != 0 ? ~bits & kAll : bits | kSign;
}

/** A value of that key; NaN for keys that no number has. */
template <class T>
__device__ __forceinline__ float topk_value(uint32_t key) {
  if constexpr (sizeof(T) == 4) {
    return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
  } else {
    const uint32_t bits = (key & 0x8000u) != 0 ? key & 0x7fffu : ~key & 0xffffu;
    return to_float(T{static_cast<uint16_t>(bits)});
  }
}

template <class T, int VEC>
__device__ __forceinline__ uint32_t element_bits(const Vector<T, VEC>& v, int j) {
  if constexpr (sizeof(T) == 4) {
    return v.words[j];
  } else {
    return (v.words[j / 2] >> (j % 2 * 16)) & 0xffffu;
  }
}

/** The total order: by key, then by index, ascending or (`large`) descending. */
struct TopKOrder {
  bool large;
  __device__ __forceinline__ uint32_t tie(uint32_t index) const { return large ? index : ~index; }
  __device__ __forceinline__ uint32_t index(uint32_t tie) const { return large ? tie : ~tie; }
};

/** What is not below this is taken. */
struct TopKThreshold {
  uint32_t key, tie;
  __device__ __forceinline__ bool takes(uint32_t k, uint32_t t) const { return k > key || (k == key && t >= tie); }
};

__device__ __forceinline__ uint32_t warp_sum(uint32_t value) {
#if __CUDA_ARCH__ >= 800
  return __reduce_add_sync(0xffffffffu, value);
#else
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
#endif
}

struct TopKShared {
  uint32_t bins[kTopKBins];
  uint32_t warps[2][32];
  uint32_t low[32], high[32];
  uint32_t bin, above, count;
  unsigned is_last;
};

/** Blocks of THREADS threads: scans and extremes, each for all threads of the block. */
template <class Config>
struct TopKBlock {
  TopKShared& shared;
  int turn = 0;

  __device__ __forceinline__ explicit TopKBlock(TopKShared& s) : shared(s) {}

  /** Sum of the warps before this one; `total` grows by that of all. `count` is the warp's. */
  __device__ __forceinline__ uint32_t scan_warps(uint32_t count, uint32_t& total) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    // Two slots, taken in turns: who writes a slot again has passed the barrier behind its last readers.
    if (lane == 0) shared.warps[turn][warp] = count;
    __syncthreads();
    const uint32_t other = lane < Config::kWarps ? shared.warps[turn][lane] : 0;
    turn ^= 1;
    const uint32_t before = total + warp_sum(lane < warp ? other : 0);
    total += warp_sum(other);
    return before;
  }

  __device__ __forceinline__ void extremes(uint32_t& low, uint32_t& high) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      low = min(low, __shfl_xor_sync(0xffffffffu, low, offset));
      high = max(high, __shfl_xor_sync(0xffffffffu, high, offset));
    }
    __syncthreads();  // those of the call before have been read
    if (lane == 0) shared.low[warp] = low, shared.high[warp] = high;
    __syncthreads();
    for (int w = 0; w < Config::kWarps; ++w) {
      low = min(low, shared.low[w]);
      high = max(high, shared.high[w]);
    }
  }

  /** The bin that holds the k-th counted from the highest, of `bins` that are complete. */
  __device__ __forceinline__ void find_bin(uint32_t k) {
    constexpr int kShare = kTopKBins / Config::kThreads;
    const int lane = threadIdx.x % 32, top = kTopKBins - 1 - static_cast<int>(threadIdx.x) * kShare;
    uint32_t counts[kShare], sum = 0;
#pragma unroll
    for (int i = 0; i < kShare; ++i) sum += counts[i] = shared.bins[top - i];
    uint32_t inclusive = sum;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const uint32_t other = __shfl_up_sync(0xffffffffu, inclusive, offset);
      if (lane >= offset) inclusive += other;
    }
    uint32_t total = 0;
    const uint32_t warp_before = scan_warps(__shfl_sync(0xffffffffu, inclusive, 31), total);
    uint32_t before = warp_before + inclusive - sum;
    if (before < k && k <= before + sum) {
#pragma unroll
      for (int i = 0; i < kShare; ++i) {
        if (before < k && k <= before + counts[i])
          shared.bin = top - i, shared.above = before, shared.count = counts[i];
        before += counts[i];
      }
    }
    __syncthreads();
  }
};

/** Of the key to stop at: how many there are, and how many of them belong to the k. */
struct TopKSelected {
  uint32_t key, need, count;
};

/**
 * The k-th largest of `total` integers, 1 <= k <= total, by radix over the range they lie in; up to `slack` more may
 * be taken where that saves a round. `source(visit)` calls visit(integer) for each of them.
 */
template <class Config, class Source>
__device__ __forceinline__ TopKSelected select(TopKBlock<Config>& block, const Source& source, uint32_t total,
                                               uint32_t k, uint32_t slack) {
  uint32_t low = 0xffffffffu, high = 0;
  source([&](uint32_t value) { low = min(low, value), high = max(high, value); });
  block.extremes(low, high);
  int bits = 32 - __clz(static_cast<int>(high - low));
  uint32_t count = total;
  while (bits > 0 && count - k > slack) {
    const int shift = max(bits - kTopKBinBits, 0);
    for (int i = threadIdx.x; i < kTopKBins; i += Config::kThreads) block.shared.bins[i] = 0;
    __syncthreads();
    source([&](uint32_t value) {
      const uint32_t offset = value - low;
      if (bits == 32 || offset >> bits == 0) atomicAdd(&block.shared.bins[offset >> shift], 1u);
    });
    __syncthreads();
    block.find_bin(k);
    k -= block.shared.above;
    count = block.shared.count;
    low += block.shared.bin << shift;
    bits = shift;
  }
  if (bits > 0) return {low, count, count};  // the whole range above `low` is taken
  return {low, k, count};
}

/** Takes at least k of `total` elements, and exactly k without slack. `elements(visit)` calls visit(key, tie). */
template <class Config, class Elements>
__device__ __forceinline__ TopKThreshold find_threshold(TopKBlock<Config>& block, const Elements& elements,
                                                        uint32_t total, uint32_t k, uint32_t slack) {
  if (k == total) return {0, 0};
  const TopKSelected at =
      select(block, [&](auto visit) { elements([&](uint32_t key, uint32_t) { visit(key); }); }, total, k, slack);
  if (at.count - at.need <= slack) return {at.key, 0};
  const TopKSelected tie = select(
      block,
      [&](auto visit) {
        elements([&](uint32_t key, uint32_t t) {
          if (key == at.key) visit(t);
        });
      },
      at.count, at.need, slack);
  return {at.key, tie.key};
}

/** Reads vectors [begin, end) of a row, one tile ahead. */
template <class Config>
struct TopKReader {
  using T = typename Config::T;
  static constexpr uint32_t kTile = Config::kThreads * Config::kUnroll;
  const T* row;
  uint32_t begin, end;
  Vector<T, Config::kVec> next[Config::kUnroll];

  /** Of this thread, in the tile. A warp's accesses lie together, so that its elements do. */
  static __device__ __forceinline__ uint32_t first() {
    return threadIdx.x / 32 * (32 * Config::kUnroll) + threadIdx.x % 32;
  }

  __device__ __forceinline__ void load(uint32_t tile) {
#pragma unroll
    for (int u = 0; u < Config::kUnroll; ++u) {
      const uint32_t v = tile + first() + u * 32;
      if (v < end) next[u] = load_once<T, Config::kVec>(row + static_cast<int64_t>(v) * Config::kVec);
    }
  }
};

/**
 * Calls emit(position, bits, index) for all that is taken, in order; returns their number. The reader's first tile is
 * loaded already.
 */
template <class Config, class Emit>
__device__ __forceinline__ uint32_t take_from_row(TopKBlock<Config>& block, TopKReader<Config>& reader,
                                                  const TopKThreshold& threshold, TopKOrder order, const Emit& emit) {
  using T = typename Config::T;
  constexpr int kVec = Config::kVec, kUnroll = Config::kUnroll;
  constexpr uint32_t kTile = TopKReader<Config>::kTile;
  const uint32_t below = (1u << threadIdx.x % 32) - 1, first = reader.first(), end = reader.end;
  // Comparing floats is cheaper than making keys; NaN on either side passes to the exact test.
  const float least = topk_value<T>(threshold.key);
  uint32_t total = 0;
  for (uint32_t tile = reader.begin; tile < end; tile += kTile) {
    Vector<T, kVec> now[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) now[u] = reader.next[u];
    reader.load(tile + kTile);
    uint32_t taken = 0, warp_count = 0, position[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const uint32_t v = tile + first + u * 32;
      float x[kVec];
      unpack<T, kVec>(now[u], x);
      position[u] = warp_count;
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        bool take = v < end && !(x[j] < least);
        if (take) take = threshold.takes(topk_key<T>(element_bits<T, kVec>(now[u], j)), order.tie(v * kVec + j));
        const uint32_t ballot = __ballot_sync(0xffffffffu, take);
        position[u] += __popc(ballot & below);
        warp_count += __popc(ballot);
        taken |= static_cast<uint32_t>(take) << (u * kVec + j);
      }
    }
    const uint32_t base = block.scan_warps(warp_count, total);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      uint32_t at = base + position[u];
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        if ((taken >> (u * kVec + j) & 1u) == 0) continue;
        emit(at++, element_bits<T, kVec>(now[u], j), (tile + first + u * 32) * kVec + j);
      }
    }
  }
  return total;
}

/** Candidates of a row, by index. */
struct TopKCandidates {
  uint32_t* bits;
  uint32_t* index;
};

template <class Config, class Emit>
__device__ __forceinline__ void take_from_candidates(TopKBlock<Config>& block, const TopKCandidates& candidates,
                                                     uint32_t count, const TopKThreshold& threshold, TopKOrder order,
                                                     const Emit& emit) {
  // A contiguous share a warp, gone through twice, needs one barrier.
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t share = (count + Config::kThreads - 1) / Config::kThreads * 32;
  const uint32_t begin = min(warp * share, count), end = min(begin + share, count);
  const auto taken = [&](uint32_t i) {
    return i < end && threshold.takes(topk_key<typename Config::T>(candidates.bits[i]), order.tie(candidates.index[i]));
  };
  uint32_t warp_count = 0, total = 0;
  for (uint32_t i = begin; i < end; i += 32) warp_count += __popc(__ballot_sync(0xffffffffu, taken(i + lane)));
  uint32_t at = block.scan_warps(warp_count, total);
  for (uint32_t i = begin; i < end; i += 32) {
    const bool take = taken(i + lane);
    const uint32_t ballot = __ballot_sync(0xffffffffu, take);
    if (take) emit(at + __popc(ballot & ((1u << lane) - 1)), candidates.bits[i + lane], candidates.index[i + lane]);
    at += __popc(ballot);
  }
}

/** Steps of a bitonic sort, descending, whose pairs are up to 32 apart: each warp keeps 64 values in registers. */
template <class Config>
__device__ __forceinline__ void sort_in_warps(uint64_t* values, uint32_t length, uint32_t first_size,
                                              uint32_t last_size) {
  const uint32_t lane = threadIdx.x % 32;
  for (uint32_t base = threadIdx.x / 32 * 64; base < length; base += Config::kWarps * 64) {
    uint64_t low = values[base + lane], high = values[base + 32 + lane];
    for (uint32_t size = first_size; size <= last_size; size *= 2) {
      const bool low_falls = ((base + lane) & size) == 0, high_falls = ((base + 32 + lane) & size) == 0;
      if (size >= 64 && (low < high) == low_falls) {
        const uint64_t kept = low;
        low = high, high = kept;
      }
      for (uint32_t stride = min(size / 2, 16u); stride > 0; stride /= 2) {
        const bool is_first = (lane & stride) == 0;
        const uint64_t other_low = __shfl_xor_sync(0xffffffffu, low, stride);
        const uint64_t other_high = __shfl_xor_sync(0xffffffffu, high, stride);
        // The first of a falling pair takes the larger, as the second of a rising one does.
        if ((low < other_low) == (is_first == low_falls)) low = other_low;
        if ((high < other_high) == (is_first == high_falls)) high = other_high;
      }
    }
    values[base + lane] = low, values[base + 32 + lane] = high;
  }
}

/** Bitonic, descending; `length` a power of two from 64 up. In shared or global memory, which barriers order alike. */
template <class Config>
__device__ __forceinline__ void sort_descending(uint64_t* values, uint32_t length) {
  __syncthreads();
  sort_in_warps<Config>(values, length, 2, 64);
  __syncthreads();
  for (uint32_t size = 128; size <= length; size *= 2) {
    for (uint32_t stride = size / 2; stride >= 64; stride /= 2) {
      for (uint32_t pair = threadIdx.x; pair < length / 2; pair += Config::kThreads) {
        const uint32_t i = 2 * pair - (pair & (stride - 1)), j = i + stride;
        const uint64_t a = values[i], b = values[j];
        if ((a < b) == ((i & size) == 0)) values[i] = b, values[j] = a;
      }
      __syncthreads();
    }
    sort_in_warps<Config>(values, length, size, size);
    __syncthreads();
  }
}

}  // namespace detail

/**
 * Writes the k largest elements of each row in order of their indices (with tie_large too) or, sorted, from the largest
 * down, equal ones by index, ascending or (tie_large) descending; of those that equal the smallest, the first or the
 * last are taken.
 *
 * params: x, rows `stride` elements apart, `vectors` accesses long; values, indices `[rows, k]`; splits: blocks a row;
 * capacity: candidates that shared memory holds, 0 to select from the row itself; samples (0: take all as candidates),
 * sample_rank: which of them is the guess, sample_slack; region, regions: candidates of one split, and their memory
 * `[rows, splits, 2, region]`; region_counts `[rows, splits]`; counters `[rows]` zeros; sort_length: 0, or the power of
 * two from k up, at least 64; sort_memory: null for shared memory behind the candidates, else `[rows, sort_length]` of 8 bytes.
 */
template <class Config, class Params>
__device__ __forceinline__ void topk(const Params& params) {
  using T = typename Config::T;
  constexpr int kVec = Config::kVec, kThreads = Config::kThreads;
  extern __shared__ __align__(16) uint32_t dynamic[];
  __shared__ detail::TopKShared shared;
  detail::TopKBlock<Config> block(shared);

  const uint32_t splits = params.splits, k = params.k, vectors = params.vectors, capacity = params.capacity;
  const uint32_t row = blockIdx.x / splits, split = blockIdx.x - row * splits;
  const T* x = static_cast<const T*>(params.x) + row * params.stride;
  const detail::TopKOrder order{params.tie_large != 0};
  const detail::TopKCandidates candidates{dynamic, dynamic + capacity};
  uint64_t* sorted = params.sort_memory != nullptr
                         ? static_cast<uint64_t*>(params.sort_memory) + static_cast<int64_t>(row) * params.sort_length
                         : reinterpret_cast<uint64_t*>(dynamic + 2 * capacity);

  // A function object over the candidates: the sample first, then what was kept.
  const auto kept = [&](uint32_t count) {
    return [&, count](auto visit) {
      constexpr int kBatch = 4;  // loads ahead of their use
      for (uint32_t i = threadIdx.x; i < count; i += kBatch * kThreads) {
        uint32_t bits[kBatch], index[kBatch];
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          const uint32_t at = min(i + b * kThreads, count - 1);
          bits[b] = candidates.bits[at], index[b] = candidates.index[at];
        }
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          if (i + b * kThreads < count) visit(detail::topk_key<T>(bits[b]), order.tie(index[b]));
        }
      }
    };
  };

  uint32_t count = 0;
  bool complete = capacity > 0;
  if (complete) {
    const uint32_t share = (vectors + splits - 1) / splits;
    detail::TopKReader<Config> reader{x, min(split * share, vectors), min((split + 1) * share, vectors)};
    reader.load(reader.begin);
    detail::TopKThreshold guess{0, 0};
    if (params.samples > 0) {
      // Pieces of 32 bytes, as memory moves them, spread evenly.
      constexpr uint32_t kPiece = 32 / (sizeof(T) * kVec);
      const uint32_t accesses = params.samples / kVec, step = vectors / (accesses / kPiece);
      for (uint32_t i = threadIdx.x; i < accesses; i += kThreads) {
        const uint32_t v = i / kPiece * step + i % kPiece;
        const Vector<T, kVec> loaded = load_shared_by_all<T, kVec>(x + static_cast<int64_t>(v) * kVec);
#pragma unroll
        for (int j = 0; j < kVec; ++j) {
          candidates.bits[j * accesses + i] = detail::element_bits<T, kVec>(loaded, j);
          candidates.index[j * accesses + i] = v * kVec + j;
        }
      }
      __syncthreads();
      guess =
          detail::find_threshold(block, kept(params.samples), params.samples, params.sample_rank, params.sample_slack);
      __syncthreads();
    }
    if (splits == 1) {
      count = detail::take_from_row(block, reader, guess, order, [&](uint32_t at, uint32_t bits, uint32_t index) {
        if (at < capacity) candidates.bits[at] = bits, candidates.index[at] = index;
      });
    } else {
      const uint32_t region = params.region;
      uint32_t* regions = static_cast<uint32_t*>(params.regions) + static_cast<int64_t>(row) * splits * 2 * region;
      uint32_t* counts = static_cast<uint32_t*>(params.region_counts) + static_cast<int64_t>(row) * splits;
      uint32_t* bits_out = regions + static_cast<int64_t>(split) * 2 * region;
      const uint32_t mine =
          detail::take_from_row(block, reader, guess, order, [&](uint32_t at, uint32_t bits, uint32_t index) {
            if (at < region) bits_out[at] = bits, bits_out[region + at] = index;
          });
      if (threadIdx.x == 0) counts[split] = mine;
      if (!arrive_last(static_cast<unsigned*>(params.counters) + row, splits, &shared.is_last)) return;
      // __ldcg: written by other blocks, so the first-level cache must not answer.
      for (uint32_t s = threadIdx.x; s < splits; s += kThreads) shared.bins[s] = __ldcg(counts + s);
      __syncthreads();
      for (uint32_t s = 0; s < splits; ++s) {
        complete = complete && shared.bins[s] <= region;
        count += shared.bins[s];
      }
      complete = complete && count <= capacity;
      uint32_t s = 0, first = 0;  // the split that holds candidate i, and its first
      constexpr int kBatch = 4;   // in flight a thread
      for (uint32_t i = threadIdx.x; complete && i < count; i += kBatch * kThreads) {
        uint32_t bits[kBatch], index[kBatch];
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          if (i + b * kThreads >= count) continue;
          for (; i + b * kThreads >= first + shared.bins[s]; ++s) first += shared.bins[s];
          const uint32_t* from = regions + static_cast<int64_t>(s) * 2 * region + (i + b * kThreads - first);
          bits[b] = __ldcg(from);
          index[b] = __ldcg(from + region);
        }
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          if (i + b * kThreads >= count) continue;
          candidates.bits[i + b * kThreads] = bits[b];
          candidates.index[i + b * kThreads] = index[b];
        }
      }
    }
    complete = complete && k <= count && count <= capacity;
    __syncthreads();
  }

  const auto emit = [&](uint32_t at, uint32_t bits, uint32_t index) {
    if (params.sort_length > 0) {
      sorted[at] = static_cast<uint64_t>(detail::topk_key<T>(bits)) << 32 | order.tie(index);
      return;
    }
    const int64_t out = static_cast<int64_t>(row) * k + at;
    Vector<T, 1> value;
    value.words[0] = bits;
    store<T, 1>(static_cast<T*>(params.values) + out, value);
    static_cast<int32_t*>(params.indices)[out] = static_cast<int32_t>(index);
  };
  if (complete) {
    const detail::TopKThreshold threshold = detail::find_threshold(block, kept(count), count, k, 0);
    detail::take_from_candidates(block, candidates, count, threshold, order, emit);
  } else {
    const auto elements = [&](auto visit) {
#pragma unroll 4
      for (uint32_t v = threadIdx.x; v < vectors; v += kThreads) {
        const Vector<T, kVec> loaded = load_shared_by_all<T, kVec>(x + static_cast<int64_t>(v) * kVec);
#pragma unroll
        for (int j = 0; j < kVec; ++j) {
          visit(detail::topk_key<T>(detail::element_bits<T, kVec>(loaded, j)), order.tie(v * kVec + j));
        }
      }
    };
    const detail::TopKThreshold threshold = detail::find_threshold(block, elements, vectors * kVec, k, 0);
    detail::TopKReader<Config> reader{x, 0, vectors};
    reader.load(0);
    detail::take_from_row(block, reader, threshold, order, emit);
  }

  if (params.sort_length == 0) return;
  for (uint32_t i = k + threadIdx.x; i < params.sort_length; i += kThreads) sorted[i] = 0;
  detail::sort_descending<Config>(sorted, params.sort_length);
#pragma unroll 2
  for (uint32_t i = threadIdx.x; i < k; i += kThreads) {
    const uint32_t index = order.index(static_cast<uint32_t>(sorted[i]));
    const int64_t out = static_cast<int64_t>(row) * k + i;
    store<T, 1>(static_cast<T*>(params.values) + out, load_once<T, 1>(x + index));
    static_cast<int32_t*>(params.indices)[out] = static_cast<int32_t>(index);
  }
}

}  // namespace flashinfer
