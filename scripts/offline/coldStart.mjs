// SPDX-License-Identifier: Apache-2.0
// From the start of Node.js to the first result on the GPU, with kernels that were compiled before. Prints milliseconds
// since the start of the process after each stage; CUDA's own work is apart: the driver, and the device's context.
/** @type {Record<string, number>} */
const at = { node: performance.now() };
const { fromBits, singleDecodeWithKVCache } = await import('@flashinfer/core');
const { native } = await import('@flashinfer/core/internal');
at.import = performance.now();
const { cuda } = native();
at.addon = performance.now();
const { ok, error } = cuda.probe();
if (!ok) throw new Error(`coldStart: ${error}`);
at.driver = performance.now();
cuda.initDevice(0);
at.context = performance.now();

// Equal keys: the output is the mean of the values, 1 and 3.
const [one, three] = [0x3c00, 0x4200]; // float16
const [heads, headDim, length] = [8, 128, 1024];
const row = heads * headDim;
const values = new Uint16Array(length * row).fill(one);
for (let i = 0; i < length; i += 2) values.fill(three, i * row, (i + 1) * row);
const upload = (/** @type {Uint16Array} */ bits, /** @type {number[]} */ shape) =>
  fromBits(bits, { shape, dtype: 'float16', device: 'cuda:0' });
const q = upload(new Uint16Array(row).fill(one), [heads, headDim]);
const k = upload(new Uint16Array(length * row).fill(one), [length, heads, headDim]);
const v = upload(values, [length, heads, headDim]);
at.inputs = performance.now();
const out = await singleDecodeWithKVCache(q, k, v).toArray();
at.result = performance.now();
if (out.length !== heads * headDim || !out.every((value) => value === 2)) throw new Error(`coldStart: got ${out}`);
console.log(JSON.stringify(at));
