// SPDX-License-Identifier: Apache-2.0
import type { Operation } from '../cases/benchCase.ts';
import { nowUs } from './host.ts';

/** Times a synchronous operation: at least `minSamples` runs, more while they fit in `budgetMs`. */
export function timeOnCpu(operation: Operation, rotations: number, budgetMs: number, minSamples: number): number[] {
  operation.run(0);
  operation.run(rotations - 1);
  const samplesUs: number[] = [];
  const end = nowUs() + budgetMs * 1000;
  for (let n = 0; n < minSamples || (n < 1000 && nowUs() < end); ++n) {
    const start = nowUs();
    operation.run(n % rotations);
    samplesUs.push(nowUs() - start);
  }
  return samplesUs;
}
