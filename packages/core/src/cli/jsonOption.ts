// SPDX-License-Identifier: Apache-2.0
import { Option } from 'commander';

export interface JsonOption {
  readonly json?: boolean;
}

/** `--json`, with the form of what it prints. */
export function jsonOption(form: string): Option {
  return new Option('--json', `print as JSON: ${form}`);
}
