// SPDX-License-Identifier: Apache-2.0
import { ones, singleDecodeWithKVCache, tensor } from '@flashinfer/core';

// One head, two equal keys: the output is the mean of the two values.
const q = ones([1, 64], { dtype: 'float16', device: 'cpu' });
const k = ones([2, 1, 64], { dtype: 'float16', device: 'cpu' });
const v = tensor([...Array(64).fill(1), ...Array(64).fill(3)], { shape: [2, 1, 64], dtype: 'float16', device: 'cpu' });
const out = await singleDecodeWithKVCache(q, k, v).toArray();
if (out.length !== 64 || !out.every((value) => value === 2)) throw new Error(`expected 64 times 2, got ${out}`);
console.log('ESM: ok');
