// SPDX-License-Identifier: Apache-2.0
// FlashInfer's first example: one request's decode, append and prefill attention over a KV cache of 2048 tokens.
// Every result is compared with attention computed here in float64. Runs on the GPU where there is one, else on the cpu.
//
//   node examples/quickstart.mjs [seed]
import { cuda, defaultDevice, randn, singleDecodeWithKVCache, singlePrefillWithKVCache } from '@flashinfer/core';
import { attentionRow, rotateKeys, sample } from './reference.mjs';

const device = defaultDevice();
const seed = Number(process.argv[2] ?? Math.floor(Math.random() * 2 ** 31));
const [kvLen, numHeads, headDim] = [2048, 32, 128];
const tolerance = 2e-3;

// NHD layout: [kvLen, numKvHeads, headDim]
const k = randn([kvLen, numHeads, headDim], { dtype: 'float16', device, seed });
const v = randn([kvLen, numHeads, headDim], { dtype: 'float16', device, seed: seed + 1 });

// decode: one new token
const q = randn([numHeads, headDim], { dtype: 'float16', device, seed: seed + 2 });
// append: 128 new tokens, which are the last 128 of the cache
const qAppend = randn([128, numHeads, headDim], { dtype: 'float16', device, seed: seed + 3 });
// prefill: the whole prompt
const qPrefill = randn([2048, numHeads, headDim], { dtype: 'float16', device, seed: seed + 4 });

/**
 * @typedef {import('@flashinfer/core').Tensor} Tensor
 * @typedef {{ causal?: boolean, posEncodingMode?: 'NONE' | 'ROPE_LLAMA' }} Options
 * @type {[name: string, q: Tensor, run: (q: Tensor, k: Tensor, v: Tensor, options: Options) => Tensor, Options][]}
 */
const cases = [
  ['decode', q, singleDecodeWithKVCache, {}],
  ['decode, RoPE', q, singleDecodeWithKVCache, { posEncodingMode: 'ROPE_LLAMA' }],
  ['append, causal', qAppend, singlePrefillWithKVCache, { causal: true }],
  ['append, causal, RoPE', qAppend, singlePrefillWithKVCache, { causal: true, posEncodingMode: 'ROPE_LLAMA' }],
  ['prefill, full', qPrefill, singlePrefillWithKVCache, { causal: false }],
];

const keys = await k.toArray();
const values = await v.toArray();
const rotatedKeys = rotateKeys(keys, kvLen, numHeads, headDim);

console.log(`device ${device}, float16, k and v [${k.shape}] (NHD), seed ${seed}`);
console.log('error: largest relative L2 error of a row (one token, one head) against float64\n');
for (const [name, query, attention, options] of cases) {
  const [out, firstMs] = timed(() => attention(query, k, v, options));
  const warmMs = Math.min(...Array.from({ length: 3 }, () => timed(() => attention(query, k, v, options))[1]));

  const queries = await floats(query);
  const outputs = await floats(out);
  const qoLen = query.size / (numHeads * headDim);
  const rows = sample(qoLen * numHeads, 256);
  const errors = rows.map((row) => {
    const [token, head] = [Math.floor(row / numHeads), row % numHeads];
    const position = kvLen - qoLen + token;
    const expected = attentionRow(
      queries.subarray(row * headDim, (row + 1) * headDim),
      options.posEncodingMode === 'ROPE_LLAMA' ? { keys: rotatedKeys, position } : { keys },
      values,
      { head, numHeads, visible: options.causal ? position + 1 : kvLen },
    );
    return relativeError(outputs.subarray(row * headDim, (row + 1) * headDim), expected);
  });
  const error = Math.max(...errors);
  const good = error <= tolerance && errors.length > 0; // false for NaN as well
  if (!good) process.exitCode = 1;

  const checked = rows.length < qoLen * numHeads ? `${rows.length} random rows of ${qoLen * numHeads}` : 'all rows';
  console.log(`${good ? 'ok  ' : 'FAIL'} ${name.padEnd(21)} q [${query.shape}] -> [${out.shape}]`);
  console.log(
    `     first ${firstMs.toFixed(2)} ms, warm ${warmMs.toFixed(2)} ms, error ${error.toExponential(1)} on ${checked}`,
  );
}
console.log(process.exitCode ? `\nan error is above ${tolerance}` : `\nevery error is below ${tolerance}`);

/**
 * The values of a float16 tensor.
 * @param {Tensor} tensor
 */
async function floats(tensor) {
  return /** @type {Float32Array} */ (await tensor.toArray());
}

/**
 * On a GPU an operator returns before its kernel has run, so the time is taken after synchronising.
 * @template T
 * @param {() => T} run
 * @returns {[result: T, milliseconds: number]}
 */
function timed(run) {
  const start = performance.now();
  const result = run();
  if (device !== 'cpu') cuda.synchronizeSync();
  return [result, performance.now() - start];
}

/**
 * @param {Float32Array} actual
 * @param {Float64Array} expected
 */
function relativeError(actual, expected) {
  const difference = expected.map((value, i) => Number(actual[i]) - value);
  return Math.hypot(...difference) / Math.hypot(...expected);
}
