// SPDX-License-Identifier: Apache-2.0
// Which tests scripts/pack-offline.mjs takes along.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, expect, it } from 'vitest';

const script = new URL('../../../scripts/offline/publicTests.mjs', import.meta.url).href;
const core = mkdtempSync(join(tmpdir(), 'flashinfer-public-tests-'));
afterAll(() => rmSync(core, { recursive: true }));

const files = {
  'test/plain.test.ts': "import { ones } from '../src/index.ts';\nimport type { Key } from '../src/jit/key.ts';\n",
  'test/deep/all.test.ts': "import * as api from '../../src/index.ts';\nimport { held, type Row } from '../rows.ts';\n",
  'test/rows.ts': "import { type Tensor, zeros as none } from '../src/tensor/create.ts';\n",
  'test/internal.test.ts': "import {\n  ones,\n  moduleKey,\n} from '../src/jit/key.ts';\n",
  'test/throughHelper.test.ts': "import { plan } from './planner.ts';\n",
  'test/planner.ts': "export { plan } from '../src/plan.ts';\n",
  'test/allOfInternals.test.ts': "import * as key from '../src/jit/key.ts';\n",
};

it('takes those that need exports alone, and says what keeps the others', () => {
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(dirname(join(core, file)), { recursive: true });
    writeFileSync(join(core, file), text);
  }
  const program = `import { publicTests } from '${script}';
    console.log(JSON.stringify(publicTests(${JSON.stringify(core)}, new Set(['ones', 'zeros']))));`;
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
  expect(JSON.parse(output)).toEqual({
    run: ['deep/all.test.ts', 'plain.test.ts'],
    left: {
      'allOfInternals.test.ts': 'takes everything of src/jit/key.ts, which the package does not export',
      'internal.test.ts': 'takes moduleKey of src/jit/key.ts, which the package does not export',
      'throughHelper.test.ts': 'takes plan of src/plan.ts, which the package does not export',
    },
    modules: ['index.ts', 'tensor/create.ts'],
  });
});
