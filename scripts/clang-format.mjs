// SPDX-License-Identifier: Apache-2.0
// Formats C++ and CUDA sources by .clang-format; with --check only says which files differ.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { format } from '@wasm-fmt/clang-format';
import { readText, report, repositoryFiles, root } from './repository.mjs';

const check = process.argv.includes('--check');
const style = readText('.clang-format');
const files = repositoryFiles(/^(csrc|include)\/.*\.(cc|h|cuh|cu)$/);
const changed = [];
for (const file of files) {
  const text = readText(file);
  // clang-format knows no .cuh; the language is the same.
  const formatted = format(text, file.replace(/\.cuh?$/, '.cc'), style);
  if (formatted === text) continue;
  changed.push(file);
  if (!check) writeFileSync(join(root, file), formatted);
}
if (check) {
  report(
    changed.map((file) => `${file}: is not formatted; run pnpm format`),
    `${files.length} C++ files are formatted`,
  );
} else {
  console.log(`formatted ${changed.length} of ${files.length} C++ files`);
}
