// SPDX-License-Identifier: Apache-2.0
// A machine with a GPU, the kernels of the add-on packages and no compiler: the calls of modelCalls.test.ts on the driver
// made for tests, where a kernel that is not prebuilt is an error that names it.
import { spawnSync } from 'node:child_process';
import { afterAll, describe, expect, it } from 'vitest';
import { prebuildKernels } from '../../src/aot.ts';
import { aotKernels } from '../../src/aotKernels.ts';
import { modelShapes } from '../../src/jit/aotRequest.ts';
import { namedTarget, parseTarget } from '../../src/jit/arch.ts';
import type { Compiler } from '../../src/jit/compilers/compiler.ts';
import { packageRoot } from '../../src/packageRoot.ts';
import { onCuda } from '../device.ts';
import { temporaryFolder } from '../jit/fixture.ts';
import { FakeCuda } from '../native/fakeCuda/fakeCuda.ts';
import { stubCubin } from '../native/fakeCuda/fakeToolkit.ts';
import { failuresIn, passedIn, vitest } from './vitestReport.ts';

const fake = new FakeCuda();
afterAll(() => fake.dispose());

/** A compiler that compiles nothing. */
function stubCompiler(sm: number): Compiler {
  const compiled = { cubin: stubCubin(sm), log: '' };
  const step = { sync: () => compiled, async: async () => compiled };
  return { kind: 'nvcc', release: '13.0', path: 'stub', compile: () => step, command: () => 'stub' };
}

describe.runIf(process.platform === 'linux' && !onCuda)('what models call is compiled ahead of time', () => {
  // Compute capability, shared memory a block and multiprocessor, multiprocessors, L2 cache (numbers of CUdevice_attribute).
  it.each([
    ['7.5', 'float16', ' 75=7 76=5 97=65536 81=65536 16=40 38=4194304'],
    ['8.0', 'float16', ' 75=8 76=0 97=166912 81=167936 16=108 38=41943040'],
    ['8.6', 'bfloat16', ' 75=8 76=6 97=101376 81=102400 16=84 38=6291456'],
    ['9.0a', 'bfloat16', ' 75=9 76=0 97=232448 81=233472 16=132 38=52428800'],
    ['10.0a', 'bfloat16', ' 75=10 76=0 97=232448 81=233472 16=148 38=132120576'],
    ['12.0a', 'float16', ' 75=12 76=0 97=101376 81=102400 16=170 38=100663296'],
  ] as const)('for %s in %s', async (arch, dtype, attributes) => {
    const folder = temporaryFolder();
    const target = namedTarget(arch);
    const compiler = stubCompiler(parseTarget(target).sm);
    await prebuildKernels({ folder, target, specs: aotKernels({ arch, dtypes: [dtype] }), compiler });
    const { stdout, stderr } = spawnSync(
      process.execPath,
      [vitest, 'run', '--reporter=json', 'test/aot/modelCalls.test.ts'],
      {
        cwd: packageRoot(),
        env: {
          ...process.env,
          LD_LIBRARY_PATH: fake.library('tensor_maps'),
          FAKE_CUDA_ATTRIBUTES: attributes,
          FAKE_CUDA_MEMORY: '16384',
          FAKE_CUDA_UNTOUCHED: '1',
          FLASHINFER_TEST_DEVICE: 'cuda:0',
          FLASHINFER_TEST_MODEL_DTYPE: dtype,
          FLASHINFER_WORKSPACE_BASE: temporaryFolder(),
          FLASHINFER_CUBIN_DIR: folder,
          FLASHINFER_DISABLE_JIT: '1',
          FLASHINFER_NO_DOWNLOAD: '1',
        },
        encoding: 'utf8',
        timeout: 110_000,
      },
    );
    expect(failuresIn(stdout), stderr).toEqual([]);
    expect(passedIn(stdout)).toBe(modelShapes.length);
  });
});
