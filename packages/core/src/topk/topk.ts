// SPDX-License-Identifier: Apache-2.0
import { Checker } from '../check/checker.ts';
import { describeValue } from '../check/describeValue.ts';
import { getKernel } from '../jit/kernel.ts';
import { logCall } from '../logging.ts';
import { native } from '../native/load.ts';
import { deviceProperties } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { workspace, zeroedCounters } from '../runtime/workspace.ts';
import { empty } from '../tensor/create.ts';
import { type DType, dtypes, type SameDType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { vectorWidth } from '../tensor/vectorWidth.ts';
import { planTopK, type TopKPlan, topKSpec } from './topkKernel.ts';

/** Which of several elements that equal the k-th largest are taken: the first of the row or the last. */
export type TopKTieBreak = 'none' | 'small' | 'large';

export interface TopKOptions {
  /** From the largest down, equal elements in the order of `tieBreak`. Default false: by ascending index. */
  sorted?: boolean;
  /**
   * Which of equal elements come first where not all are taken, and in sorted results: those with small or with large
   * indices. Default `'none'`, which is `'small'`: results are deterministic with every value.
   */
  tieBreak?: TopKTieBreak;
  /** As FlashInfer's. Results are deterministic in any case: `false` changes nothing. */
  deterministic?: boolean;
}

const optionNames: readonly (keyof TopKOptions)[] = ['sorted', 'tieBreak', 'deterministic'];
const tieBreaks: readonly TopKTieBreak[] = ['none', 'small', 'large'];
const rowsRule = { dtypes: ['float32', 'float16', 'bfloat16'] as readonly DType[], lastDimContiguous: true };
const maxCount = 2 ** 31 - 1;

/**
 * The k largest elements of each row. NaN counts as larger than every number, -0 equals 0.
 * @param x `[batchSize, length]` float32 | float16 | bfloat16, last dimension contiguous
 * @param k how many, 1 to length
 * @param options see {@link TopKOptions}
 * @returns `[values, indices]`, both `[batchSize, k]`: values has x's dtype and x's bits, indices is int32
 * @throws {InvalidArgumentError} on a wrong shape, dtype, stride, k or option
 * @remarks Asynchronous on the current stream; the same call gives the same result, at any batch size and on any device.
 *   Fast for k up to a few thousand; beyond what shared memory holds, rows are read several times.
 * @see FlashInfer `top_k`, whose indices are int64
 * @example
 * ```ts
 * import { randn, topK } from '@flashinfer/core';
 *
 * const logits = randn([4, 32000]);
 * const [values, indices] = topK(logits, 50, { sorted: true }); // [4, 50] each
 * ```
 */
export function topK<D extends DType>(
  x: Tensor<D>,
  k: number,
  options: TopKOptions = {},
): [values: Tensor<SameDType<D>>, indices: Tensor<'int32'>] {
  const check = new Checker('topK');
  check.tensor('x', x, ['batchSize', 'length'], rowsRule).options(options, optionNames);
  check.flag('sorted', options.sorted).flag('deterministic', options.deterministic);
  check.oneOf('tieBreak', options.tieBreak, tieBreaks);
  const [rows, length] = x.shape as [number, number];
  if (rows > maxCount || length > maxCount) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `x has shape [${rows}, ${length}]; expected at most ${maxCount} rows and columns; call it on slices of x`,
    );
  }
  if (!(Number.isInteger(k) && k >= 1 && k <= length)) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `k is ${describeValue(k)}; expected an integer from 1 to length=${length}; pass at most the columns of x`,
    );
  }
  logCall('topK', { x, k, options });
  const values = empty([rows, k], { dtype: x.dtype, device: x.device });
  const indices = empty([rows, k], { dtype: 'int32', device: x.device });
  if (rows > 0) {
    const run = x.deviceIndex < 0 ? runOnCpu : runOnCuda;
    run(x, k, values, indices, options.sorted === true, options.tieBreak === 'large');
  }
  return [values as Tensor<SameDType<D>>, indices];
}

function runOnCpu(x: Tensor, k: number, values: Tensor, indices: Tensor, sorted: boolean, tieLarge: boolean): void {
  native().cpu.topk({
    dtype: dtypes[x.dtype].code,
    x: x.ptr,
    stride: x.strides[0]!,
    rows: x.shape[0]!,
    length: x.shape[1]!,
    k,
    values: values.ptr,
    indices: indices.ptr,
    sorted,
    tieLarge,
  });
}

function runOnCuda(x: Tensor, k: number, values: Tensor, indices: Tensor, sorted: boolean, tieLarge: boolean): void {
  const { deviceIndex } = x;
  const [rows, length] = x.shape as [number, number];
  const device = deviceProperties(deviceIndex);
  const plan = planTopK(length, k, rows, sorted, {
    numSms: device.multiProcessorCount,
    sharedPerBlock: device.sharedMemPerBlockOptin,
  });
  const vec = vectorWidth(length, [x]);
  const bytes = scratchBytes(plan, rows);
  const scratch = bytes.total > 0 ? workspace(deviceIndex, bytes.total) : 0;
  const args = {
    x: x.ptr,
    values: values.ptr,
    indices: indices.ptr,
    counters: plan.splits > 1 ? zeroedCounters(deviceIndex, rows) : 0,
    region_counts: scratch + bytes.sort + bytes.regions,
    regions: scratch + bytes.sort,
    sort_memory: bytes.sort > 0 ? scratch : 0,
    stride: x.strides[0]!,
    vectors: length / vec,
    k,
    splits: plan.splits,
    capacity: plan.capacity,
    region: plan.region,
    samples: plan.samples,
    sample_rank: plan.sampleRank,
    sample_slack: plan.sampleSlack,
    sort_length: plan.sortLength,
    tie_large: tieLarge ? 1 : 0,
  };
  const kernel = getKernel(topKSpec(x.dtype, vec, plan.threads), deviceIndex);
  const stream = currentStream(deviceIndex);
  kernel.launch([rows * plan.splits, 1, 1], args, { stream, sharedBytes: plan.sharedBytes });
}

function scratchBytes(plan: TopKPlan, rows: number): { sort: number; regions: number; total: number } {
  const sort = plan.sortLength > 0 && !plan.sortsInShared ? rows * plan.sortLength * 8 : 0;
  const regions = plan.splits > 1 ? rows * plan.splits * plan.region * 8 : 0;
  const counts = plan.splits > 1 ? rows * plan.splits * 4 : 0;
  return { sort, regions, total: sort + regions + counts };
}
