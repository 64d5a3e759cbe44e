// SPDX-License-Identifier: Apache-2.0
// The built command as users run it, on this machine and on the fake driver.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { aotKernels } from '../../src/aotKernels.ts';
import { diagnose } from '../../src/cli/doctor.ts';
import { jitConfig } from '../../src/jit/config.ts';
import { prebuild } from '../../src/jit/prebuilt/build.ts';
import { packageRoot, packageVersion } from '../../src/packageRoot.ts';
import { type Config, showConfig } from '../../src/showConfig.ts';
import { temporaryFolder } from '../jit/fixture.ts';
import { stubCompiler } from '../jit/stubCompiler.ts';
import { FakeCuda } from '../native/fakeCuda/fakeCuda.ts';

const bin = join(packageRoot(), 'bin/flashinfer.js');

function run(args: string[], env: Record<string, string> = {}) {
  const base = temporaryFolder();
  const child = spawnSync(process.execPath, [bin, ...args], {
    env: { ...process.env, FORCE_COLOR: '1', FLASHINFER_WORKSPACE_BASE: base, ...env },
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { out: child.stdout, err: child.stderr, status: child.status };
}

const commands = [
  ...['show-config', 'list-modules', 'module-status', 'list-cubins', 'download-cubin', 'clear-cubin', 'clear-cache'],
  ...['install-jit-cache', 'collect-env', 'doctor', 'export-compile-commands'],
];

describe('flashinfer', () => {
  it('lists every command, and describes each', () => {
    const { out, status } = run(['--help']);
    expect(status).toBe(0);
    for (const command of commands) expect(out).toMatch(new RegExp(`^  ${command} .*\\w`, 'm'));
    expect(out).not.toContain('\u001b[');
  });

  it.each([
    [['no-such-command'], /unknown command/],
    [['module-status', '--filter', 'some'], /Allowed choices are all, compiled, not-compiled/],
    [['download-cubin', '--arch', '9.9'], /'9.9' is not known/],
    [['download-cubin', '--arch', '9.0'], /no repository is set/],
    [['list-cubins', '--arch', '9.0'], /set FLASHINFER_CUBINS_REPOSITORY/],
    [['install-jit-cache', '/nonexistent.tgz'], /does not exist/],
    [['list-modules', 'no_such_module'], /no module has no_such_module in its name/],
    [['export-compile-commands', '/tmp/compile_commands.json'], /has the name of a file; expected a folder/],
    [['export-compile-commands', bin], /flashinfer\.js cannot be written \(EEXIST.*name another one/],
  ])('%j ends with 1 and a sentence', (args, message) => {
    const { err, status } = run(args);
    expect(status).toBe(1);
    expect(err).toMatch(message);
    expect(err).not.toMatch(/^\s+at /m);
  });

  it('writes sources and commands for editors', () => {
    const folder = temporaryFolder();
    const { out, status } = run(['export-compile-commands', folder, '--arch', '8.0']);
    expect([status, out]).toEqual([0, expect.stringMatching(/^Exported \d+ compile commands to /)]);
    const [first] = JSON.parse(readFileSync(join(folder, 'compile_commands.json'), 'utf8'));
    expect(first.arguments).toContain('-arch=sm_80');
    expect(existsSync(first.file)).toBe(true);
    const again = run(['export-compile-commands', folder, '--arch', '8.0', '--json']);
    const path = join(folder, 'compile_commands.json');
    expect(JSON.parse(again.out)).toEqual({ path, commands: aotKernels({ arch: '8.0' }).length });
  });

  it('collects machine, findings and configuration as JSON', () => {
    const report = JSON.parse(run(['collect-env', '--json']).out);
    expect(Object.keys(report)).toEqual(['machine', 'nvidiaSmi', 'findings', 'config']);
    expect(report.config.versions.core).toBe(packageVersion());
  });

  it.each([[['--detailed']], [['--json']]])('ends quietly when the reader of module-status %j has enough', (args) => {
    const command = `"${process.execPath}" "${bin}" module-status --arch 9.0 ${args.join(' ')} | head -1; echo "\${PIPESTATUS[0]}"`;
    const { stdout, stderr } = spawnSync('bash', ['-c', command], { encoding: 'utf8' });
    expect([stdout.trim().split('\n').at(-1), stderr]).toEqual(['0', '']);
  });

  it.runIf(existsSync('/dev/full'))('ends with 1 when its output is lost', () => {
    const { status, stderr } = spawnSync('sh', ['-c', `"${process.execPath}" "${bin}" show-config > /dev/full`], {
      encoding: 'utf8',
    });
    expect([status, stderr]).toEqual([1, expect.stringMatching(/^flashinfer: the output cannot be written: ENOSPC/)]);
  });

  it.runIf(process.platform === 'linux')('works in a folder that is gone', () => {
    const folder = temporaryFolder();
    const command = `cd "${folder}" && rmdir "${folder}" && "${process.execPath}" "${bin}" show-config --json`;
    const { status, stdout, stderr } = spawnSync('sh', ['-c', command], { encoding: 'utf8' });
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout).versions.core).toBe(packageVersion());
  });

  it('deletes downloads', () => {
    const base = temporaryFolder();
    const folder = join(base, 'flashinfer', packageVersion(), 'cubins');
    const clear = (...args: string[]) => run(['clear-cubin', ...args], { FLASHINFER_WORKSPACE_BASE: base }).out;
    for (const [printed, ...args] of [[`Deleted 1 cubin, 7 bytes, in ${folder}\n`], ['', '--json']]) {
      mkdirSync(join(folder, 'sm_80'), { recursive: true });
      writeFileSync(join(folder, 'sm_80', 'a.cubin.br'), 'content');
      const out = clear(...args);
      if (args.length === 0) expect(out).toBe(printed);
      else expect(JSON.parse(out)).toEqual({ path: folder, cubins: 1, bytes: 7 });
      expect(existsSync(folder)).toBe(false);
    }
    expect(clear()).toBe(`Deleted 0 cubins, 0 bytes, in ${folder}\n`);
  });
});

// As root, who may read and write everything, by the user nobody: where that one can read this checkout.
const other = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
const canRun = spawnSync(process.execPath, [bin, '--version'], { ...other, cwd: '/' }).status === 0;

describe.runIf(process.platform === 'linux' && canRun)('what this user may not read or write', () => {
  const base = temporaryFolder();
  const cache = join(base, 'flashinfer', packageVersion());
  const entry = join(cache, 'sm_80', 'fill_f32_0123456789abcdef_cu130');
  const closed = join(temporaryFolder(), 'closed');
  const spawnOther = (...args: string[]) => {
    const env = { ...process.env, FLASHINFER_WORKSPACE_BASE: base, PATH: `${closed}:${process.env.PATH}` };
    const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], {
      ...{ ...other, env, cwd: '/' },
      encoding: 'utf8',
    });
    return { status, out: stdout, err: stderr };
  };
  beforeAll(() => {
    mkdirSync(entry, { recursive: true });
    mkdirSync(join(closed, 'bin'), { recursive: true });
    for (const folder of [dirname(closed), base]) chmodSync(folder, 0o755);
    for (const folder of [closed, entry]) chmodSync(folder, 0);
    chmodSync(join(cache, 'sm_80'), 0o555);
    chmodSync(cache, 0o555);
  });
  afterAll(() => {
    for (const folder of [closed, cache, join(cache, 'sm_80'), entry]) chmodSync(folder, 0o755);
  });

  it('is listed as it is', () => {
    const [module] = JSON.parse(spawnOther('list-modules', '--cached', '--json').out);
    expect(module.cached).toMatchObject([{ path: entry, state: 'corrupt' }]);
  });

  it('is reported', () => {
    const config: Config = JSON.parse(spawnOther('show-config', '--json').out);
    expect(config.cache).toEqual({ path: cache, count: 1, bytes: 0, writable: false });
    expect(spawnOther('show-config').out).toContain(`${cache}: cannot be written`);
    expect(spawnOther('doctor').out).toMatch(/^ {2}(warning|missing) +kernel cache +.* cannot be written$/m);
  });

  it('cannot be deleted, which is said', () => {
    const { status, out, err } = spawnOther('clear-cache');
    expect([status, out]).toEqual([1, '']);
    expect(err).toMatch(
      /^flashinfer: clear-cache: .*sm_80 cannot be deleted \(EACCES.*as the user who owns it[^\n]*\n$/,
    );
  });
});

