// SPDX-License-Identifier: Apache-2.0
// The attention kernels that models launch, for builds ahead of time.
import type { AotRequest, ModelDType, ModelShape } from '../jit/aotRequest.ts';
import { parseTarget } from '../jit/arch.ts';
import type { KernelSpec } from '../jit/spec.ts';
import { batchDecodeSpec, batchMergeSpec, batchPrefillSpec } from './batchKernel.ts';
import { chooseDecodeTile, decodeSpec } from './decodeKernel.ts';
import type { DeviceLimits } from './deviceLimits.ts';
import { hopperFp8Spec } from './hopperFp8.ts';
import { chooseHopperTile, hopperPagedTile, hopperSpec } from './hopperKernel.ts';
import { type KernelOptions, optionsName } from './kernelName.ts';
import { mergeModelSpecs } from './mergeKernel.ts';
import { choosePrefillTile, mergeSpec, prefillSpec } from './prefillKernel.ts';
import type { DecodeTile } from './tiles.ts';

/** Packed rows of a short and of a long prefill: the two sides of every choice of a tile. */
const packedRows = [1, Number.MAX_SAFE_INTEGER] as const;

/** Paged decode and prefill with 16-bit and fp8 caches; ragged and single attention with 16-bit ones, and fp8 on Hopper. */
export function attentionModelSpecs({ target, models, dtypes, sharedPerBlock }: AotRequest): KernelSpec[] {
  const hopper = parseTarget(target).sm === 90;
  // Tiles are chosen by the shared memory of a block alone.
  const limits = { numSms: 1, sharedPerBlock, sharedPerSm: sharedPerBlock, l2Bytes: 0 };
  const variants = models.flatMap((model) => dtypes.flatMap((dtype) => modelVariants(model, dtype)));
  const distinct = [...new Map(variants.map((options) => [optionsName(options), options])).values()];
  return distinct.flatMap((options) => [
    ...pagedSpecs(options, limits),
    ...(options.kvDtype === options.qDtype ? contiguousSpecs(options, limits) : []),
    ...(hopper && options.kvDtype === options.qDtype ? [...hopperSpecs(options), ...hopperFp8Specs(options)] : []),
    ...mergeModelSpecs(options.qDtype, options.headDim),
  ]);
}

function modelVariants({ attention }: ModelShape, qDtype: ModelDType): KernelOptions[] {
  if (attention === undefined) return [];
  const { headDim, windows, softCap } = attention;
  return windows.flatMap((window) =>
    [qDtype, 'float8_e4m3fn' as const].map((kvDtype) => ({
      qDtype,
      kvDtype,
      headDim,
      maskMode: 'none' as const,
      posEncodingMode: 'NONE' as const,
      windowLeft: window === 'full' ? -1 : 1,
      logitsSoftCap: softCap ? 1 : 0,
    })),
  );
}

function prefillTiles(options: KernelOptions, limits: DeviceLimits, paged: boolean) {
  return packedRows.map((rows) => choosePrefillTile(options, rows, limits, paged));
}

/**
 * Decode, and prefills of a few tokens, which are causal: for few blocks, for so many that a multiprocessor holds them
 * at once, and for more.
 */
function decodeTiles(options: KernelOptions, limits: DeviceLimits): readonly DecodeTile[] {
  const tiles = [1, 2, 3, 4, 5, 6, 7, 8, Number.MAX_SAFE_INTEGER].map((blocks) =>
    chooseDecodeTile(options, limits, blocks),
  );
  return [...new Set(tiles)];
}

function pagedSpecs(plain: KernelOptions, limits: DeviceLimits): KernelSpec[] {
  const causal = { ...plain, maskMode: 'causal' } as const;
  // Without a mask: the levels of shared prefixes.
  const masks = plain.windowLeft < 0 && plain.logitsSoftCap === 0 ? [causal, plain] : [causal];
  return [
    ...[plain, causal].flatMap((o) => decodeTiles(o, limits).map((tile) => batchDecodeSpec(o, tile, true))),
    ...masks.flatMap((o) => prefillTiles(o, limits, true).map((tile) => batchPrefillSpec(o, tile, true))),
    batchMergeSpec(plain),
  ];
}

/** The fa3 template's, for short and long requests: ragged, paged by boxes of 16 and by rows, and single. */
function hopperSpecs(plain: KernelOptions): KernelSpec[] {
  return [{ ...plain, maskMode: 'causal' } as const, plain].flatMap((o) =>
    [0, Number.MAX_SAFE_INTEGER].flatMap((keys) => {
      const tile = chooseHopperTile(o, keys);
      return [
        hopperSpec(o, tile, 'rows', true),
        hopperSpec(o, tile, 'rows', false),
        hopperSpec(o, hopperPagedTile(tile, o.headDim, 16), 'pages', true),
        hopperSpec(o, tile, 'gather', true),
      ];
    }),
  );
}

/** Queries, keys and values of float8_e4m3fn, where the model's own type is the output's. */
function hopperFp8Specs(plain: KernelOptions): KernelSpec[] {
  const { headDim, qDtype: outDtype } = plain;
  if (headDim !== 128 && headDim !== 256) return [];
  const e4m3 = {
    ...plain,
    qDtype: 'float8_e4m3fn',
    kvDtype: 'float8_e4m3fn',
    outDtype: outDtype as ModelDType,
  } as const;
  return [{ ...e4m3, maskMode: 'causal' } as const, e4m3].map((o) => hopperFp8Spec(o, false));
}

function contiguousSpecs(plain: KernelOptions, limits: DeviceLimits): KernelSpec[] {
  const causal = { ...plain, maskMode: 'causal' } as const;
  const masks = plain.windowLeft < 0 && plain.logitsSoftCap === 0 ? [causal, plain] : [causal];
  return [
    ...[plain, causal].map((o) => decodeSpec(o, chooseDecodeTile(o, limits))),
    ...decodeTiles(causal, limits).map((tile) => batchDecodeSpec(causal, tile, false)),
    ...masks.flatMap((o) =>
      prefillTiles(o, limits, false).flatMap((tile) => [prefillSpec(o, tile), batchPrefillSpec(o, tile, false)]),
    ),
    mergeSpec(plain),
    ...(masks.length > 1 ? rotatedSpecs(plain, limits) : []),
  ];
}

/** Single requests whose keys are cached as they were before their rotation. */
function rotatedSpecs(plain: KernelOptions, limits: DeviceLimits): KernelSpec[] {
  const rotated = { ...plain, posEncodingMode: 'ROPE_LLAMA' } as const;
  const causal = { ...rotated, maskMode: 'causal' } as const;
  return [
    decodeSpec(rotated, chooseDecodeTile(rotated, limits)),
    ...prefillTiles(causal, limits, false).map((tile) => prefillSpec(causal, tile)),
    mergeSpec(rotated),
  ];
}
