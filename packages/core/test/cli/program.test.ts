// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { CommanderError } from 'commander';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { aotKernels } from '../../src/aotKernels.ts';
import { createProgram } from '../../src/cli/program.ts';
import { showConfig } from '../../src/showConfig.ts';
import { temporaryFolder } from '../jit/fixture.ts';

const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));

/** Runs the command; errors of use come back as commander would exit with them. */
async function run(...args: string[]): Promise<{ out: string; err: string; exitCode: number }> {
  const written = { out: '', err: '' };
  vi.spyOn(console, 'log').mockImplementation((text = '') => {
    written.out += `${text}\n`;
  });
  const program = createProgram();
  for (const command of [program, ...program.commands]) {
    command.exitOverride().configureOutput({
      writeOut: (text) => {
        written.out += text;
      },
      writeErr: (text) => {
        written.err += text;
      },
    });
  }
  try {
    await program.parseAsync(args, { from: 'user' });
    return { ...written, exitCode: 0 };
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return { ...written, exitCode: error.exitCode };
  }
}

beforeEach(() => {
  for (const name of ['MAX_JOBS', 'FLASHINFER_LOGLEVEL', 'CUDA_HOME']) vi.stubEnv(name, '');
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

describe('flashinfer', () => {
  it('prints its version', async () => {
    expect(await run('--version')).toEqual({ out: `${manifest.version}\n`, err: '', exitCode: 0 });
  });

  it.each([[['no-such-command']], [['show-config', '--no-such-option']], [[]]])(
    'prints help and exits with 1 for %j',
    async (args) => {
      const { out, err, exitCode } = await run(...args);
      expect(exitCode).toBe(1);
      expect(out).toBe('');
      expect(err).toContain('Usage: flashinfer');
      if (args.length > 0) expect(err).toMatch(/error: unknown (command|option) '(--)?no-such-/);
    },
  );
});

describe('show-config', () => {
  it('says with --json what showConfig() returns', async () => {
    const { out, exitCode } = await run('show-config', '--json');
    expect(exitCode).toBe(0);
    // Other tests compile meanwhile: how much the cache holds is not the same at both times.
    const { cache, modules, ...said } = JSON.parse(out);
    const { cache: held, modules: listed, ...expected } = JSON.parse(JSON.stringify(showConfig()));
    expect(said).toEqual(expected);
    expect(cache).toEqual({ ...held, count: expect.any(Number), bytes: expect.any(Number) });
    const counted = listed.map((each: object) => ({ ...each, compiled: expect.any(Number) }));
    expect(modules).toEqual(counted);
  });

  it('prints versions, the addon and the cpu device, without colours where there is no terminal', async () => {
    const { out } = await run('show-config');
    const { addon, cpu } = showConfig();
    expect(out).toMatch(new RegExp(`^  @flashinfer/core +${manifest.version}$`, 'm'));
    expect(out).toMatch(new RegExp(`^  Node.js +${process.version}$`, 'm'));
    expect(addon.loaded).toBe(true);
    expect(out).toContain(addon.path);
    expect(out).toContain(`${cpu?.isa}, ${cpu?.numThreads} of ${cpu?.maxThreads} threads`);
    expect(out).not.toContain('\u001b[');
  });

  it('counts the modules of the architectures of the environment, and says when it cannot', async () => {
    vi.stubEnv('FLASHINFER_WORKSPACE_BASE', temporaryFolder());
    vi.stubEnv('FLASHINFER_CUDA_ARCH_LIST', '9.0 9.0a');
    const { length } = aotKernels({ arch: '9.0a' });
    const { out } = await run('show-config');
    expect(out.match(/^.* total, /gm)).toHaveLength(1);
    expect(out).toMatch(new RegExp(`^  sm_90a +${length} total, 0 compiled, ${length} not compiled$`, 'm'));
    expect(out).toMatch(/^ {2}cubins +none are published for this version/m);
    vi.stubEnv('FLASHINFER_CUDA_ARCH_LIST', '1.0');
    const invalid = showConfig().environment.filter(({ valid }) => !valid);
    expect(invalid.map(({ name }) => name)).toEqual(['FLASHINFER_CUDA_ARCH_LIST']);
    vi.stubEnv('FLASHINFER_CUDA_ARCH_LIST', 'nine');
    expect(showConfig()).toMatchObject({ modules: null, cubins: null, cache: null });
  });

  it('shows variables that are set, and what a bad one should be', async () => {
    vi.stubEnv('MAX_JOBS', 'many');
    vi.stubEnv('FLASHINFER_LOGLEVEL', '3');
    const { out } = await run('show-config');
    expect(out).toMatch(/^ {2}MAX_JOBS +many: expected integer >= 1$/m);
    expect(out).toMatch(/^ {2}FLASHINFER_LOGLEVEL +3$/m);
    expect(out).toMatch(/^ {2}CUDA_HOME +not set$/m);
    expect(
      showConfig()
        .environment.filter(({ valid }) => !valid)
        .map(({ name }) => name),
    ).toEqual(['MAX_JOBS']);
  });
});
