// SPDX-License-Identifier: Apache-2.0
// Continuous batching in small: requests join and leave while others go on, their KV-cache is pages from a free list,
// and each step appends one token a request and attends to all before it. On a GPU a step is a CUDA graph, captured once
// and replayed under a new plan each time; on the cpu it is the same calls. The "model" is one layer of attention over
// tables of random q, k and v. Every output is compared with attention over the whole request, computed in float64.
//
//   node examples/continuousBatching.mjs [seed]
import {
  appendPagedKVCache,
  BatchDecodeWithPagedKVCacheWrapper,
  cuda,
  defaultDevice,
  getBatchIndicesPositions,
  randn,
  tensor,
  zeros,
} from '@flashinfer/core';
import { attentionRow } from './reference.mjs';

const device = defaultDevice();
const seed = Number(process.argv[2] ?? Math.floor(Math.random() * 2 ** 31)) || 0;
const [numQoHeads, numKvHeads, headDim, vocab] = [8, 2, 64, 50];
const [pageSize, numPages, maxBatch, numRequests] = [4, 24, 4, 12];
const tolerance = 2e-3;

/**
 * @typedef {import('@flashinfer/core').Tensor} Tensor
 * @typedef {ReturnType<typeof cuda.capture>} Graph
 * @typedef {{ id: number, tokens: number[], end: number, pages: number[] }} Request  `end`: tokens when it is done
 */

const random = randomSource(seed);
/** @type {Request[]} */
const waiting = Array.from({ length: numRequests }, (_, id) => {
  const prompt = Array.from({ length: 1 + random(12) }, () => random(vocab));
  return { id, tokens: prompt, end: prompt.length + 1 + random(10), pages: [] };
});

// What the model computes of a token: rows of these tables.
const [qTable, kTable, vTable] = [
  await makeTable(numQoHeads, 0),
  await makeTable(numKvHeads, 1),
  await makeTable(numKvHeads, 2),
];

// The state on the device has fixed addresses, which the graph uses: places that hold no request are left out.
const pagedKVCache = zeros([numPages, 2, pageSize, numKvHeads, headDim], { dtype: 'float16', device });
const q = zeros([maxBatch, numQoHeads, headDim], { dtype: 'float16', device });
const k = zeros([maxBatch, numKvHeads, headDim], { dtype: 'float16', device });
const v = zeros([maxBatch, numKvHeads, headDim], { dtype: 'float16', device });
const out = zeros([maxBatch, numQoHeads, headDim], { dtype: 'float16', device });
const indexTensor = (/** @type {number} */ length) => zeros([length], { dtype: 'int32', device });
const [batchIndices, positions] = [indexTensor(maxBatch), indexTensor(maxBatch)];
const [kvIndices, kvIndptr] = [indexTensor(numPages), indexTensor(maxBatch + 1)];
const onGpu = device !== 'cpu';
const decode = new BatchDecodeWithPagedKVCacheWrapper({
  device,
  ...(onGpu ? { useCudaGraph: true, maxBatchSize: maxBatch, maxNumPages: numPages } : {}),
});

const freePages = Array.from({ length: numPages }, (_, page) => page);
/** @type {(Request | undefined)[]} */
const running = Array.from({ length: maxBatch }, () => undefined);
/** @type {Graph | undefined} */
let graph;
let [steps, tokens, worst] = [0, 0, 0];

console.log(
  `device ${device}, ${numRequests} requests, ${maxBatch} at a time, ${numPages} pages of ${pageSize}, seed ${seed}`,
);
while (waiting.length > 0 || running.some((request) => request !== undefined)) {
  admit();
  prepareStep();
  runStep();
  await finishStep();
}
graph?.dispose();
if (freePages.length !== numPages) throw new Error(`${numPages - freePages.length} pages were not given back`);
console.log(`${steps} steps, ${tokens} tokens, largest relative error of a head ${worst.toExponential(1)}: all good`);

/** Requests join while there is a place, and pages for all of their tokens: nobody runs out of pages half-way. */
function admit() {
  const pagesOf = (/** @type {number} */ length) => Math.ceil(length / pageSize);
  for (let place = running.indexOf(undefined); place >= 0; place = running.indexOf(undefined)) {
    const promised = running.reduce((sum, r) => sum + (r === undefined ? 0 : pagesOf(r.end) - r.pages.length), 0);
    const request = waiting[0];
    if (request === undefined || pagesOf(request.end) > freePages.length - promised) return;
    waiting.shift();
    running[place] = request;
    appendPrompt(request);
    console.log(`step ${steps}: request ${request.id} joins with ${request.tokens.length} tokens`);
  }
}

/**
 * Everything but the last token, which the next step appends.
 * @param {Request} request
 */
function appendPrompt(request) {
  const prompt = request.tokens.slice(0, -1);
  if (prompt.length === 0) return;
  takePages(request, prompt.length);
  const [kPrompt, vPrompt] = [gather(kTable, prompt), gather(vTable, prompt)];
  const [requests, places] = getBatchIndicesPositions([0, prompt.length], [prompt.length], prompt.length);
  appendPagedKVCache(kPrompt, vPrompt, {
    batchIndices: requests,
    positions: places,
    pagedKVCache,
    kvIndices: request.pages,
    kvIndptr: [0, request.pages.length],
  });
  kPrompt.dispose();
  vPrompt.dispose();
}

/**
 * @param {Request} request
 * @param {number} length  tokens that the pages must hold
 */
