// SPDX-License-Identifier: Apache-2.0
import { AbortedError, FlashInferError } from '../errors.ts';
import { createProgram } from './program.ts';

// console.log says nothing of output that is lost. A reader that has enough (`| head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit();
  console.error(`flashinfer: the output cannot be written: ${error.message}`);
  process.exit(1);
});

try {
  await createProgram().parseAsync();
} catch (error) {
  // What was thrown on purpose says what to do; anything else is a bug and shows where.
  if (!(error instanceof FlashInferError)) throw error;
  console.error(`flashinfer: ${error.message}`);
  // As shells say of a program that SIGINT ended.
  process.exitCode = error instanceof AbortedError ? 130 : 1;
}
