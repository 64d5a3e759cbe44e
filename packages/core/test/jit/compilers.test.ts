// SPDX-License-Identifier: Apache-2.0
// Finding compilers, and what a failed compilation tells.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { CompileError } from '../../src/errors.ts';
import { runAsync, runSync } from '../../src/jit/bothWays.ts';
import { type Compiler, firstError } from '../../src/jit/compilers/compiler.ts';
import { cudaHomes } from '../../src/jit/compilers/cudaHomes.ts';
import { findNvcc } from '../../src/jit/compilers/nvcc.ts';
import { findNvrtc, nvrtcCompiler, nvrtcReleaseHint } from '../../src/jit/compilers/nvrtc.ts';
import { compilerNotFound, compilerRelease, findCompiler } from '../../src/jit/compilers/select.ts';
import { cubinSm } from '../../src/jit/cubin.ts';
import { resolveModule } from '../../src/jit/resolve.ts';
import { native } from '../../src/native/load.ts';
import { findNvrtcHome, requireNvcc, scaleSpec, temporaryFolder, testJit, writeHeader } from './fixture.ts';

const nvcc = requireNvcc();
const nvrtcHome = findNvrtcHome();
const nvrtcLib = nvrtcHome && ['lib64', 'lib'].map((name) => join(nvrtcHome, name)).find((path) => existsSync(path));
/** The loader finds libnvrtc by itself: no variable can hide it from these tests. */
const systemNvrtc = native().nvrtc.probe([]).ok;
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

function noCompilers(): void {
  for (const name of ['CUDA_HOME', 'CUDA_PATH', 'CUDA_ROOT', 'LD_LIBRARY_PATH', 'CONDA_PREFIX']) vi.stubEnv(name, '');
  vi.stubEnv('PATH', '/nonexistent/bin');
  vi.spyOn(cudaHomes, 'usual').mockReturnValue(['/nonexistent/usual']);
}

/** A toolkit folder whose nvcc answers `release`. */
function fakeToolkit(release: string): string {
  const home = temporaryFolder();
  mkdirSync(join(home, 'bin'));
  const script = `#!/bin/sh\necho run >> '${home}/runs'\necho 'Cuda compilation tools, release ${release}, V${release}.1'\n`;
  writeFileSync(join(home, 'bin', 'nvcc'), script, { mode: 0o755 });
  return home;
}

// The stand-ins of nvcc are shell scripts.
describe.skipIf(process.platform === 'win32')('finding nvcc', () => {
  it('prefers CUDA_HOME, then CUDA_PATH, then CUDA_ROOT, then PATH, and asks a program for its version once', () => {
    noCompilers();
    const homes = ['11.9', '12.1', '12.2', '12.3'].map(fakeToolkit);
    vi.stubEnv('PATH', join(homes[3]!, 'bin'));
    expect(findNvcc()).toMatchObject({ path: join(homes[3]!, 'bin', 'nvcc'), release: '12.3' });
    for (const [i, name] of (['CUDA_ROOT', 'CUDA_PATH', 'CUDA_HOME'] as const).entries()) {
      vi.stubEnv(name, homes[2 - i]);
      expect(findNvcc().path).toBe(join(homes[2 - i]!, 'bin', 'nvcc'));
    }
    findNvcc();
    expect(readFileSync(join(homes[0]!, 'runs'), 'utf8')).toBe('run\n');
  });

  it('passes over folders of PATH that it cannot look into', () => {
    noCompilers();
    const home = fakeToolkit('12.5');
    // As a folder of another user's, but for root too.
    const loop = join(temporaryFolder(), 'loop');
    symlinkSync(loop, loop);
    vi.stubEnv('PATH', [loop, join(home, 'bin')].join(delimiter));
    expect(findNvcc()).toMatchObject({ path: join(home, 'bin', 'nvcc'), release: '12.5' });
  });

  it('says what is wrong with a program that is no nvcc', () => {
    const home = temporaryFolder();
    mkdirSync(join(home, 'bin'));
    writeFileSync(join(home, 'bin', 'nvcc'), '#!/bin/sh\necho broken >&2; exit 3\n', { mode: 0o755 });
    vi.stubEnv('CUDA_HOME', home);
    expect(findNvcc()).toMatchObject({
      error: expect.stringMatching(/nvcc --version gives no release \(exit 3: broken\)/),
    });
    expect(findNvcc().release).toBeUndefined();
  });

  it.skipIf(systemNvrtc)('uses no compiler that is too old for the target, and says so', () => {
    noCompilers();
    vi.stubEnv('CUDA_HOME', fakeToolkit('12.4'));
    expect(findCompiler('sm_90a')).toMatchObject({ kind: 'nvcc', release: '12.4' });
    expect(findCompiler('sm_120a')).toBeUndefined();
    expect(compilerNotFound('rmsnorm', 'sm_120a')).toMatchObject({
      code: 'ERR_FLASHINFER_COMPILER_NOT_FOUND',
      message: expect.stringMatching(
        /rmsnorm must be compiled for sm_120a.*CUDA 12.8 or newer.*nvcc of CUDA 12.4 does not know sm_120a/,
      ),
    });
  });

  it.skipIf(systemNvrtc)('lists every place both were looked for, and the ways out', () => {
    noCompilers();
    vi.stubEnv('CUDA_HOME', '/nonexistent/cuda');
    const error = compilerNotFound('rmsnorm', 'sm_90a');
    expect(error).toBeInstanceOf(CompileError);
    for (const part of [
      '/nonexistent/cuda/bin/nvcc',
      '/nonexistent/bin/nvcc',
      '/nonexistent/cuda/lib64',
      '/nonexistent/usual/bin/nvcc',
      '/nonexistent/usual/lib64',
    ]) {
      expect(error.message).toContain(part);
    }
    expect(error.message).toMatch(/libnvrtc.*CUDA_HOME.*@flashinfer\/jit-cache/);
  });
});

