// SPDX-License-Identifier: Apache-2.0
// `@flashinfer/core/internal`: what the benchmarks of this repository measure below the public API. Not stable.
export { getKernel, type Kernel } from './jit/kernel.ts';
export type { KernelSpec } from './jit/spec.ts';
export { native } from './native/load.ts';
export { deviceIndex, deviceProperties, parseDevice } from './runtime/device.ts';
export { currentStream } from './runtime/stream.ts';
export { castContiguous, fillNormal } from './tensor/elementwise.ts';
