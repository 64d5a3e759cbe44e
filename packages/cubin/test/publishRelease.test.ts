// SPDX-License-Identifier: Apache-2.0
// Publishes small tarballs to a registry of this process, with npm.
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

const script = fileURLToPath(new URL('../../../scripts/publish-release.mjs', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'flashinfer-publish-'));
/** `name@version` with its tag, in the order of publishing. */
let published: string[] = [];
let server: Server;

beforeAll(async () => {
  server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const name = decodeURIComponent(request.url!.slice(1)).replace(/\?.*/, '');
      response.setHeader('content-type', 'application/json');
      if (request.method === 'PUT') {
        const { 'dist-tags': tags } = JSON.parse(Buffer.concat(chunks).toString());
        for (const [tag, version] of Object.entries(tags)) published.push(`${name}@${version} ${tag}`);
        return void response.writeHead(201).end('{}');
      }
      const versions = published.flatMap((entry) => {
        const [spec = ''] = entry.split(' ');
        return spec.startsWith(`${name}@`) ? [spec.slice(name.length + 1)] : [];
      });
      if (versions.length === 0) return void response.writeHead(404).end('{"error":"not found"}');
      const known = Object.fromEntries(versions.map((version) => [version, { name, version }]));
      response.end(JSON.stringify({ name, versions: known, 'dist-tags': {} }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true });
});
beforeEach(() => {
  published = [];
});

const platforms = ['core-linux-arm64', 'core-linux-x64', 'core-win32-x64'];

/** A folder as pack-release.mjs makes it. */
function release(name: string, version: string, packages = ['core', ...platforms, 'cubin']): string {
  const to = join(folder, name);
  mkdirSync(to);
  for (const each of packages) {
    const staged = mkdtempSync(join(folder, 'stage-'));
    mkdirSync(join(staged, 'package'));
    const manifest = {
      name: `@flashinfer/${each}`,
      version,
      license: 'Apache-2.0',
      publishConfig: { access: 'public' },
    };
    writeFileSync(join(staged, 'package/package.json'), JSON.stringify(manifest));
    execFileSync('tar', ['-czf', join(to, `flashinfer-${each}-${version}.tgz`), '-C', staged, 'package']);
  }
  const sum = (file: string) =>
    createHash('sha256')
      .update(readFileSync(join(to, file)))
      .digest('hex');
  const lines = readdirSync(to).map((file) => `${sum(file)}  ${file}\n`);
  writeFileSync(join(to, 'SHA256SUMS'), lines.join(''));
  return to;
}

/** Not execFileSync: the registry is in this process. */
async function publish(from: string, tag: string): Promise<{ code: number; output: string }> {
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  writeFileSync(join(folder, 'npmrc'), `registry=http://${address}/\n//${address}/:_authToken=none\n`);
  const child = spawn(process.execPath, [script, '--release', from, '--tag', tag], {
    env: {
      ...process.env,
      NO_PROXY: '127.0.0.1',
      npm_config_userconfig: join(folder, 'npmrc'),
      npm_config_registry: `http://${address}/`,
    },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
  const code = await new Promise<number>((resolve) => child.once('close', resolve));
  return { code, output };
}

describe('publish-release', { timeout: 120_000 }, () => {
  it('publishes the core last, and nothing twice', async () => {
    const from = release('whole', '1.2.3');
    expect((await publish(from, 'latest')).code).toBe(0);
    const others = [...platforms, 'cubin'].map((name) => `@flashinfer/${name}@1.2.3 latest`);
    expect(published.slice(0, -1).sort()).toEqual(others.sort());
    expect(published.at(-1)).toBe('@flashinfer/core@1.2.3 latest');
    const again = await publish(from, 'latest');
    expect(again.output).toMatch(/@flashinfer\/core@1\.2\.3 is published already/);
    expect(published).toHaveLength(others.length + 1);
  });

  it.each<[string, string, string, (from: string) => void, RegExp]>([
    [
      'a missing platform',
      '1.0.0',
      'latest',
      (from) => rmSync(join(from, 'flashinfer-core-win32-x64-1.0.0.tgz')),
      /core-win32-x64 is missing/,
    ],
    ['a nightly version as latest', '1.0.0-nightly.1.a', 'latest', () => undefined, /expected a tag such as nightly/],
    [
      'a file that changed',
      '1.0.1',
      'latest',
      (from) => writeFileSync(join(from, 'SHA256SUMS'), ''),
      /is not what SHA256SUMS names/,
    ],
  ])('publishes nothing of a release with %s', async (_, version, tag, damage, message) => {
    const from = release(`with ${version}`, version);
    damage(from);
    const { code, output } = await publish(from, tag);
    expect([code, output]).toEqual([1, expect.stringMatching(message)]);
    expect(published).toEqual([]);
  });
});