describe('doctor', () => {
  const config = showConfig();
  const gpu = { index: 0, name: 'Fake', sm: 'sm_90', major: 9, minor: 0 } as Config['gpus'][number];
  const healthy: Config = {
    ...config,
    gpus: [gpu],
    environment: [],
    cuda: {
      ...config.cuda,
      driver: { ok: true, searched: [] } as unknown as Config['cuda']['driver'],
      nvcc: { path: '/nvcc', release: '13.0', searched: [] },
      nvrtc: null,
    },
    versions: { core: '1.0.0', cubin: '1.0.0', cubinArchs: {}, jitCache: null, match: true },
    cache: { path: '/cache', count: 0, bytes: 0, writable: true },
    cubins: null,
    modules: [],
  };
  const variables = (...values: [name: string, value: string][]) => ({
    environment: values.map(([name, value]) => ({ name, type: '', doc: '', value, valid: true })),
  });
  const unwritable = { cache: { ...healthy.cache!, writable: false } };
  const missing = (changes: Partial<Config>, packages: string[] = []) =>
    diagnose({ ...healthy, ...changes }, packages).filter(({ state }) => state === 'missing');

  it('finds nothing missing where all is there', () => {
    expect(missing({})).toEqual([]);
    const withoutCompiler = { ...healthy.cuda, nvcc: { searched: [] } };
    expect(missing({ cuda: withoutCompiler }, ['@flashinfer/cubin'])).toEqual([]);
    const modules = [{ target: 'sm_90a', total: 9, compiled: 3 }];
    expect(missing({ cuda: withoutCompiler, modules })).toEqual([]);
    const repository = variables(['FLASHINFER_CUBINS_REPOSITORY', 'https://cubins.example']);
    const cubins = { path: '/cache/cubins', downloaded: 0, total: 9 };
    expect(missing({ cuda: withoutCompiler, cubins, ...repository })).toEqual([]);
    // What packages hold is loaded from there.
    expect(missing(unwritable, ['@flashinfer/cubin'])).toEqual([]);
  });

  it.each<[string, Partial<Config>, RegExp]>([
    ['addon', { addon: { loaded: false, path: null, error: 'not found' } }, /build-addon/],
    ['CUDA driver', { cuda: { ...healthy.cuda, driver: null } }, /install the NVIDIA driver/],
    ['GPU', { gpus: [] }, /CUDA_VISIBLE_DEVICES/],
    ['GPU', { gpus: [{ ...gpu, sm: 'sm_61', major: 6, minor: 1 }] }, /7\.5 or newer/],
    ['kernels', { cuda: { ...healthy.cuda, nvcc: { searched: [] } } }, /@flashinfer\/cubin.*CUDA_HOME/],
    ['kernels', variables(['FLASHINFER_DISABLE_JIT', '1']), /must not be set/],
    [
      'kernels',
      {
        cuda: { ...healthy.cuda, nvcc: { searched: [] } },
        cubins: { path: '/cache/cubins', downloaded: 0, total: 9 },
        ...variables(['FLASHINFER_CUBINS_REPOSITORY', 'https://cubins.example'], ['FLASHINFER_NO_DOWNLOAD', '1']),
      },
      /install-jit-cache/,
    ],
    ['kernel cache', { cache: null }, /correct the variables/],
    ['kernel cache', unwritable, /^set FLASHINFER_WORKSPACE_BASE/],
    [
      'versions',
      { versions: { ...healthy.versions, cubin: '9.9.9', match: false } },
      /npm install @flashinfer\/cubin@1\.0\.0/,
    ],
    [
      'versions',
      { versions: { ...healthy.versions, cubinArchs: { '@flashinfer/cubin-sm90a': '9.9.9' }, match: false } },
      /^npm install @flashinfer\/cubin-sm90a@1\.0\.0$/,
    ],
    [
      'environment',
      { environment: [{ name: 'MAX_JOBS', type: 'integer', doc: '', value: 'x', valid: false }] },
      /MAX_JOBS: expected integer/,
    ],
  ])('says what to do about a missing %s', (what, changes, fix) => {
    expect(missing(changes)).toEqual([expect.objectContaining({ what, fix: expect.stringMatching(fix) })]);
  });

  it('exits with 1 when something is missing', () => {
    const findings = JSON.parse(run(['doctor', '--json'], { MAX_JOBS: 'many' }).out);
    expect(findings.map(({ what }: { what: string }) => what)).toContain('environment');
    expect(run(['doctor'], { MAX_JOBS: 'many' }).status).toBe(1);
  });
});

