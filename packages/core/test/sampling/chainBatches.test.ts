// SPDX-License-Identifier: Apache-2.0
// Chains of many requests over large vocabularies: each row is one of a few, of which the host knows all values.
import { describe, expect, it } from 'vitest';
import { chainSpeculativeSampling, empty, samplingFromProbs, type Tensor, tensor } from '../../src/index.ts';
import { testDevice as device, onCuda } from '../device.ts';
import { normalArray, testSeed, uniformSource } from '../reference/random.ts';
import { softmaxReference } from '../reference/sampling.ts';

const kinds = 5;

interface Chain {
  readonly draft: Tensor;
  readonly ids: Tensor;
  readonly target: Tensor;
}

interface Pool {
  readonly vocab: number;
  readonly draft: readonly Float32Array[];
  readonly target: readonly Float32Array[];
}

/** Of request r: its draft row at `position`, and its target row there. */
const draftKind = (r: number, position: number): number => (r * 3 + position) % kinds;
const targetKind = (r: number, position: number): number => (r + 2 * position) % kinds;

function makePool(vocab: number): Pool {
  const rows = (stream: number): Float32Array[] => {
    const normal = normalArray(kinds * vocab, stream, 1.5);
    return Array.from({ length: kinds }, (_, n) =>
      Float32Array.from(softmaxReference(normal.subarray(n * vocab, (n + 1) * vocab))),
    );
  };
  const [draft, target] = [rows(70), rows(71)];
  // One draft agrees with a target wherever they meet; one target has nothing for half of the tokens.
  target[0] = draft[0]!;
  const half = Float64Array.from(target[1]!, (x, i) => (i % 2 === 0 ? x : 0));
  const sum = half.reduce((a, b) => a + b, 0);
  target[1] = Float32Array.from(half, (x) => x / sum);
  return { vocab, draft, target };
}

function fill(out: Tensor, rows: readonly Float32Array[], kindOf: (r: number, position: number) => number): void {
  const [batch, positions, vocab] = out.shape as [number, number, number];
  using flat = out.view(batch * positions, vocab);
  const sources = rows.map((row) => tensor(row, { shape: [1, vocab], device }));
  for (let i = 0; i < batch * positions; i++) {
    using place = flat.slice(0, i, i + 1);
    place.copy_(sources[kindOf(Math.floor(i / positions), i % positions)]!);
  }
  for (const source of sources) source.dispose();
}

/** Drafted tokens are drawn from the draft's rows; every 11th is not in the vocabulary. */
function makeChain({ vocab, draft: drafts, target: targets }: Pool, batch: number, drafted: number): Chain {
  const draft = empty([batch, drafted, vocab], { device });
  const target = empty([batch, drafted + 1, vocab], { device });
  fill(draft, drafts, draftKind);
  fill(target, targets, targetKind);
  using drawn = samplingFromProbs(draft.view(batch * drafted, vocab), { seed: testSeed });
  const tokens = drawn.toArraySync() as Int32Array;
  for (let i = 5; i < tokens.length; i += 11) tokens[i] = i % 2 === 0 ? vocab : -1;
  return { draft, ids: tensor(tokens, { shape: [batch, drafted], device }), target };
}

const disposeAll = (tensors: readonly Tensor[]) => {
  for (const x of tensors) x.dispose();
};

function verify({ draft, ids, target }: Chain, options: object): [Int32Array, Int32Array, Int32Array] {
  const found = chainSpeculativeSampling(draft, ids, target, options);
  const values = found.map((x) => x.toArraySync() as Int32Array) as [Int32Array, Int32Array, Int32Array];
  disposeAll(found);
  return values;
}

/** How far a sum of independent events is from its mean. */
class Deviation {
  private sum = 0;
  private variance = 0;

  add(found: number, mean: number, variance: number): void {
    this.sum += found - mean;
    this.variance += variance;
  }

  /** Bernstein's inequality: of correct sums, one in 1e8 is farther away. */
  expectSmall(label: string): void {
    const log = Math.log(2e8);
    const limit = log / 3 + Math.sqrt((log / 3) ** 2 + 2 * log * this.variance);
    expect(Math.abs(this.sum), label).toBeLessThan(limit);
  }
}

/** What the draft of a kind leaves of a target, or the target itself, and its share in the vocabulary's first half. */
function residuals({ vocab, draft, target }: Pool) {
  const cache = new Map<number, { row: Float32Array; firstHalf: number; total: number }>();
  return (targetOf: number, draftOf: number | undefined) => {
    const key = targetOf * (kinds + 1) + (draftOf ?? kinds);
    const known = cache.get(key);
    if (known) return known;
    const t = target[targetOf]!;
    const row = draftOf === undefined ? t : t.map((x, i) => Math.max(0, x - draft[draftOf]![i]!));
    let [first, total] = [0, 0];
    row.forEach((x, i) => {
      total += x;
      if (i < vocab / 2) first += x;
    });
    const made = { row, total, firstHalf: first / total };
    cache.set(key, made);
    return made;
  };
}

