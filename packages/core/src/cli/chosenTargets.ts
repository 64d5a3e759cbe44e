// SPDX-License-Identifier: Apache-2.0
import { env } from '../envVars.ts';
import { InvalidArgumentError } from '../errors.ts';
import { namedTarget, type Target } from '../jit/arch.ts';
import { cudaDeviceCount, smArch } from '../runtime/device.ts';

/** Architectures of a command: those of its option, of FLASHINFER_CUDA_ARCH_LIST, or of the GPUs. */
export function chosenTargets(command: string, arch: string | undefined): Target[] {
  const named = namedTargets(arch);
  if (named !== undefined) return named;
  const own = Array.from({ length: cudaDeviceCount() }, (_, index) => namedTarget(String(smArch(index))));
  if (own.length > 0) return [...new Set(own)];
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${command}: there is no GPU to choose kernels for; expected an architecture; pass --arch 9.0a`,
  );
}

/** Those of the option, or of FLASHINFER_CUDA_ARCH_LIST; undefined where neither names any. */
export function namedTargets(arch: string | undefined): Target[] | undefined {
  const named = arch?.split(/[\s,;]+/).filter(Boolean) ?? env.cudaArchList ?? [];
  return named.length > 0 ? [...new Set(named.map(namedTarget))] : undefined;
}
