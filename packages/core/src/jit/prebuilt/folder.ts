// SPDX-License-Identifier: Apache-2.0
// Reads compiled modules from a folder that is never written here: an add-on package, or one the user named.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';
import { BinaryNotFoundError } from '../../errors.ts';
import { native } from '../../native/load.ts';
import { parseTarget, type Target } from '../arch.ts';
import { cubinSm } from '../cubin.ts';
import { sha256 } from '../entry.ts';
import { type PrebuiltManifest, type PrebuiltModule, packedName, readPrebuiltManifest } from './manifest.ts';

export interface FoundKernel {
  readonly cubin: Uint8Array;
  readonly path: string;
}

/** Undefined where the folder does not have the module. @throws BinaryNotFoundError where what it has cannot be used */
export function findPrebuilt(folder: string, uri: string, target: Target): FoundKernel | undefined {
  const manifest = readPrebuiltManifest(folder, target);
  if (manifest === 'absent') return undefined;
  const path = join(folder, target, packedName(uri));
  if (manifest === undefined) throw damaged(join(folder, target, 'manifest.json'), 'is not a manifest of this version');
  const module = manifest.modules[uri];
  if (module === undefined || !driverLoads(manifest)) return undefined;
  return { cubin: unpackModule(readListed(path), module, target, path), path };
}

function readListed(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw damaged(path, code === 'ENOENT' ? 'is missing and listed in manifest.json' : `cannot be read (${message})`);
  }
}

/** The cubin in `packed`. @throws BinaryNotFoundError where it is not what the manifest says, or for another GPU */
export function unpackModule(packed: Uint8Array, module: PrebuiltModule, target: Target, path: string): Buffer {
  if (packed.byteLength !== module.packedBytes || sha256(packed) !== module.packedSha256) {
    throw damaged(path, 'does not match its checksum in manifest.json');
  }
  // What decompresses to more than its manifest says is refused before memory is spent on it.
  const cubin = unpackChecked(packed, module);
  if (cubin === undefined) throw damaged(path, 'does not hold the module that manifest.json names');
  const sm = cubinSm(cubin);
  if (sm === parseTarget(target).sm) return cubin;
  throw new BinaryNotFoundError(
    'ERR_FLASHINFER_ARCH_MISMATCH',
    `getKernel: ${path} was built for ${sm === undefined ? 'no GPU' : `sm_${sm}`}; expected ${target}; copy the cubins of ` +
      "this GPU's architecture there",
  );
}

function unpackChecked(packed: Uint8Array, { bytes, sha256: expected }: PrebuiltModule): Buffer | undefined {
  try {
    const cubin = brotliDecompressSync(packed, { maxOutputLength: Math.max(bytes, 1) });
    return cubin.byteLength === bytes && sha256(cubin) === expected ? cubin : undefined;
  } catch {
    return undefined;
  }
}

function damaged(path: string, problem: string): BinaryNotFoundError {
  return new BinaryNotFoundError(
    'ERR_FLASHINFER_BINARY_MISMATCH',
    `getKernel: ${path} ${problem}; expected an intact copy of the published folder; copy or install it again`,
  );
}

/** A driver loads cubins of its own major CUDA version and older ones. True where there is no driver to ask. */
function driverLoads({ compiler }: PrebuiltManifest): boolean {
  const { driverVersion } = native().cuda.probe();
  return driverVersion === undefined || Math.floor(driverVersion / 1000) >= Number.parseInt(compiler.release, 10);
}
