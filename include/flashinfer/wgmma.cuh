// SPDX-License-Identifier: Apache-2.0
// Warpgroup matrix products (PTX ISA 9.7.15, wgmma; sm_90a): 64 rows by N columns by 16, float32 accumulators.
//
// Fragments of a warpgroup's thread, warp w, lane = 4 * g + t: accumulator element 4 * j + e is row 16 * w + g + 8 * (e >> 1),
// column 8 * j + 2 * t + (e & 1); operand A in registers is that of mma.m16n8k16 (mma.cuh) for rows 16 * w ...
#pragma once
#include <flashinfer/dtype.cuh>

namespace flashinfer {

/**
 * Descriptor of an operand in shared memory with the 128-byte swizzle (PTX ISA 9.7.15.5.1): rows of 64 elements, 128 bytes
 * apart, in groups of eight that are aligned to 1024 bytes.
 *   K-major (A, or B as rows of N): rows are N (or M); the next eight rows are 1024 bytes on. The leading offset is unused.
 *   MN-major (B as rows of K): rows are K; the next 64 columns are `leading_bytes` on.
 */
__device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t address, uint32_t leading_bytes) {
  constexpr uint64_t kSwizzle128 = 1ull << 62, kRowGroup = static_cast<uint64_t>(1024 >> 4) << 32;
  return kSwizzle128 | kRowGroup | static_cast<uint64_t>(leading_bytes >> 4) << 16 | ((address & 0x3ffff) >> 4);
}

/** Before the first product after registers or shared memory that it uses were written. */
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
/** Until at most PENDING groups of products are not finished. */
template <int PENDING>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(PENDING) : "memory");
}

/** Keeps the compiler from moving uses of accumulators across the products that write them. */
template <int COUNT>
__device__ __forceinline__ void wgmma_pin(float (&d)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

/** d (+)= A B. `shared_a`: A and B K-major in shared memory. `registers_a`: A in registers, B MN-major in shared memory. */
template <class T, int N>
struct Wgmma;

#define FLASHINFER_R0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define FLASHINFER_R1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define FLASHINFER_R2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define FLASHINFER_R3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define FLASHINFER_R4 "%32, %33, %34, %35, %36, %37, %38, %39"
#define FLASHINFER_R5 "%40, %41, %42, %43, %44, %45, %46, %47"
#define FLASHINFER_R6 "%48, %49, %50, %51, %52, %53, %54, %55"
#define FLASHINFER_R7 "%56, %57, %58, %59, %60, %61, %62, %63"
#define FLASHINFER_R8 "%64, %65, %66, %67, %68, %69, %70, %71"
#define FLASHINFER_R9 "%72, %73, %74, %75, %76, %77, %78, %79"
#define FLASHINFER_R10 "%80, %81, %82, %83, %84, %85, %86, %87"
#define FLASHINFER_R11 "%88, %89, %90, %91, %92, %93, %94, %95"
#define FLASHINFER_R12 "%96, %97, %98, %99, %100, %101, %102, %103"
#define FLASHINFER_R13 "%104, %105, %106, %107, %108, %109, %110, %111"
#define FLASHINFER_R14 "%112, %113, %114, %115, %116, %117, %118, %119"
#define FLASHINFER_R15 "%120, %121, %122, %123, %124, %125, %126, %127"
#define FLASHINFER_D8(d, i)                                                                                   \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])

#define FLASHINFER_WGMMA(T, TYPES, N, REGISTERS, I0, I1, I2, I3, I4, I5, ...)                                       \
  template <>                                                                                                       \
  struct Wgmma<T, N> {                                                                                              \
    static __device__ __forceinline__ void shared_a(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {   \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " I2                                                           \
                   ", 0;\n"                                                                                         \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPES " {" REGISTERS "}, " I0 ", " I1          \
                   ", p, 1, 1, 0, 0;\n}\n"                                                                          \
                   : __VA_ARGS__                                                                                    \
                   : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));                                            \
    }                                                                                                               \
    static __device__ __forceinline__ void registers_a(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) {     \
      asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPES " {" REGISTERS "}, {" I0 ", " I1 ", " I2 \
                   ", " I3 "}, " I4 ", 1, 1, 1, 1;\n"                                                               \
                   : __VA_ARGS__                                                                                    \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                           \
    }                                                                                                               \
  };

FLASHINFER_WGMMA(half_t, "f16.f16", 64, FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3, "%32",
                 "%33", "%34", "%35", "%36", "%37", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8), FLASHINFER_D8(d, 16),
                 FLASHINFER_D8(d, 24))
FLASHINFER_WGMMA(bfloat16_t, "bf16.bf16", 64, FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3,
                 "%32", "%33", "%34", "%35", "%36", "%37", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24))
FLASHINFER_WGMMA(half_t, "f16.f16", 80,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4, "%40",
                 "%41", "%42", "%43", "%44", "%45", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8), FLASHINFER_D8(d, 16),
                 FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32))
