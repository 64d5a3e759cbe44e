// SPDX-License-Identifier: Apache-2.0
// operators.test.ts on the fake driver of an H200, with a compiler that compiles nothing.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { failuresIn, passedIn, vitest } from '../../core/test/aot/vitestReport.ts';
import { FakeCuda } from '../../core/test/native/fakeCuda/fakeCuda.ts';
import { fakeToolkit } from '../../core/test/native/fakeCuda/fakeToolkit.ts';

const fake = new FakeCuda();
const folder = mkdtempSync(join(tmpdir(), 'flashinfer-bench-'));
afterAll(() => {
  fake.dispose();
  rmSync(folder, { recursive: true });
});

// Where there is a GPU there may be NVRTC, which compiles for real and comes before the fake nvcc.
const possible = process.platform === 'linux' && (process.env.FLASHINFER_TEST_DEVICE ?? 'cpu') === 'cpu';

it.runIf(possible)('has a case for every operator that runs on a GPU', () => {
  const child = spawnSync(process.execPath, [vitest, 'run', '--reporter=json', 'test/operators.test.ts'], {
    cwd: join(import.meta.dirname, '..'),
    env: {
      ...process.env,
      LD_LIBRARY_PATH: fake.library('tensor_maps'),
      // Compute capability, opt-in shared memory and multiprocessors (numbers of CUdevice_attribute).
      FAKE_CUDA_ATTRIBUTES: ' 75=9 76=0 97=232448 81=233472 16=132',
      FAKE_CUDA_MEMORY: '16384',
      FAKE_CUDA_UNTOUCHED: '1',
      FLASHINFER_TEST_DEVICE: 'cuda:0',
      FLASHINFER_WORKSPACE_BASE: folder,
      FLASHINFER_DISABLE_JIT: '',
      // Kernels that no package holds, where this checkout has built some.
      FLASHINFER_JIT_LINEINFO: '1',
      CUDA_HOME: fakeToolkit(join(folder, 'toolkit'), 90),
    },
    encoding: 'utf8',
    timeout: 110_000,
  });
  expect(failuresIn(child.stdout)).toEqual([]);
  expect(passedIn(child.stdout), child.stderr).toBeGreaterThan(50);
});
