// SPDX-License-Identifier: Apache-2.0
// Cuts a request into tiles and runs them on the thread pool. Every cut depends on the request's shape alone, and parts
// of one tile are merged in key order, so results are the same whatever threads there are.
#include "cpu/attention/attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <vector>

#include "cpu/isa/isa.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace flashinfer::cpu {
namespace {

/** Enough pieces to keep a large server's cores busy; more would only add merging. */
constexpr int64_t kWantedTasks = 128;
/** Keys a piece has at least when keys are split, divided by its kv heads. */
constexpr int64_t kMinSplit = 512;
/** Below this many multiply-adds waking threads costs more than it saves (some microseconds). */
constexpr int64_t kSerialWork = 400'000;

thread_local Scratch kernelScratch;

const AttentionKernels& Kernels() {
  const AttentionKernels* kernels = nullptr;
  switch (CurrentIsa()) {
    case Isa::kAvx512Bf16:
      kernels = AttentionKernelsAvx512Bf16();
      break;
    case Isa::kAvx512:
      kernels = AttentionKernelsAvx512();
      break;
    case Isa::kAvx2:
      kernels = AttentionKernelsAvx2();
      break;
    case Isa::kNeon:
      kernels = AttentionKernelsNeon();
      break;
    case Isa::kGeneric:
      break;
  }
  return kernels != nullptr ? *kernels : *AttentionKernelsGeneric();
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

/** Tiles of all kv heads, each with its parts (tiles over consecutive keys). */
struct Plan {
  struct Split {
    AttentionTile tile;
    int64_t firstPart;
    int numParts;
  };
  std::vector<Split> splits;
  std::vector<AttentionTile> parts;
  std::vector<int64_t> splitOfPart;
  int64_t work = 0;
  int maxRows = 0;
};

/** kv heads a decoding tile takes at once: see kHeadGroupBytes. */
int32_t HeadGroup(const AttentionParams& params) {
  const auto interleaved = [](const RowSource& source) {
    return source.headStride > 0 && source.headStride < source.rowStride;
  };
  // Rotated keys are copied head by head.
  const bool rope = params.posEncodingMode == PosEncodingMode::kRopeLlama;
  if (rope || !interleaved(params.k) || !interleaved(params.v)) return 1;
  const int64_t headBytes = std::max(params.k.headStride, params.v.headStride);
  const int64_t most = std::clamp<int64_t>(kHeadGroupBytes / headBytes, 1, kMaxHeadGroup);
  const int64_t groups = CeilDiv(params.numKvHeads, most);
  return static_cast<int32_t>(CeilDiv(params.numKvHeads, groups));
}

AttentionTile MakeTile(const AttentionParams& params, int32_t kvHead, int32_t headCount, int64_t rowBegin,
                       int64_t rowCount) {
  const int64_t firstRow = rowBegin / params.groupSize;
  const int64_t lastRow = (rowBegin + rowCount - 1) / params.groupSize;
  const int64_t begin = params.VisibleBegin(firstRow);
  const int64_t end = std::max(begin, params.VisibleEnd(lastRow));
  return {kvHead, headCount, rowBegin, static_cast<int32_t>(rowCount), begin, end};
}

Plan MakePlan(const AttentionParams& params, const AttentionKernels& kernels) {
  Plan plan;
  const int64_t rows = params.qoLen * params.groupSize;
  const int64_t tileRows = rows <= kMaxFewRows ? rows : kernels.tileRows;
  const int64_t tilesPerHead = CeilDiv(rows, tileRows);
  const int32_t group = rows <= kMaxFewRows ? HeadGroup(params) : 1;
  const int64_t wantedParts = CeilDiv(kWantedTasks, tilesPerHead * CeilDiv(params.numKvHeads, group));
  const int64_t minKeys = std::max<int64_t>(kKvBlock, kMinSplit / group);
  for (int32_t head = 0; head < params.numKvHeads; head += group) {
    const int32_t headCount = std::min(group, params.numKvHeads - head);
    // Causal masks leave the last tiles the most work: they start first.
    for (int64_t t = tilesPerHead - 1; t >= 0; --t) {
      const int64_t rowBegin = t * tileRows;
      const AttentionTile tile = MakeTile(params, head, headCount, rowBegin, std::min(tileRows, rows - rowBegin));
      const int64_t keys = tile.kvEnd - tile.kvBegin;
      const int64_t partKeys = std::max(minKeys, CeilDiv(CeilDiv(keys, wantedParts), kKvBlock) * kKvBlock);
      const int64_t numParts = std::max<int64_t>(1, CeilDiv(keys, partKeys));
      plan.splits.push_back({tile, static_cast<int64_t>(plan.parts.size()), static_cast<int>(numParts)});
      for (int64_t p = 0; p < numParts; ++p) {
        AttentionTile part = tile;
        part.kvBegin = tile.kvBegin + p * partKeys;
        part.kvEnd = std::min(tile.kvEnd, part.kvBegin + partKeys);
        plan.parts.push_back(part);
        plan.splitOfPart.push_back(static_cast<int64_t>(plan.splits.size()) - 1);
      }
      plan.work += headCount * tile.rowCount * keys * (params.headDimQk + params.headDimVo);
      plan.maxRows = std::max(plan.maxRows, tile.rowCount);
    }
  }
  return plan;
}

/** Memory for the states of all parts of split tiles. */
class PartialStates {
 public:
  PartialStates(const AttentionParams& params, const Plan& plan) : states_(plan.parts.size()) {
    int64_t floats = 0;
    const int64_t rowFloats = params.headDimVo + 2;
    for (const Plan::Split& split : plan.splits) {
      if (split.numParts > 1) floats += split.numParts * Rows(split.tile) * rowFloats;
    }
    memory_.reset(new float[floats]);
    float* next = memory_.get();
    for (const Plan::Split& split : plan.splits) {
      if (split.numParts == 1) continue;
      const int64_t rows = Rows(split.tile);
      for (int p = 0; p < split.numParts; ++p) {
        states_[split.firstPart + p] = {next, next + rows * params.headDimVo, next + rows * (params.headDimVo + 1)};
        next += rows * rowFloats;
      }
    }
  }
  const PartialState* At(int64_t part) const { return &states_[part]; }

 private:
  static int64_t Rows(const AttentionTile& tile) { return static_cast<int64_t>(tile.headCount) * tile.rowCount; }

  std::vector<PartialState> states_;
  std::unique_ptr<float[]> memory_;
};

template <class Body>
void Loop(bool serial, int64_t count, Body&& body) {
  if (!serial) return ThreadPool::Get().ParallelFor(count, body);
  for (int64_t index = 0; index < count; ++index) body(index);
}

/**
 * cos and sin of every position's angles. In float64: at position 1e6 a float32 angle would be off by 0.06. Within a
 * block of positions the angle is advanced by rotation, whose error stays below 1e-14, and only its start calls libm.
 */
std::unique_ptr<float[]> MakeRopeTable(const AttentionParams& params, double ropeScale, double ropeTheta, bool serial) {
  constexpr int64_t kPositions = 64;
  constexpr int kMaxHalf = 256;
  const int64_t half = params.headDimQk / 2;
  const int64_t count = params.kvLen - params.ropeBegin;
  std::unique_ptr<float[]> table(new float[count * params.headDimQk]);
  std::vector<double> frequency(half), stepCos(half), stepSin(half);
  for (int64_t d = 0; d < half; ++d) {
    frequency[d] = std::pow(ropeTheta, -2.0 * d / params.headDimQk) / ropeScale;
    stepCos[d] = std::cos(frequency[d]);
    stepSin[d] = std::sin(frequency[d]);
  }
  Loop(serial, CeilDiv(count, kPositions), [&](int64_t block) {
    double cosine[kMaxHalf], sine[kMaxHalf];
    const int64_t first = block * kPositions;
    for (int64_t d = 0; d < half; ++d) {
      const double angle = static_cast<double>(params.ropeBegin + first) * frequency[d];
      cosine[d] = std::cos(angle);
      sine[d] = std::sin(angle);
    }
    for (int64_t n = first; n < std::min(count, first + kPositions); ++n) {
      float* row = table.get() + n * params.headDimQk;
      for (int64_t d = 0; d < half; ++d) {
        row[d] = static_cast<float>(cosine[d]);
        row[half + d] = static_cast<float>(sine[d]);
        const double next = cosine[d] * stepCos[d] - sine[d] * stepSin[d];
        sine[d] = sine[d] * stepCos[d] + cosine[d] * stepSin[d];
        cosine[d] = next;
      }
    }
  });
  return table;
}

}  // namespace

void RunAttention(AttentionParams params, double ropeScale, double ropeTheta) {
  if (params.qoLen == 0 || params.numQoHeads == 0) return;
  const AttentionKernels& kernels = Kernels();
  const Plan plan = MakePlan(params, kernels);
  const bool serial = plan.work < kSerialWork;

  std::unique_ptr<float[]> ropeTable;
  if (params.posEncodingMode == PosEncodingMode::kRopeLlama) {
    params.ropeBegin = std::min<int64_t>(0, params.kvLen - params.qoLen);
    ropeTable = MakeRopeTable(params, ropeScale, ropeTheta, serial);
    params.ropeTable = ropeTable.get();
  }

  const PartialStates states(params, plan);
  std::unique_ptr<std::atomic<int>[]> pending(new std::atomic<int>[plan.splits.size()]);
  for (size_t s = 0; s < plan.splits.size(); ++s) pending[s] = plan.splits[s].numParts;
  Loop(serial, static_cast<int64_t>(plan.parts.size()), [&](int64_t part) {
    const Plan::Split& split = plan.splits[plan.splitOfPart[part]];
    void* scratch = kernelScratch.Get(kernels.ScratchBytes(params, split.tile));
    if (split.numParts == 1) return kernels.RunTile(params, split.tile, nullptr, scratch);
    kernels.RunTile(params, plan.parts[part], states.At(part), scratch);
    // Whoever ends the last part merges; the order of merging is the keys', whoever it is.
    if (pending[plan.splitOfPart[part]].fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    kernels.MergeTile(params, split.tile, states.At(split.firstPart), split.numParts);
  });
}

}  // namespace flashinfer::cpu
