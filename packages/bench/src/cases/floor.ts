// SPDX-License-Identifier: Apache-2.0
// What the launches of small and streaming operators cannot go below: an empty kernel, rows that are found through
// indices, and copies of the same bytes in the same layout.
import { randn, zeros } from '@flashinfer/core';
import { currentStream, deviceIndex, getKernel, type KernelSpec } from '@flashinfer/core/internal';
import type { DeviceCase } from './benchCase.ts';

const threads = 128;
const bytesPerAccess = 16;

/** A thread an access; `links` indices, each found by the one before, come before it. */
const copyKernel: KernelSpec = {
  name: 'bench_copy',
  header: 'flashinfer/vector.cuh',
  prelude: `namespace bench {
template <class Params> __device__ void copy(const Params& params) {
  long long at = blockIdx.y * params.distance + blockIdx.x * blockDim.x + threadIdx.x;
  int index = 0;
  for (int i = 0; i < params.links; ++i) {
    index = flashinfer::load_once<int, 1>(static_cast<const int*>(params.indices) + i * params.spacing + index).words[0];
  }
  at += index;
  const auto data = flashinfer::load_once<float, 4>(static_cast<const float*>(params.src) + 4 * at);
  flashinfer::store<float, 4>(static_cast<float*>(params.dst) + 4 * at, data);
}
}`,
  entry: 'bench::copy',
  params: [
    { name: 'src', type: 'ptr' },
    { name: 'dst', type: 'ptr' },
    { name: 'indices', type: 'ptr' },
    { name: 'distance', type: 'i64' },
    { name: 'links', type: 'i32' },
    { name: 'spacing', type: 'i32' },
  ],
  threads,
};

interface CopyShape {
  readonly rows: number;
  /** Bytes of a row that are copied, and from one row to the next. */
  readonly bytes: number;
  readonly distance: number;
  readonly inPlace: boolean;
  readonly links: number;
}

function copyCase(name: string, shape: CopyShape): DeviceCase {
  const { rows, bytes, distance, inPlace, links } = shape;
  return {
    kind: 'device',
    name: `floor/${name}`,
    params: { ...shape },
    devices: ['cuda'],
    bytes: 2 * rows * bytes,
    flops: 0,
    setup({ device }, rotations) {
      const index = deviceIndex(device);
      const kernel = getKernel(copyKernel, index);
      const spacing = 1 << 16;
      const indices = zeros([Math.max(links, 1) * spacing], { dtype: 'int32', device });
      const draw = (seed: number) => randn([(rows * distance) / 4], { dtype: 'float32', device, seed });
      const sets = Array.from({ length: rotations }, (_, n) => {
        const src = draw(2 * n);
        return { src, dst: inPlace ? src : draw(2 * n + 1) };
      });
      const grid = [bytes / bytesPerAccess / threads, rows, 1] as const;
      return {
        run(rotation) {
          const { src, dst } = sets[rotation]!;
          const args = {
            src: Number(src.dataPtr),
            dst: Number(dst.dataPtr),
            indices: Number(indices.dataPtr),
            distance: distance / bytesPerAccess,
            links,
            spacing,
          };
          kernel.launch(grid, args, { stream: currentStream(index) });
        },
        dispose() {
          for (const { src, dst } of sets) for (const x of new Set([src, dst])) x.dispose();
          indices.dispose();
        },
      };
    },
  };
}

const emptyKernel: KernelSpec = {
  name: 'bench_nothing',
  header: 'flashinfer/dtype.cuh',
  prelude: 'namespace bench { template <class Params> __device__ void nothing(const Params&) {} }',
  entry: 'bench::nothing',
  params: [{ name: 'unused', type: 'ptr' }],
  threads,
};

const emptyCase: DeviceCase = {
  kind: 'device',
  name: 'floor/empty',
  params: {},
  devices: ['cuda'],
  bytes: 1,
  flops: 0,
  setup({ device }) {
    const index = deviceIndex(device);
    const kernel = getKernel(emptyKernel, index);
    return {
      run: () => kernel.launch([1, 1, 1], { unused: 0 }, { stream: currentStream(index) }),
      dispose: () => {},
    };
  },
};

const contiguous = (bytes: number, links = 0): CopyShape => ({
  rows: 1,
  bytes,
  distance: bytes,
  inPlace: false,
  links,
});
const mebibyte = 2 ** 20;

export const floorCases: DeviceCase[] = [
  emptyCase,
  copyCase('row_1x4096', contiguous(8192)),
  // rope: the position, its row of the table, which waits as the heads do; append: the request, its pages, the page.
  copyCase('row_1x4096_by_1_index', contiguous(8192, 1)),
  copyCase('row_1x4096_by_3_indices', contiguous(8192, 3)),
  copyCase('copy_as_append_B16_A1024', contiguous(64 * mebibyte)),
  copyCase('copy_as_rmsnorm_8192x8192', contiguous(128 * mebibyte)),
  copyCase('copy_as_fused_add_rmsnorm_8192x8192', contiguous(256 * mebibyte)),
  copyCase('copy_as_rope_inplace_T8192', { rows: 8192, bytes: 40 * 256, distance: 48 * 256, inPlace: true, links: 0 }),
];
