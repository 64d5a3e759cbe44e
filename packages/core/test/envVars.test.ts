// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from 'node:fs';
import { afterEach, describe, expect, expectTypeOf, it, vi } from 'vitest';
import { env, envVars, type LogLevel } from '../src/envVars.ts';
import { expectThrows } from './thrownBy.ts';

afterEach(() => vi.unstubAllEnvs());

describe('env', () => {
  it('gives the default of every variable that is unset or empty', () => {
    for (const [key, variable] of Object.entries(envVars)) {
      vi.stubEnv(variable.name, undefined);
      expect(env[key as keyof typeof envVars]).toEqual(variable.default);
      vi.stubEnv(variable.name, '  ');
      expect(env[key as keyof typeof envVars]).toEqual(variable.default);
    }
  });

  it('reads values when asked, by type', () => {
    vi.stubEnv('FLASHINFER_WORKSPACE_BASE', '/tmp/somewhere');
    vi.stubEnv('FLASHINFER_CUDA_ARCH_LIST', '7.5 8.0;9.0a, 12.0f');
    vi.stubEnv('FLASHINFER_DISABLE_JIT', '1');
    vi.stubEnv('FLASHINFER_JIT_DEBUG', 'False');
    vi.stubEnv('FLASHINFER_LOGLEVEL', '3');
    vi.stubEnv('MAX_JOBS', '12');
    expect(env.workspaceBase).toBe('/tmp/somewhere');
    expect(env.cudaArchList).toEqual(['75', '80', '90a', '120f']);
    vi.stubEnv('FLASHINFER_CUBINS_REPOSITORY', 'https://a.example/x, file:///srv/cubins');
    expect(env.cubinsRepository).toEqual(['https://a.example/x', 'file:///srv/cubins']);
    expect(env.disableJit).toBe(true);
    expect(env.jitDebug).toBe(false);
    expect(env.logLevel).toBe(3);
    expect(env.maxJobs).toBe(12);
    vi.stubEnv('MAX_JOBS', '3');
    expect(env.maxJobs).toBe(3);
  });

  it.each([
    ['FLASHINFER_CUDA_ARCH_LIST', 'cudaArchList', '9.0b'],
    ['FLASHINFER_CUDA_ARCH_LIST', 'cudaArchList', 'sm_90'],
    ['FLASHINFER_CUDA_ARCH_LIST', 'cudaArchList', ','],
    ['FLASHINFER_DISABLE_JIT', 'disableJit', 'yes'],
    ['FLASHINFER_LOGLEVEL', 'logLevel', '2'],
    ['FLASHINFER_LOGLEVEL', 'logLevel', '05'],
    ['FLASHINFER_CUBINS_REPOSITORY', 'cubinsRepository', 'ftp://mirror'],
    ['FLASHINFER_CUBINS_REPOSITORY', 'cubinsRepository', 'https://mirror, elsewhere'],
    ['MAX_JOBS', 'maxJobs', '0'],
    ['MAX_JOBS', 'maxJobs', '1.5'],
    ['MAX_JOBS', 'maxJobs', '-2'],
  ] as const)('refuses %s as %s = %s', (name, key, value) => {
    vi.stubEnv(name, value);
    expectThrows(() => env[key], 'ERR_FLASHINFER_INVALID_ENV', name, `'${value}'`, envVars[key].type, 'unset');
  });

  it.each(Object.keys(envVars))('%s is read by the library', (key) => {
    const source = new URL('../src/', import.meta.url);
    const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
    const readers = files.filter((file) => readFileSync(new URL(file, source), 'utf8').includes(`env.${key}`));
    expect(readers.filter((file) => file !== 'envVars.ts')).not.toEqual([]);
  });

  it('has the names FlashInfer has', () => {
    expect(Object.values(envVars).map((variable) => variable.name)).toEqual(
      expect.arrayContaining(['FLASHINFER_CUBIN_DIR', 'FLASHINFER_DISABLE_JIT', 'FLASHINFER_JIT_VERBOSE']),
    );
    for (const { name, doc } of Object.values(envVars)) {
      expect(name).toMatch(/^(FLASHINFER_[A-Z_]+|MAX_JOBS|CXX|CUDA_(HOME|PATH|ROOT))$/);
      expect(doc).toMatch(/^[A-Z].*\.$/);
    }
  });

  it('is typed', () => {
    expectTypeOf(env.maxJobs).toEqualTypeOf<number | undefined>();
    expectTypeOf(env.disableJit).toEqualTypeOf<boolean>();
    expectTypeOf(env.logLevel).toEqualTypeOf<LogLevel>();
    expectTypeOf(env.cudaArchList).toEqualTypeOf<readonly string[] | undefined>();
  });
});
