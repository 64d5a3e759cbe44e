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
  const pairsOf = cases.map(pairs);
  const missing = new Set(pairsOf.flat());
  const chosen: C[] = [];
  while (missing.size > 0) {
    let best = 0;
    let bestGain = -1;
    for (let n = 0; n < cases.length; ++n) {
      let gain = 0;
      for (const pair of pairsOf[n]!) gain += missing.has(pair) ? 1 : 0;
      if (gain > bestGain) {
        best = n;
        bestGain = gain;
      }
    }
    chosen.push(cases[best]!);
    for (const pair of pairsOf[best]!) missing.delete(pair);
  }
  return chosen;
}

function pairs(c: Record<string, unknown>): string[] {
  const entries = Object.entries(c).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return entries.flatMap((first, n) => entries.slice(n + 1).map((second) => `${first}&${second}`));
}
