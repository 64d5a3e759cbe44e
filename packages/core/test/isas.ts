// SPDX-License-Identifier: Apache-2.0
// Runs tests once for every instruction set of the cpu device, or once on a GPU.
import { afterAll, beforeAll, describe } from 'vitest';
import { native } from '../src/native/load.ts';
import { onCuda } from './device.ts';

export function describeOnEachIsa(title: string, body: () => void): void {
  if (onCuda) {
    describe(title, body);
    return;
  }
  for (const isa of native().cpu.info().availableIsas) {
    // Only attention has kernels of its own for bfloat16 products.
    if (isa === 'avx512bf16') continue;
    describe(`${title} (${isa})`, () => {
      beforeAll(() => native().cpu.setIsa(isa));
      afterAll(() => native().cpu.setIsa('auto'));
      body();
    });
  }
}
