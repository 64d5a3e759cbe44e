// SPDX-License-Identifier: Apache-2.0
// What scripts/pack-addon.mjs publishes, and what it refuses.
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { addonCandidates } from '../../src/native/load.ts';
import { packageRoot, packageVersion } from '../../src/packageRoot.ts';

/** scripts/ is not beside the tests where they run in an emulator. */
async function problemsOf(file: string, platform: string, version: string): Promise<string[]> {
  const { addonProblems } = await import(join(packageRoot(), '../../scripts/addon-format.mjs'));
  return addonProblems(file, platform, version);
}

describe.runIf(`${process.platform}-${process.arch}` === 'linux-x64')('the form of an addon', () => {
  const built = addonCandidates(packageRoot())[0] as string;

  it('fits every system with the glibc that Node.js needs', async () => {
    expect(await problemsOf(built, 'linux-x64', packageVersion())).toEqual([]);
  });

  it('is refused of another version, for another processor, and with libraries that not all systems have', async () => {
    expect(await problemsOf(built, 'linux-x64', '99.1.2')).toEqual([`${built}: it is not of version 99.1.2`]);
    expect(await problemsOf(built, 'linux-arm64', packageVersion())).toEqual([
      `${built}: it is for Advanced Micro Devices X86-64, expected AArch64`,
    ]);
    // Node.js itself takes libstdc++ from the system.
    const ofNode = await problemsOf(process.execPath, 'linux-x64', process.version);
    expect(ofNode.join('\n')).toMatch(
      /it needs libstdc\+\+\.so\.6, which not every system has\n.*it needs (CXXABI|GLIBCXX)_[\d.]+ \(.*\); expected no version of (CXXABI|GLIBCXX)/,
    );
  });
});
