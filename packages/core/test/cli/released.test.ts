// SPDX-License-Identifier: Apache-2.0
// A copy of the built package that carries cubins.json, as a release does, beside a repository of its kernels.
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { jitConfig } from '../../src/jit/config.ts';
import { fetchVerified } from '../../src/jit/download/fetchVerified.ts';
import { sha256 } from '../../src/jit/entry.ts';
import { prebuild } from '../../src/jit/prebuilt/build.ts';
import { packageRoot, packageVersion } from '../../src/packageRoot.ts';
import { packBitsSpecs } from '../../src/quantization/packBitsKernel.ts';
import { temporaryFolder } from '../jit/fixture.ts';
import { stubCompiler } from '../jit/stubCompiler.ts';
import { FakeCuda } from '../native/fakeCuda/fakeCuda.ts';

const fake = new FakeCuda();
const target = 'sm_90a';
const specs = packBitsSpecs();
let released = '';
let repository = '';

beforeAll(async () => {
  repository = temporaryFolder();
  const compile = async () => ({ cubin: stubCompiler.cubin(target), log: '' });
  const folder = join(repository, packageVersion());
  await prebuild({ folder, target, specs, compiler: stubCompiler(), config: jitConfig(), compile });
  const manifest = readFileSync(join(folder, target, 'manifest.json'));
  released = temporaryFolder();
  for (const name of ['dist', 'bin', 'package.json'])
    cpSync(join(packageRoot(), name), join(released, name), { recursive: true });
  for (const name of ['node_modules', 'build']) symlinkSync(join(packageRoot(), name), join(released, name));
  symlinkSync(join(packageRoot(), '../../include'), join(released, 'include'));
  const pinned = { [target]: { bytes: manifest.byteLength, sha256: sha256(manifest), modules: specs.length } };
  writeFileSync(join(released, 'cubins.json'), JSON.stringify(pinned));
});
afterAll(() => fake.dispose());

const environment = (env: Record<string, string>) => ({
  ...process.env,
  FLASHINFER_WORKSPACE_BASE: temporaryFolder(),
  FLASHINFER_LOGDEST: 'stderr',
  FLASHINFER_DISABLE_JIT: '1',
  FLASHINFER_CUBINS_REPOSITORY: pathToFileURL(repository).href,
  LD_LIBRARY_PATH: fake.library('old'),
  ...env,
});

function runNode(args: string[], env: Record<string, string>) {
  const child = spawnSync(process.execPath, args, { env: environment(env), encoding: 'utf8' });
  return { out: child.stdout, err: child.stderr, status: child.status };
}

