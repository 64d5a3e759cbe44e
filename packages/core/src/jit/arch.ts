// SPDX-License-Identifier: Apache-2.0
// Which architecture a kernel is compiled for. Numbers are compute capabilities: 90 is sm_90.
import { describeValue } from '../check/describeValue.ts';
import { UnsupportedError } from '../errors.ts';
import type { KernelSpec } from './spec.ts';

/** A compile target: `sm_80`, `sm_90a` (that architecture only), `sm_120f` (its family). */
export type Target = `sm_${string}`;

interface ParsedTarget {
  readonly sm: number;
  /** '' runs on later minors of the same major, 'f' too (family-specific), 'a' on exactly this one. */
  readonly suffix: '' | 'a' | 'f';
}

/** Known architectures and the first CUDA release whose compilers know them (sm_110 was sm_101 before 13.0). */
const firstRelease: ReadonlyMap<number, number> = new Map([
  [75, 10.0],
  [80, 11.0],
  [86, 11.1],
  [87, 11.4],
  [88, 13.0],
  [89, 11.8],
  [90, 12.0],
  [100, 12.8],
  [103, 12.9],
  [110, 13.0],
  [120, 12.8],
  [121, 12.9],
]);
const lowestSm = 75;
const firstReleaseOfFamilies = 12.9;

/** Reads `sm_90a`, `90a`, `9.0a` and `90`. @throws FlashInferError `ERR_FLASHINFER_UNSUPPORTED_ARCH` */
export function parseTarget(text: string): ParsedTarget {
  const match = /^(?:sm_)?(\d{2,3}|\d{1,2}\.\d)([af]?)$/.exec(typeof text === 'string' ? text.trim() : '');
  const sm = Number(match?.[1]?.replace('.', ''));
  if (!match || !firstRelease.has(sm)) {
    throw new UnsupportedError(
      'ERR_FLASHINFER_UNSUPPORTED_ARCH',
      `arch ${describeValue(text)} is not known; expected one of ${[...firstRelease.keys()].join(', ')} with an optional suffix ` +
        `a or f, written as 9.0a, 90a or sm_90a`,
    );
  }
  return { sm, suffix: match[2] as ParsedTarget['suffix'] };
}

export function formatTarget({ sm, suffix }: ParsedTarget): Target {
  return `sm_${sm}${suffix}`;
}

/** The target of an architecture as users write it: `90` is what a GPU of that architecture would compile for. */
export function namedTarget(arch: string): Target {
  const parsed = parseTarget(arch);
  return formatTarget(parsed.suffix === '' && parsed.sm >= 90 ? { sm: parsed.sm, suffix: 'a' } : parsed);
}

/** The target of every known architecture. */
export function knownTargets(): Target[] {
  return [...firstRelease.keys()].map((sm) => namedTarget(String(sm)));
}

/** Whether a cubin of this target runs on a GPU of compute capability `sm`. */
export function runsOn(target: string, sm: number): boolean {
  const { sm: built, suffix } = parseTarget(target);
  if (suffix === 'a') return built === sm;
  return Math.floor(built / 10) === Math.floor(sm / 10) && built <= sm;
}

/**
 * The target to compile `spec` for, for a GPU of compute capability `sm`. Architecture-specific from sm_90 on, as
 * FlashInfer does. A GPU newer than this table gets the closest architecture whose cubins run there.
 * @throws UnsupportedError `ERR_FLASHINFER_UNSUPPORTED_ARCH` when no cubin of this kernel can run there
 */
export function targetFor(sm: number, spec: KernelSpec, archList: readonly Target[] = []): Target {
  const minArch = Math.max(spec.minArch ?? lowestSm, lowestSm);
  if (sm < minArch) throw unsupported(spec, sm, `sm_${minArch} or newer`);
  if (spec.exactArch !== undefined) {
    if (!runsOn(spec.exactArch, sm)) throw unsupported(spec, sm, `a GPU that runs ${spec.exactArch} code`);
    return formatTarget(parseTarget(spec.exactArch));
  }
  if (archList.length > 0) {
    const usable = archList.filter((target) => runsOn(target, sm)).sort(bySpecificity);
    if (usable[0] === undefined) {
      throw unsupported(spec, sm, `FLASHINFER_CUDA_ARCH_LIST (${archList.join(' ')}) to have a target for it; add it`);
    }
    return usable[0];
  }
  if (firstRelease.has(sm)) return formatTarget({ sm, suffix: sm >= 90 ? 'a' : '' });
  const closest = [...firstRelease.keys()].filter((known) => known >= minArch && runsOn(`sm_${known}`, sm)).at(-1);
  if (closest === undefined) throw unsupported(spec, sm, `one of sm_${[...firstRelease.keys()].join(', sm_')}`);
  return formatTarget({ sm: closest, suffix: '' });
}

function bySpecificity(a: Target, b: Target): number {
  const [left, right] = [parseTarget(a), parseTarget(b)];
  const order = ['a', 'f', ''];
  return right.sm - left.sm || order.indexOf(left.suffix) - order.indexOf(right.suffix);
}

function unsupported(spec: KernelSpec, sm: number, expected: string): UnsupportedError {
  return new UnsupportedError(
    'ERR_FLASHINFER_UNSUPPORTED_ARCH',
    `getKernel: ${spec.name} cannot run on sm_${sm}; expected ${expected}`,
  );
}

/** Whether the compilers of a CUDA release (e.g. '12.8') know the target. */
export function releaseSupports(release: string, target: Target): boolean {
  return Number(release) >= requiredRelease(target);
}

/** First CUDA release that compiles for the target. */
export function requiredRelease(target: Target): number {
  const { sm, suffix } = parseTarget(target);
  const first = firstRelease.get(sm) as number;
  return suffix === 'f' ? Math.max(first, firstReleaseOfFamilies) : first;
}
