// SPDX-License-Identifier: Apache-2.0
// The attention kernels that models launch, for builds ahead of time.
import type { AotRequest, ModelDType, ModelShape } from '../jit/aotRequest.ts';
import { parseTarget } from '../jit/arch.ts';
import type { KernelSpec } from '../jit/spec.ts';
import { arrangePagesSpec } from './arrangePages.ts';
import { batchDecodeSpec, batchMergeSpec, batchPrefillSpec } from './batchKernel.ts';
import { chooseDecodeTile, decodeSpec } from './decodeKernel.ts';
import type { DeviceLimits } from './deviceLimits.ts';
import { fp8ValuesSpec, hopperFp8Spec } from './hopperFp8Kernel.ts';
import { chooseHopperTile, hopperPagedTile, hopperSpec } from './hopperKernel.ts';
import { type KernelOptions, optionsName } from './kernelName.ts';
import { mergeModelSpecs } from './mergeKernel.ts';
import { choosePrefillTile, mergeSpec, prefillSpec } from './prefillKernel.ts';
import { headDimVoOf } from './request.ts';
import type { DecodeTile, HopperTile } from './tiles.ts';

/** Packed rows of a short and of a long prefill: the two sides of every choice of a tile. */
const packedRows = [1, Number.MAX_SAFE_INTEGER] as const;

/** Paged, ragged and single attention with 16-bit and fp8 keys, masks over 16-bit ones, and fp8 queries on Hopper. */
export function attentionModelSpecs({ target, models, dtypes, sharedPerBlock }: AotRequest): KernelSpec[] {
  const hopper = parseTarget(target).sm === 90;
  // Tiles are chosen by the shared memory of a block alone.
  const limits = { numSms: 1, sharedPerBlock, sharedPerSm: sharedPerBlock, l2Bytes: 0 };
  const variants = models.flatMap((model) => dtypes.flatMap((dtype) => modelVariants(model, dtype)));
  const distinct = [...new Map(variants.map((variant) => [optionsName(variant.options), variant])).values()];
  return distinct.flatMap(({ options, latent }) => {
    const batch = [...pagedSpecs(options, limits), ...raggedSpecs(options, limits, latent)];
    // Single requests with a window are given fewer keys, or the model's own type.
    if (isFp8(options)) return [...batch, ...(options.windowLeft < 0 ? singleSpecs(options, limits) : [])];
    return [
      ...batch,
      ...(hopper ? hopperBatchSpecs(options) : []),
      ...mergeModelSpecs(options.qDtype, headDimVoOf(options.headDim)),
      ...(latent ? [] : wholeHeadSpecs(options, limits, hopper)),
    ];
  });
}

const isFp8 = ({ qDtype, kvDtype }: KernelOptions): boolean => kvDtype !== qDtype;

interface ModelVariant {
  readonly options: KernelOptions;
  readonly latent: boolean;
}

function modelVariants({ attention }: ModelShape, qDtype: ModelDType): ModelVariant[] {
  const { headDim, windows, softCap, latent } = attention;
  // Keys that are made from latent vectors are no cache's.
  const kvDtypes = latent ? [qDtype] : ([qDtype, 'float8_e4m3fn'] as const);
  return windows.flatMap((window) =>
    kvDtypes.map((kvDtype) => ({
      options: {
        qDtype,
        kvDtype,
        headDim,
        maskMode: 'none' as const,
        posEncodingMode: 'NONE' as const,
        windowLeft: window === 'full' ? -1 : 1,
        logitsSoftCap: softCap ? 1 : 0,
      },
      latent,
    })),
  );
}

/** What only heads that are the cache's are asked for. */
function wholeHeadSpecs(options: KernelOptions, limits: DeviceLimits, hopper: boolean): KernelSpec[] {
  return [
    ...singleSpecs(options, limits),
    ...(hopper ? [...hopperSingleSpecs(options), ...hopperFp8Specs(options)] : []),
    ...(options.windowLeft < 0 ? maskedSpecs(options, limits) : []),
  ];
}

function prefillTiles(options: KernelOptions, limits: DeviceLimits, paged: boolean) {
  return packedRows.map((rows) => choosePrefillTile(options, rows, limits, paged));
}

/**
 * Decode, and prefills of a few tokens, which are causal: for few blocks, for so many that a multiprocessor holds them
 * at once, and for more.
 */
function decodeTiles(options: KernelOptions, limits: DeviceLimits): readonly DecodeTile[] {
  const counts = [...Array(16).keys(), Number.MAX_SAFE_INTEGER];
  return [...new Set(counts.map((blocks) => chooseDecodeTile(options, limits, blocks)))];
}

