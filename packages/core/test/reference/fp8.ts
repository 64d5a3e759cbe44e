// SPDX-License-Identifier: Apache-2.0
// Scales of fp8 quantisation, from the definition, in float32 as the operators compute them.

export interface Fp8Tiling {
  readonly rows: number;
  readonly length: number;
  /** Rows and columns that share a scale. */
  readonly tileRows: number;
  readonly tileLength: number;
}

/** Which scale, row-major over tiles, element (row, column) has. */
export function tileOf({ length, tileRows, tileLength }: Fp8Tiling, row: number, column: number): number {
  return Math.floor(row / tileRows) * Math.ceil(length / tileLength) + Math.floor(column / tileLength);
}

/** Largest finite magnitude of each tile divided by the format's largest value; 1 for zeros. */
export function fp8Scales(values: ArrayLike<number>, tiling: Fp8Tiling, largest: number): Float32Array {
  const { rows, length, tileRows, tileLength } = tiling;
  const scales = new Float32Array(Math.ceil(rows / tileRows) * Math.ceil(length / tileLength));
  for (let i = 0; i < rows * length; ++i) {
    const magnitude = Math.abs(values[i]!);
    const tile = tileOf(tiling, Math.floor(i / length), i % length);
    if (magnitude < Infinity && magnitude > scales[tile]!) scales[tile] = magnitude;
  }
  return scales.map((magnitude) => (magnitude > 0 ? Math.max(Math.fround(magnitude / largest), 2 ** -126) : 1));
}
