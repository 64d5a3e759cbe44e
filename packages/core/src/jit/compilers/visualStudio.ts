// SPDX-License-Identifier: Apache-2.0
// Windows: nvcc wants Visual Studio's compiler, which is on PATH in a developer prompt alone.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { win32 } from 'node:path';
import { isFile } from './cudaHomes.ts';

/** The machine that is looked at; tests describe one. */
export interface WindowsMachine {
  readonly env: NodeJS.ProcessEnv;
  isFile(path: string): boolean;
  readText(path: string): string;
  /** Standard output of a program. @throws where it fails */
  run(program: string, args: readonly string[]): string;
}

const thisMachine: WindowsMachine = {
  env: process.env,
  isFile,
  readText: (path) => readFileSync(path, 'utf8'),
  run: (program, args) => execFileSync(program, args, { encoding: 'utf8', windowsHide: true }),
};

export interface VisualStudioProbe {
  /** Folder of cl.exe where it has to be named to nvcc; undefined where it is on PATH, or nowhere. */
  readonly folder: string | undefined;
  readonly onPath: boolean;
  readonly searched: readonly string[];
}

/** cl.exe on PATH, else that of the newest Visual Studio or Build Tools, asked of the installer's vswhere. */
export function findVisualStudio(machine: WindowsMachine = thisMachine): VisualStudioProbe {
  const { PATH = '', Path = PATH } = machine.env;
  const folders = Path.split(win32.delimiter).filter(Boolean);
  if (folders.some((folder) => machine.isFile(win32.join(folder, 'cl.exe')))) {
    return { folder: undefined, onPath: true, searched: [] };
  }
  const programs = machine.env['ProgramFiles(x86)'] ?? 'C:\\Program Files (x86)';
  const vswhere = win32.join(programs, 'Microsoft Visual Studio', 'Installer', 'vswhere.exe');
  const notFound = (what: string) => ({ folder: undefined, onPath: false, searched: ['cl.exe on PATH', what] });
  if (!machine.isFile(vswhere)) return notFound(vswhere);
  try {
    const needed = 'Microsoft.VisualStudio.Component.VC.Tools.x86.x64';
    const query = ['-latest', '-products', '*', '-requires', needed, '-property', 'installationPath', '-utf8'];
    const studio = machine.run(vswhere, query).trim();
    if (studio === '') return notFound(`${vswhere} (no installation with ${needed})`);
    const versionFile = win32.join(studio, 'VC', 'Auxiliary', 'Build', 'Microsoft.VCToolsVersion.default.txt');
    const tools = win32.join(studio, 'VC', 'Tools', 'MSVC', machine.readText(versionFile).trim());
    const folder = win32.join(tools, 'bin', 'Hostx64', 'x64');
    return machine.isFile(win32.join(folder, 'cl.exe')) ? { folder, onPath: false, searched: [] } : notFound(folder);
  } catch (error) {
    return notFound(`${vswhere} (${error instanceof Error ? error.message : error})`);
  }
}