FLASHINFER_WGMMA(bfloat16_t, "bf16.bf16", 80,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4, "%40",
                 "%41", "%42", "%43", "%44", "%45", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8), FLASHINFER_D8(d, 16),
                 FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32))
FLASHINFER_WGMMA(half_t, "f16.f16", 96,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5,
                 "%48", "%49", "%50", "%51", "%52", "%53", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40))
FLASHINFER_WGMMA(bfloat16_t, "bf16.bf16", 96,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5,
                 "%48", "%49", "%50", "%51", "%52", "%53", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40))
FLASHINFER_WGMMA(half_t, "f16.f16", 112,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6,
                 "%56", "%57", "%58", "%59", "%60", "%61", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48))
FLASHINFER_WGMMA(bfloat16_t, "bf16.bf16", 112,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6,
                 "%56", "%57", "%58", "%59", "%60", "%61", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48))
FLASHINFER_WGMMA(half_t, "f16.f16", 128,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7,
                 "%64", "%65", "%66", "%67", "%68", "%69", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56))
FLASHINFER_WGMMA(bfloat16_t, "bf16.bf16", 128,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7,
                 "%64", "%65", "%66", "%67", "%68", "%69", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56))
FLASHINFER_WGMMA(half_t, "f16.f16", 144,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8,
                 "%72", "%73", "%74", "%75", "%76", "%77", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64))
FLASHINFER_WGMMA(bfloat16_t, "bf16.bf16", 144,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8,
                 "%72", "%73", "%74", "%75", "%76", "%77", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64))
FLASHINFER_WGMMA(half_t, "f16.f16", 160,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8
                               ", " FLASHINFER_R9,
                 "%80", "%81", "%82", "%83", "%84", "%85", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64), FLASHINFER_D8(d, 72))
FLASHINFER_WGMMA(bfloat16_t, "bf16.bf16", 160,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8
                               ", " FLASHINFER_R9,
                 "%80", "%81", "%82", "%83", "%84", "%85", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64), FLASHINFER_D8(d, 72))
FLASHINFER_WGMMA(half_t, "f16.f16", 176,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8
                               ", " FLASHINFER_R9 ", " FLASHINFER_R10,
                 "%88", "%89", "%90", "%91", "%92", "%93", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64), FLASHINFER_D8(d, 72),
                 FLASHINFER_D8(d, 80))
FLASHINFER_WGMMA(bfloat16_t, "bf16.bf16", 176,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8
                               ", " FLASHINFER_R9 ", " FLASHINFER_R10,
                 "%88", "%89", "%90", "%91", "%92", "%93", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64), FLASHINFER_D8(d, 72),
                 FLASHINFER_D8(d, 80))
FLASHINFER_WGMMA(half_t, "f16.f16", 192,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8
                               ", " FLASHINFER_R9 ", " FLASHINFER_R10 ", " FLASHINFER_R11,
                 "%96", "%97", "%98", "%99", "%100", "%101", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64), FLASHINFER_D8(d, 72),
                 FLASHINFER_D8(d, 80), FLASHINFER_D8(d, 88))
FLASHINFER_WGMMA(bfloat16_t, "bf16.bf16", 192,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8
                               ", " FLASHINFER_R9 ", " FLASHINFER_R10 ", " FLASHINFER_R11,
                 "%96", "%97", "%98", "%99", "%100", "%101", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64), FLASHINFER_D8(d, 72),
                 FLASHINFER_D8(d, 80), FLASHINFER_D8(d, 88))
FLASHINFER_WGMMA(half_t, "f16.f16", 256,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8
                               ", " FLASHINFER_R9 ", " FLASHINFER_R10 ", " FLASHINFER_R11 ", " FLASHINFER_R12
                               ", " FLASHINFER_R13 ", " FLASHINFER_R14 ", " FLASHINFER_R15,
                 "%128", "%129", "%130", "%131", "%132", "%133", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64), FLASHINFER_D8(d, 72),
                 FLASHINFER_D8(d, 80), FLASHINFER_D8(d, 88), FLASHINFER_D8(d, 96), FLASHINFER_D8(d, 104),
                 FLASHINFER_D8(d, 112), FLASHINFER_D8(d, 120))
FLASHINFER_WGMMA(bfloat16_t, "bf16.bf16", 256,
                 FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                               ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8
                               ", " FLASHINFER_R9 ", " FLASHINFER_R10 ", " FLASHINFER_R11 ", " FLASHINFER_R12
                               ", " FLASHINFER_R13 ", " FLASHINFER_R14 ", " FLASHINFER_R15,
                 "%128", "%129", "%130", "%131", "%132", "%133", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                 FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                 FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64), FLASHINFER_D8(d, 72),
                 FLASHINFER_D8(d, 80), FLASHINFER_D8(d, 88), FLASHINFER_D8(d, 96), FLASHINFER_D8(d, 104),
                 FLASHINFER_D8(d, 112), FLASHINFER_D8(d, 120))

/**
 * float8_e4m3fn, 64 rows by N columns by 32: there is no transposed operand of 8-bit elements, so B is K-major in both forms.
 * Operand A in registers: word i of a thread is row 16 * w + g + 8 * (i & 1), columns 16 * (i >> 1) + 4 * t ... + 3.
 */