/** Of paged prefills. Without a mask: the levels of shared prefixes, which have no windows. */
function pagedMasks(plain: KernelOptions): KernelOptions[] {
  const causal = { ...plain, maskMode: 'causal' } as const;
  return plain.windowLeft < 0 ? [causal, plain] : [causal];
}

function pagedSpecs(plain: KernelOptions, limits: DeviceLimits): KernelSpec[] {
  const causal = { ...plain, maskMode: 'causal' } as const;
  return [
    ...[plain, causal].flatMap((o) => decodeTiles(o, limits).map((tile) => batchDecodeSpec(o, tile, true))),
    ...pagedMasks(plain).flatMap((o) => prefillTiles(o, limits, true).map((tile) => batchPrefillSpec(o, tile, true))),
    batchMergeSpec(plain),
  ];
}

/** Of ragged and single prefills: what is not causal, an encoder or a context in pieces, has neither windows nor caps. */
function contiguousMasks(plain: KernelOptions): KernelOptions[] {
  const causal = { ...plain, maskMode: 'causal' } as const;
  return plain.windowLeft < 0 && plain.logitsSoftCap === 0 && !isFp8(plain) ? [causal, plain] : [causal];
}

/** `anyLength`: the last piece of a context, which is not causal either, may have a few tokens. */
function raggedSpecs(plain: KernelOptions, limits: DeviceLimits, anyLength: boolean): KernelSpec[] {
  const masks = contiguousMasks(plain);
  const short = anyLength ? masks : masks.slice(0, 1);
  return [
    ...short.flatMap((o) => decodeTiles(o, limits).map((tile) => batchDecodeSpec(o, tile, false))),
    ...masks.flatMap((o) => prefillTiles(o, limits, false).map((tile) => batchPrefillSpec(o, tile, false))),
  ];
}

function singleSpecs(plain: KernelOptions, limits: DeviceLimits): KernelSpec[] {
  const causal = { ...plain, maskMode: 'causal' } as const;
  const masks = contiguousMasks(plain);
  return [
    ...[plain, causal].map((o) => decodeSpec(o, chooseDecodeTile(o, limits))),
    ...masks.flatMap((o) => prefillTiles(o, limits, false).map((tile) => prefillSpec(o, tile))),
    mergeSpec(plain),
    ...(masks.length > 1 ? rotatedSpecs(plain, limits) : []),
  ];
}

/**
 * Over pages: trees of draft tokens, blocks of sparse attention with masks within, and what a window leaves visible of
 * shared prefixes.
 */
function maskedSpecs(plain: KernelOptions, limits: DeviceLimits): KernelSpec[] {
  const masked = { ...plain, maskMode: 'custom' } as const;
  return [
    ...decodeTiles(masked, limits).map((tile) => batchDecodeSpec(masked, tile, true)),
    ...prefillTiles(masked, limits, true).map((tile) => batchPrefillSpec(masked, tile, true)),
  ];
}

/** The fa3 template's tiles for short and long requests. */
function hopperTiles(masks: readonly KernelOptions[]): { o: KernelOptions; tile: HopperTile }[] {
  return masks.flatMap((o) => [0, Number.MAX_SAFE_INTEGER].map((keys) => ({ o, tile: chooseHopperTile(o, keys) })));
}

/** Ragged, paged by boxes, whose usual sizes make two tiles at most, and by tokens. */
function hopperBatchSpecs(plain: KernelOptions): KernelSpec[] {
  return [
    // Ragged, and pages of long prompts, which are copied into rows.
    ...hopperTiles(pagedMasks(plain)).map(({ o, tile }) => hopperSpec(o, tile, 'rows', true)),
    arrangePagesSpec(plain.headDim),
    ...hopperTiles(pagedMasks(plain)).flatMap(({ o, tile }) => [
      ...[16, 64].map((pageSize) => hopperSpec(o, hopperPagedTile(tile, o.headDim, pageSize), 'pages', true)),
      hopperSpec(o, tile, 'tokens', true),
    ]),
  ];
}

function hopperSingleSpecs(plain: KernelOptions): KernelSpec[] {
  return hopperTiles(contiguousMasks(plain)).map(({ o, tile }) => hopperSpec(o, tile, 'rows', false));
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
  return (['single', 'ragged', 'paged'] as const).flatMap((source) => [
    hopperFp8Spec({ ...e4m3, maskMode: 'causal' }, source),
    hopperFp8Spec(e4m3, source),
    fp8ValuesSpec(headDim, source),
  ]);
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