describe.runIf(process.platform === 'linux')('on a GPU without a compiler', () => {
  const fake = new FakeCuda();
  afterAll(() => fake.dispose());
  const target = 'sm_90a';

  it('every kernel of the list loads from either package with FLASHINFER_DISABLE_JIT, and another one is named', async () => {
    const base = temporaryFolder();
    const jitCache = join(base, 'flashinfer', packageVersion(), 'jit-cache', 'cu130');
    const specs = aotKernels({ arch: target });
    const compile = async () => ({ cubin: stubCompiler.cubin(target), log: '' });
    await prebuild({ folder: jitCache, target, specs, compiler: stubCompiler(), config: jitConfig(), compile });
    const offline = {
      PATH: '/nonexistent',
      CUDA_HOME: '',
      LD_LIBRARY_PATH: fake.library('old'),
      FAKE_CUDA_ATTRIBUTES: ' 75=9 76=0 97=232448 81=233472 16=132',
      FLASHINFER_DISABLE_JIT: '1',
    };
    const script = `
      import { aotKernels } from ${JSON.stringify(join(packageRoot(), 'dist/index.js'))};
      import { getKernel } from ${JSON.stringify(join(packageRoot(), 'dist/internal.js'))};
      const specs = aotKernels();
      for (const spec of specs) getKernel(spec, 0);
      try { getKernel({ ...specs[0], name: 'unlisted' }, 0); } catch (error) { console.log(specs.length, error.code, error.message); }`;
    const load = (env: Record<string, string>): string =>
      spawnSync(process.execPath, ['--input-type=module', '-e', script], {
        env: { ...offline, ...env },
        encoding: 'utf8',
      }).stdout;
    const expected = new RegExp(
      `^${specs.length} ERR_FLASHINFER_BINARY_NOT_FOUND getKernel: module unlisted_[0-9a-f]{16} for sm_90a is not in .*@flashinfer/cubin.*FLASHINFER_CUBIN_DIR`,
    );
    expect(load({ FLASHINFER_WORKSPACE_BASE: base })).toMatch(expected);
    expect(load({ FLASHINFER_WORKSPACE_BASE: temporaryFolder(), FLASHINFER_CUBIN_DIR: jitCache })).toMatch(expected);
    expect(load({ FLASHINFER_WORKSPACE_BASE: temporaryFolder() })).toBe('');

    const { out } = run(['module-status', '--json'], { ...offline, FLASHINFER_WORKSPACE_BASE: base });
    const rows: { origin: string }[] = JSON.parse(out);
    expect([rows.length, new Set(rows.map(({ origin }) => origin))]).toEqual([specs.length, new Set(['jit-cache'])]);
    const { modules } = JSON.parse(run(['show-config', '--json'], { ...offline, FLASHINFER_WORKSPACE_BASE: base }).out);
    expect(modules).toEqual([{ target, total: specs.length, compiled: specs.length }]);
  });
});
