// SPDX-License-Identifier: Apache-2.0
// docs/performance.md says what the reports say; `vitest -u` writes it anew.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../src/cases/childProcess.ts';
import { checkReport, type Report } from '../src/report.ts';
import { renderSummary } from '../src/summary.ts';

const files = ['prefill', 'decode', 'plan', 'norm-activation', 'rope-append', 'sampling'].map(
  (name) => `h200-${name}.json`,
);

function load(file: string): Report {
  const report: unknown = JSON.parse(readFileSync(join(packageRoot, 'reports', file), 'utf8'));
  checkReport(report);
  return report;
}

it('is what the reports say', async () => {
  const named = Object.fromEntries(files.map((file) => [file, load(file)]));
  await expect(renderSummary(named)).toMatchFileSnapshot(join(packageRoot, '../../docs/performance.md'));
});
