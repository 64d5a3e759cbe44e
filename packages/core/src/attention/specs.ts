// SPDX-License-Identifier: Apache-2.0
// The attention kernels that stand for all others where every architecture is compiled.
import type { KernelSpec } from '../jit/spec.ts';
import { arrangePagesSpec } from './arrangePages.ts';
import { batchDecodeSpec, batchMergeSpec, batchPrefillSpec } from './batchKernel.ts';
import { decodeSpec } from './decodeKernel.ts';
import { fp8ValuesSpec, hopperFp8Spec } from './hopperFp8Kernel.ts';
import { chooseHopperTile, hopperSpec } from './hopperKernel.ts';
import type { KernelOptions } from './kernelName.ts';
import { mergeStatesSpecs } from './mergeKernel.ts';
import { mergeSpec, prefillSpec } from './prefillKernel.ts';
import { defineAttentionVariant } from './variant.ts';

const plain: KernelOptions = {
  qDtype: 'float16',
  kvDtype: 'float16',
  headDim: 128,
  maskMode: 'none',
  posEncodingMode: 'NONE',
  windowLeft: -1,
  logitsSoftCap: 0,
};

/** Every hook; applications bring their own variants, so this one is in no package. */
const variant = defineAttentionVariant({
  name: 'every_hook',
  params: { slopes: 'float32[]', cap: 'float32', width: 'int32' },
  queryTransform: 'q * 0.5f',
  logitsTransform: 'cap * tanhf((logits + slopes[qoHeadIdx] * kvIdx) / cap)',
  logitsMask: 'kvIdx % width != 0',
  outputTransform: 'output * lse',
});

/** Each head dimension, mask, position encoding, 16-bit and fp8 type at least once, in both templates. */
export function attentionSpecs(): KernelSpec[] {
  const e4m3 = { qDtype: 'float8_e4m3fn', kvDtype: 'float8_e4m3fn' } as const;
  const causal = { ...plain, maskMode: 'causal' } as const;
  return [
    prefillSpec(causal, { mTiles: 2, kvTile: 64 }),
    prefillSpec({ ...causal, qDtype: 'bfloat16', kvDtype: 'bfloat16' }, { mTiles: 2, kvTile: 64 }),
    prefillSpec({ ...plain, kvDtype: 'float8_e4m3fn', posEncodingMode: 'ROPE_LLAMA' }, { mTiles: 1, kvTile: 32 }),
    prefillSpec({ ...plain, headDim: 64, maskMode: 'custom', logitsSoftCap: 30 }, { mTiles: 2, kvTile: 64 }),
    prefillSpec({ ...causal, headDim: 256, posEncodingMode: 'ALIBI', windowLeft: 8 }, { mTiles: 1, kvTile: 32 }),
    prefillSpec({ ...causal, qDtype: 'bfloat16', kvDtype: 'bfloat16', headDim: 192 }, { mTiles: 2, kvTile: 64 }),
    decodeSpec(plain, { warps: 4, kvTile: 16, stages: 2 }),
    decodeSpec({ ...plain, qDtype: 'bfloat16', kvDtype: 'float8_e5m2' }, { warps: 4, kvTile: 32, stages: 2 }),
    decodeSpec({ ...plain, headDim: 64, posEncodingMode: 'ROPE_LLAMA' }, { warps: 4, kvTile: 32, stages: 2 }),
    decodeSpec({ ...plain, headDim: 256, windowLeft: 8, logitsSoftCap: 30 }, { warps: 1, kvTile: 16, stages: 2 }),
    mergeSpec(plain),
    batchPrefillSpec(causal, { mTiles: 2, kvTile: 64 }, false),
    batchPrefillSpec({ ...causal, headDim: 64 }, { mTiles: 1, kvTile: 64 }, true),
    batchPrefillSpec({ ...causal, headDim: 192 }, { mTiles: 2, kvTile: 64 }, false),
    batchPrefillSpec({ ...causal, headDim: 192 }, { mTiles: 2, kvTile: 64 }, true),
    batchDecodeSpec({ ...plain, headDim: 192 }, { warps: 4, kvTile: 16, stages: 2 }, true),
    batchDecodeSpec(plain, { warps: 4, kvTile: 16, stages: 2 }, true),
    batchMergeSpec(plain),
    prefillSpec({ ...causal, headDim: 64, variant }, { mTiles: 2, kvTile: 64 }),
    decodeSpec({ ...plain, variant }, { warps: 4, kvTile: 16, stages: 2 }),
    mergeSpec({ ...plain, variant }),
    batchPrefillSpec({ ...causal, headDim: 64, variant }, { mTiles: 1, kvTile: 64 }, true),
    hopperSpec({ ...causal, qDtype: 'bfloat16', kvDtype: 'bfloat16' }, chooseHopperTile(causal, 1024), 'rows', true),
    hopperSpec(plain, chooseHopperTile(plain, 8192), 'pages', true),
    hopperSpec(causal, chooseHopperTile(causal, 8192), 'tokens', true),
    hopperSpec({ ...causal, logitsSoftCap: 30 }, chooseHopperTile(causal, 8192), 'gather', true),
    hopperSpec(
      { ...causal, headDim: 64, windowLeft: 8 },
      chooseHopperTile({ ...causal, headDim: 64 }, 8192),
      'rows',
      false,
    ),
    hopperSpec({ ...causal, headDim: 64 }, chooseHopperTile({ ...causal, headDim: 64 }, 1024), 'pages', true),
    hopperSpec({ ...causal, headDim: 256 }, chooseHopperTile({ ...causal, headDim: 256 }, 8192), 'rows', true),
    hopperSpec({ ...causal, headDim: 192 }, chooseHopperTile({ ...causal, headDim: 192 }, 8192), 'gather', true),
    hopperFp8Spec({ ...causal, ...e4m3, outDtype: 'float16' }, 'single'),
    hopperFp8Spec({ ...plain, ...e4m3, outDtype: 'bfloat16' }, 'ragged'),
    hopperFp8Spec({ ...causal, ...e4m3, headDim: 256, logitsSoftCap: 30, outDtype: 'bfloat16' }, 'paged'),
    ...(['single', 'ragged', 'paged'] as const).map((source) => fp8ValuesSpec(128, source)),
    fp8ValuesSpec(256, 'paged'),
    arrangePagesSpec(128),
    arrangePagesSpec(192),
    ...mergeStatesSpecs(),
  ];
}
