// SPDX-License-Identifier: Apache-2.0
export { type ActivationOptions, geluAndMul, geluTanhAndMul, siluAndMul } from './activation/actAndMul.ts';
export { type AotKernelOptions, aotKernels } from './aotKernels.ts';
export { BatchDecodeWithPagedKVCacheWrapper } from './attention/batchDecode.ts';
export type {
  BatchDecodePlanOptions,
  BatchDecodeWrapperOptions,
  BatchPrefillPagedPlanOptions,
  BatchPrefillRaggedPlanOptions,
  BatchRunOptions,
  BatchWrapperOptions,
  PagedKVCache,
} from './attention/batchOptions.ts';
export {
  BatchPrefillWithPagedKVCacheWrapper,
  BatchPrefillWithRaggedKVCacheWrapper,
} from './attention/batchPrefill.ts';
export { BlockSparseAttentionWrapper } from './attention/blockSparse.ts';
export { MultiLevelCascadeAttentionWrapper } from './attention/cascade.ts';
export type { CascadePlanOptions, CascadeRunOptions, CascadeWrapperOptions } from './attention/cascadeOptions.ts';
export {
  type MergeStateInPlaceOptions,
  type MergeStateOptions,
  mergeState,
  mergeStateInPlace,
  mergeStates,
} from './attention/mergeState.ts';
export type {
  AttentionBackend,
  AttentionOptions,
  KvLayout,
  PosEncodingMode,
  SingleDecodeOptions,
  SinglePrefillOptions,
} from './attention/options.ts';
export { singleDecodeWithKVCache, singlePrefillWithKVCache } from './attention/singleAttention.ts';
export type {
  BlockSparsePlanOptions,
  BlockSparseRunOptions,
  SparsePlanOptions,
  SparseWrapperOptions,
  VariableBlockSparsePlanOptions,
  VariableBlockSparseRunOptions,
} from './attention/sparseOptions.ts';
export { VariableBlockSparseAttentionWrapper } from './attention/variableBlockSparse.ts';
export {
  type AttentionVariant,
  type AttentionVariantDefinition,
  defineAttentionVariant,
  type VariantParamType,
  type VariantScalarType,
} from './attention/variant.ts';
export type { VariantParams } from './attention/variantArgs.ts';
export * from './errors.ts';
export type { ModelDType, ModelFamily } from './jit/aotRequest.ts';
export type { KernelSpec, ParamField, ParamType } from './jit/spec.ts';
export { type KernelPlan, type WarmupOptions, type WarmupProgress, warmup } from './jit/warmup.ts';
export type { NormOptions } from './norm/checkNorm.ts';
export { fusedAddRmsnorm, fusedAddRmsnormQuant, gemmaFusedAddRmsnorm } from './norm/fusedAddRmsnorm.ts';
export { type LayernormOptions, layernorm, layernormQuant } from './norm/layernorm.ts';
export { gemmaRmsnorm, type RmsnormOptions, rmsnorm, rmsnormQuant } from './norm/rmsnorm.ts';
export { type AppendPagedKVCacheOptions, appendPagedKVCache } from './page/appendPagedKVCache.ts';
export { type AppendPagedMlaKVCacheOptions, appendPagedMlaKVCache } from './page/appendPagedMlaKVCache.ts';
export type { AppendIndices } from './page/appendTable.ts';
export { type BatchIndicesPositionsOptions, getBatchIndicesPositions } from './page/getBatchIndicesPositions.ts';
export { getSeqLens } from './page/getSeqLens.ts';
export type { PageIndices } from './page/indexArrays.ts';
export { type DequantizeFp8Options, dequantizeFp8 } from './quantization/dequantizeFp8.ts';
export { type PackbitsOptions, packbits, segmentPackbits } from './quantization/packbits.ts';
export {
  type Fp8DType,
  type QuantizeFp8Options,
  type QuantizeFp8PerBlockOptions,
  type QuantizeFp8PerTensorOptions,
  quantizeFp8PerBlock,
  quantizeFp8PerTensor,
  quantizeFp8PerToken,
  type ScaleMajorMode,
} from './quantization/quantizeFp8.ts';
export { applyLlama31Rope, applyLlama31RopeInplace, applyRope, applyRopeInplace } from './rope/applyRope.ts';
export {
  applyLlama31RopePosIds,
  applyLlama31RopePosIdsInplace,
  applyRopePosIds,
  applyRopePosIdsInplace,
} from './rope/applyRopePosIds.ts';
export {
  applyRopeWithCosSinCache,
  applyRopeWithCosSinCacheInplace,
  type CosSinCacheOptions,
} from './rope/applyRopeWithCosSinCache.ts';
export type { Llama31RopeOptions, RopeOptions } from './rope/ropeOptions.ts';
export * as cuda from './runtime/cuda.ts';
export { type Device, defaultDevice, setDefaultDevice } from './runtime/device.ts';
export { manualSeed } from './runtime/seed.ts';
export { setNumThreads } from './runtime/threads.ts';
export { type ChainSpeculativeOptions, chainSpeculativeSampling } from './sampling/chainSpeculative.ts';
export { minPSamplingFromProbs, topKSamplingFromProbs, topPSamplingFromProbs } from './sampling/filteredSampling.ts';
export { LogitsPipe, type LogitsPipeOptions, type PipeParams, type PipeResult } from './sampling/logitsPipe.ts';
export {
  type LogitsProcessor,
  MinP,
  type PipeInput,
  Sample,
  type SampleProcessorOptions,
  Softmax,
  Temperature,
  TopK,
  type TopKProcessorOptions,
  TopP,
} from './sampling/logitsProcessors.ts';
export { topKMaskLogits, topKRenormProbs, topPRenormProbs } from './sampling/renorm.ts';
export { samplingFromLogits, samplingFromProbs } from './sampling/sampling.ts';
export type { DrawOptions, ProbsSamplingOptions, SamplingOptions, ValidTokens } from './sampling/samplingOptions.ts';
export type { PerRow } from './sampling/samplingRun.ts';
export { type SoftmaxOptions, softmax } from './sampling/softmax.ts';
export {
  type FilterApplyOrder,
  type TopKTopPProbsOptions,
  type TopKTopPSamplingOptions,
  topKTopPSamplingFromLogits,
  topKTopPSamplingFromProbs,
} from './sampling/topKTopPSampling.ts';
export { type Config, showConfig } from './showConfig.ts';
export {
  type ArangeOptions,
  arange,
  type BitsOptions,
  type DataOptions,
  empty,
  fromBits,
  full,
  ones,
  type RandomOptions,
  rand,
  randn,
  type Shape,
  type TensorOptions,
  tensor,
  zeros,
} from './tensor/create.ts';
export type { DType, OutputDType, SameDType } from './tensor/dtype.ts';
export type { HostArray, HostArrayOf, TensorData } from './tensor/hostData.ts';
export { Tensor } from './tensor/tensor.ts';
export { type TopKOptions, type TopKTieBreak, topK } from './topk/topk.ts';
export { version } from './version.ts';
