// SPDX-License-Identifier: Apache-2.0
// `@flashinfer/core/internal`: what the benchmarks of this repository measure below the public API. Not stable.
export type { KernelOptions } from './attention/kernelName.ts';
export { attentionSpecs } from './attention/specs.ts';
export { decodeCandidates, hopperCandidates, prefillCandidates } from './attention/tileCandidates.ts';
export { type TriedTiles, tryTiles } from './attention/tiles.ts';
export { runSync } from './jit/bothWays.ts';
export { findNvcc, nvccCompiler } from './jit/compilers/nvcc.ts';
export { jitEnvironment } from './jit/environment.ts';
export { getKernel, type Kernel } from './jit/kernel.ts';
export { resolveModule } from './jit/resolve.ts';
export type { KernelSpec } from './jit/spec.ts';
export { native } from './native/load.ts';
export { activeCapture } from './runtime/capture.ts';
export { deviceIndex, deviceProperties, parseDevice } from './runtime/device.ts';
export { currentStream } from './runtime/stream.ts';
export { castContiguous, fillNormal } from './tensor/elementwise.ts';
