// SPDX-License-Identifier: Apache-2.0
// What kernels are compiled ahead of time for: the shapes of models, and the limits of architectures that decide tiles.
import { parseTarget, type Target } from './arch.ts';

/** 16-bit types models are served in. */
export type ModelDType = 'bfloat16' | 'float16';

/** The sizes of a model that kernels are chosen by. */
export interface ModelShape {
  readonly family: ModelFamily;
  /** Length of the rows that are normalised alone or with the residual. */
  readonly hidden: number;
  /** Of those that are within attention: headDim where q and k are normalised per head, and the ranks of latent vectors. */
  readonly innerNorms: readonly number[];
  /** Width of the feed-forward layer. */
  readonly intermediate: number;
  /** Undefined where it is no kernel of this library. */
  readonly activation: 'silu' | 'gelu_tanh' | undefined;
  readonly vocab: number;
  readonly attention: ModelAttention;
}

interface ModelAttention {
  /** Of q and k. */
  readonly headDim: number;
  /** Of v and the output. */
  readonly headDimVo: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  /** Layers with all keys visible, and with a sliding window. */
  readonly windows: readonly ('full' | 'sliding')[];
  readonly softCap: boolean;
  /**
   * Keys and values are made from a latent vector, which is what caches hold; a part of each head is rotated, in pairs of
   * neighbours.
   */
  readonly latent: boolean;
}

/** One build of one architecture. */
export interface AotRequest {
  readonly target: Target;
  readonly models: readonly ModelShape[];
  readonly dtypes: readonly ModelDType[];
  /** Most dynamic shared memory of a block on this architecture, bytes. */
  readonly sharedPerBlock: number;
}

export const modelFamilies = [
  'llama3',
  'qwen2.5',
  'qwen3',
  'gemma2',
  'gemma3',
  'mistral',
  'deepseek',
  'gpt-oss',
] as const;
export type ModelFamily = (typeof modelFamilies)[number];

interface Sizes {
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: readonly [queries: number, keys: number];
  readonly headDim: number;
}

const size = (
  hidden: number,
  intermediate: number,
  heads: Sizes['heads'],
  headDim: number = hidden / heads[0],
): Sizes => ({ hidden, intermediate, heads, headDim });

interface Traits {
  readonly vocab: number;
  /** Default: silu. */
  readonly activation?: 'gelu_tanh' | 'other';
  readonly windows?: ModelAttention['windows'];
  readonly softCap?: true;
  /** q and k are normalised per head. */
  readonly qkNorm?: true;
}

function models(family: ModelFamily, traits: Traits, sizes: readonly Sizes[]): ModelShape[] {
  const { vocab, activation = 'silu', windows = ['full'], softCap = false, qkNorm } = traits;
  return sizes.map(({ hidden, intermediate, heads: [numQoHeads, numKvHeads], headDim }) => ({
    family,
    hidden,
    innerNorms: qkNorm ? [headDim] : [],
    intermediate,
    activation: activation === 'other' ? undefined : activation,
    vocab,
    attention: { headDim, headDimVo: headDim, numQoHeads, numKvHeads, windows, softCap, latent: false },
  }));
}

const gemma = { activation: 'gelu_tanh', windows: ['full', 'sliding'] } as const;

/** From the published configurations (config.json) of the models, smallest first. */
export const modelShapes: readonly ModelShape[] = [
  ...models('llama3', { vocab: 128256 }, [
    size(2048, 8192, [32, 8]),
    size(3072, 8192, [24, 8]),
    size(4096, 14336, [32, 8]),
    size(8192, 28672, [64, 8]),
  ]),
  ...models('qwen2.5', { vocab: 151936 }, [
    size(896, 4864, [14, 2]),
    size(1536, 8960, [12, 2]),
    size(2048, 11008, [16, 2]),
    size(3584, 18944, [28, 4]),
    size(5120, 27648, [40, 8]),
    size(8192, 29568, [64, 8]),
  ]),
  ...models('qwen3', { vocab: 151936, qkNorm: true }, [
    size(1024, 3072, [16, 8], 128),
    size(2048, 6144, [16, 8], 128),
    size(2560, 9728, [32, 8], 128),
    size(4096, 12288, [32, 8], 128),
    size(5120, 25600, [64, 8], 128),
  ]),
  ...models('gemma2', { ...gemma, vocab: 256000, softCap: true }, [
    size(2304, 9216, [8, 4], 256),
    size(3584, 14336, [16, 8], 256),
    size(4608, 36864, [32, 16], 128),
  ]),
  ...models('gemma3', { ...gemma, vocab: 262144, qkNorm: true }, [
    size(1152, 6912, [4, 1], 256),
    size(2560, 10240, [8, 4], 256),
    size(3840, 15360, [16, 8], 256),
    size(5376, 21504, [32, 16], 128),
  ]),
  ...models('mistral', { vocab: 32768, windows: ['full', 'sliding'] }, [
    size(4096, 14336, [32, 8]),
    size(5120, 14336, [32, 8], 128),
    size(5120, 32768, [32, 8], 128),
  ]),
  {
    // V3 and R1; the distilled models have the shapes of Llama and Qwen. Prefill makes keys and values from the latent
    // vectors, of 512 elements as those of q have 1536; decode over the vectors is no kernel of this library yet.
    family: 'deepseek',
    hidden: 7168,
    innerNorms: [1536, 512],
    intermediate: 18432,
    activation: 'silu',
    vocab: 129280,
    attention: {
      headDim: 192,
      headDimVo: 128,
      numQoHeads: 128,
      numKvHeads: 128,
      windows: ['full'],
      softCap: false,
      latent: true,
    },
  },
  // 20b and 120b. Every attention kernel takes their sinks; the activation, a clamped SwiGLU, is no kernel of this library.
  ...models('gpt-oss', { vocab: 201088, windows: ['full', 'sliding'], activation: 'other' }, [
    size(2880, 2880, [64, 8], 64),
  ]),
];

/** Opt-in shared memory of a block, KiB (CUDA programming guide, table of technical specifications). */
const sharedKib: ReadonlyMap<number, number> = new Map([
  [75, 64],
  [80, 163],
  [86, 99],
  [87, 163],
  [88, 99],
  [89, 99],
  [90, 227],
  [100, 227],
  [103, 227],
  [110, 227],
  [120, 99],
  [121, 99],
]);

export function sharedPerBlock(target: Target): number {
  return sharedKib.get(parseTarget(target).sm)! * 1024;
}

/** The ways to split a feed-forward layer over GPUs. */
export const tensorParallelSizes = [1, 2, 4, 8] as const;
