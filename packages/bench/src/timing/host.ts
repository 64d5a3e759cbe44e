// SPDX-License-Identifier: Apache-2.0
// Time of calls on the host.
import type { HostSamples } from '../cases/benchCase.ts';

export const nowUs = (): number => Number(process.hrtime.bigint()) / 1000;

/**
 * Microseconds a call, averaged over bursts of calls because one call is close to the clock's own cost. Variants take
 * turns, so that a change of the machine's state hits all of them alike.
 */
export function hostSamples(
  variants: readonly (readonly [string, () => void])[],
  { burst, rounds, synchronize }: { burst: number; rounds: number; synchronize: () => void },
): HostSamples[] {
  const results = variants.map(([variant]) => ({ variant, samplesUs: [] as number[] }));
  const warmupRounds = 3;
  for (let round = -warmupRounds; round < rounds; ++round) {
    variants.forEach(([, call], n) => {
      synchronize();
      const start = nowUs();
      for (let i = 0; i < burst; ++i) call();
      const us = (nowUs() - start) / burst;
      if (round >= 0) results[n]!.samplesUs.push(us);
    });
  }
  synchronize();
  return results;
}
