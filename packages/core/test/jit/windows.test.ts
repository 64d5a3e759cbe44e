// SPDX-License-Identifier: Apache-2.0
// What is different on Windows, on any machine.
import { parse } from 'node:path';
import { describe, expect, it } from 'vitest';
import { shellQuote } from '../../src/jit/compilers/compiler.ts';
import { hostFlags } from '../../src/jit/compilers/hostCompiler.ts';
import { hintOf } from '../../src/jit/compilers/nvcc.ts';
import { findVisualStudio, type WindowsMachine } from '../../src/jit/compilers/visualStudio.ts';
import { homeFolder, userCacheHome } from '../../src/jit/userCacheHome.ts';

const installer = 'D:\\Programs (x86)\\Microsoft Visual Studio\\Installer\\vswhere.exe';
const studio = 'C:\\Program Files\\Microsoft Visual Studio\\2022\\BuildTools';
const versionFile = `${studio}\\VC\\Auxiliary\\Build\\Microsoft.VCToolsVersion.default.txt`;
const compiler = `${studio}\\VC\\Tools\\MSVC\\14.44.35207\\bin\\Hostx64\\x64`;

function machine(files: Record<string, string>, changes: Partial<WindowsMachine> = {}): WindowsMachine {
  return {
    env: { Path: 'C:\\Windows;C:\\My Tools', 'ProgramFiles(x86)': 'D:\\Programs (x86)' },
    isFile: (path) => path in files,
    readText: (path) => files[path] ?? fail(path),
    run: (program) => (program === installer ? `${studio}\r\n` : fail(program)),
    ...changes,
  };
}

function fail(path: string): never {
  throw new Error(`ENOENT: ${path}`);
}

describe('findVisualStudio', () => {
  const installed = { [installer]: '', [versionFile]: '14.44.35207\r\n', [`${compiler}\\cl.exe`]: '' };

  it('leaves the compiler of a developer prompt to nvcc', () => {
    expect(findVisualStudio(machine({ ...installed, 'C:\\My Tools\\cl.exe': '' }))).toEqual({
      folder: undefined,
      onPath: true,
      searched: [],
    });
  });

  it('asks the installer for the newest one', () => {
    expect(findVisualStudio(machine(installed))).toEqual({ folder: compiler, onPath: false, searched: [] });
  });

  it.each<[string, WindowsMachine, string]>([
    ['no installer', machine({}), installer],
    [
      'no C++ compiler',
      machine(installed, { run: () => '\r\n' }),
      'no installation with Microsoft.VisualStudio.Component.VC',
    ],
    ['an installer that fails', machine(installed, { run: fail }), `ENOENT: ${installer}`],
    ['a version without a file', machine({ [installer]: '' }), `ENOENT: ${versionFile}`],
    [
      'an incomplete installation',
      machine(
        { ...installed, [`${compiler}\\cl.exe`]: undefined as never },
        {
          isFile: (path) => path === installer,
        },
      ),
      compiler,
    ],
  ])('says where it looked: %s', (_, where, place) => {
    const { folder, onPath, searched } = findVisualStudio(where);
    expect({ folder, onPath }).toEqual({ folder: undefined, onPath: false });
    expect(searched[0]).toBe('cl.exe on PATH');
    expect(searched[1]).toContain(place);
  });
});

describe('flags of the C++ compiler', () => {
  const gcc = { path: 'C:\\msys64\\g++.exe', version: 'g++.exe (Rev3, Built by MSYS2 project) 14.2.0', id: '' };
  const clang = { ...gcc, version: 'clang version 19.1.0' };

  it('link its libraries in on Windows, and keep GCC from aligned moves', () => {
    expect(hostFlags('generic', gcc, 'win32')).toContain('-static');
    expect(hostFlags('generic', gcc, 'win32')).not.toContain('-fPIC');
    expect(hostFlags('avx512', gcc, 'win32')).toContain('-Wa,-muse-unaligned-vector-move');
    for (const flags of [
      hostFlags('generic', gcc, 'win32'),
      hostFlags('avx512', clang, 'win32'),
      hostFlags('avx512', gcc, 'linux'),
    ]) {
      expect(flags).not.toContain('-Wa,-muse-unaligned-vector-move');
    }
    expect(hostFlags('avx512', gcc, 'linux')).toContain('-fPIC');
  });
});

describe("what is added to nvcc's errors", () => {
  const short = 'C:\\cache\\kernel.cubin';

  it('is where its C++ compiler comes from', () => {
    const log = "nvcc fatal   : Cannot find compiler 'cl.exe' in PATH";
    expect(hintOf(log, short, 'win32')).toMatch(/nvcc needs cl\.exe: .*Build Tools.*developer prompt/);
    expect(hintOf('nvcc fatal   : Failed to preprocess host compiler properties.', '/c', 'linux')).toMatch(
      /such as g\+\+/,
    );
  });

  it('is a path that is too long for its programs', () => {
    const long = `C:\\${'x'.repeat(250)}\\kernel.cubin`;
    expect(hintOf('cannot open file', long, 'win32')).toMatch(/has 266 characters.*FLASHINFER_WORKSPACE_BASE/);
    expect(hintOf('cannot open file', long, 'linux')).toBe('');
    expect(hintOf('error: x is undefined', short, 'win32')).toBe('');
  });
});

describe('homeFolder', () => {
  it('is the root folder of a user without one', () => {
    const { root } = parse(process.cwd());
    expect(homeFolder(() => '/home/a')).toBe('/home/a');
    expect(homeFolder(() => '')).toBe(root);
    expect(
      homeFolder(() => {
        throw new Error('uv_os_homedir returned ENOENT');
      }),
    ).toBe(root);
  });
});

describe('userCacheHome', () => {
  it.each([
    ['win32', { LOCALAPPDATA: 'D:\\Users\\A B\\AppData\\Local' }, 'C:\\Users\\A B', 'D:\\Users\\A B\\AppData\\Local'],
    ['win32', {}, 'C:\\Users\\A B', 'C:\\Users\\A B\\AppData\\Local'],
    ['win32', { XDG_CACHE_HOME: 'E:\\cache' }, 'C:\\Users\\A B', 'E:\\cache'],
    ['linux', { LOCALAPPDATA: 'D:\\x' }, '/home/a', '/home/a/.cache'],
    ['linux', { XDG_CACHE_HOME: '/cache' }, '/home/a', '/cache'],
    ['darwin', {}, '/Users/a', '/Users/a/Library/Caches'],
  ])('on %s with %j', (platform, env, home, expected) => {
    expect(userCacheHome(platform, env, home)).toBe(expected);
  });
});

it.each([
  ['C:\\Program Files\\CUDA\\bin\\nvcc.exe', 'win32', '"C:\\Program Files\\CUDA\\bin\\nvcc.exe"'],
  ['-IC:\\cache\\include', 'win32', '-IC:\\cache\\include'],
  ['-I/a b', 'linux', "'-I/a b'"],
  ['C:\\x', 'linux', "'C:\\x'"],
])('quotes %s on %s', (argument, platform, expected) => {
  expect(shellQuote(argument, platform)).toBe(expected);
});