#define FLASHINFER_WGMMA_FP8(N, REGISTERS, I0, I1, I2, I3, I4, ...)                                                 \
  template <>                                                                                                       \
  struct Wgmma<fp8_e4m3_t, N> {                                                                                     \
    static __device__ __forceinline__ void shared_a(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {   \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " I2                                                           \
                   ", 0;\n"                                                                                         \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" REGISTERS "}, " I0 ", " I1          \
                   ", p, 1, 1;\n}\n"                                                                                \
                   : __VA_ARGS__                                                                                    \
                   : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));                                            \
    }                                                                                                               \
    static __device__ __forceinline__ void registers_a(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) {     \
      asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" REGISTERS "}, {" I0 ", " I1 ", " I2 \
                   ", " I3 "}, " I4 ", 1, 1, 1;\n"                                                                  \
                   : __VA_ARGS__                                                                                    \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                           \
    }                                                                                                               \
  };

FLASHINFER_WGMMA_FP8(96,
                     FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                                   ", " FLASHINFER_R5,
                     "%48", "%49", "%50", "%51", "%52", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8), FLASHINFER_D8(d, 16),
                     FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40))
FLASHINFER_WGMMA_FP8(128,
                     FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                                   ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7,
                     "%64", "%65", "%66", "%67", "%68", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8), FLASHINFER_D8(d, 16),
                     FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40), FLASHINFER_D8(d, 48),
                     FLASHINFER_D8(d, 56))
FLASHINFER_WGMMA_FP8(160,
                     FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                                   ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8
                                   ", " FLASHINFER_R9,
                     "%80", "%81", "%82", "%83", "%84", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8), FLASHINFER_D8(d, 16),
                     FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40), FLASHINFER_D8(d, 48),
                     FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64), FLASHINFER_D8(d, 72))
FLASHINFER_WGMMA_FP8(192,
                     FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                                   ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8
                                   ", " FLASHINFER_R9 ", " FLASHINFER_R10 ", " FLASHINFER_R11,
                     "%96", "%97", "%98", "%99", "%100", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8), FLASHINFER_D8(d, 16),
                     FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40), FLASHINFER_D8(d, 48),
                     FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64), FLASHINFER_D8(d, 72), FLASHINFER_D8(d, 80),
                     FLASHINFER_D8(d, 88))
FLASHINFER_WGMMA_FP8(224,
                     FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                                   ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8
                                   ", " FLASHINFER_R9 ", " FLASHINFER_R10 ", " FLASHINFER_R11 ", " FLASHINFER_R12
                                   ", " FLASHINFER_R13,
                     "%112", "%113", "%114", "%115", "%116", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                     FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                     FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64), FLASHINFER_D8(d, 72),
                     FLASHINFER_D8(d, 80), FLASHINFER_D8(d, 88), FLASHINFER_D8(d, 96), FLASHINFER_D8(d, 104))
FLASHINFER_WGMMA_FP8(256,
                     FLASHINFER_R0 ", " FLASHINFER_R1 ", " FLASHINFER_R2 ", " FLASHINFER_R3 ", " FLASHINFER_R4
                                   ", " FLASHINFER_R5 ", " FLASHINFER_R6 ", " FLASHINFER_R7 ", " FLASHINFER_R8
                                   ", " FLASHINFER_R9 ", " FLASHINFER_R10 ", " FLASHINFER_R11 ", " FLASHINFER_R12
                                   ", " FLASHINFER_R13 ", " FLASHINFER_R14 ", " FLASHINFER_R15,
                     "%128", "%129", "%130", "%131", "%132", FLASHINFER_D8(d, 0), FLASHINFER_D8(d, 8),
                     FLASHINFER_D8(d, 16), FLASHINFER_D8(d, 24), FLASHINFER_D8(d, 32), FLASHINFER_D8(d, 40),
                     FLASHINFER_D8(d, 48), FLASHINFER_D8(d, 56), FLASHINFER_D8(d, 64), FLASHINFER_D8(d, 72),
                     FLASHINFER_D8(d, 80), FLASHINFER_D8(d, 88), FLASHINFER_D8(d, 96), FLASHINFER_D8(d, 104),
                     FLASHINFER_D8(d, 112), FLASHINFER_D8(d, 120))

#undef FLASHINFER_R0
#undef FLASHINFER_R1
#undef FLASHINFER_R2
#undef FLASHINFER_R3
#undef FLASHINFER_R4
#undef FLASHINFER_R5
#undef FLASHINFER_R6
#undef FLASHINFER_R7
#undef FLASHINFER_R8
#undef FLASHINFER_R9
#undef FLASHINFER_R10
#undef FLASHINFER_R11
#undef FLASHINFER_R12
#undef FLASHINFER_R13
#undef FLASHINFER_R14
#undef FLASHINFER_R15
#undef FLASHINFER_D8
#undef FLASHINFER_WGMMA
#undef FLASHINFER_WGMMA_FP8

}  // namespace flashinfer
