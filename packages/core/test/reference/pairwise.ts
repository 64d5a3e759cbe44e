// SPDX-License-Identifier: Apache-2.0
// Thins a test grid: the full product when asked for, else few cases in which every pair of values still meets.

type Grid = Readonly<Record<string, readonly unknown[]>>;
type Case<G extends Grid> = { [K in keyof G]: G[K][number] };

/** `FLASHINFER_TEST_GRID=full` runs every combination. */
export const fullGrid = process.env.FLASHINFER_TEST_GRID === 'full';

/**
 * Cases of a grid in which `allowed` holds: all of them with {@link fullGrid}, else a greedy set in which every two
 * values of two parameters that can meet in an allowed case do meet in one.
 */
export function gridCases<G extends Grid>(grid: G, allowed: (c: Case<G>) => boolean = () => true): Case<G>[] {
  const cases = product(grid).filter(allowed);
  return fullGrid ? cases : coverPairs(cases);
}

function product<G extends Grid>(grid: G): Case<G>[] {
  let cases: Record<string, unknown>[] = [{}];
  for (const [name, values] of Object.entries(grid)) {
    cases = cases.flatMap((partial) => values.map((value) => ({ ...partial, [name]: value })));
  }
  return cases as Case<G>[];
}

/** Greedy: always takes the case with most pairs not met yet. Deterministic. */
export function coverPairs<C extends Record<string, unknown>>(cases: readonly C[]): C[] {
  const { pairs, width, count } = numberPairs(cases);
  const missing = new Uint8Array(count).fill(1);
  const chosen: C[] = [];
  for (let left = count; left > 0; ) {
    let best = 0;
    let bestGain = -1;
    for (let n = 0; n < cases.length; ++n) {
      let gain = 0;
      for (let i = n * width; i < (n + 1) * width; ++i) gain += missing[pairs[i]!]!;
      if (gain > bestGain) {
        best = n;
        bestGain = gain;
      }
    }
    chosen.push(cases[best]!);
    for (let i = best * width; i < (best + 1) * width; ++i) missing[pairs[i]!] = 0;
    left -= bestGain;
  }
  return chosen;
}

/** Numbers from 0 for the pairs that occur: those of case n are `pairs[n * width .. (n + 1) * width]`. */
function numberPairs(cases: readonly Record<string, unknown>[]): { pairs: Int32Array; width: number; count: number } {
  const names = Object.keys(cases[0] ?? {});
  const width = (names.length * (names.length - 1)) / 2;
  const pairs = new Int32Array(cases.length * width);
  const values = names.map(() => new Map<string, number>());
  const numbers = new Map<number, number>();
  let at = 0;
  for (const c of cases) {
    const indices = names.map((name, p) => numberOf(values[p]!, JSON.stringify(c[name])));
    for (let a = 0; a < names.length; ++a) {
      for (let b = a + 1; b < names.length; ++b, ++at) {
        // No parameter has a thousand values.
        const key = ((a * names.length + b) * 1000 + indices[a]!) * 1000 + indices[b]!;
        pairs[at] = numberOf(numbers, key);
      }
    }
  }
  return { pairs, width, count: numbers.size };
}

/** Of a key, the next one free if it is new. */
function numberOf<K>(numbers: Map<K, number>, key: K): number {
  const known = numbers.get(key);
  if (known !== undefined) return known;
  numbers.set(key, numbers.size);
  return numbers.size - 1;
}
