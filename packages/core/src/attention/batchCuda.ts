// SPDX-License-Identifier: Apache-2.0
// Runs a planned batch on a GPU.
import { InvalidArgumentError } from '../errors.ts';
import { divisionMultiplier } from '../jit/divisionMultiplier.ts';
import { getKernel } from '../jit/kernel.ts';
import { usesDependentLaunch } from '../runtime/dependentLaunch.ts';
import { currentStream } from '../runtime/stream.ts';
import { workspace, zeroedCounters } from '../runtime/workspace.ts';
import { dtypes } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { alibiSlopes } from './alibi.ts';
import { arrangePages } from './arrangePages.ts';
import type { BatchCall, PlannedAttention, ReadKv } from './batchCall.ts';
import { deviceLimits } from './deviceLimits.ts';
import { hopperArgs, hopperCounters, hopperGrid } from './hopperBatch.ts';
import { launchHopperFp8Batch } from './hopperFp8Batch.ts';
import type { KvView } from './pagedKvCache.ts';
import { itemGrid } from './planBuffer.ts';
import { headDimVoOf } from './request.ts';

/** Launches the planned kernels. */
export function runBatchOnCuda(caller: string, call: BatchCall, buffer: Tensor, graph: boolean): void {
  const { planned, numbers, q, kv, out, lse, variantArgs } = call;
  const { device, deviceIndex } = buffer;
  const { attention, layout, kernels } = planned;
  checkRows(caller, attention, q, out, kv);
  const stream = currentStream(deviceIndex);
  const base = buffer.ptr;
  const headDimVo = headDimVoOf(attention.headDim);
  const partialO =
    layout.partialRows === 0
      ? 0
      : (call.workspace?.ptr ?? workspace(deviceIndex, layout.partialRows * (headDimVo + 1) * 4));
  const numCounters = kernels!.hopper === undefined ? layout.counters : hopperCounters;
  const args: Record<string, number | bigint | Uint8Array> = {
    q: q.ptr,
    k: kv.k.ptr,
    v: kv.v.ptr,
    o: out.ptr,
    lse: lse?.ptr ?? 0,
    custom_mask: call.customMask,
    alibi_slopes: attention.posEncodingMode === 'ALIBI' ? alibiSlopes(attention.numQoHeads, device).ptr : 0,
    sinks: call.sinks?.ptr ?? 0,
    kv_indices: base + layout.pages * 4,
    partial_o: partialO,
    partial_lse: partialO + layout.partialRows * headDimVo * 4,
    counters: numCounters === 0 ? 0 : zeroedCounters(deviceIndex, numCounters),
    work: base,
    requests: base + layout.records * 4,
    q_stride_n: q.strides[0]!,
    q_stride_h: q.strides[1]!,
    k_stride_n: kv.k.strideN,
    k_stride_h: kv.k.strideH,
    v_stride_n: kv.v.strideN,
    v_stride_h: kv.v.strideH,
    o_stride_n: out.strides[0]!,
    o_stride_h: out.strides[1]!,
    k_stride_page: kv.k.stridePage,
    v_stride_page: kv.v.stridePage,
    num_qo_heads: attention.numQoHeads,
    group_size: attention.numQoHeads / attention.numKvHeads,
    window_left: attention.windowLeft,
    page_size: attention.pageSize,
    page_size_multiplier: attention.pageSize > 0 ? divisionMultiplier(attention.pageSize) : 0,
    first_merge_item: layout.items,
    num_merge_items: planned.numMergeItems,
    sm_scale: numbers.smScale,
    logits_soft_cap: attention.logitsSoftCap,
    rcp_logits_soft_cap: attention.logitsSoftCap > 0 ? 1 / attention.logitsSoftCap : 0,
    rope_rcp_scale: 1 / attention.ropeScale,
    rope_log2_theta: Math.log2(attention.ropeTheta),
    v_scale: numbers.vScale,
    lse_factor: numbers.lseFactor,
  };
  for (const name in variantArgs) args[name] = variantArgs[name]!;
  if (kernels!.fp8Values !== undefined) {
    launchHopperFp8Batch(caller, call, args, graph);
    return;
  }
  const kernel = getKernel(kernels!.spec, deviceIndex);
  if (kernels!.hopper !== undefined) {
    const { arranged } = kernels!;
    const copies = arranged === undefined ? undefined : arrangePages(caller, call, arranged, base + layout.pages * 4);
    Object.assign(args, hopperArgs(kernels!.hopper, call, copies));
    const grid = hopperGrid(call, graph, deviceLimits(deviceIndex));
    kernel.launch(grid, args, { stream, sharedBytes: kernels!.sharedBytes });
    return;
  }
  const grid = [attention.numKvHeads, ...itemGrid(layout.items)] as const;
  kernel.launch(grid, args, { stream, sharedBytes: kernels!.sharedBytes });
  if (planned.numMergeItems === 0) return;
  // Blocks walk the list: most of a graph's is padding, and a block for each would take longer than the merging.
  const mergeBlocks = Math.min(planned.numMergeItems, 8 * kernels!.shape.slots);
  getKernel(kernels!.mergeSpec!, deviceIndex).launch([mergeBlocks, 1, 1], args, {
    stream,
    pdl: usesDependentLaunch(deviceIndex, undefined),
  });
}

/** cp.async moves 16 bytes: every row of q, k, v and out must start on such a boundary. */
function checkRows(caller: string, attention: PlannedAttention, q: Tensor, out: Tensor, kv: ReadKv): void {
  const aligned = (ptr: number, strides: readonly number[], bytes: number): boolean =>
    ptr % 16 === 0 && strides.every((stride) => (stride * bytes) % 16 === 0);
  const qBytes = dtypes[attention.qDtype].bytes;
  const kvBytes = dtypes[attention.kvDtype].bytes;
  const half = ({ ptr, strideN, strideH, stridePage }: KvView): boolean =>
    aligned(ptr, [strideN, strideH, stridePage], kvBytes);
  const wrong =
    (!aligned(q.ptr, q.strides.slice(0, 2), qBytes) && 'q') ||
    (!aligned(out.ptr, out.strides.slice(0, 2), dtypes[attention.outDtype].bytes) && 'out') ||
    (!half(kv.k) && 'k') ||
    (!half(kv.v) && 'v');
  if (wrong === false) return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_LAYOUT',
    `${caller}: ${wrong} has rows that do not start on 16-byte boundaries; expected strides and a first element in ` +
      'multiples of 16 bytes; use contiguous()',
  );
}
