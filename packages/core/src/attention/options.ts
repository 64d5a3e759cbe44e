// SPDX-License-Identifier: Apache-2.0
// Options of the attention operators, their defaults, and their checks.
import { describeValue } from '../check/describeValue.ts';
import { checkOptions } from '../check/options.ts';
import { InvalidArgumentError, UnsupportedError } from '../errors.ts';
import { type Device, deviceIndex, parseDevice, smArch } from '../runtime/device.ts';
import type { DType } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import { AttentionVariant } from './variant.ts';
import type { VariantParams } from './variantArgs.ts';

/** How keys and values are laid out: `NHD` is `[length, heads, headDim]`, `HND` is `[heads, length, headDim]`. */
export type KvLayout = 'NHD' | 'HND';

/**
 * Positions inside attention: `ROPE_LLAMA` rotates q and k on the fly (halves paired, not interleaved), `ALIBI` adds
 * `slope[head] * (kvIdx - qoIdx)` to the logits.
 */
export type PosEncodingMode = 'NONE' | 'ROPE_LLAMA' | 'ALIBI';

/** `auto` picks the best template for the device; `fa2` runs on cuda only, `cpu` on cpu only. */
export type AttentionBackend = 'auto' | 'fa2' | 'fa3' | 'cpu';

/** Options that all single-request attention operators share. */
export interface AttentionOptions {
  /** Layout of k and v. Default `'NHD'`. */
  kvLayout?: KvLayout;
  /** Default `'NONE'`. */
  posEncodingMode?: PosEncodingMode;
  /** Tokens left of a query's own position that stay visible; 0 sees only itself. Default -1: all. */
  windowLeft?: number;
  /** Caps logits to `cap * tanh(logit / cap)`. Default 0: off. */
  logitsSoftCap?: number;
  /** Factor of q·k. Default `1 / sqrt(headDim)`. */
  smScale?: number;
  /** Divides positions, with ROPE_LLAMA. Default 1. */
  ropeScale?: number;
  /** Base of the rotary frequencies, with ROPE_LLAMA. Default 10000. */
  ropeTheta?: number;
  /** Calibration scale of q. With float8 q in prefill also a float32 tensor `[numQoHeads]`. Default 1. */
  qScale?: number | Tensor;
  /** Calibration scale of k. With float8 q in prefill also a float32 tensor `[numKvHeads]`. Default 1. */
  kScale?: number | Tensor;
  /** Calibration scale of v. With float8 q in prefill also a float32 tensor `[numKvHeads]`. Default 1. */
  vScale?: number | Tensor;
  /** Also return the log-sum-exp of the logits. Default false. */
  returnLse?: boolean;
  /** Base of the returned log-sum-exp: 2, as FlashInfer's and as `mergeState` expects, or e. Default `'2'`. */
  lseBase?: '2' | 'e';
  /**
   * float32 `[numQoHeads]`: the sink of each head, one more logit (natural, after smScale) without a value that joins the
   * softmax of every row. The lse includes it; a row that sees no key gets output 0 and the sink as its lse. Default: none.
   */
  sinks?: Tensor;
  /** Where to write the output, shape and dtype as q; may be strided. Default: a new tensor. */
  out?: Tensor;
  /** Default `'auto'`. */
  backend?: AttentionBackend;
  /** A custom variant, from `defineAttentionVariant`. Default: none. */
  variant?: AttentionVariant;
  /** Values of the variant's params, by name. */
  variantParams?: VariantParams;
}

/** Options of `singleDecodeWithKVCache`. */
export interface SingleDecodeOptions extends AttentionOptions {
  /** Accepted so that FlashInfer's calls carry over; the decode kernel uses tensor cores for every group size. */
  useTensorCores?: boolean;
}

