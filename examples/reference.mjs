// SPDX-License-Identifier: Apache-2.0
// Attention in float64, from its definition: out = softmax(q kᵀ / sqrt(headDim)) v.

const ropeTheta = 1e4;

/**
 * The positions' rotation of Llama: elements i and i + headDim/2 of a head turn by position / theta^(2i/headDim).
 * @param {ArrayLike<number>} row
 * @param {number} position
 */
function rotate(row, position) {
  const half = row.length / 2;
  const out = new Float64Array(row.length);
  for (let i = 0; i < half; i++) {
    const angle = position / ropeTheta ** (i / half);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const [a, b] = [Number(row[i]), Number(row[i + half])];
    out[i] = a * cos - b * sin;
    out[i + half] = b * cos + a * sin;
  }
  return out;
}

/**
 * @param {Float32Array} keys  [kvLen, numHeads, headDim]
 * @param {number} kvLen
 * @param {number} numHeads
 * @param {number} headDim
 */
export function rotateKeys(keys, kvLen, numHeads, headDim) {
  const out = new Float64Array(keys.length);
  for (let row = 0; row < kvLen * numHeads; row++) {
    const at = row * headDim;
    out.set(rotate(keys.subarray(at, at + headDim), Math.floor(row / numHeads)), at);
  }
  return out;
}

/**
 * One row of the output: one token, one head.
 * @param {Float32Array} query  [headDim]
 * @param {{ keys: Float32Array | Float64Array, position?: number }} cache  keys [kvLen, numHeads, headDim], already
 *   rotated where the query's position is given
 * @param {Float32Array} values  [kvLen, numHeads, headDim]
 * @param {{ head: number, numHeads: number, visible: number }} options  the first `visible` keys are seen
 */
export function attentionRow(query, { keys, position }, values, { head, numHeads, visible }) {
  const headDim = query.length;
  const row = position === undefined ? query : rotate(query, position);
  const logits = new Float64Array(visible);
  for (let j = 0; j < visible; j++) {
    const at = (j * numHeads + head) * headDim;
    let dot = 0;
    for (let d = 0; d < headDim; d++) dot += Number(row[d]) * Number(keys[at + d]);
    logits[j] = dot / Math.sqrt(headDim);
  }
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = logits.map((logit) => Math.exp(logit - max));
  const sum = weights.reduce((a, b) => a + b, 0);
  const out = new Float64Array(headDim);
  for (let j = 0; j < visible; j++) {
    const at = (j * numHeads + head) * headDim;
    for (let d = 0; d < headDim; d++) out[d] = Number(out[d]) + (Number(weights[j]) / sum) * Number(values[at + d]);
  }
  return out;
}

/**
 * Up to `count` different integers below `limit`, drawn at random.
 * @param {number} limit
 * @param {number} count
 */
export function sample(limit, count) {
  if (limit <= count) return Array.from({ length: limit }, (_, i) => i);
  /** @type {Set<number>} */
  const chosen = new Set();
  while (chosen.size < count) chosen.add(Math.floor(Math.random() * limit));
  return [...chosen];
}
