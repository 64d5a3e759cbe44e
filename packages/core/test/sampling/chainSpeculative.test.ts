// SPDX-License-Identifier: Apache-2.0
// Speculative sampling against the distribution of the target, on the device named by FLASHINFER_TEST_DEVICE.
import { expect, it } from 'vitest';
import { chainSpeculativeSampling, cuda, samplingFromProbs, softmax, type Tensor, tensor } from '../../src/index.ts';
import { testDevice as device, onCuda } from '../device.ts';
import { normalArray } from '../reference/random.ts';
import { expectThrows } from '../thrownBy.ts';

it('emits tokens of the target distribution', () => {
  const batch = 20_000;
  const draft = [0.5, 0.1, 0.4, 0];
  const target = [0.2, 0.2, 0.3, 0.3];
  const row = (probs: number[]) =>
    tensor(Array(batch).fill(probs).flat() as number[], { shape: [batch, 1, 4], device });
  const ids = samplingFromProbs(row(draft).view(batch, 4), { seed: 3 }).view(batch, 1);
  const both = tensor(
    Array(batch)
      .fill([...target, 0, 0, 1, 0])
      .flat() as number[],
    { shape: [batch, 2, 4], device },
  );
  const [tokens, accepted, emitted] = chainSpeculativeSampling(row(draft), ids, both, { seed: 4 });
  const [out, given, counts] = [tokens, ids, emitted].map((x) => x.toArraySync() as Int32Array);
  expect(accepted.toArraySync()).toEqual(counts);
  const seen = [0, 0, 0, 0];
  for (let i = 0; i < batch; i++) {
    const stands = counts![i] === 1;
    if (stands) expect([out![2 * i], out![2 * i + 1]]).toEqual([given![i], 2]);
    else expect(out![2 * i + 1]).toBe(-1);
    seen[out![2 * i]!]!++;
  }
  const chi = seen.reduce((sum, n, i) => sum + (n - batch * target[i]!) ** 2 / (batch * target[i]!), 0);
  expect(chi).toBeLessThan(20);
});

it.each([7, 1000, 32_001, 128_256])('follows certain drafts and stops at impossible ones, vocab %i', (vocab) => {
  const [batch, drafted] = [3, 4];
  const probs = (stream: number, rows: number) =>
    softmax(tensor(normalArray(rows * vocab, stream), { shape: [rows, vocab], device }));
  const target = probs(1, batch * (drafted + 1)).view(batch, drafted + 1, vocab);
  const draft = target.slice(1, 0, drafted).contiguous();
  const ids = tensor(
    Int32Array.from({ length: batch * drafted }, (_, i) => (i * 5) % vocab),
    {
      shape: [batch, drafted],
      device,
    },
  );
  const counters = { accepted: tensor(Int32Array.of(5, 6, 7), { device }), seed: 1 };
  const [tokens, accepted, emitted] = chainSpeculativeSampling(draft, ids, target, counters);
  expect(accepted).toBe(counters.accepted);
  expect([...(accepted.toArraySync() as Int32Array)]).toEqual([9, 10, 11]);
  expect([...(emitted.toArraySync() as Int32Array)]).toEqual([4, 4, 4]);
  const out = tokens.toArraySync() as Int32Array;
  const given = ids.toArraySync() as Int32Array;
  for (let r = 0; r < batch; r++) {
    expect(out.slice(r * 5, r * 5 + 4)).toEqual(given.slice(r * 4, r * 4 + 4));
    expect(out[r * 5 + 4]).toBeGreaterThanOrEqual(0);
    expect(out[r * 5 + 4]).toBeLessThan(vocab);
  }
  const away = tensor(
    Int32Array.from(given, (id, i) => (i % 4 === 2 ? vocab : id)),
    { shape: [batch, drafted], device },
  );
  const [, some, before] = chainSpeculativeSampling(draft, away, target, { seed: 1 });
  expect([...(some.toArraySync() as Int32Array), ...(before.toArraySync() as Int32Array)]).toEqual([3, 3, 3, 2, 2, 2]);
});

const floats = ['float32', 'float16', 'bfloat16'] as const;

/** Rows of probabilities, and drafts that the target follows now and then. */
function randomChain(batch: number, drafted: number, vocab: number, stream: number) {
  const probs = (rows: number, of: number) =>
    softmax(tensor(normalArray(rows * vocab, of), { shape: [rows, vocab], device }));
  const draft = probs(batch * drafted, stream);
  const ids = samplingFromProbs(draft, { seed: stream }).view(batch, drafted);
  const target = probs(batch * (drafted + 1), stream + 1).view(batch, drafted + 1, vocab);
  return { draft: draft.view(batch, drafted, vocab), ids, target };
}

