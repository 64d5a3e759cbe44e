// SPDX-License-Identifier: Apache-2.0
// Peers measured in the same run: one long-lived Python process that takes a request a line and answers with samples.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import type { PeerRequest } from './cases/benchCase.ts';
import { packageRoot } from './cases/childProcess.ts';

export interface PeerSamples {
  readonly impl: string;
  readonly samplesUs: readonly number[];
}

interface PeerAnswer {
  readonly results?: readonly PeerSamples[];
  readonly error?: string;
}

export class TorchPeer {
  readonly description: string;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;

  private constructor(child: ChildProcessWithoutNullStreams, lines: AsyncIterator<string>, description: string) {
    this.#child = child;
    this.#lines = lines;
    this.description = description;
  }

  /** Resolves to a reason where python3 or torch is not there. */
  static async start(device: string, threads: number): Promise<TorchPeer | { missing: string }> {
    const script = join(packageRoot, 'peers/torch_sdpa.py');
    const child = spawn('python3', ['-u', script, '--device', device, '--threads', String(threads)]);
    let stderr = '';
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    const failed = new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('close', (code) => resolve(lastLine(stderr) || `python3 ended with ${code}`));
    });
    const reader: Interface = createInterface({ input: child.stdout });
    const lines = reader[Symbol.asyncIterator]();
    const hello = await Promise.race([lines.next(), failed]);
    if (typeof hello === 'string') return { missing: hello };
    if (hello.done) return { missing: await failed };
    return new TorchPeer(child, lines, hello.value);
  }

  /** Samples of each backend that can do the work, walking through `rotations` sets of inputs as we do. */
  async measure(request: PeerRequest, rotations: number, budgetMs: number): Promise<readonly PeerSamples[]> {
    this.#child.stdin.write(`${JSON.stringify({ ...request, rotations, budgetMs })}\n`);
    const line = await this.#lines.next();
    if (line.done) throw new Error('the peer process ended');
    const answer = JSON.parse(line.value) as PeerAnswer;
    if (!answer.results) throw new Error(`the peer failed: ${answer.error}`);
    return answer.results;
  }

  stop(): void {
    this.#child.stdin.end();
  }
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1) ?? '';
}
