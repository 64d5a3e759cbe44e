// SPDX-License-Identifier: Apache-2.0
// Every source file starts with the SPDX licence line (after a #! line, where there is one).
import { readText, report, repositoryFiles } from './repository.mjs';

const files = repositoryFiles(/\.(ts|mts|mjs|cjs|js|cc|h|cu|cuh|sh)$|(^|\/)CMakeLists\.txt$|^\.ci\/run$/);
const problems = files
  .filter((file) => !/^(#!.*\n)?(\/\/|#) SPDX-License-Identifier: Apache-2\.0\n/.test(readText(file)))
  .map((file) => `${file}:1: expected the line "SPDX-License-Identifier: Apache-2.0" as a comment`);
report(problems, `${files.length} files carry their licence`);
