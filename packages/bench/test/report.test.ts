// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { renderHtml, renderSvg } from '../src/plot.ts';
import { checkReport, describeCommand, type Report, toMeasurement } from '../src/report.ts';
import { renderTable } from '../src/table.ts';
import { summarize } from '../src/timing/statistics.ts';

const work = { bytes: 4e6, flops: 2e9 };

function makeReport(): Report {
  return {
    schema: 1,
    date: '2026-11-20T10:00:00.000Z',
    command: 'flashinfer-bench decode <&"',
    device: 'cuda:0',
    quick: false,
    versions: { '@flashinfer/core': '0.0.0', node: '20.20.2' },
    machine: { os: 'linux', cpu: 'A & B', cores: 2, memoryBytes: 1e9, gpu: 'NVIDIA H200' },
    ceilings: { bandwidth: 4282, bandwidthMethod: 'copy', peakTflops: {} },
    results: [
      {
        name: 'decode/a<b',
        params: { kvLen: 1 },
        ...work,
        floorUs: 5,
        measurements: [
          toMeasurement('flashinfer-js', 'launch', summarize([9, 10, 11]), work),
          toMeasurement('torch-flash', 'launch', summarize([20, 20, 26]), work),
        ],
        anchors: [
          { case: 'x', impl: 'flashinfer', us: 12, figure: 333.3, unit: 'GB/s' },
          { case: 'x', impl: 'no-time', figure: 1, unit: 's' },
        ],
      },
    ],
  };
}

it('names the files of a run without their folders', () => {
  const argv = ['decode/*', '--json', '/some/where/a.json', '--quick', '--plot', 'b.svg'];
  expect(describeCommand(argv)).toBe('flashinfer-bench decode/* --json a.json --quick --plot b.svg');
});

it('derives rates from the median', () => {
  const { gbPerSecond, tflops, medianUs } = makeReport().results[0]!.measurements[0]!;
  expect(medianUs).toBe(10);
  expect(gbPerSecond).toBeCloseTo(400);
  expect(tflops).toBeCloseTo(200);
  expect(toMeasurement('x', 'y', summarize([1]), undefined)).not.toHaveProperty('gbPerSecond');
});

it('accepts what it writes, also after JSON', () => {
  expect(() => checkReport(JSON.parse(JSON.stringify(makeReport())))).not.toThrow();
});

const noMedian = { impl: 'a', medianUs: 1, p10Us: 2, p90Us: 3 };

it.each([
  ['schema', { schema: 2 }],
  ['date', { date: 'yesterday' }],
  ['command', { command: undefined }],
  ['machine.cpu', { machine: {} }],
  ['ceilings.bandwidth', { ceilings: {} }],
  ['results', { results: undefined }],
  ['results[0].measurements', { results: [{ name: 'x', measurements: [] }] }],
  ['results[0].measurements[0]', { results: [{ name: 'x', measurements: [noMedian] }] }],
])('names the field when %s is wrong', (field, change) => {
  expect(() => checkReport({ ...makeReport(), ...change })).toThrow(`report: ${field} is missing`);
});

it('draws one bar a measurement, anchor with a time and floor, in proportion', () => {
  const svg = renderSvg(makeReport());
  const widths = [...svg.matchAll(/<rect x="\d+" y="\d+" width="([\d.]+)"/g)].map((match) => Number(match[1]));
  expect(widths.length).toBe(4);
  const [ours, peer, anchor, floor] = widths as [number, number, number, number];
  expect(ours / peer).toBeCloseTo(10 / 20, 2);
  expect(anchor / peer).toBeCloseTo(12 / 20, 2);
  expect(floor / peer).toBeCloseTo(5 / 20, 2);
});

it('is self-contained and escapes what it shows', () => {
  const html = renderHtml(makeReport());
  expect(html).toContain('decode/a&lt;b');
  expect(html).toContain('decode &lt;&amp;&quot;');
  expect(html).not.toMatch(/<script|<link|src=|href=/);
});

it('prints figures beside floor and anchors', () => {
  const table = renderTable(makeReport().results);
  const parts = ['decode/a<b', 'torch-flash', '400.0', '2.00', 'flashinfer: 333.3 GB/s (1.20x)', 'no-time: 1.0 s'];
  for (const part of parts) expect(table).toContain(part);
});
