// SPDX-License-Identifier: Apache-2.0
// The k largest of a row, from the definition: a full sort by value, then index.

export interface TopKReferenceOptions {
  readonly sorted: boolean;
  /** Large indices come first among equals. */
  readonly tieLarge: boolean;
}

/** Indices of the k largest of `row`; NaN is the largest, and equals NaN, as -0 equals 0. */
export function topKReference(row: ArrayLike<number>, k: number, { sorted, tieLarge }: TopKReferenceOptions): number[] {
  const rank = (value: number): number => (Number.isNaN(value) ? 1 : 0);
  const indices = Array.from(row, (_, i) => i);
  indices.sort((i, j) => {
    const [a, b] = [row[i]!, row[j]!];
    if (rank(a) !== rank(b)) return rank(b) - rank(a);
    if (rank(a) === 0 && a !== b) return a > b ? -1 : 1;
    return tieLarge ? j - i : i - j;
  });
  const taken = indices.slice(0, k);
  return sorted ? taken : taken.sort((i, j) => i - j);
}
