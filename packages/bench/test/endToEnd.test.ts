// SPDX-License-Identifier: Apache-2.0
import { singleDecodeWithKVCache, zeros } from '@flashinfer/core';
import { expect, it } from 'vitest';
import type { DeviceCase, HostCase } from '../src/cases/benchCase.ts';
import { measureCeilings } from '../src/ceilings.ts';
import { TorchPeer } from '../src/peers.ts';
import { checkReport, describeMachine, describeVersions, reportSchema } from '../src/report.ts';
import { runCase } from '../src/runCases.ts';
import { hostSamples } from '../src/timing/host.ts';

const tinyCase: DeviceCase = {
  kind: 'device',
  name: 'decode/tiny',
  params: { kvLen: 16 },
  devices: ['cpu'],
  bytes: 16 * 2 * 64 * 2 * 2,
  flops: 0,
  setup({ device }) {
    const q = zeros([2, 64], { dtype: 'bfloat16', device });
    const k = zeros([16, 2, 64], { dtype: 'bfloat16', device });
    return {
      run: () => void singleDecodeWithKVCache(q, k, k),
      dispose: () => {
        q.dispose();
        k.dispose();
      },
    };
  },
};

it('runs a case on the cpu and makes a report of it', async () => {
  const ceilings = measureCeilings('cpu', true);
  expect(ceilings.bandwidth).toBeGreaterThan(0.1);
  const options = { device: 'cpu', quick: true, ceilings, anchors: [], log: () => undefined } as const;
  const result = await runCase(tinyCase, options);
  const [measurement] = result.measurements;
  expect(measurement).toMatchObject({ impl: 'flashinfer-js', mode: 'call' });
  expect(measurement!.medianUs).toBeGreaterThan(0);
  expect(measurement!.gbPerSecond).toBeCloseTo(tinyCase.bytes / measurement!.medianUs / 1e3);
  expect(result.floorUs).toBeCloseTo(tinyCase.bytes / ceilings.bandwidth / 1e3);
  expect(() =>
    checkReport({
      schema: reportSchema,
      date: new Date().toISOString(),
      command: 'flashinfer-bench decode/tiny',
      device: 'cpu',
      quick: true,
      versions: describeVersions(),
      machine: describeMachine('cpu'),
      ceilings,
      results: [result],
    }),
  ).not.toThrow();
});

it('lists every variant of a host case', async () => {
  const hostCase: HostCase = {
    kind: 'host',
    name: 'host/two',
    params: {},
    devices: ['cpu'],
    measure: async () =>
      hostSamples(
        [
          ['nothing', () => undefined],
          ['something', () => Buffer.alloc(1 << 16)],
        ],
        { burst: 8, rounds: 4, synchronize: () => undefined },
      ),
  };
  const ceilings = { bandwidth: 1, bandwidthMethod: '', peakTflops: {} };
  const options = { device: 'cpu', quick: true, ceilings, anchors: [], log: () => undefined } as const;
  const { measurements } = await runCase(hostCase, options);
  expect(measurements.map(({ mode, samples }) => [mode, samples])).toEqual([
    ['nothing', 4],
    ['something', 4],
  ]);
  expect(measurements[1]!.medianUs).toBeGreaterThan(measurements[0]!.medianUs);
});

it('measures torch where it is there, and says why where it is not', async () => {
  const peer = await TorchPeer.start('cpu', 1);
  if (!(peer instanceof TorchPeer)) {
    expect(peer.missing).not.toBe('');
    return;
  }
  try {
    const request = {
      batchSize: 3,
      qoLen: 8,
      kvLen: 8,
      numQoHeads: 4,
      numKvHeads: 2,
      headDim: 64,
      dtype: 'bfloat16',
      causal: true,
    };
    const [result] = await peer.measure({ op: 'attention', ...request }, 2, 5);
    expect(result!.impl).toBe('torch-sdpa');
    expect(result!.samplesUs.length).toBeGreaterThanOrEqual(5);
    await expect(peer.measure({ op: 'attention', ...request, dtype: 'no_such' }, 2, 5)).rejects.toThrow(/no_such/);
  } finally {
    peer.stop();
  }
});
