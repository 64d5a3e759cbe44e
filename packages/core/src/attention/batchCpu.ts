// SPDX-License-Identifier: Apache-2.0
// Runs a planned batch on the cpu device.
import type { CpuAttentionArgs } from '../native/binding.ts';
import { native } from '../native/load.ts';
import { dtypes } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { alibiSlopes } from './alibi.ts';
import type { BatchCall } from './batchCall.ts';
import { headScaleArgs } from './cpuAttention.ts';
import { cpuVariantArgs } from './hostVariant.ts';
import { headDimVoOf, maskModes, posEncodingCodes } from './request.ts';

/** One call of the cpu operator a request; keys and values are read from their pages in place. */
export function runBatchOnCpu(call: BatchCall, buffer: Tensor): void {
  const { planned, numbers, q, kv, out, lse, sinks, headScales, variantArgs } = call;
  const { attention, requests, layout } = planned;
  const { cpu } = native();
  const paged = attention.pageSize > 0;
  const kvBytes = dtypes[attention.kvDtype].bytes;
  const qBytes = dtypes[attention.qDtype].bytes;
  const outBytes = dtypes[attention.outDtype].bytes;
  const slopes = attention.posEncodingMode === 'ALIBI' ? alibiSlopes(attention.numQoHeads, 'cpu').ptr : 0;
  const pages = buffer.ptr + layout.pages * 4;
  const variant = attention.variant && cpuVariantArgs(attention.variant, variantArgs);
  let customMask = call.customMask;
  for (let r = 0; r < requests.batchSize; ++r) {
    if (requests.qoLen[r] === 0) continue;
    const row = requests.qoBegin[r]!;
    const firstKey = paged ? 0 : requests.kvStart[r]!;
    const args: CpuAttentionArgs = {
      q: q.ptr + row * q.strides[0]! * qBytes,
      k: kv.k.ptr + firstKey * kv.k.strideN * kvBytes,
      v: kv.v.ptr + firstKey * kv.v.strideN * kvBytes,
      out: out.ptr + row * out.strides[0]! * outBytes,
      lse: lse === undefined ? 0 : lse.ptr + row * attention.numQoHeads * 4,
      qDtype: dtypes[attention.qDtype].code,
      kvDtype: dtypes[attention.kvDtype].code,
      outDtype: dtypes[attention.outDtype].code,
      qoLen: requests.qoLen[r]!,
      kvLen: requests.kvLen[r]!,
      numQoHeads: attention.numQoHeads,
      numKvHeads: attention.numKvHeads,
      headDimQk: attention.headDim,
      headDimVo: headDimVoOf(attention.headDim),
      qStrideN: q.strides[0]!,
      qStrideH: q.strides[1]!,
      kStrideN: kv.k.strideN,
      kStrideH: kv.k.strideH,
      vStrideN: kv.v.strideN,
      vStrideH: kv.v.strideH,
      outStrideN: out.strides[0]!,
      outStrideH: out.strides[1]!,
      maskMode: maskModes[attention.maskMode],
      customMask,
      posEncodingMode: posEncodingCodes[attention.posEncodingMode],
      alibiSlopes: slopes,
      sinks: sinks?.ptr ?? 0,
      windowLeft: attention.windowLeft,
      logitsSoftCap: attention.logitsSoftCap,
      smScale: numbers.smScale,
      ropeScale: attention.ropeScale,
      ropeTheta: attention.ropeTheta,
      vScale: numbers.vScale,
      lseFactor: numbers.lseFactor,
    };
    if (paged) {
      args.pageIndices = pages + requests.kvStart[r]! * 4;
      args.pageSize = attention.pageSize;
      args.kStridePage = kv.k.stridePage;
      args.vStridePage = kv.v.stridePage;
    }
    if (headScales !== undefined) Object.assign(args, headScaleArgs(headScales));
    if (variant !== undefined) Object.assign(args, variant, { batchIdx: r });
    cpu.attention(args);
    customMask += Math.ceil((requests.qoLen[r]! * requests.kvLen[r]!) / 8);
  }
}
