// SPDX-License-Identifier: Apache-2.0
// The table on the terminal.
import Table from 'cli-table3';
import { anchorUs } from './anchors.ts';
import type { CaseResult, Measurement } from './report.ts';

export function renderTable(results: readonly CaseResult[]): string {
  const table = new Table({
    head: [
      'case',
      'impl',
      'mode',
      'median µs',
      'p10 – p90',
      'GB/s',
      'TFLOP/s',
      '× floor',
      'anchor: figure (our speed-up)',
    ],
    style: { head: [], border: [] },
  });
  for (const result of results) {
    result.measurements.forEach((measurement, n) => {
      table.push([
        n === 0 ? result.name : '',
        measurement.impl,
        measurement.mode,
        formatUs(measurement.medianUs),
        `${formatUs(measurement.p10Us)} – ${formatUs(measurement.p90Us)}`,
        measurement.gbPerSecond?.toFixed(1) ?? '',
        formatTflops(measurement.tflops),
        result.floorUs ? (measurement.medianUs / result.floorUs).toFixed(2) : '',
        measurement.impl === 'flashinfer-js' ? anchorsOf(result, measurement) : '',
      ]);
    });
  }
  return table.toString();
}

export function formatUs(us: number): string {
  return us >= 1000 ? us.toFixed(0) : us >= 100 ? us.toFixed(1) : us.toFixed(2);
}

function formatTflops(tflops: number | undefined): string {
  if (tflops === undefined) return '';
  return tflops >= 10 ? tflops.toFixed(0) : tflops.toFixed(3);
}

function anchorsOf(result: CaseResult, measurement: Measurement): string {
  return result.anchors
    .map((row) => {
      const us = anchorUs(row);
      const ratio = us === undefined ? '' : ` (${(us / measurement.medianUs).toFixed(2)}x)`;
      return `${row.impl}: ${row.figure.toFixed(1)} ${row.unit}${ratio}`;
    })
    .join('\n');
}
