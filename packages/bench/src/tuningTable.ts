// SPDX-License-Identifier: Apache-2.0
// The outcome of a search for tiles: for each shape the chosen tile, and the fastest ones.
import Table from 'cli-table3';
import { chosenTile } from './cases/tuning.ts';
import type { CaseResult } from './report.ts';
import { formatUs } from './table.ts';

/** Undefined where no case was part of a search. */
export function renderTuning(results: readonly CaseResult[]): string | undefined {
  const groups = new Map<string, CaseResult[]>();
  for (const result of results) {
    if (result.params.tile === undefined) continue;
    const group = String(result.params.group);
    groups.set(group, [...(groups.get(group) ?? []), result]);
  }
  if (groups.size === 0) return undefined;
  const table = new Table({
    head: ['shape', 'mode', 'chosen µs', 'fastest tiles: µs (against the chosen one)'],
    style: { head: [], border: [] },
  });
  for (const [group, members] of groups) {
    for (const mode of ['launch', 'graph']) {
      const times = timesOf(members, mode);
      const chosen = times.find(({ tile }) => tile === chosenTile);
      const fastest = times.filter((time) => time !== chosen).sort((a, b) => a.us - b.us);
      const columns = fastest.slice(0, 3).map(({ tile, us }) => {
        const ratio = chosen === undefined ? '' : ` (${(us / chosen.us).toFixed(3)})`;
        return `${tile}: ${formatUs(us)}${ratio}`;
      });
      table.push([mode === 'launch' ? group : '', mode, chosen ? formatUs(chosen.us) : '', columns.join('   ')]);
    }
  }
  return table.toString();
}

function timesOf(members: readonly CaseResult[], mode: string): { tile: string; us: number }[] {
  return members.flatMap(({ params, measurements }) =>
    measurements
      .filter((measurement) => measurement.mode === mode)
      .map(({ medianUs }) => ({ tile: String(params.tile), us: medianUs })),
  );
}