describe('firstError', () => {
  it.each([
    [
      'a.cu(3): warning #177-D: unused\na.cu(9): error: identifier "x" is undefined\nb.cu(1): error: y',
      'a.cu(9): error: identifier "x" is undefined',
    ],
    [
      'ptxas info    : 0 bytes gmem\nptxas error   : Entry function uses too much shared data',
      'ptxas error   : Entry function uses too much shared data',
    ],
    [
      "nvcc fatal   : Unsupported gpu architecture 'compute_75x'",
      "nvcc fatal   : Unsupported gpu architecture 'compute_75x'",
    ],
    [
      'k.cu:1:10: fatal error: nothing.h: No such file or directory\n    1 | #include',
      'k.cu:1:10: fatal error: nothing.h: No such file or directory',
    ],
    [
      'k.cu(1): catastrophic error: cannot open source file "x"',
      'k.cu(1): catastrophic error: cannot open source file "x"',
    ],
    [
      'nvrtc: error: failed to open libnvrtc-builtins.so.13.0.',
      'nvrtc: error: failed to open libnvrtc-builtins.so.13.0.',
    ],
    [
      '/usr/bin/ld: final link failed: No space left on device\ncollect2: error: ld returned 1 exit status',
      '/usr/bin/ld: final link failed: No space left on device',
    ],
    ['all is well with terrors', undefined],
  ])('of %j', (log, expected) => {
    expect(firstError(log)).toBe(expected);
  });
});

const compilers: [string, () => Compiler][] = [];
if (nvcc) compilers.push(['nvcc', () => nvcc]);
if (nvrtcHome !== undefined) {
  compilers.push([
    'nvrtc',
    () => {
      vi.stubEnv('CUDA_HOME', nvrtcHome);
      const { path, release } = findNvrtc();
      return nvrtcCompiler(path!, release!);
    },
  ]);
}

