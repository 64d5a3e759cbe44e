// SPDX-License-Identifier: Apache-2.0
import { AbortedError, FlashInferError } from '../errors.ts';
import { createProgram } from './program.ts';

// console.log says nothing of output that is lost. A reader that has enough (`| head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit();
  console.error(`flashinfer: the output cannot be written: ${error.message}`);
  process.exit(1);
});

/** What to tell of it; undefined where it is a bug, which shows where. */
function sentence(error: unknown): string | undefined {
  // What was thrown on purpose says what to do.
  if (error instanceof FlashInferError) return error.message;
  const { syscall, path, message } = error as NodeJS.ErrnoException;
  if (syscall === undefined || path === undefined) return undefined;
  return `${message}; expected a file or folder that this user may read and write; check its owner and permissions`;
}

try {
  await createProgram().parseAsync();
} catch (error) {
  const text = sentence(error);
  if (text === undefined) throw error;
  console.error(`flashinfer: ${text}`);
  // As shells say of a program that SIGINT ended.
  process.exitCode = error instanceof AbortedError ? 130 : 1;
}
