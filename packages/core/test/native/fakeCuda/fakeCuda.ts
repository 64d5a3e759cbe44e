// SPDX-License-Identifier: Apache-2.0
// Builds fakeCuda.c and runs scripts against it in a child process, where it is first in the library search path.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { addonCandidates } from '../../../src/native/load.ts';
import { packageRoot } from '../../../src/packageRoot.ts';

export type FakeVariant = 'full' | 'old' | 'tensor_maps' | 'no_device' | 'stub';

export class FakeCuda {
  readonly #folder = mkdtempSync(join(tmpdir(), 'flashinfer-fake-cuda-'));

  /**
   * Runs `body`, an async function body, with `addon`, `cuda`, `host` and `check(run)`, which returns the code, message
   * and driverCode of what `run` throws. Returns what it returned and every driver call.
   */
  run(
    body: string,
    variant: FakeVariant = 'full',
    env: Record<string, string> = {},
    // biome-ignore lint/suspicious/noExplicitAny: whatever the script returns; assertions check its shape.
  ): { value: any; calls: string[] } {
    const log = join(this.#folder, 'calls.log');
    rmSync(log, { force: true });
    const script = `
      const addon = require(${JSON.stringify(addonCandidates(packageRoot())[0])});
      const { cuda, host } = addon;
      const check = (run) => {
        try { run(); } catch (error) {
          return { code: error.code, message: error.message, driverCode: error.driverCode };
        }
        throw new Error('expected a throw from ' + run);
      };
      (async () => { ${body} })().then(
        (value) => process.stdout.write(JSON.stringify(value ?? null)),
        (error) => { console.error(error); process.exitCode = 1; });`;
    const child = spawnSync(process.execPath, ['-e', script], {
      env: {
        ...process.env,
        LD_LIBRARY_PATH: this.library(variant),
        FAKE_CUDA_LOG: log,
        ...env,
      },
      encoding: 'utf8',
      timeout: 60_000,
    });
    if (child.status !== 0) throw new Error(`child ended with ${child.status ?? child.signal}:\n${child.stderr}`);
    const calls = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [];
    return { value: JSON.parse(child.stdout), calls };
  }

  /** The folder that holds this variant as libcuda.so.1. */
  library(variant: FakeVariant): string {
    const folder = join(this.#folder, variant);
    if (existsSync(join(folder, 'libcuda.so.1'))) return folder;
    mkdirSync(folder);
    const source = join(import.meta.dirname, 'fakeCuda.c');
    const define = `-DFAKE_${variant.toUpperCase()}`;
    execFileSync(process.env.CC || 'cc', [
      define,
      '-std=gnu11',
      '-O1',
      '-fvisibility=hidden',
      '-shared',
      '-fPIC',
      '-pthread',
      '-o',
      join(folder, 'libcuda.so.1'),
      source,
    ]);
    return folder;
  }

  dispose(): void {
    rmSync(this.#folder, { recursive: true });
  }
}