describe.each(compilers)('%s', (kind, getCompiler) => {
  const broken = [
    'namespace test { template <class P> __device__ void broken(const P& p) {',
    '  undefined_name();',
    '  also_undefined();',
    '} }',
  ];

  it('compiles for every architecture of its release', async () => {
    const jit = testJit(getCompiler());
    for (const [target, sm] of [
      ['sm_75', 75],
      ['sm_90a', 90],
      ['sm_120a', 120],
    ] as const) {
      const { cubin, origin } = runSync(resolveModule(jit, scaleSpec(2), target, { blocking: true }));
      expect([cubinSm(cubin), origin]).toEqual([sm, 'compiled']);
    }
    const { cubin } = await runAsync(resolveModule(jit, scaleSpec(2), 'sm_80', { blocking: false }));
    expect(cubinSm(cubin)).toBe(80);
  });

  it.each(['blocking', 'on the event loop'])(
    'reports the first error, keeps the source and gives a command that repeats it (%s)',
    async (form) => {
      const jit = testJit(getCompiler());
      writeHeader(jit.includeRoot, 'flashinfer/test/broken.cuh', broken);
      const spec = scaleSpec(2, { name: 'broken', header: 'flashinfer/test/broken.cuh', entry: 'test::broken' });
      const blocking = form === 'blocking';
      const procedure = resolveModule(jit, spec, 'sm_80', { blocking });
      const error = await (async () => (blocking ? runSync(procedure) : await runAsync(procedure)))().then(
        () => expect.unreachable(),
        (thrown: CompileError) => thrown,
      );
      expect(error).toMatchObject({ name: 'CompileError', code: 'ERR_FLASHINFER_COMPILE_FAILED' });
      expect(error.message).toMatch(
        /broken_\w+ does not compile for sm_80 with \w+ \d+\.\d: .*broken\.cuh\(2\): error: .*undefined_name/,
      );
      expect(error.message).not.toContain('also_undefined');
      expect(error.log).toContain('also_undefined');
      expect(error.log).not.toContain('/.tmp/');
      expect(error.sourcePath).toMatch(new RegExp(`^${join(jit.config.cacheRoot, 'failed')}`));
      expect(readFileSync(error.sourcePath!, 'utf8')).toContain('test::broken(params)');
      expect(error.message).toContain(error.command!);
      expect(readdirSync(join(jit.config.cacheRoot, 'sm_80')).filter((name) => !name.startsWith('.'))).toEqual([]);
      expect(readdirSync(join(jit.config.cacheRoot, 'sm_80', '.tmp'))).toEqual([]);
      if (nvcc) {
        const repeat = () => execFileSync('sh', ['-c', error.command!], { cwd: temporaryFolder(), stdio: 'pipe' });
        expect(repeat).toThrow(/undefined_name/);
      }
      // Once mended it compiles: the failure was not cached.
      writeHeader(jit.includeRoot, 'flashinfer/test/broken.cuh', [
        'namespace test { template <class P> __device__ void broken(const P& p) {} }',
      ]);
      expect(runSync(resolveModule(jit, spec, 'sm_80', { blocking: true })).origin).toBe('compiled');
    },
  );

  it(`names itself ${kind} in the entry`, () => {
    const jit = testJit(getCompiler());
    const { path } = runSync(resolveModule(jit, scaleSpec(2), 'sm_80', { blocking: true }));
    expect(JSON.parse(readFileSync(join(path, 'spec.json'), 'utf8')).compiler).toMatchObject({ kind });
  });

  it('marks debug and line-info builds with another key', () => {
    const jit = testJit(getCompiler());
    const codegens = [
      { debug: false, lineInfo: false },
      { debug: false, lineInfo: true },
      { debug: true, lineInfo: false },
    ];
    const modules = codegens.map((codegen) =>
      runSync(
        resolveModule({ ...jit, config: { ...jit.config, codegen } }, scaleSpec(2), 'sm_90a', { blocking: true }),
      ),
    );
    expect(new Set(modules.map((module) => module.uri)).size).toBe(3);
    const [plain, lines, debug] = modules.map((module) => Buffer.from(module.cubin).toString('latin1'));
    expect([plain, lines, debug].map((cubin) => cubin!.includes('.debug_line'))).toEqual([false, true, true]);
    expect([plain, lines, debug].map((cubin) => cubin!.includes('.debug_info'))).toEqual([false, false, true]);
  });
});

describe.skipIf(!nvcc)('nvcc', () => {
  it('without a host compiler says what it needs', () => {
    const jit = testJit(nvcc);
    vi.stubEnv('PATH', '/nonexistent');
    expect(() => runSync(resolveModule(jit, scaleSpec(2), 'sm_80', { blocking: true }))).toThrow(
      /nvcc fatal.*host compiler.*nvcc needs a C\+\+ compiler such as g\+\+ on PATH/,
    );
  });
});

describe.skipIf(nvrtcHome === undefined)('NVRTC', () => {
  it('is preferred to nvcc, and its release is known without opening it', () => {
    vi.stubEnv('CUDA_HOME', nvrtcHome);
    const release = nvrtcReleaseHint();
    expect(release).toMatch(/^\d+\.\d$/);
    expect(findCompiler('sm_90a')).toMatchObject({ kind: 'nvrtc', release });
    expect(compilerRelease('sm_90a')).toBe(release);
  });

  it('is passed over when its library does not open', () => {
    const home = temporaryFolder();
    mkdirSync(join(home, 'lib64'));
    writeFileSync(join(home, 'lib64', 'libnvrtc.so.13'), 'no library');
    vi.stubEnv('CUDA_HOME', home);
    vi.stubEnv('LD_LIBRARY_PATH', nvrtcLib!);
    expect(findNvrtc().path).toMatch(new RegExp(`^${nvrtcLib}`));
  });

  it('shares entries with nvcc of the same release', () => {
    vi.stubEnv('CUDA_HOME', nvrtcHome);
    const { path, release } = findNvrtc();
    const nvrtc = nvrtcCompiler(path!, release!);
    const jit = testJit(nvrtc);
    const resolve = (compiler: Compiler) =>
      runSync(
        resolveModule(
          { ...jit, findCompiler: () => compiler, compilerRelease: () => compiler.release },
          scaleSpec(2),
          'sm_80',
          { blocking: true },
        ),
      );
    expect(resolve(nvrtc).origin).toBe('compiled');
    expect(resolve({ ...nvrtc, kind: 'nvcc' }).origin).toBe('cache');
  });

  it('finds a library through a link, as toolkits install it', () => {
    const home = temporaryFolder();
    mkdirSync(join(home, 'lib64'));
    for (const name of readdirSync(nvrtcLib!)) {
      symlinkSync(join(nvrtcLib!, name), join(home, 'lib64', name));
    }
    vi.stubEnv('CUDA_HOME', home);
    expect(findNvrtc().release).toBe(nvrtcReleaseHint());
  });
});
