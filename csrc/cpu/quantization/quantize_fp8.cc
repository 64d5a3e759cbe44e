// SPDX-License-Identifier: Apache-2.0
// `quantizeFp8` and `dequantizeFp8` of NativeCpu; the arithmetic is that of include/flashinfer/quantize_fp8.cuh.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/call_args.h"
#include "cpu/elementwise/dispatch.h"
#include "cpu/elementwise/parallel.h"
#include "cpu/elementwise/versions.h"
#include "cpu/entries.h"

namespace flashinfer::cpu {
namespace {

/** Elements a thread takes at least. */
constexpr int64_t kGrain = 1 << 15;

struct Fp8Params {
  DType dtype, outDtype;
  const void* x;
  void* out;
  int64_t xStride, outStride, rows, length, tileRows, tileLength;
  float* scale;
  int64_t scaleStrideR, scaleStrideC;
};

template <class Out>
constexpr float kLargest = DTypeOf<Out>::value == DType::kFloat8E4M3 ? 448.0f : 57344.0f;

/** The largest finite magnitude; infinities saturate, so they must not decide the scale. NaN is left out too. */
template <class T>
struct MaxLoop {
  static FLASHINFER_HOST_DEVICE void Run(const T* x, int64_t count, uint32_t* result) {
    // As integers, in whose order magnitudes are, so that the loop vectorises.
    uint32_t largest = *result;
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t magnitude = float_as_bits(to_float(x[i])) & 0x7fffffffu;
      const uint32_t finite = magnitude & (0u - static_cast<uint32_t>(magnitude < 0x7f800000u));
      largest = finite > largest ? finite : largest;
    }
    *result = largest;
  }
};

template <class T, class Out>
struct QuantizeLoop {
  static FLASHINFER_HOST_DEVICE void Run(const T* x, Out* out, int64_t count, float factor) {
    for (int64_t i = 0; i < count; ++i) {
      float value = to_float(x[i]) * factor;
      value = value > kLargest<Out> ? kLargest<Out> : value;  // NaN passes both comparisons
      value = value < -kLargest<Out> ? -kLargest<Out> : value;
      out[i] = from_float<Out>(value);
    }
  }
};

template <class In, class Out>
struct DequantizeLoop {
  static FLASHINFER_HOST_DEVICE void Run(const In* x, Out* out, int64_t count, float scale) {
    for (int64_t i = 0; i < count; ++i) out[i] = from_float<Out>(to_float(x[i]) * scale);
  }
};

/** Zeros have scale 1, and no scale is subnormal: its reciprocal is finite. */
template <class Out>
float ScaleOf(uint32_t largestBits) {
  const float largest = bits_as_float(largestBits);
  return largest > 0.0f ? std::max(largest / kLargest<Out>, 1.17549435e-38f) : 1.0f;
}

/** visit(row, first column, columns, scale) for the parts of rows of one tile. */
template <class Visit>
void VisitTile(const Fp8Params& p, int64_t tileRow, int64_t tileColumn, const Visit& visit) {
  const int64_t column = tileColumn * p.tileLength, columns = std::min(p.tileLength, p.length - column);
  const int64_t end = std::min(p.rows, (tileRow + 1) * p.tileRows);
  for (int64_t row = tileRow * p.tileRows; row < end; ++row) visit(row, column, columns);
}

template <class T, class Out>
void QuantizeTiles(const Fp8Params& p, bool given) {
  const T* x = static_cast<const T*>(p.x);
  Out* out = static_cast<Out*>(p.out);
  const int64_t tileColumns = (p.length + p.tileLength - 1) / p.tileLength;
  const int64_t tiles = (p.rows + p.tileRows - 1) / p.tileRows * tileColumns;
  const int64_t grain = std::max<int64_t>(1, kGrain / (p.tileRows * p.tileLength));
  ParallelChunks(tiles, grain, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t r = tile / tileColumns, c = tile % tileColumns;
      float& scale = p.scale[r * p.scaleStrideR + c * p.scaleStrideC];
      if (!given) {
        uint32_t largest = 0;
        VisitTile(p, r, c, [&](int64_t row, int64_t column, int64_t columns) {
          RunVersion<MaxLoop<T>>(x + row * p.xStride + column, columns, &largest);
        });
        scale = ScaleOf<Out>(largest);
      }
      VisitTile(p, r, c, [&](int64_t row, int64_t column, int64_t columns) {
        RunVersion<QuantizeLoop<T, Out>>(x + row * p.xStride + column, out + row * p.outStride + column, columns,
                                         1.0f / scale);
      });
    }
  });
}

/** The same tensor cut into tiles that all have its one scale. */
Fp8Params Pieces(const Fp8Params& p) {
  Fp8Params pieces = p;
  pieces.tileLength = std::min(p.length, kGrain);
  pieces.tileRows = 1;
  pieces.scaleStrideR = pieces.scaleStrideC = 0;
  return pieces;
}

