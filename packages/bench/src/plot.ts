// SPDX-License-Identifier: Apache-2.0
// A self-contained SVG or HTML chart of a report: one group of bars a case, shorter is better.

import { anchorUs } from './anchors.ts';
import type { CaseResult, Report } from './report.ts';
import { formatUs } from './table.ts';

interface Bar {
  readonly label: string;
  readonly us: number;
  readonly color: string;
  readonly note: string;
}

const colors = { ours: '#2563eb', peer: '#9ca3af', anchor: '#d97706', floor: '#16a34a' };
const layout = { width: 960, labelWidth: 250, noteWidth: 190, barHeight: 14, groupGap: 14, titleHeight: 18, top: 58 };

export function renderSvg(report: Report): string {
  const groups = report.results.map((result) => ({ name: result.name, bars: barsOf(result) }));
  const height = groups.reduce(
    (sum, { bars }) => sum + layout.titleHeight + bars.length * layout.barHeight + layout.groupGap,
    layout.top,
  );
  const parts: string[] = [];
  let y = layout.top;
  for (const { name, bars } of groups) {
    parts.push(text(8, y + 12, name, 'font-weight="bold"'));
    y += layout.titleHeight;
    // Each group has its own scale: times of different cases differ by orders of magnitude.
    const longest = Math.max(...bars.map(({ us }) => us));
    for (const bar of bars) {
      const space = layout.width - layout.labelWidth - layout.noteWidth;
      const width = longest > 0 ? Math.max(1, (bar.us / longest) * space) : 1;
      parts.push(text(layout.labelWidth - 8, y + 11, bar.label, 'text-anchor="end"'));
      parts.push(
        `<rect x="${layout.labelWidth}" y="${y + 1}" width="${width.toFixed(1)}" height="${layout.barHeight - 3}" fill="${bar.color}"/>`,
      );
      parts.push(text(layout.labelWidth + width + 6, y + 11, bar.note));
      y += layout.barHeight;
    }
    y += layout.groupGap;
  }
  const where = report.machine.gpu ?? `${report.machine.cpu}, ${report.machine.cpuThreads ?? '?'} threads`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${layout.width}" height="${height}" viewBox="0 0 ${layout.width} ${height}" font-family="sans-serif" font-size="11">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    text(
      8,
      20,
      `${where}, ${report.date.slice(0, 10)}, @flashinfer/core ${report.versions['@flashinfer/core'] ?? ''}`,
      'font-size="14"',
    ),
    text(
      8,
      38,
      `median time, shorter is better; floor: ${report.ceilings.bandwidthMethod}, ${report.ceilings.bandwidth.toFixed(0)} GB/s`,
    ),
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

export function renderHtml(report: Report): string {
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>@flashinfer/core benchmarks</title></head>
<body>
${renderSvg(report)}
<pre>${escapeXml(report.command)}</pre>
</body>
</html>
`;
}

function barsOf(result: CaseResult): Bar[] {
  const bars: Bar[] = result.measurements.map(({ impl, mode, medianUs, gbPerSecond, tflops }) => ({
    label: `${impl} ${mode}`,
    us: medianUs,
    color: impl === 'flashinfer-js' ? colors.ours : colors.peer,
    note: [
      `${formatUs(medianUs)} µs`,
      tflops && `${tflops.toPrecision(3)} TFLOP/s`,
      !tflops && gbPerSecond && `${gbPerSecond.toPrecision(3)} GB/s`,
    ]
      .filter(Boolean)
      .join(', '),
  }));
  for (const row of result.anchors) {
    const us = anchorUs(row);
    if (us !== undefined) {
      bars.push({ label: `anchor ${row.impl}`, us, color: colors.anchor, note: `${formatUs(us)} µs` });
    }
  }
  if (result.floorUs) {
    bars.push({ label: 'floor', us: result.floorUs, color: colors.floor, note: `${formatUs(result.floorUs)} µs` });
  }
  return bars;
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y}" ${attributes}>${escapeXml(content)}</text>`;
}

function escapeXml(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
