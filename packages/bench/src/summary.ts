// SPDX-License-Identifier: Apache-2.0
// docs/performance.md: the figures of reports beside those of peers on the same device model.
import { type AnchorRow, anchorUs } from './anchors.ts';
import type { CaseResult, Measurement, Report } from './report.ts';
import { formatUs } from './table.ts';

/** By what stands before the `/` of a case. */
const families: Readonly<Record<string, string>> = {
  batch_prefill: 'Prefill, ragged',
  batch_paged_prefill: 'Prefill, paged',
  batch_decode: 'Decode, paged',
  plan: 'Host cost of a decode step',
  norm: 'Norms',
  activation: 'Activations',
  rope: 'Rotary embeddings',
  append: 'Appending to a paged KV-cache',
  sampling: 'Sampling, 128256 tokens of vocabulary',
};

interface Row {
  readonly name: string;
  readonly us: number;
  readonly graphUs: number | undefined;
  readonly rate: string;
  readonly peer: string;
  readonly peerUs: number;
}

/** One table a family, of the cases that peers were measured at. `reports` by the names of their files. */
export function renderSummary(named: Readonly<Record<string, Report>>): string {
  const sources = Object.entries(named).map(([file, { date }]) => {
    return `[${file}](../packages/bench/reports/${file}) of ${date.slice(0, 10)}`;
  });
  return `${introduction}\n\nFrom ${sources.join(', ')}.\n\n${tables(Object.values(named))}\n`;
}

const introduction = `# Performance

<!-- Written from the reports by packages/bench/test/summary.test.ts: npx vitest run test/summary.test.ts -u -->

One NVIDIA H200. *Launch*: the median of single launches by CUDA events, L2 overwritten before each, as triton's \`do_bench\` does, by
which the peers were measured: FlashInfer 0.6.18 for Python, its fa2 and fa3 templates and its decode kernels with and without tensor cores
(\`-tc\`), cuDNN 9.19 and PyTorch 2.11. *In a graph*: a CUDA graph of many launches over several sets of buffers, divided by their number.
[packages/bench](../packages/bench/README.md) measures again, and says what the figures count.`;

function tables(reports: readonly Report[]): string {
  const sections = Object.entries(families).map(([family, title]) => {
    const rows = reports.flatMap(({ results }) =>
      results.filter((result) => familyOf(result) === family).flatMap(toRow),
    );
    return rows.length === 0 ? '' : `## ${title}\n\n${head}${rows.map(renderRow).join('')}\n`;
  });
  return sections.join('').trimEnd();
}

const head =
  '| case | launch, µs | in a graph, µs | rate | fastest peer, µs | times as fast |\n|---|---|---|---|---|---|\n';

function familyOf({ name }: CaseResult): string {
  return name.slice(0, name.indexOf('/'));
}

function toRow(result: CaseResult): Row[] {
  const own = measurementOf(result, 'launch') ?? measurementOf(result, 'plan');
  const peer = fastest(result.anchors);
  if (own === undefined || peer === undefined) return [];
  return [
    {
      name: result.name.slice(result.name.indexOf('/') + 1),
      us: own.medianUs,
      graphUs: measurementOf(result, 'graph')?.medianUs,
      rate: rateOf(own),
      peer: peer.impl,
      peerUs: anchorUs(peer)!,
    },
  ];
}

function measurementOf({ measurements }: CaseResult, mode: string): Measurement | undefined {
  return measurements.find((each) => each.impl === 'flashinfer-js' && each.mode === mode);
}

function fastest(anchors: readonly AnchorRow[]): AnchorRow | undefined {
  const timed = anchors.filter((row) => anchorUs(row) !== undefined);
  return timed.sort((a, b) => anchorUs(a)! - anchorUs(b)!)[0];
}

/** Of small cases the bandwidth says nothing. */
function rateOf({ tflops, gbPerSecond }: Measurement): string {
  if (tflops !== undefined) return `${tflops.toFixed(0)} TFLOP/s`;
  return gbPerSecond !== undefined && gbPerSecond >= 100 ? `${gbPerSecond.toFixed(0)} GB/s` : '';
}

function renderRow({ name, us, graphUs, rate, peer, peerUs }: Row): string {
  const graph = graphUs === undefined ? '' : formatUs(graphUs);
  return `| ${name} | ${formatUs(us)} | ${graph} | ${rate} | ${formatUs(peerUs)} (${peer}) | ${(peerUs / us).toFixed(2)} |\n`;
}