describe.runIf(process.platform === 'linux')('a released core', () => {
  it('downloads at the first call, blocking and with one log line, and never again', () => {
    const env = { FLASHINFER_WORKSPACE_BASE: temporaryFolder() };
    const script = `
      import { getKernel } from ${JSON.stringify(join(released, 'dist/internal.js'))};
      for (const spec of ${JSON.stringify(specs)}) getKernel(spec, 0);
      console.log('loaded');`;
    const first = runNode(['--input-type=module', '-e', script], env);
    expect(first.out, first.err).toBe('loaded\n');
    expect(first.err.trim().split('\n')).toHaveLength(specs.length);
    expect(first.err).toMatch(/^flashinfer: downloading packbits_big_\w+ for sm_90a from file:.*await warmup/);
    const again = runNode(['--input-type=module', '-e', script], { ...env, FLASHINFER_NO_DOWNLOAD: '1' });
    expect([again.out, again.err]).toEqual(['loaded\n', '']);
  });

  it('says why when the download fails', () => {
    const empty = { FLASHINFER_CUBINS_REPOSITORY: pathToFileURL(temporaryFolder()).href };
    const script = `
      import { getKernel } from ${JSON.stringify(join(released, 'dist/internal.js'))};
      try { getKernel(${JSON.stringify(specs[0])}, 0); } catch (error) { console.log(error.code, error.message); }`;
    const { out } = runNode(['--input-type=module', '-e', script], empty);
    expect(out).toMatch(/^ERR_FLASHINFER_DOWNLOAD_FAILED download: file:.*ENOENT.*or install @flashinfer\/cubin/);
  });

  it('downloads, lists and deletes by command', () => {
    const env = { FLASHINFER_WORKSPACE_BASE: temporaryFolder() };
    const command = (...args: string[]) => runNode([join(released, 'bin/flashinfer.js'), ...args], env);
    const states = (): unknown[] =>
      JSON.parse(command('list-cubins', '--json').out).map((row: { downloaded: boolean }) => row.downloaded);
    const counted = () => /^ {2}cubins +(.*)$/m.exec(command('show-config').out)?.[1];
    expect(states()).toEqual(specs.map(() => false));
    expect(counted()).toBe('Downloaded 0/4 cubins');
    expect(command('download-cubin', '--arch', '9.0')).toMatchObject({
      status: 0,
      out: expect.stringMatching(/^sm_90a: 4 kernels in /),
    });
    expect(states()).toEqual(specs.map(() => true));
    const again = JSON.parse(command('download-cubin', '--arch', '9.0,9.0a', '--json').out);
    const path = join(env.FLASHINFER_WORKSPACE_BASE, 'flashinfer', packageVersion(), 'cubins');
    expect(again).toEqual([{ target, path, modules: 4, downloaded: 0, bytes: 0 }]);
    const rows: { uri: string; bytes: number }[] = JSON.parse(command('list-cubins', '--json').out);
    expect(counted()).toBe('Downloaded 4/4 cubins');
    rmSync(join(path, target, `${rows[1]!.uri}.cubin.br`));
    expect(counted()).toBe('Downloaded 3/4 cubins');
    const [mended] = JSON.parse(command('download-cubin', '--module', rows[1]!.uri, '--json').out);
    expect(mended).toMatchObject({ modules: 1, downloaded: 1, bytes: rows[1]!.bytes });
    expect(JSON.parse(command('clear-cubin', '--json').out)).toMatchObject({ path, cubins: 4 });
    expect(states()).toEqual(specs.map(() => false));
  });

  it('refuses a module that the repository does not have', () => {
    const args = [join(released, 'bin/flashinfer.js'), 'download-cubin', '--arch', '9.0', '--module', 'packbits'];
    const { status, out, err } = runNode(args, {});
    expect([status, out]).toEqual([1, '']);
    expect(err).toMatch(
      /^flashinfer: download-cubin: module packbits is not among the kernels for sm_90a; .*list-cubins/,
    );
  });

  it('says which folder cannot be written', () => {
    const base = join(temporaryFolder(), 'file');
    writeFileSync(base, '');
    const args = [join(released, 'bin/flashinfer.js'), 'download-cubin', '--arch', '9.0'];
    const { status, err } = runNode(args, { FLASHINFER_WORKSPACE_BASE: base });
    expect(status).toBe(1);
    expect(err).toMatch(
      /^flashinfer: download: .*cubins.sm_90a cannot be written \(ENOTDIR.*FLASHINFER_WORKSPACE_BASE/,
    );
  });

  it('ends with 130 when interrupted, and keeps what came', async () => {
    let asked = 0;
    const server = createServer((request, response) => {
      const content = readFileSync(join(repository, request.url!));
      // The second module never comes.
      if (!request.url!.endsWith('.br') || asked++ === 0) response.end(content);
      else child.kill('SIGINT');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const env = environment({
      FLASHINFER_CUBINS_REPOSITORY: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      FLASHINFER_CUBIN_DOWNLOAD_THREADS: '1',
    });
    const args = [join(released, 'bin/flashinfer.js'), 'download-cubin', '--arch', '9.0'];
    const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
    try {
      let err = '';
      child.stderr.on('data', (text) => {
        err += text;
      });
      const code = await new Promise((resolve) => child.once('close', resolve));
      expect(err).toMatch(
        /^flashinfer: download-cubin: interrupted after 1 of 4 kernels for sm_90a; .*run it again[^\n]*\n$/,
      );
      expect(code).toBe(130);
      const folder = join(env.FLASHINFER_WORKSPACE_BASE!, 'flashinfer', packageVersion(), 'cubins', target);
      expect(readdirSync(folder)).toHaveLength(2);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  it.each([1, 3])('fetches at most %i files at once with FLASHINFER_CUBIN_DOWNLOAD_THREADS', async (limit) => {
    let [now, most] = [0, 0];
    const server = createServer((request, response) => {
      const isModule = request.url!.endsWith('.br');
      if (isModule) most = Math.max(most, ++now);
      const content = readFileSync(join(repository, request.url!));
      // Long enough for all that are allowed to meet.
      setTimeout(() => {
        if (isModule) now--;
        response.end(content);
      }, 150);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const env = environment({
        FLASHINFER_CUBINS_REPOSITORY: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
        FLASHINFER_CUBIN_DOWNLOAD_THREADS: String(limit),
      });
      // Not spawnSync: the server is in this process.
      const args = [join(released, 'bin/flashinfer.js'), 'download-cubin', '--arch', '9.0'];
      const child = spawn(process.execPath, args, { env, stdio: 'ignore' });
      const code = await new Promise((resolve) => child.once('close', resolve));
      expect([code, most]).toEqual([0, limit]);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  it('shows progress on a terminal alone', () => {
    const command = `${process.execPath} ${join(released, 'bin/flashinfer.js')} download-cubin --arch 9.0`;
    const onTerminal = spawnSync('script', ['--quiet', '--return', '--command', command, '/dev/null'], {
      env: environment({}),
      encoding: 'utf8',
    });
    expect(onTerminal.status, onTerminal.stderr).toBe(0);
    expect(onTerminal.stdout).toContain(`\r\u001b[K[${'='.repeat(10)}${' '.repeat(10)}] 2/4 `);
    // The bar is gone when all is done.
    expect(onTerminal.stdout).toContain('\r\u001b[Ksm_90a: 4 kernels in ');
    const piped = runNode([join(released, 'bin/flashinfer.js'), 'download-cubin', '--arch', '9.0'], {});
    expect([piped.status, piped.err]).toEqual([0, '']);
  });

  it('goes through the proxy of the environment', async () => {
    const asked: string[] = [];
    const proxy = createServer((request, response) => {
      asked.push(request.url!);
      response.end('content');
    });
    proxy.on('connect', (request, socket) => {
      asked.push(request.url!);
      // The tunnel leads back here, where the file is.
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      const origin = connect((proxy.address() as AddressInfo).port, '127.0.0.1');
      socket.pipe(origin).pipe(socket);
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    process.env.http_proxy = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    try {
      const expected = { bytes: 7, sha256: sha256('content') };
      const policy = { attempts: 1, backoffMs: 1, timeoutMs: 5000 };
      const content = await fetchVerified(['http://cubins.example/file'], expected, undefined, policy);
      expect([content.toString(), asked.join()]).toEqual(['content', expect.stringContaining('cubins.example')]);
    } finally {
      delete process.env.http_proxy;
      proxy.closeAllConnections();
      proxy.close();
    }
  });
});
