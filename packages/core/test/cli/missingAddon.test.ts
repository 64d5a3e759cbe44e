// SPDX-License-Identifier: Apache-2.0
import { expect, it, vi } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import { BinaryNotFoundError } from '../../src/errors.ts';
import { showConfig } from '../../src/showConfig.ts';

vi.mock(import('../../src/native/load.ts'), async (original) => ({
  ...(await original()),
  native: () => {
    throw new BinaryNotFoundError('ERR_FLASHINFER_ADDON_NOT_FOUND', 'native: the addon did not load; tried /nowhere');
  },
}));

it('show-config works without the addon and says that it is missing', async () => {
  const config = showConfig();
  expect(config.addon).toEqual({ loaded: false, path: null, error: expect.stringContaining('tried /nowhere') });
  expect(config).toMatchObject({ cpu: null, cuda: { driver: null }, gpus: [], modules: null });
  expect(config.environment.length).toBeGreaterThan(5);

  const lines: string[] = [];
  vi.spyOn(console, 'log').mockImplementation((text = '') => void lines.push(text));
  await createProgram().parseAsync(['show-config'], { from: 'user' });
  expect(lines.join('\n')).toMatch(/addon +BinaryNotFoundError: native: the addon did not load; tried \/nowhere/);
});