function expectChains(pool: Pool, chain: Chain, [tokens, accepted, emitted]: [Int32Array, Int32Array, Int32Array]) {
  const { vocab } = pool;
  const [batch, drafted] = chain.ids.shape as [number, number];
  const ids = chain.ids.toArraySync() as Int32Array;
  const residualOf = residuals(pool);
  const [standing, before, firstHalf] = [new Deviation(), new Deviation(), new Deviation()];
  for (let r = 0; r < batch; r++) {
    let [sure, possible, likely, spread] = [0, 0, 0, 0];
    const probabilities = Array.from({ length: drafted }, (_, j) => {
      const id = ids[r * drafted + j]!;
      const [d, t] = [pool.draft[draftKind(r, j)]![id], pool.target[targetKind(r, j)]![id]];
      const p = d === undefined || t === undefined ? 0 : d > 0 ? Math.min(1, t / d) : t > 0 ? 1 : 0;
      if (p === 1) sure++;
      if (p > 0) possible++;
      likely += p;
      spread += p * (1 - p);
      return p;
    });
    const [stood, out] = [accepted[r]!, emitted[r]!];
    const label = `request ${r}: ${stood} accepted, ${out} emitted of ${probabilities.map((p) => p.toFixed(2))}`;
    expect(stood >= sure && stood <= possible && out <= stood && out <= drafted, label).toBe(true);
    standing.add(stood, likely, spread);
    // The emitted ones might all have stood; where one did not, it might not have.
    expect(
      probabilities.slice(0, out).every((p) => p > 0),
      label,
    ).toBe(true);
    if (out < drafted) expect(probabilities[out], label).toBeLessThan(1);
    for (let j = 0; j <= out && j < drafted; j++) {
      const p = probabilities[j]!;
      before.add(j < out ? 1 : 0, p, p * (1 - p));
    }
    const row = tokens.subarray(r * (drafted + 1), (r + 1) * (drafted + 1));
    expect([...row.subarray(0, out)], label).toEqual([...ids.subarray(r * drafted, r * drafted + out)]);
    expect(
      row.subarray(out + 1).every((token) => token === -1),
      label,
    ).toBe(true);
    const {
      row: left,
      firstHalf: half,
      total,
    } = residualOf(targetKind(r, out), out < drafted ? draftKind(r, out) : undefined);
    const last = row[out]!;
    if (total > 0) expect(left[last], `${label}: token ${last}`).toBeGreaterThan(0);
    if (total > 1e-3) firstHalf.add(last < vocab / 2 ? 1 : 0, half, half * (1 - half));
  }
  standing.expectSmall('how many drafted tokens stand');
  before.expectSmall('how many are emitted');
  firstHalf.expectSmall('how often the last token is in the first half');
}

const cases: [batch: number, vocab: number][] = onCuda
  ? [
      [989, 32_000],
      [99, 128_256],
    ]
  : [
      [989, 111],
      [989, 1000],
      [33, 32_000],
      [5, 128_256],
    ];

describe.each(cases)('%i requests, vocabulary of %i', (batch, vocab) => {
  it.each([1, 3, 5, 7])('%i drafted tokens', (drafted) => {
    const pool = makePool(vocab);
    const chain = makeChain(pool, batch, drafted);
    const options = { seed: testSeed, offset: 1 };
    const all = verify(chain, options);
    expectChains(pool, chain, all);
    expect(verify(chain, { ...options, deterministic: false })).toEqual(all);

    // The same at any batch size, and with a seed and an offset of its own a request at any place.
    const random = uniformSource(drafted);
    const int64 = (limit: number) => BigInt64Array.from({ length: batch }, () => BigInt(Math.floor(random() * limit)));
    const [seeds, offsets] = [int64(1000), int64(3)];
    const own = (first: number, rows: number) => ({
      seed: tensor(seeds.slice(first, first + rows), { device }),
      offset: tensor(offsets.slice(first, first + rows), { device }),
    });
    const allOwn = verify(chain, own(0, batch));
    expectChains(pool, chain, allOwn);
    const widths = [drafted + 1, 1, 1];
    for (const [first, rows] of [
      [0, 2],
      [0, 5],
      [0, Math.min(33, batch)],
      [0, Math.min(61, batch)],
      [2, 3],
      [Math.floor(batch / 2), Math.floor(batch / 3)],
    ] as const) {
      const part = {
        draft: chain.draft.slice(0, first, first + rows),
        ids: chain.ids.slice(0, first, first + rows),
        target: chain.target.slice(0, first, first + rows),
      };
      const slices = (of: readonly Int32Array[]) =>
        of.map((values, i) => values.slice(first * widths[i]!, (first + rows) * widths[i]!));
      if (rows > 1) expect(verify(part, own(first, rows))).toEqual(slices(allOwn));
      if (first === 0) expect(verify(part, options)).toEqual(slices(all));
      disposeAll(Object.values(part));
    }
    const [one, two] = [
      tensor(BigInt64Array.of(BigInt(testSeed)), { device }),
      tensor(BigInt64Array.of(1n), { device }),
    ];
    expect(verify(chain, { seed: one, offset: two })).toEqual(all);
    disposeAll(Object.values(chain));
  });
});
