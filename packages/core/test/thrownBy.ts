// SPDX-License-Identifier: Apache-2.0
import { expect } from 'vitest';
import { type ErrorCode, FlashInferError } from '../src/errors.ts';

/** Asserts that `run` throws `code` with every part in the message, and that the message has all three clauses. */
export function expectThrows(run: () => unknown, code: ErrorCode, ...parts: string[]): void {
  let error: unknown;
  try {
    run();
  } catch (thrown) {
    error = thrown;
  }
  expectError(error, code, ...parts);
}

/** As `expectThrows`, for a Promise. */
export async function expectRejects(promise: Promise<unknown>, code: ErrorCode, ...parts: string[]): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expectError(error, code, ...parts);
}

function expectError(error: unknown, code: ErrorCode, ...parts: string[]): void {
  expect(error).toBeInstanceOf(FlashInferError);
  const { code: given, message } = error as FlashInferError;
  expect(given, message).toBe(code);
  for (const part of parts) expect(message).toContain(part);
}
