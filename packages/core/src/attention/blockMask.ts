// SPDX-License-Identifier: Apache-2.0
// Which keys the rows of a sparse mask see, as the attention kernels take it: for each request (a row of blocks) runs of
// keys, and, where blocks are cut, bits.

/** Keys `[begin, end)`. */
export interface KeyRun {
  readonly begin: number;
  readonly end: number;
}

/** Query rows `[rowBegin, rowEnd)` of a matrix with `rows` and `columns`, which see the keys of `runs`. */
export interface MaskedRows {
  readonly rowBegin: number;
  readonly rowEnd: number;
  readonly rows: number;
  readonly columns: number;
}

/** Last key that row 0 of the request sees under the causal rule; the next rows see one more each. */
function diagonal({ rowBegin, rows, columns }: MaskedRows): number {
  return rowBegin + columns - rows;
}

/** Whether the causal rule hides all of the run. */
export function isHidden(of: MaskedRows, { begin }: KeyRun): boolean {
  return begin > diagonal(of) + (of.rowEnd - of.rowBegin) - 1;
}

/**
 * What the causal rule over the whole matrix is for one request whose hidden runs are left out: nothing to hide, the same
 * as the rule over the request's own keys, either of them, or bits.
 */
type CausalForm = 'none' | 'causal' | 'either' | 'bits';

function causalForm(of: MaskedRows, runs: readonly KeyRun[]): CausalForm {
  const numRows = of.rowEnd - of.rowBegin;
  if (runs.length === 0 || numRows === 0) return 'either';
  const first = diagonal(of);
  if (runs.every(({ end }) => end - 1 <= first)) return numRows === 1 ? 'either' : 'none';
  // The kernels count back from a request's last key: it must be where the last row's view ends, and what the rows
  // before it do not see must be right before it.
  const last = runs[runs.length - 1]!;
  const ends = last.end === first + numRows && last.end - last.begin >= numRows - 1;
  return ends && runs.every((run) => run === last || run.end - 1 <= first) ? 'causal' : 'bits';
}

/** One form for all requests; `runs` gives those of each. */
export function commonForm(
  requests: readonly MaskedRows[],
  runs: (request: number) => readonly KeyRun[],
): 'none' | 'causal' | 'bits' {
  let common: CausalForm = 'either';
  for (const [request, of] of requests.entries()) {
    const form = causalForm(of, runs(request));
    if (form === 'either' || form === common) continue;
    if (common !== 'either') return 'bits';
    common = form;
  }
  return common === 'either' ? 'none' : common;
}

/** Little-endian bits, a request's `[rows, keys]` after the other's, each from a byte of its own. */
export class MaskBits {
  readonly bytes: Uint8Array;
  private next = 0;

  /** `sizes`: bits of each request. */
  constructor(sizes: Iterable<number>) {
    let bytes = 0;
    for (const size of sizes) bytes += Math.ceil(size / 8);
    this.bytes = new Uint8Array(bytes);
  }

  /** Starts the next request. */
  align(): void {
    this.next = Math.ceil(this.next / 8) * 8;
  }

  /** Appends `count` equal bits. */
  fill(value: boolean, count: number): void {
    const end = this.next + count;
    if (value) {
      for (let bit = this.next; bit < end; ) {
        if (bit % 8 === 0 && end - bit >= 8) {
          const whole = Math.floor((end - bit) / 8);
          this.bytes.fill(0xff, bit / 8, bit / 8 + whole);
          bit += 8 * whole;
        } else {
          this.bytes[bit >> 3]! |= 1 << (bit & 7);
          ++bit;
        }
      }
    }
    this.next = end;
  }

  /** Appends the bits that the causal rule leaves of the request's runs. */
  appendCausal(of: MaskedRows, runs: readonly KeyRun[]): void {
    this.align();
    for (let row = 0; row < of.rowEnd - of.rowBegin; ++row) {
      const end = diagonal(of) + row + 1;
      for (const run of runs) {
        const visible = Math.max(0, Math.min(run.end, end) - run.begin);
        this.fill(true, visible);
        this.fill(false, run.end - run.begin - visible);
      }
    }
  }
}
