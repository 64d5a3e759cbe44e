// SPDX-License-Identifier: Apache-2.0
// Against a real server on this machine, which truncates, stalls, answers errors, redirects and serves wrong bytes.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { runAsync } from '../../../src/jit/bothWays.ts';
import { KernelCache } from '../../../src/jit/cache.ts';
import type { JitConfig } from '../../../src/jit/config.ts';
import {
  type DownloadOptions,
  downloadFolder,
  downloadModule,
  findDownloaded,
} from '../../../src/jit/download/download.ts';
import { sha256 } from '../../../src/jit/entry.ts';
import { prebuild } from '../../../src/jit/prebuilt/build.ts';
import { packedName } from '../../../src/jit/prebuilt/manifest.ts';
import { resolveModule } from '../../../src/jit/resolve.ts';
import { kernelSources } from '../../../src/jit/sources.ts';
import { captureLog, scaleSpec, temporaryFolder, testJit } from '../fixture.ts';
import { stubCompiler } from '../stubCompiler.ts';

const target = 'sm_90a';
const spec = scaleSpec(2);
const jit = testJit(undefined);
const repository = temporaryFolder();
const cubin = Buffer.concat([
  stubCompiler.cubin(target),
  Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * i) % 251)),
]);
let uri = '';
let base = '';
let server: Server;
let pinned: JitConfig['pinnedManifests'];

type Answer = (request: IncomingMessage, response: ServerResponse, content: Buffer) => void;
/** Answers to requests for the module, one after the other; the last one is repeated. */
let answers: Answer[] = [];
let requests: { url: string; range: string | undefined }[] = [];

const whole: Answer = (_, response, content) => response.writeHead(200, { etag: '"v1"' }).end(content);
const ranged: Answer = (request, response, content) => {
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const headers = { etag: '"v1"', 'content-range': `bytes ${from}-${content.byteLength - 1}/${content.byteLength}` };
  response.writeHead(from > 0 ? 206 : 200, headers).end(content.subarray(from));
};
const status =
  (code: number): Answer =>
  (_, response) =>
    response.writeHead(code).end('no');
const cut: Answer = (_, response, content) => {
  response.writeHead(200, { 'content-length': content.byteLength, etag: '"v1"' });
  response.write(content.subarray(0, 100), () => response.destroy());
};
const stall: Answer = (_, response, content) => {
  response.writeHead(200, { 'content-length': content.byteLength });
  response.write(content.subarray(0, 10));
};
const wrong: Answer = (_, response, content) => response.end(Buffer.alloc(content.byteLength, 1));
const longer: Answer = (_, response, content) => response.end(Buffer.concat([content, content]));
const redirect: Answer = (request, response) => response.writeHead(302, { location: `/moved${request.url}` }).end();

