// SPDX-License-Identifier: Apache-2.0
// Runs one attention request on the cpu device.

import type { CpuAttentionArgs } from '../native/binding.ts';
import { native } from '../native/load.ts';
import { dtypes } from '../tensor/dtype.ts';
import { alibiSlopes } from './alibi.ts';
import type { HeadScales } from './headScales.ts';
import { cpuVariantArgs } from './hostVariant.ts';
import { type AttentionRequest, headDimVoOf, maskModes, posEncodingCodes } from './request.ts';

export function headScaleArgs({ q, k, v }: HeadScales): Pick<CpuAttentionArgs, 'qScales' | 'kScales' | 'vScales'> {
  return { qScales: q?.ptr ?? 0, kScales: k?.ptr ?? 0, vScales: v?.ptr ?? 0 };
}

export function runOnCpu(request: AttentionRequest): void {
  const { q, k, v, out, lse, customMask, headDim } = request;
  const args: CpuAttentionArgs = {
    q: q.ptr,
    k: k.ptr,
    v: v.ptr,
    out: out.ptr,
    lse: lse?.ptr ?? 0,
    qDtype: dtypes[request.qDtype].code,
    kvDtype: dtypes[request.kvDtype].code,
    outDtype: dtypes[out.dtype].code,
    qoLen: request.qoLen,
    kvLen: request.kvLen,
    numQoHeads: request.numQoHeads,
    numKvHeads: request.numKvHeads,
    headDimQk: headDim,
    headDimVo: headDimVoOf(headDim),
    qStrideN: request.qStrideN,
    qStrideH: request.qStrideH,
    kStrideN: request.kStrideN,
    kStrideH: request.kStrideH,
    vStrideN: request.vStrideN,
    vStrideH: request.vStrideH,
    outStrideN: request.outStrideN,
    outStrideH: request.outStrideH,
    maskMode: maskModes[request.maskMode],
    customMask: customMask?.ptr ?? 0,
    posEncodingMode: posEncodingCodes[request.posEncodingMode],
    alibiSlopes: request.posEncodingMode === 'ALIBI' ? alibiSlopes(request.numQoHeads, 'cpu').ptr : 0,
    sinks: request.sinks?.ptr ?? 0,
    windowLeft: request.windowLeft,
    logitsSoftCap: request.logitsSoftCap,
    smScale: request.smScale,
    ropeScale: request.ropeScale,
    ropeTheta: request.ropeTheta,
    vScale: request.vScale,
    lseFactor: request.lseFactor,
  };
  if (request.variant !== undefined) {
    Object.assign(args, cpuVariantArgs(request.variant, request.variantArgs), { batchIdx: 0 });
  }
  if (request.headScales !== undefined) Object.assign(args, headScaleArgs(request.headScales));
  native().cpu.attention(args);
}
