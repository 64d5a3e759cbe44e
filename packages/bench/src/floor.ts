// SPDX-License-Identifier: Apache-2.0
// The least time an operation can take on this machine: bytes over measured bandwidth, operations over the peak.

export interface Ceilings {
  /** GB/s measured in this run. */
  readonly bandwidth: number;
  /** How it was measured. */
  readonly bandwidthMethod: string;
  /** Dense TFLOP/s of matrix products by dtype, from the vendor's data sheet; empty where unknown. */
  readonly peakTflops: Readonly<Record<string, number>>;
}

/** NVIDIA data sheets, dense, SXM boards: H100 and H200 share the GH100 chip and its clocks; A100. */
const dataSheets: readonly { name: RegExp; peakTflops: Record<string, number> }[] = [
  { name: /H[12]00/, peakTflops: { bfloat16: 989.4, float16: 989.4, float8: 1978.9 } },
  { name: /A100/, peakTflops: { bfloat16: 312, float16: 312 } },
];

export function dataSheetPeak(deviceName: string): Record<string, number> {
  return dataSheets.find(({ name }) => name.test(deviceName))?.peakTflops ?? {};
}

/** Microseconds; 0 where neither bound is known. */
export function floorUs(work: { bytes: number; flops: number; dtype?: string }, ceilings: Ceilings): number {
  const peak = work.dtype === undefined ? undefined : ceilings.peakTflops[work.dtype];
  const bandwidthUs = ceilings.bandwidth > 0 ? work.bytes / ceilings.bandwidth / 1e3 : 0;
  const computeUs = peak && work.flops ? work.flops / peak / 1e6 : 0;
  return Math.max(bandwidthUs, computeUs);
}