beforeAll(async () => {
  const folder = join(repository, jit.config.libraryVersion);
  const compile = async () => ({ cubin, log: '' });
  const manifest = await prebuild({
    folder,
    target,
    specs: [spec],
    compiler: stubCompiler(),
    config: jit.config,
    compile,
  });
  uri = Object.keys(manifest.modules)[0]!;
  const text = readFileSync(join(folder, target, 'manifest.json'));
  pinned = { [target]: { bytes: text.byteLength, sha256: sha256(text), modules: 1 } };
  server = createServer((request, response) => {
    const path = request.url!.replace('/moved', '');
    requests.push({ url: request.url!, range: request.headers.range });
    const file = join(repository, path);
    if (!existsSync(file)) return void response.writeHead(404).end();
    const isModule = path.endsWith('.br') && !request.url!.startsWith('/moved');
    const answer = isModule ? (answers.length > 1 ? answers.shift()! : answers[0]!) : whole;
    answer(request, response, readFileSync(file));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
beforeEach(() => {
  answers = [whole];
  requests = [];
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const config = (changes: Partial<JitConfig> = {}): JitConfig => ({
  ...jit.config,
  cacheRoot: temporaryFolder(),
  repositories: [base],
  pinnedManifests: pinned,
  ...changes,
});
const options: DownloadOptions = { policy: { attempts: 3, backoffMs: 5, timeoutMs: 300 } };
const moduleFiles = (c: JitConfig): string[] => {
  const folder = join(downloadFolder(c), target);
  return existsSync(folder) ? readdirSync(folder).filter((name) => name !== 'manifest.json') : [];
};
const moduleRequests = () => requests.filter(({ url }) => url.endsWith('.br'));

describe('a download', () => {
  it('is kept, and found without the repository afterwards', async () => {
    const c = config();
    const found = await downloadModule(c, uri, target, options);
    expect(Buffer.compare(found!.cubin, cubin)).toBe(0);
    expect(moduleFiles(c)).toEqual([packedName(uri)]);
    await downloadModule({ ...c, repositories: [], noDownload: true }, uri, target, options);
    expect(moduleRequests()).toHaveLength(1);
    rmSync(downloadFolder(c), { recursive: true });
    expect(findDownloaded(c, uri, target)).toBeUndefined();
  });

  it('goes on where a broken connection ended', async () => {
    answers = [cut, ranged];
    expect(Buffer.compare((await downloadModule(config(), uri, target, options))!.cubin, cubin)).toBe(0);
    expect(moduleRequests().map(({ range }) => range)).toEqual([undefined, 'bytes=100-']);
  });

  it.each<[string, Answer[]]>([
    ['a server that knows no ranges', [cut, whole]],
    ['a stalled connection', [stall, whole]],
    ['status 500 and 503', [status(500), status(503), whole]],
    ['a redirect', [redirect]],
  ])('copes with %s', async (_, given) => {
    answers = given;
    expect(Buffer.compare((await downloadModule(config(), uri, target, options))!.cubin, cubin)).toBe(0);
  });

  it.each<[string, Answer[], RegExp, number]>([
    ['status 403', [status(403)], /HTTP status 403/, 1],
    ['status 404', [status(404)], /HTTP status 404/, 1],
    ['status 500 again and again', [status(500)], /download: \S+: HTTP status 500 \(3 times\); expected/, 3],
    ['connections that always break', [cut], /ended after|terminated|closed|other side/, 3],
    ['connections that always stall', [stall], /Timeout/i, 3],
    ['wrong bytes', [wrong], /with another checksum/, 1],
    ['too many bytes', [longer], /more than \d+ bytes/, 1],
  ])('ends with %s in an error, and nothing is left', async (_, given, message, asked) => {
    answers = given;
    const c = config();
    await expect(downloadModule(c, uri, target, options)).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_FLASHINFER_DOWNLOAD_FAILED', message: expect.stringMatching(message) }),
    );
    expect(moduleRequests()).toHaveLength(asked);
    expect(moduleFiles(c)).toEqual([]);
  });

  it('asks mirrors in order, a folder too', async () => {
    answers = [status(403)];
    const c = config({ repositories: [`${base}/nowhere`, base, pathToFileURL(repository).href] });
    expect(Buffer.compare((await downloadModule(c, uri, target, options))!.cubin, cubin)).toBe(0);
    expect(moduleRequests().map(({ url }) => url.startsWith('/nowhere'))).toEqual([true, false]);
  });

  it('refuses a manifest that is not the one the core knows', async () => {
    const c = config({ pinnedManifests: { [target]: { ...pinned[target]!, sha256: '0'.repeat(64) } } });
    await expect(downloadModule(c, uri, target, options)).rejects.toThrow(/manifest.json: .*another checksum/);
    expect(moduleFiles(c)).toEqual([]);
  });

  it('replaces a damaged file', async () => {
    const c = config();
    await downloadModule(c, uri, target, options);
    writeFileSync(join(downloadFolder(c), target, packedName(uri)), 'damaged');
    expect(findDownloaded(c, uri, target)).toBeUndefined();
    expect(Buffer.compare((await downloadModule(c, uri, target, options))!.cubin, cubin)).toBe(0);
  });

  it('ends when aborted, and nothing is left', async () => {
    answers = [stall];
    const c = config();
    const stop = new AbortController();
    const policy = { attempts: 3, backoffMs: 5, timeoutMs: 60_000 };
    const running = downloadModule(c, uri, target, { signal: stop.signal, policy });
    setTimeout(() => stop.abort(), 100);
    await expect(running).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
    expect(moduleFiles(c)).toEqual([]);
  });

  it.each<[string, Partial<JitConfig>, RegExp]>([
    ['FLASHINFER_NO_DOWNLOAD', { noDownload: true }, /FLASHINFER_NO_DOWNLOAD is set/],
    ['no repository', { repositories: [] }, /set FLASHINFER_CUBINS_REPOSITORY/],
    ['no pinned manifest', { pinnedManifests: {} }, /knows no published kernels for sm_90a/],
  ])('is refused with %s', async (_, changes, message) => {
    await expect(downloadModule(config(changes), uri, target, options)).rejects.toThrow(message);
    expect(requests).toEqual([]);
  });
});

describe('resolving', () => {
  const resolve = (c: JitConfig, compiler?: ReturnType<typeof stubCompiler>) => {
    const environment = {
      ...jit,
      config: c,
      cache: new KernelCache(c.cacheRoot),
      sources: kernelSources(c),
      findCompiler: () => compiler,
    };
    return runAsync(
      resolveModule({ ...environment, compilerRelease: () => compiler?.release }, spec, target, { blocking: false }),
    );
  };

  it('downloads before it compiles, then finds what was downloaded', async () => {
    const c = config({ disableJit: true });
    expect((await resolve(c)).origin).toBe('download');
    expect((await resolve({ ...c, noDownload: true })).origin).toBe('cubin');
  });

  it('compiles where the download fails, and says so', async () => {
    answers = [status(404)];
    const compiler = stubCompiler();
    const cacheRoot = temporaryFolder();
    mkdirSync(cacheRoot, { recursive: true });
    const log = await captureLog(async () => {
      expect((await resolve(config({ cacheRoot }), compiler)).origin).toBe('compiled');
    });
    expect(log).toMatch(/HTTP status 404.*compiling scale_by_2_\w+ instead/);
  });

  it('without a compiler the failed download is the error', async () => {
    answers = [status(404)];
    await expect(resolve(config({ disableJit: true }))).rejects.toThrow(/HTTP status 404/);
  });
});
