// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { sha256 } from '../../src/jit/entry.ts';
import { type PrebuildRequest, prebuild } from '../../src/jit/prebuilt/build.ts';
import { packedName, parsePrebuiltManifest } from '../../src/jit/prebuilt/manifest.ts';
import { requireNvcc, scaleSpec, temporaryFolder, testJit } from './fixture.ts';
import { stubCompiler } from './stubCompiler.ts';

const target = 'sm_90a';
const specs = [2, 3, 4].map((factor) => scaleSpec(factor));

/** Contents of a folder by name. */
function contents(folder: string): Record<string, string> {
  const names = readdirSync(join(folder, target)).sort();
  return Object.fromEntries(names.map((name) => [name, sha256(readFileSync(join(folder, target, name)))]));
}

function request(changes: Partial<PrebuildRequest> = {}): PrebuildRequest & { compiled: string[] } {
  const compiler = stubCompiler();
  const compiled: string[] = [];
  return {
    folder: temporaryFolder(),
    target,
    specs,
    compiler,
    config: testJit(compiler).config,
    compile: async (spec) => {
      compiled.push(spec.name);
      return { cubin: stubCompiler.cubin(target), log: '' };
    },
    ...changes,
    compiled,
  };
}

describe('prebuild', () => {
  it('lists every module with sizes and checksums, and who compiled it', async () => {
    const build = request();
    const manifest = await prebuild(build);
    expect(manifest).toMatchObject({
      target,
      compiler: { kind: 'nvcc', release: '13.0' },
      sourceHash: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    const text = readFileSync(join(build.folder, target, 'manifest.json'), 'utf8');
    expect(parsePrebuiltManifest(text)).toEqual(manifest);
    expect(Object.keys(manifest.modules).map((uri) => uri.replace(/_[0-9a-f]{16}$/, ''))).toEqual([
      'scale_by_2',
      'scale_by_3',
      'scale_by_4',
    ]);
    for (const [uri, { packedBytes, packedSha256, bytes }] of Object.entries(manifest.modules)) {
      const packed = readFileSync(join(build.folder, target, packedName(uri)));
      expect([packed.byteLength, sha256(packed), bytes]).toEqual([packedBytes, packedSha256, 64]);
    }
    expect(readdirSync(join(build.folder, target))).toHaveLength(4);
  });

  it('compiles only what is new, damaged or changed, and removes what is not listed any more', async () => {
    const first = request();
    const manifest = await prebuild(first);
    const { folder, config } = first;
    const uris = Object.keys(manifest.modules);
    const again = async (changes: Partial<PrebuildRequest> = {}) => {
      const build = request({ folder, config, ...changes });
      await prebuild(build);
      return build.compiled.sort();
    };
    expect(await again()).toEqual([]);
    writeFileSync(join(folder, target, packedName(uris[0]!)), 'damaged');
    rmSync(join(folder, target, packedName(uris[1]!)));
    expect(await again()).toEqual(['scale_by_2', 'scale_by_3']);
    expect(await again({ specs: [...specs.slice(1), scaleSpec(9)] })).toEqual(['scale_by_9']);
    expect(Object.keys(contents(folder)).filter((name) => name.includes('scale_by_2'))).toEqual([]);
    expect(await again({ compiler: { ...stubCompiler(), release: '13.1' } })).toHaveLength(3);
    expect(await again({ config: { ...config, libraryVersion: '9.9.9' } })).toHaveLength(3);
  });

  it('keeps what an interrupted build has done', async () => {
    const stop = new AbortController();
    const interrupted = request({ signal: stop.signal });
    const compile = interrupted.compile;
    await expect(
      prebuild({
        ...interrupted,
        compile: (spec, signal) => {
          if (spec === specs[2]) stop.abort();
          signal.throwIfAborted();
          return compile(spec, signal);
        },
      }),
    ).rejects.toThrow();
    const rest = request({ folder: interrupted.folder, config: interrupted.config });
    await prebuild(rest);
    expect(rest.compiled.length).toBeLessThan(3);
  });

  const nvcc = requireNvcc();
  it.skipIf(!nvcc)('gives the same bytes for the same sources, whatever the folder and order', async () => {
    const config = testJit(nvcc).config;
    const build = async (order: PrebuildRequest['specs']) => {
      const folder = temporaryFolder();
      await prebuild({
        ...request({ config, compiler: nvcc!, folder, specs: order }),
        compile: compileWith(config.includeRoots),
      });
      return contents(folder);
    };
    const first = await build(specs);
    expect(await build([...specs].reverse())).toEqual(first);
    expect(Object.keys(first)).toHaveLength(4);
  });

  /** Compiles in a fresh folder each time. */
  function compileWith(includeRoots: readonly string[]): PrebuildRequest['compile'] {
    return async (spec) => {
      const { generateSource } = await import('../../src/jit/source.ts');
      const source = generateSource(spec);
      const sourcePath = join(temporaryFolder(), 'source.cu');
      writeFileSync(sourcePath, source);
      const options = { debug: false, lineInfo: false };
      return await nvcc!
        .compile({ name: spec.name, source, sourcePath, target, includeRoots, options })
        .async(undefined);
    };
  }
});
