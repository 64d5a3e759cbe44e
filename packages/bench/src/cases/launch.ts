// SPDX-License-Identifier: Apache-2.0
// Host cost of one launch: through Kernel.launch, through the addon alone, and of a whole operator call.
import { randn, singleDecodeWithKVCache } from '@flashinfer/core';
import { currentStream, deviceIndex, getKernel, type KernelSpec, native } from '@flashinfer/core/internal';
import { hostSamples } from '../timing/host.ts';
import type { BenchContext, HostCase, HostSamples } from './benchCase.ts';

/** A kernel that does nothing, with a parameter struct of usual size. */
const emptyKernel: KernelSpec = {
  name: 'bench_empty',
  header: 'flashinfer/dtype.cuh',
  prelude: 'namespace bench { template <class Params> __device__ void empty(const Params&) {} }',
  entry: 'bench::empty',
  params: [
    { name: 'src', type: 'ptr' },
    { name: 'dst', type: 'ptr' },
    { name: 'count', type: 'i64' },
    { name: 'scale', type: 'f32' },
  ],
  threads: 32,
};

/** Launches between two synchronisations: few enough that the driver's queue never fills and blocks. */
const burst = 256;

function launchSamples({ device, quick }: BenchContext): HostSamples[] {
  const index = deviceIndex(device);
  const stream = currentStream(index);
  const synchronize = (): void => native().cuda.streamSynchronize(stream);
  const kernel = getKernel(emptyKernel, index);
  const args = { src: 0, dst: 0, count: 1, scale: 1 };
  const grid = [1, 1, 1] as const;
  const options = { stream };
  const { cuda } = native();
  const rounds = quick ? 5 : 200;
  const q = randn([32, 128], { dtype: 'bfloat16', device, seed: 1 });
  const k = randn([1, 8, 128], { dtype: 'bfloat16', device, seed: 2 });
  const out = randn([32, 128], { dtype: 'bfloat16', device, seed: 3 });
  const decode = { out };
  const variants: [string, () => void][] = [
    ['Kernel.launch', () => kernel.launch(grid, args, options)],
    ['addon launch', () => cuda.launch(kernel.handle, 1, 1, 1, emptyKernel.threads, 0, stream, 0, false)],
    ['singleDecodeWithKVCache, out given', () => singleDecodeWithKVCache(q, k, k, decode)],
  ];
  return hostSamples(variants, { burst, rounds, synchronize });
}

export const launchCases: HostCase[] = [
  {
    kind: 'host',
    name: 'launch/cuda',
    params: { burst },
    devices: ['cuda'],
    anchor: 'launch_rmsnorm',
    measure: async (context) => launchSamples(context),
  },
];
