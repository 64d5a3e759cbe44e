// SPDX-License-Identifier: Apache-2.0
// The tiles that were chosen are among those that the search tries, and a tile that is tried reaches the kernel.
import { afterEach, describe, expect, it } from 'vitest';
import { chooseDecodeTile } from '../../src/attention/decodeKernel.ts';
import { chooseHopperTile } from '../../src/attention/hopperKernel.ts';
import type { KernelOptions } from '../../src/attention/kernelName.ts';
import { choosePrefillTile } from '../../src/attention/prefillKernel.ts';
import { decodeCandidates, hopperCandidates, prefillCandidates } from '../../src/attention/tileCandidates.ts';
import { tryTiles } from '../../src/attention/tiles.ts';
import { h200, plain } from './kernelOptions.ts';

const headDims = [64, 128, 192, 256];

function options(headDim: number, maskMode: 'none' | 'causal' = 'none'): KernelOptions {
  return { ...plain, headDim, maskMode };
}

afterEach(() => tryTiles({}));

describe.each(headDims)('headDim %i', (headDim) => {
  it('tries the chosen tiles of the fa3 template', () => {
    const candidates = hopperCandidates({ headDim }, h200.sharedPerBlock);
    for (const maskMode of ['none', 'causal'] as const) {
      for (const keys of [1, 2048, 2049]) {
        expect(candidates).toContainEqual(chooseHopperTile(options(headDim, maskMode), keys));
      }
    }
  });

  it('tries the chosen tiles of prefill and decode', () => {
    const o = options(headDim);
    const prefill = prefillCandidates(o, h200.sharedPerBlock);
    for (const rows of [1, 1000]) expect(prefill).toContainEqual(choosePrefillTile(o, rows, h200));
    const decode = decodeCandidates(o, h200.sharedPerBlock);
    for (const blocks of [1, 265, 1000]) expect(decode).toContainEqual(chooseDecodeTile(o, h200, blocks));
  });

  it('takes a tile that is tried', () => {
    const o = options(headDim);
    for (const hopper of hopperCandidates(o, h200.sharedPerBlock)) {
      tryTiles({ hopper });
      expect(chooseHopperTile(o, 1)).toBe(hopper);
    }
    for (const prefill of prefillCandidates(o, h200.sharedPerBlock)) {
      tryTiles({ prefill });
      expect(choosePrefillTile(o, 1, h200)).toBe(prefill);
    }
    for (const decode of decodeCandidates(o, h200.sharedPerBlock)) {
      tryTiles({ decode });
      expect(chooseDecodeTile(o, h200)).toBe(decode);
    }
  });
});