template <class T, class Out>
void QuantizeTyped(const Fp8Params& p, bool given) {
  if (p.tileRows < p.rows || p.tileLength < p.length) return QuantizeTiles<T, Out>(p, given);
  const Fp8Params pieces = Pieces(p);
  if (!given) {
    const int64_t perRow = (p.length + pieces.tileLength - 1) / pieces.tileLength;
    std::vector<uint32_t> largest(p.rows * perRow, 0);
    ParallelChunks(p.rows * perRow, std::max<int64_t>(1, kGrain / pieces.tileLength), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        VisitTile(pieces, i / perRow, i % perRow, [&](int64_t row, int64_t column, int64_t columns) {
          RunVersion<MaxLoop<T>>(static_cast<const T*>(p.x) + row * p.xStride + column, columns, &largest[i]);
        });
      }
    });
    *p.scale = ScaleOf<Out>(*std::max_element(largest.begin(), largest.end()));
  }
  QuantizeTiles<T, Out>(pieces, true);
}

template <class In, class Out>
void DequantizeTyped(const Fp8Params& p) {
  const bool whole = p.tileRows >= p.rows && p.tileLength >= p.length;
  const Fp8Params q = whole ? Pieces(p) : p;
  const int64_t tileColumns = (q.length + q.tileLength - 1) / q.tileLength;
  const int64_t tiles = (q.rows + q.tileRows - 1) / q.tileRows * tileColumns;
  const int64_t grain = std::max<int64_t>(1, kGrain / (q.tileRows * q.tileLength));
  ParallelChunks(tiles, grain, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t r = tile / tileColumns, c = tile % tileColumns;
      const float scale = q.scale[r * q.scaleStrideR + c * q.scaleStrideC];
      VisitTile(q, r, c, [&](int64_t row, int64_t column, int64_t columns) {
        RunVersion<DequantizeLoop<In, Out>>(static_cast<const In*>(q.x) + row * q.xStride + column,
                                            static_cast<Out*>(q.out) + row * q.outStride + column, columns, scale);
      });
    }
  });
}

Fp8Params ReadParams(const CallArgs& args) {
  Fp8Params p = {};
  p.dtype = args.DType("dtype");
  p.outDtype = args.DType("outDtype");
  p.x = args.Pointer<const void>("x");
  p.out = args.Pointer<void>("out");
  p.xStride = args.Integer("xStride");
  p.outStride = args.Integer("outStride");
  p.rows = args.Integer("rows");
  p.length = args.Integer("length");
  p.tileRows = args.Integer("tileRows");
  p.tileLength = args.Integer("tileLength");
  p.scale = args.Pointer<float>("scale");
  p.scaleStrideR = args.Integer("scaleStrideR");
  p.scaleStrideC = args.Integer("scaleStrideC");
  if (p.rows < 1 || p.length < 1 || p.tileRows < 1 || p.tileLength < 1) {
    throw NativeError("INTERNAL", "cpu.quantizeFp8: no elements; please report");
  }
  return p;
}

bool IsFp8(DType dtype) { return dtype == DType::kFloat8E4M3 || dtype == DType::kFloat8E5M2; }

/** visit(tag of a 16-bit type or float, tag of an fp8 type). */
template <class Visit>
void VisitTypes(DType wide, DType fp8, const Visit& visit) {
  if (wide > DType::kFloat32 || !IsFp8(fp8)) {
    throw NativeError("INTERNAL", "cpu.quantizeFp8: dtypes that the kernels cannot take; please report");
  }
  const auto with = [&](auto wideTag) {
    if (fp8 == DType::kFloat8E4M3) return visit(wideTag, TypeTag<fp8_e4m3_t>{});
    return visit(wideTag, TypeTag<fp8_e5m2_t>{});
  };
  switch (wide) {
    case DType::kFloat16:
      return with(TypeTag<half_t>{});
    case DType::kBFloat16:
      return with(TypeTag<bfloat16_t>{});
    default:
      return with(TypeTag<float>{});
  }
}

void QuantizeFp8(CpuState& state, JsValue object) {
  const CallArgs args(state.env, object.value);
  const Fp8Params p = ReadParams(args);
  const bool given = args.Flag("given");
  VisitTypes(p.dtype, p.outDtype, [&](auto wide, auto fp8) {
    QuantizeTyped<typename decltype(wide)::type, typename decltype(fp8)::type>(p, given);
  });
}

void DequantizeFp8(CpuState& state, JsValue object) {
  const Fp8Params p = ReadParams(CallArgs(state.env, object.value));
  VisitTypes(p.outDtype, p.dtype, [&](auto wide, auto fp8) {
    DequantizeTyped<typename decltype(fp8)::type, typename decltype(wide)::type>(p);
  });
}

}  // namespace

void RegisterQuantizeFp8(FunctionTable& table) {
  table.Add<QuantizeFp8>("quantizeFp8").Add<DequantizeFp8>("dequantizeFp8");
}

}  // namespace flashinfer::cpu