function takePages(request, length) {
  while (request.pages.length * pageSize < length) {
    const page = freePages.pop();
    if (page === undefined) throw new Error('no page is free');
    request.pages.push(page);
  }
}

/** Writes the inputs of the step to where the graph reads them, and plans the attention. */
function prepareStep() {
  const indptr = [0];
  /** @type {number[]} */
  const indices = [];
  /** @type {number[]} */
  const lastPageLen = [];
  for (const request of running) {
    const length = request?.tokens.length ?? 0;
    if (request !== undefined) takePages(request, length);
    indices.push(...(request?.pages ?? []));
    indptr.push(indices.length);
    lastPageLen.push(length === 0 ? 0 : ((length - 1) % pageSize) + 1);
  }
  decode.plan({
    pagedKvIndptr: indptr,
    pagedKvIndices: indices,
    pagedKvLastPageLen: lastPageLen,
    pageSize,
    numQoHeads,
    numKvHeads,
    headDimQk: headDim,
  });
  const newest = running.map((request) => request?.tokens.at(-1) ?? 0);
  write(q, gather(qTable, newest));
  write(k, gather(kTable, newest));
  write(v, gather(vTable, newest));
  writeIndices(
    batchIndices,
    running.map((request, place) => (request === undefined ? -1 : place)),
  );
  writeIndices(
    positions,
    running.map((request) => (request?.tokens.length ?? 1) - 1),
  );
  writeIndices(kvIndices, [...indices, ...Array.from({ length: numPages - indices.length }, () => 0)]);
  writeIndices(kvIndptr, indptr);
}

/** The part of a step that a graph holds. */
function appendAndAttend() {
  appendPagedKVCache(k, v, { batchIndices, positions, pagedKVCache, kvIndices, kvIndptr });
  decode.run(q, pagedKVCache, { out });
}

/** The first step on a GPU is not captured: its kernels may have to be compiled. */
function runStep() {
  if (!onGpu || steps === 0) return appendAndAttend();
  graph ??= cuda.capture(new cuda.Stream({ device }), appendAndAttend);
  graph.launch();
}

/** Checks the outputs, draws the next tokens from them, and lets go of what is done. */
async function finishStep() {
  const outputs = /** @type {Float32Array} */ (await out.toArray());
  for (const [place, request] of running.entries()) {
    if (request === undefined) continue;
    const row = outputs.subarray(place * numQoHeads * headDim, (place + 1) * numQoHeads * headDim);
    check(request, row);
    tokens++;
    request.tokens.push(Math.floor(Math.abs(Number(row[0])) * 1e6) % vocab);
    if (request.tokens.length <= request.end) continue;
    running[place] = undefined;
    freePages.push(...request.pages);
    console.log(`step ${steps}: request ${request.id} leaves with ${request.tokens.length} tokens`);
  }
  steps++;
}

/**
 * Recomputes the newest token's attention from the request's tokens alone.
 * @param {Request} request
 * @param {Float32Array} row  [numQoHeads, headDim]
 */
function check(request, row) {
  const [queries, keys, values] = [
    rows(qTable, request.tokens),
    rows(kTable, request.tokens),
    rows(vTable, request.tokens),
  ];
  const visible = request.tokens.length;
  for (let head = 0; head < numQoHeads; head++) {
    const at = ((visible - 1) * numQoHeads + head) * headDim;
    const options = { head: Math.floor(head / (numQoHeads / numKvHeads)), numHeads: numKvHeads, visible };
    const expected = attentionRow(queries.subarray(at, at + headDim), { keys }, values, options);
    const difference = expected.map((value, i) => Number(row[head * headDim + i]) - value);
    const error = Math.hypot(...difference) / Math.hypot(...expected);
    worst = Math.max(worst, error);
    if (error <= tolerance) continue; // false for NaN as well
    throw new Error(
      `step ${steps}, request ${request.id}, head ${head}: error ${error}, above ${tolerance}; seed ${seed}`,
    );
  }
}

/**
 * A row for each token of the vocabulary, exact in float16.
 * @param {number} heads
 * @param {number} n
 */
async function makeTable(heads, n) {
  const table = randn([vocab, heads, headDim], { dtype: 'float16', device, seed: seed + n });
  return /** @type {Float32Array} */ (await table.toArray());
}

/**
 * Rows of a table, one a token.
 * @param {Float32Array} table
 * @param {number[]} ids
 */
function rows(table, ids) {
  const width = table.length / vocab;
  const chosen = new Float32Array(ids.length * width);
  ids.forEach((id, i) => {
    chosen.set(table.subarray(id * width, (id + 1) * width), i * width);
  });
  return chosen;
}

/**
 * As rows, on the device: `[tokens, heads, headDim]`.
 * @param {Float32Array} table
 * @param {number[]} ids
 */
function gather(table, ids) {
  const values = rows(table, ids);
  return tensor(values, {
    shape: [ids.length, values.length / ids.length / headDim, headDim],
    dtype: 'float16',
    device,
  });
}

/**
 * @param {Tensor} to
 * @param {Tensor} from
 */
function write(to, from) {
  to.copy_(from);
  from.dispose();
}

/**
 * @param {Tensor} to
 * @param {number[]} values
 */
function writeIndices(to, values) {
  write(to, tensor(values, { dtype: 'int32', device }));
}

/**
 * Integers below a limit (mulberry32).
 * @param {number} state
 */
function randomSource(state) {
  return (/** @type {number} */ limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) % limit;
  };
}
