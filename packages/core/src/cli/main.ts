// SPDX-License-Identifier: Apache-2.0
import { FlashInferError } from '../errors.ts';
import { createProgram } from './program.ts';

try {
  await createProgram().parseAsync();
} catch (error) {
  // What was thrown on purpose says what to do; anything else is a bug and shows where.
  if (!(error instanceof FlashInferError)) throw error;
  console.error(`flashinfer: ${error.message}`);
  process.exitCode = 1;
}