/** Options of `singlePrefillWithKVCache`. */
export interface SinglePrefillOptions extends AttentionOptions {
  /** With float8 q: dtype of a new output. Default: of `out`, or `'float16'`. */
  outDtype?: 'float16' | 'bfloat16';
  /** Query i sees keys up to i + kvLen - qoLen. Default false. */
  causal?: boolean;
  /** bool `[qoLen, kvLen]`, true where a key is visible. Replaces `causal`. */
  customMask?: Tensor;
  /** uint8 `[ceil(qoLen * kvLen / 8)]`: the same mask flattened, little-endian bits. */
  packedCustomMask?: Tensor;
}

/** The numbers of a call after defaults; `smScale` has qScale and kScale in it, `lseFactor` converts from base 2. */
export interface AttentionNumbers {
  readonly kvLayout: KvLayout;
  readonly posEncodingMode: PosEncodingMode;
  readonly windowLeft: number;
  readonly logitsSoftCap: number;
  readonly smScale: number;
  readonly ropeScale: number;
  readonly ropeTheta: number;
  readonly vScale: number;
  readonly lseFactor: number;
  readonly variant: AttentionVariant | undefined;
}

const shared: readonly (keyof AttentionOptions)[] = [
  'kvLayout',
  'posEncodingMode',
  'windowLeft',
  'logitsSoftCap',
  'smScale',
  'ropeScale',
  'ropeTheta',
  'qScale',
  'kScale',
  'vScale',
  'returnLse',
  'lseBase',
  'sinks',
  'out',
  'backend',
  'variant',
  'variantParams',
];
export const decodeOptionNames: ReadonlySet<string> = new Set<keyof SingleDecodeOptions>([...shared, 'useTensorCores']);
export const prefillOptionNames: ReadonlySet<string> = new Set<keyof SinglePrefillOptions>([
  ...shared,
  'outDtype',
  'causal',
  'customMask',
  'packedCustomMask',
]);

const kvLayouts: readonly KvLayout[] = ['NHD', 'HND'];
const posEncodingModes: readonly PosEncodingMode[] = ['NONE', 'ROPE_LLAMA', 'ALIBI'];
const backends: readonly AttentionBackend[] = ['auto', 'fa2', 'fa3', 'cpu'];
const lseBases = ['2', 'e'] as const;
const maxWindow = 2 ** 31 - 1;

/** Options of `plan()` that readBatchNumbers reads; lengths and dtypes are the wrapper's. */
type BatchNumberOptions = Pick<
  AttentionOptions,
  'posEncodingMode' | 'windowLeft' | 'logitsSoftCap' | 'smScale' | 'ropeScale' | 'ropeTheta' | 'variant'
>;

/** As readNumbers, for a plan: scales of a call and the lse base come with `run()`. */
export function readBatchNumbers(
  functionName: string,
  options: BatchNumberOptions,
  allowed: ReadonlySet<string>,
  kvLayout: KvLayout,
  headDim: number,
): AttentionNumbers {
  checkOptions(functionName, options, allowed);
  const { posEncodingMode, windowLeft, logitsSoftCap, smScale, ropeScale, ropeTheta, variant } = options;
  const numbers = { kvLayout, posEncodingMode, windowLeft, logitsSoftCap, smScale, ropeScale, ropeTheta, variant };
  return readNumbers(functionName, numbers, decodeOptionNames, headDim);
}

export const runOptionNames: ReadonlySet<string> = new Set([
  'sinks',
  'out',
  'lse',
  'returnLse',
  'lseBase',
  'qScale',
  'kScale',
  'vScale',
  'variantParams',
]);

