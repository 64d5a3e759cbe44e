// SPDX-License-Identifier: Apache-2.0
// One file over HTTP(S) or from a file: URL, complete and with the expected checksum, or an error: nothing in between.
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Dispatcher } from 'undici';
import { DownloadError } from '../../errors.ts';
import { sha256 } from '../entry.ts';

export interface ExpectedFile {
  readonly bytes: number;
  readonly sha256: string;
}

export interface RetryPolicy {
  readonly attempts: number;
  /** Before the second attempt; doubles from one to the next. Half of it is random, so that clients spread. */
  readonly backoffMs: number;
  /** Most to wait for a connection, for headers, and for the next bytes. */
  readonly timeoutMs: number;
}

export const defaultRetryPolicy: RetryPolicy = { attempts: 4, backoffMs: 250, timeoutMs: 30_000 };

/** What trying again cannot change: the next mirror is asked. */
class FinalFailure extends Error {}

/** @throws DownloadError when no mirror has the file; AbortError of `signal` */
export async function fetchVerified(
  urls: readonly string[],
  expected: ExpectedFile,
  signal: AbortSignal | undefined,
  policy: RetryPolicy = defaultRetryPolicy,
): Promise<Buffer> {
  const failures: string[] = [];
  for (const url of urls) {
    const partial: Partial = { chunks: [], received: 0, etag: undefined };
    for (let attempt = 0; attempt < policy.attempts; attempt++) {
      signal?.throwIfAborted();
      try {
        const content = url.startsWith('file:')
          ? await readFile(fileURLToPath(url), { signal })
          : await readHttp(url, expected, partial, signal, policy);
        return verify(content, expected);
      } catch (error) {
        signal?.throwIfAborted();
        failures.push(`${url}: ${error instanceof Error ? error.message : error}`);
        if (error instanceof FinalFailure || url.startsWith('file:')) break;
        if (attempt + 1 < policy.attempts) await pause(policy.backoffMs * 2 ** attempt, signal);
      }
    }
  }
  throw new DownloadError(
    `download: ${describeFailures(failures) || 'no repository is set'}; expected ${expected.bytes} bytes with sha256 ` +
      `${expected.sha256}; check FLASHINFER_CUBINS_REPOSITORY and the network, or install @flashinfer/cubin`,
  );
}

/** Attempts mostly fail for the same reason: each is named once. */
function describeFailures(failures: readonly string[]): string {
  return [...new Set(failures)]
    .map((failure) => {
      const times = failures.filter((each) => each === failure).length;
      return times === 1 ? failure : `${failure} (${times} times)`;
    })
    .join('; ');
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(ms * (0.5 + Math.random() / 2), undefined, { signal });
}

function verify(content: Buffer, { bytes, sha256: sum }: ExpectedFile): Buffer {
  if (content.byteLength === bytes && sha256(content) === sum) return content;
  throw new FinalFailure(`${content.byteLength} bytes with another checksum`);
}

/** What arrived before a connection broke; the next attempt asks for the rest. */
interface Partial {
  chunks: Buffer[];
  received: number;
  etag: string | undefined;
}

const retriedStatus = new Set([408, 425, 429, 500, 502, 503, 504]);

async function readHttp(
  url: string,
  expected: ExpectedFile,
  partial: Partial,
  signal: AbortSignal | undefined,
  { timeoutMs }: RetryPolicy,
): Promise<Buffer> {
  const { request } = await import('undici');
  const headers: Record<string, string> = { 'accept-encoding': 'identity' };
  if (partial.received > 0) headers.range = `bytes=${partial.received}-`;
  // A file that changed meanwhile is sent whole.
  if (partial.received > 0 && partial.etag !== undefined) headers['if-range'] = partial.etag;
  const dispatcher = await sharedDispatcher();
  const options = { dispatcher, headers, signal, headersTimeout: timeoutMs, bodyTimeout: timeoutMs };
  const { statusCode, headers: answer, body } = await request(url, options);
  if (statusCode !== 200 && statusCode !== 206) {
    await body.dump();
    if (statusCode === 416) forget(partial);
    const problem = `HTTP status ${statusCode}`;
    throw retriedStatus.has(statusCode) || statusCode === 416 ? new Error(problem) : new FinalFailure(problem);
  }
  const resumed = statusCode === 206 && answer['content-range']?.toString().startsWith(`bytes ${partial.received}-`);
  if (!resumed) forget(partial);
  const etag = answer.etag?.toString();
  partial.etag = etag?.startsWith('"') ? etag : undefined;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    partial.chunks.push(chunk);
    partial.received += chunk.byteLength;
    if (partial.received > expected.bytes) throw new FinalFailure(`more than ${expected.bytes} bytes`);
  }
  if (partial.received < expected.bytes) throw new Error(`ended after ${partial.received} bytes`);
  return Buffer.concat(partial.chunks);
}

function forget(partial: Partial): void {
  partial.chunks = [];
  partial.received = 0;
}

const maxRedirections = 5;
let dispatcher: Promise<Dispatcher> | undefined;

/** Follows redirects, and HTTP_PROXY, HTTPS_PROXY and NO_PROXY. Loaded at the first download. */
function sharedDispatcher(): Promise<Dispatcher> {
  dispatcher ??= import('undici').then(({ EnvHttpProxyAgent, interceptors }) =>
    new EnvHttpProxyAgent({ connect: { timeout: defaultRetryPolicy.timeoutMs } }).compose(
      interceptors.redirect({ maxRedirections }),
    ),
  );
  return dispatcher;
}
