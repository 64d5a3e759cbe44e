// SPDX-License-Identifier: Apache-2.0
// How rows are dealt to clusters: tables of decisions, without a device.
import { describe, expect, it } from 'vitest';
import { planHeldRow, servesHeldRows } from '../../src/sampling/heldRows.ts';
import { planSampling, type SamplingLimits, staggerOf } from '../../src/sampling/samplingKernel.ts';

const h200: SamplingLimits = { clusters: true, sharedPerBlock: 232_448, sharedPerSm: 233_472, numSms: 132 };
const a100: SamplingLimits = { clusters: false, sharedPerBlock: 166_912, sharedPerSm: 167_936, numSms: 108 };

describe('planSampling', () => {
  it.each([
    [1, 8, 1],
    [16, 4, 16],
    [33, 2, 33],
    [66, 2, 66],
    [67, 2, 66],
    [512, 2, 66],
  ])('deals %i rows of 128256 to clusters of %i, %i at once', (rows, cluster, clustersAtOnce) => {
    expect(planSampling(128_256, rows, true, h200)).toMatchObject({
      cluster,
      clustersAtOnce,
      keepsRow: true,
      threads: 512,
    });
  });

  it.each([
    ['renormProbs', 66, 0],
    ['renormProbs', 128, 12_710],
    ['renormProbs', 256, 25_420],
    ['renormProbs', 512, 32_768],
    ['sampleProbs', 512, 16_384],
  ] as const)(
    'begins clusters apart that take several rows: %s of %i, the last one after %i cycles',
    (kind, rows, last) => {
      const plan = planSampling(128_256, rows, true, h200);
      const found = staggerOf(kind, rows, plan) * plan.clustersAtOnce;
      expect(Math.abs(found - last)).toBeLessThan(200);
    },
  );

  it.each([
    [66, 66, 0],
    [67, 66, 3327],
    [512, 66, 8192],
  ])(
    'begins clusters apart that do not select: of %i rows %i at once, the last one after %i cycles',
    (rows, atOnce, last) => {
      const plan = planSampling(128_256, rows, false, h200);
      expect(plan).toMatchObject({ cluster: 8, clustersAtOnce: atOnce, keepsRow: true, threads: 256 });
      expect(Math.abs(staggerOf('sampleProbs', rows, plan) * atOnce - last)).toBeLessThan(100);
    },
  );

  it('has one cluster a row where no cluster holds it, and on GPUs without clusters', () => {
    expect(planSampling(700_004, 512, true, h200)).toMatchObject({ keepsRow: false, clustersAtOnce: 512 });
    expect(planSampling(128_256, 512, true, a100)).toMatchObject({ cluster: 1, clustersAtOnce: 512 });
  });
});

describe('servesHeldRows', () => {
  it.each([
    ['sampleProbs', 255, 128_256, true],
    ['sampleProbs', 256, 128_256, false],
    ['sampleProbs', 256, 32_000, false],
    ['sampleProbs', 1024, 151_936, true],
    ['sampleProbs', 4096, 4096, true],
    ['sampleLogits', 512, 128_256, true],
    ['softmax', 512, 128_256, true],
  ] as const)('%s of %i rows of %i: %s', (kind, rows, vocab, serves) => {
    expect(servesHeldRows(kind, rows, planHeldRow(vocab, 16)!)).toBe(serves);
  });
});

describe('planHeldRow', () => {
  it.each([
    [1, 16, 1, 1],
    [1025, 16, 1, 2],
    [4096, 16, 1, 4],
    [4097, 16, 2, 3],
    [32_768, 16, 8, 4],
    [128_256, 16, 16, 8],
    [128_256, 8, 8, 16],
    [262_144, 16, 16, 16],
  ])('gives a row of %i, with clusters up to %i, %i blocks of %i accesses', (vocab, maxCluster, cluster, accesses) => {
    expect(planHeldRow(vocab, maxCluster)).toEqual({ cluster, accesses });
  });

  it('has an element for every thread in all accesses but the last', () => {
    for (let vocab = 4; vocab <= 262_144; vocab += 1012) {
      const { cluster, accesses } = planHeldRow(vocab, 16)!;
      expect(1024 * cluster * accesses).toBeGreaterThanOrEqual(vocab);
      expect(1024 * cluster * (accesses - 1)).toBeLessThan(vocab);
    }
  });

  it('leaves longer rows, and GPUs without clusters, to the other kernel', () => {
    expect(planHeldRow(262_145, 16)).toBeUndefined();
    expect(planHeldRow(131_076, 8)).toBeUndefined();
    expect(planHeldRow(4, 0)).toBeUndefined();
  });
});