const valuesOf = (tensors: readonly Tensor[]) => tensors.map((x) => [...(x.toArraySync() as Int32Array)]);

it.each(floats)('draws of %s as of the same values in float32', (dtype) => {
  for (const vocab of [96, 1001]) {
    const { draft, ids, target } = randomChain(7, 3, vocab, 40);
    const [rounded, wanted] = [draft.to(dtype), target.to(dtype)];
    const found = chainSpeculativeSampling(rounded, ids, wanted, { seed: 2 });
    const expected = chainSpeculativeSampling(rounded.to('float32'), ids, wanted.to('float32'), { seed: 2 });
    expect(valuesOf(found)).toEqual(valuesOf(expected));
    const all = valuesOf(found)[2]!.reduce((a, b) => a + b);
    expect(all).toBeGreaterThan(0);
    expect(all).toBeLessThan(21);
  }
});

it.skipIf(!onCuda)('replays in a graph with new rows, seeds and offsets', () => {
  const [batch, drafted, vocab] = [5, 3, 32_000];
  const { draft, ids, target } = randomChain(batch, drafted, vocab, 50);
  const seed = tensor(BigInt64Array.of(1n), { device });
  const offset = tensor(new BigInt64Array(batch), { device });
  const counters = {
    accepted: tensor(new Int32Array(batch), { device }),
    emitted: tensor(new Int32Array(batch), { device }),
  };
  const call = () => chainSpeculativeSampling(draft, ids, target, { seed, offset });
  const counting = () => chainSpeculativeSampling(draft, ids, target, { seed: 9, ...counters });
  call();
  const stream = new cuda.Stream();
  let captured: Tensor[] = [];
  const graph = cuda.capture(stream, () => {
    captured = [...call(), ...counting()];
  });
  const sums = [0, 0];
  for (let step = 0; step < 4; step++) {
    const next = randomChain(batch, drafted, vocab, 60 + 2 * step);
    draft.copy_(next.draft);
    ids.copy_(next.ids);
    target.copy_(next.target);
    seed.copy_(tensor(BigInt64Array.of(BigInt(step % 2)), { device }));
    offset.copy_(
      tensor(
        BigInt64Array.from({ length: batch }, (_, i) => BigInt(step + i)),
        { device },
      ),
    );
    cuda.synchronizeSync();
    graph.launch(stream);
    stream.synchronizeSync();
    const found = valuesOf(captured);
    expect(found.slice(0, 3)).toEqual(valuesOf(call()));
    const same = valuesOf(chainSpeculativeSampling(draft, ids, target, { seed: 9 }));
    expect(found[3]).toEqual(same[0]);
    for (const c of [0, 1]) {
      sums[c]! += same[c + 1]!.reduce((a, b) => a + b);
      expect(found[4 + c]!.reduce((a, b) => a + b)).toBe(sums[c]);
    }
  }
});

it('refuses shapes and dtypes that do not agree', () => {
  const probs = tensor([1, 0], { shape: [1, 1, 2], device });
  const ids = tensor(Int32Array.of(0), { shape: [1, 1], device });
  expectThrows(() => chainSpeculativeSampling(probs, ids, probs), 'ERR_FLASHINFER_INVALID_SHAPE', 'targetProbs has');
  const both = tensor([1, 0, 0, 1], { shape: [1, 2, 2], device });
  const halves = both.to('float16');
  expectThrows(
    () => chainSpeculativeSampling(probs, ids, halves),
    'ERR_FLASHINFER_INVALID_DTYPE',
    'targetProbs has dtype float16; expected float32',
  );
  expectThrows(
    () => chainSpeculativeSampling(probs.to('float8_e4m3fn'), ids, both),
    'ERR_FLASHINFER_INVALID_DTYPE',
    'draftProbs has dtype float8_e4m3fn',
  );
});

it('refuses counters in the memory of each other or of the drafted ids', () => {
  const draft = tensor([1, 0], { shape: [1, 1, 2], device });
  const target = tensor([1, 0, 0, 1], { shape: [1, 2, 2], device });
  const memory = tensor(Int32Array.of(0, 0), { device });
  const ids = memory.slice(0, 0, 1).view(1, 1);
  const [same, other] = [memory.slice(0, 0, 1), memory.slice(0, 1, 2)];
  for (const [options, words] of [
    [{ accepted: same }, 'accepted and draftTokenIds overlap'],
    [{ emitted: same }, 'emitted and draftTokenIds overlap'],
    [{ accepted: other, emitted: other }, 'accepted and emitted overlap'],
  ] as const) {
    expectThrows(() => chainSpeculativeSampling(draft, ids, target, options), 'ERR_FLASHINFER_INVALID_ARGUMENT', words);
  }
});
