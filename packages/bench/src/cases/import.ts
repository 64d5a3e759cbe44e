// SPDX-License-Identifier: Apache-2.0
// Start-up: how long a new process needs to import the package.
import type { HostCase } from './benchCase.ts';
import { runChild } from './childProcess.ts';

const importScript = `
const start = process.hrtime.bigint();
await import('@flashinfer/core');
console.log(Number(process.hrtime.bigint() - start) / 1000);
`;

export const importCases: HostCase[] = [
  {
    kind: 'host',
    name: 'import/core',
    params: { specifier: '@flashinfer/core' },
    devices: ['cpu', 'cuda'],
    anchor: 'import',
    async measure({ quick }) {
      const samplesUs: number[] = [];
      for (let n = 0; n < (quick ? 2 : 10); ++n) samplesUs.push(Number(await runChild(importScript)));
      return [{ variant: 'import', samplesUs }];
    },
  },
];