/** What a `run()` adds to its plan's numbers. */
export function readRunNumbers(
  functionName: string,
  options: Pick<AttentionOptions, 'returnLse' | 'lseBase' | 'qScale' | 'kScale' | 'vScale'>,
  planned: Pick<AttentionNumbers, 'smScale' | 'variant'>,
): Pick<AttentionNumbers, 'smScale' | 'vScale' | 'lseFactor'> {
  checkOptions(functionName, options, runOptionNames);
  flag(functionName, 'returnLse', options.returnLse);
  if (planned.variant !== undefined) checkLse(functionName, planned.variant, options.returnLse);
  const lseBase = oneOf(functionName, 'lseBase', options.lseBase, lseBases);
  const qScale = scale(functionName, 'qScale', ofTensor(options.qScale), 1);
  const kScale = scale(functionName, 'kScale', ofTensor(options.kScale), 1);
  return {
    smScale: planned.smScale * qScale * kScale,
    vScale: scale(functionName, 'vScale', ofTensor(options.vScale), 1),
    lseFactor: lseBase === 'e' ? Math.LN2 : 1,
  };
}

/** Checks every option that is not a tensor, and applies the defaults. */
export function readNumbers(
  functionName: string,
  options: AttentionOptions,
  allowed: ReadonlySet<string>,
  headDim: number,
): AttentionNumbers {
  checkOptions(functionName, options, allowed);
  flag(functionName, 'returnLse', options.returnLse);
  if (options.variant !== undefined) checkVariant(functionName, options.variant, options);
  const kvLayout = oneOf(functionName, 'kvLayout', options.kvLayout, kvLayouts, 'ERR_FLASHINFER_INVALID_LAYOUT');
  const lseBase = oneOf(functionName, 'lseBase', options.lseBase, lseBases);
  const smScale = scale(functionName, 'smScale', options.smScale, 1 / Math.sqrt(headDim));
  const qScale = scale(functionName, 'qScale', ofTensor(options.qScale), 1);
  const kScale = scale(functionName, 'kScale', ofTensor(options.kScale), 1);
  return {
    kvLayout: kvLayout ?? 'NHD',
    posEncodingMode: oneOf(functionName, 'posEncodingMode', options.posEncodingMode, posEncodingModes) ?? 'NONE',
    windowLeft: window(functionName, options.windowLeft),
    logitsSoftCap: softCap(functionName, options.logitsSoftCap),
    smScale: smScale * qScale * kScale,
    ropeScale: scale(functionName, 'ropeScale', options.ropeScale, 1),
    ropeTheta: scale(functionName, 'ropeTheta', options.ropeTheta, 1e4),
    vScale: scale(functionName, 'vScale', ofTensor(options.vScale), 1),
    lseFactor: lseBase === 'e' ? Math.LN2 : 1,
    variant: options.variant,
  };
}

/** Scales a head are tensors and none of these numbers; headScales.ts checks them. */
function ofTensor(value: number | Tensor | undefined): number | undefined {
  return value instanceof Tensor ? undefined : value;
}

/** A variant replaces what the built-in ones do to logits: which of the two comes first would be a guess. */
function checkVariant(functionName: string, variant: AttentionVariant, options: AttentionOptions): void {
  if (!(variant instanceof AttentionVariant)) {
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `${functionName}: variant is ${describeValue(variant)}; expected what defineAttentionVariant returns; pass its definition there`,
    );
  }
  const { logitsSoftCap = 0, posEncodingMode } = options;
  if (logitsSoftCap !== 0 || posEncodingMode === 'ALIBI') {
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `${functionName}: variant ${variant.name} and ${logitsSoftCap !== 0 ? 'logitsSoftCap' : 'posEncodingMode ALIBI'} ` +
        "are given; expected one of them; write the other into the variant's logitsTransform",
    );
  }
  checkLse(functionName, variant, options.returnLse);
}

function checkLse(functionName: string, variant: AttentionVariant, returnLse: boolean | undefined): void {
  if (returnLse !== true || variant.useSoftmax) return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${functionName}: returnLse is true and variant ${variant.name} has useSoftmax false; expected returnLse with softmax ` +
      'only: without it there is no log-sum-exp; leave returnLse out',
  );
}

/** True or undefined counts as given; anything else that is no boolean is refused. */
export function flag(functionName: string, name: string, value: boolean | undefined): boolean {
  if (value === undefined || typeof value === 'boolean') return value ?? false;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${functionName}: ${name} is ${describeValue(value)}; expected true or false; leave it out for the default`,
  );
}

