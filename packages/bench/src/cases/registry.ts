// SPDX-License-Identifier: Apache-2.0
import { activationCases } from './activation.ts';
import { appendCases } from './append.ts';
import { batchDecodeCases } from './batchDecode.ts';
import { batchPrefillCases } from './batchPrefill.ts';
import type { BenchCase, DeviceKind } from './benchCase.ts';
import { cascadeCases } from './cascade.ts';
import { compileCases } from './compile.ts';
import { decodeCases } from './decode.ts';
import { elementwiseCases } from './elementwise.ts';
import { floorCases } from './floor.ts';
import { fp8Cases } from './fp8.ts';
import { fp8PrefillCases } from './fp8Prefill.ts';
import { importCases } from './import.ts';
import { launchCases } from './launch.ts';
import { llamaColdCases } from './llamaCold.ts';
import { mergeCases } from './merge.ts';
import { normCases } from './norm.ts';
import { packbitsCases } from './packbits.ts';
import { planCases } from './plan.ts';
import { prefillCases } from './prefill.ts';
import { ropeCases } from './rope.ts';
import { samplingCases } from './sampling.ts';
import { sparseCases } from './sparse.ts';
import { speculativeCases } from './speculative.ts';
import { topKCases } from './topk.ts';
import { tuningCases } from './tuning.ts';
import { variantBenchCases } from './variant.ts';

export const allCases: readonly BenchCase[] = [
  ...decodeCases,
  ...prefillCases,
  ...fp8PrefillCases,
  ...cascadeCases,
  ...mergeCases,
  ...sparseCases,
  ...variantBenchCases,
  ...batchDecodeCases,
  ...batchPrefillCases,
  ...planCases,
  ...elementwiseCases,
  ...normCases,
  ...activationCases,
  ...packbitsCases,
  ...fp8Cases,
  ...ropeCases,
  ...samplingCases,
  ...speculativeCases,
  ...topKCases,
  ...appendCases,
  ...floorCases,
  ...launchCases,
  ...importCases,
  ...compileCases,
  ...llamaColdCases,
  ...tuningCases,
];

/**
 * Cases of a device whose name matches one of the patterns: `*` stands for anything, and a pattern without it matches
 * anywhere in the name. No patterns: all cases. The search for tiles runs where a pattern names it.
 */
export function selectCases(patterns: readonly string[], device: DeviceKind): BenchCase[] {
  const matchers = patterns.map(toMatcher);
  const named = patterns.some((pattern) => pattern.startsWith('tuning'));
  return allCases.filter(
    ({ name, devices }) =>
      devices.includes(device) &&
      (named || !name.startsWith('tuning/')) &&
      (matchers.length === 0 || matchers.some((m) => m.test(name))),
  );
}

function toMatcher(pattern: string): RegExp {
  const body = pattern.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*');
  return new RegExp(pattern.includes('*') ? `^${body}$` : body);
}
