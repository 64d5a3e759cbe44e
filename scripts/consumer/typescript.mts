// SPDX-License-Identifier: Apache-2.0
import { type DType, FlashInferError, ones, singlePrefillWithKVCache, type Tensor } from '@flashinfer/core';

const dtype: DType = 'float32';
const x: Tensor = ones([3, 2, 64], { dtype: 'float16', device: 'cpu' });
const [out, lse]: [Tensor, Tensor] = singlePrefillWithKVCache(x, x, x, { causal: true, returnLse: true });
if (out.dtype !== 'float16' || lse.dtype !== dtype) throw new Error(`dtypes are ${out.dtype} and ${lse.dtype}`);
try {
  // @ts-expect-error a mode that does not exist is refused by the types and at run time
  singlePrefillWithKVCache(x, x, x, { posEncodingMode: 'ROTARY' });
  throw new Error('expected posEncodingMode to be refused');
} catch (error) {
  if (!(error instanceof FlashInferError) || error.code !== 'ERR_FLASHINFER_INVALID_ARGUMENT') throw error;
}
console.log('TypeScript: ok');