/** Refuses a backend that cannot run on the tensors' device. */
export function checkBackend(functionName: string, backend: AttentionBackend | undefined, device: string): void {
  oneOf(functionName, 'backend', backend, backends);
  if (backend === undefined || backend === 'auto') return;
  const wanted = backend === 'cpu' ? 'cpu' : 'cuda';
  if (device.startsWith(wanted)) {
    if (backend === 'fa3') checkHopper(functionName, parseDevice(device));
    return;
  }
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${functionName}: backend '${backend}' runs on ${wanted}, but the tensors are on ${device}; ` +
      `use backend 'auto' or move the tensors with .to('${wanted === 'cpu' ? 'cpu' : 'cuda:0'}')`,
  );
}

/** The fa3 template is compiled for sm_90a, which is compute capability 9.0 and nothing else. */
function checkHopper(functionName: string, device: Device): void {
  const arch = smArch(deviceIndex(device));
  if (arch === 90) return;
  throw new UnsupportedError(
    'ERR_FLASHINFER_UNSUPPORTED_ARCH',
    `${functionName}: backend 'fa3' needs a Hopper GPU (sm_90) and ${device} is sm_${arch}; expected 'auto' or 'fa2'`,
  );
}

function oneOf<T extends string>(
  functionName: string,
  name: string,
  value: T | undefined,
  allowed: readonly T[],
  code: 'ERR_FLASHINFER_INVALID_ARGUMENT' | 'ERR_FLASHINFER_INVALID_LAYOUT' = 'ERR_FLASHINFER_INVALID_ARGUMENT',
): T | undefined {
  if (value === undefined || allowed.includes(value)) return value;
  const list = allowed.map((v) => `'${v}'`).join(', ');
  throw new InvalidArgumentError(code, `${functionName}: ${name} is ${describeValue(value)}; expected one of ${list}`);
}

/** A finite number above zero: a scale of 0 or NaN would silently make every logit alike or NaN. */
function scale(functionName: string, name: string, value: number | Tensor | undefined, fallback: number): number {
  if (value === undefined) return fallback;
  if (typeof value === 'number' && value > 0 && value < Infinity) return value;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_SCALE',
    `${functionName}: ${name} is ${describeValue(value)}; expected a finite number above 0`,
  );
}

/** Dtypes that the output may have, the first where none is given. */
export function readOutDtypes(
  functionName: string,
  options: Pick<SinglePrefillOptions, 'outDtype'>,
  qDtype: DType,
): readonly DType[] {
  const { outDtype } = options;
  oneOf(functionName, 'outDtype', outDtype, ['float16', 'bfloat16']);
  if (qDtype === 'float8_e4m3fn') return outDtype === undefined ? ['float16', 'bfloat16'] : [outDtype];
  if (outDtype === undefined || outDtype === qDtype) return [qDtype];
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${functionName}: outDtype is ${outDtype} and q is ${qDtype}; expected outDtype with float8_e4m3fn q only; leave it out`,
  );
}

function softCap(functionName: string, value: number | undefined): number {
  if (value === undefined) return 0;
  if (typeof value === 'number' && value >= 0 && value < Infinity) return value;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_SCALE',
    `${functionName}: logitsSoftCap is ${describeValue(value)}; expected a finite number above 0, or 0 for no cap`,
  );
}

function window(functionName: string, value: number | undefined): number {
  if (value === undefined) return -1;
  if (Number.isInteger(value) && value >= -1 && value <= maxWindow) return value;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_WINDOW',
    `${functionName}: windowLeft is ${describeValue(value)}; expected an integer from 0 to ${maxWindow}, or -1 for no window`,
  );
}
