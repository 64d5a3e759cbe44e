// SPDX-License-Identifier: Apache-2.0
import { appendFileSync } from 'node:fs';

/** One line of what the JIT does and why; FLASHINFER_LOGDEST is `stderr` (default), `stdout` or a path (`%i`: process id). */
export function logLine(text: string): void {
  const line = `[flashinfer] ${text}\n`;
  const destination = process.env.FLASHINFER_LOGDEST || 'stderr';
  if (destination === 'stderr') process.stderr.write(line);
  else if (destination === 'stdout') process.stdout.write(line);
  else appendFileSync(destination.replaceAll('%i', String(process.pid)), line);
}
