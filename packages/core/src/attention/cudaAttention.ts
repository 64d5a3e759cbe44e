// SPDX-License-Identifier: Apache-2.0
// Runs one attention request on a GPU: plan, kernel, scratch, launch.
import { InvalidArgumentError, UnsupportedError } from '../errors.ts';
import { getKernel } from '../jit/kernel.ts';
import { usesDependentLaunch } from '../runtime/dependentLaunch.ts';
import { smArch } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { workspace, zeroedCounters } from '../runtime/workspace.ts';
import { dtypes } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { decodeRows, decodeSpec, planDecode } from './decodeKernel.ts';
import { deviceLimits } from './deviceLimits.ts';
import { checkHopperFp8, launchHopperFp8 } from './hopperFp8.ts';
import { launchHopper, singlePrefersHopper } from './hopperSingle.ts';
import { mergeBlocks, mergeSpec, planPrefill, prefillSpec } from './prefillKernel.ts';
import type { AttentionRequest } from './request.ts';
import { type SplitState, singleArgs } from './singleParams.ts';
import { cachedSpec } from './specCache.ts';

/** Largest grid dimension along y and z. */
const maxGridYZ = 65535;

export function runOnCuda(functionName: string, request: AttentionRequest): void {
  checkForCuda(functionName, request);
  if (request.qDtype === 'float8_e4m3fn') launchHopperFp8(request);
  else if (usesHopper(functionName, request)) launchHopper(request);
  else if (usesDecodeKernel(request)) launchDecode(request);
  else launchPrefill(request);
}

/** Few packed rows: memory bound, served by the decode kernel whatever the operator's name. */
export function usesDecodeKernel(r: Pick<AttentionRequest, 'qoLen' | 'numQoHeads' | 'numKvHeads'>): boolean {
  return r.qoLen === 1 || (r.qoLen * r.numQoHeads) / r.numKvHeads <= decodeRows;
}

/** The decode kernel splits keys, so it keeps what it serves unless the caller says otherwise. */
function usesHopper(functionName: string, request: AttentionRequest): boolean {
  if (request.backend !== 'fa3' && usesDecodeKernel(request)) return false;
  return singlePrefersHopper(functionName, request);
}

function launchDecode(r: AttentionRequest): void {
  const { device, deviceIndex } = r.q;
  const plan = planDecode(r, deviceLimits(deviceIndex));
  const { warps, kvTile, stages } = plan.tile;
  const kernel = getKernel(
    cachedSpec(r, `decode_${warps}_${kvTile}_${stages}`, () => decodeSpec(r, plan.tile)),
    deviceIndex,
  );
  const split = splitState(deviceIndex, plan, plan.counters);
  const grid = [plan.numSplits, r.numKvHeads, plan.rowTiles] as const;
  const stream = currentStream(deviceIndex);
  kernel.launch(grid, singleArgs(r, split, device), { stream, sharedBytes: plan.sharedBytes });
}

function launchPrefill(r: AttentionRequest): void {
  const { device, deviceIndex } = r.q;
  const plan = planPrefill(r, deviceLimits(deviceIndex));
  const { mTiles, kvTile } = plan.tile;
  const kernel = getKernel(
    cachedSpec(r, `prefill_${mTiles}_${kvTile}`, () => prefillSpec(r, plan.tile)),
    deviceIndex,
  );
  const args = singleArgs(r, splitState(deviceIndex, plan, 0), device);
  const stream = currentStream(deviceIndex);
  kernel.launch([plan.queryTiles, r.numKvHeads, plan.numSplits], args, { stream, sharedBytes: plan.sharedBytes });
  if (plan.numSplits === 1) return;
  const merge = getKernel(
    cachedSpec(r, 'merge', () => mergeSpec(r)),
    deviceIndex,
  );
  merge.launch([mergeBlocks(r), 1, 1], args, { stream, pdl: usesDependentLaunch(deviceIndex, undefined) });
}

interface SplitPlan {
  readonly numSplits: number;
  readonly kvChunk: number;
  readonly kvBegin: number;
  readonly partialO: number;
  readonly partialLse: number;
}

function splitState(deviceIndex: number, plan: SplitPlan, counters: number): SplitState {
  const { numSplits, kvChunk, kvBegin } = plan;
  if (numSplits === 1) return { numSplits, kvChunk, kvBegin, partialO: 0, partialLse: 0, counters: 0 };
  const partialO = workspace(deviceIndex, (plan.partialO + plan.partialLse) * 4);
  return {
    numSplits,
    kvChunk,
    kvBegin,
    partialO,
    partialLse: partialO + plan.partialO * 4,
    counters: counters > 0 ? zeroedCounters(deviceIndex, counters) : 0,
  };
}

/** What only the kernels need: 16-byte rows, 16-bit queries, an architecture with bfloat16, grids within bounds. */
function checkForCuda(functionName: string, r: AttentionRequest): void {
  if (r.qDtype === 'bfloat16' && smArch(r.q.deviceIndex) < 80) {
    throw new UnsupportedError(
      'ERR_FLASHINFER_UNSUPPORTED_ARCH',
      `${functionName}: q is bfloat16 and ${r.q.device} is sm_${smArch(r.q.deviceIndex)}; ` +
        "bfloat16 needs sm_80 or newer; convert with .to('float16')",
    );
  }
  if (r.qDtype === 'float8_e4m3fn') checkHopperFp8(functionName, r, r.q.deviceIndex);
  checkRows(functionName, 'q', r.q, r.qStrideN, r.qStrideH);
  checkRows(functionName, 'k', r.k, r.kStrideN, r.kStrideH);
  checkRows(functionName, 'v', r.v, r.vStrideN, r.vStrideH);
  checkRows(functionName, 'out', r.out, r.outStrideN, r.outStrideH);
  if (r.numKvHeads > maxGridYZ || (r.qoLen * r.numQoHeads) / r.numKvHeads > 2 ** 31 - 1) {
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `${functionName}: numKvHeads=${r.numKvHeads} or qoLen=${r.qoLen} is too large; ` +
        `expected numKvHeads up to ${maxGridYZ} and qoLen * numQoHeads / numKvHeads below 2^31`,
    );
  }
}

function checkRows(functionName: string, name: string, tensor: Tensor, strideN: number, strideH: number): void {
  const perVector = 16 / dtypes[tensor.dtype].bytes;
  if (tensor.ptr % 16 === 0 && strideN % perVector === 0 && strideH % perVector === 0) return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_LAYOUT',
    `${functionName}: ${name} has rows that do not start on 16-byte boundaries (strides ${tensor.strides.join(', ')} ` +
      `elements); expected strides in multiples of ${perVector} and an aligned first element; use ${name}.contiguous()`,
  );
}
