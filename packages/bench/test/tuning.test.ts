// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { selectCases } from '../src/cases/registry.ts';
import type { CaseResult } from '../src/report.ts';
import { renderTuning } from '../src/tuningTable.ts';

function result(tile: string, launch: number, graph: number): CaseResult {
  const measurements = [
    ['launch', launch],
    ['graph', graph],
  ].map(([mode, us]) => ({ impl: 'flashinfer-js', mode, medianUs: us, p10Us: us, p90Us: us, samples: 1 }));
  return {
    name: `tuning/g/${tile}`,
    params: { group: 'g', tile },
    measurements: measurements as unknown as CaseResult['measurements'],
    anchors: [],
  };
}

it('searches for tiles only where that is asked for', () => {
  const count = (...patterns: string[]) => selectCases(patterns, 'cuda').filter(({ params }) => params.tile).length;
  expect(count()).toBe(0);
  expect(count('decode')).toBe(0);
  expect(count('tuning')).toBeGreaterThan(300);
  expect(count('tuning/fa2')).toBeLessThan(count('tuning'));
  expect(selectCases(['tuning'], 'cpu')).toEqual([]);
});

it('names the fastest tiles beside the chosen one', () => {
  const table = renderTuning([result('chosen', 100, 80), result('a', 110, 60), result('b', 90, 88)])!;
  expect(table).toMatch(/launch .* 100\.0 .* b: 90\.00 \(0\.900\) {3}a: 110\.0 \(1\.100\)/);
  expect(table).toMatch(/graph .* 80\.00 .* a: 60\.00 \(0\.750\) {3}b: 88\.00 \(1\.100\)/);
  expect(renderTuning([])).toBeUndefined();
});
