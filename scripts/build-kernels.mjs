// SPDX-License-Identifier: Apache-2.0
// Compiles the kernels that models launch into the add-on packages: `node scripts/build-kernels.mjs cubin|jit-cache`.
// FLASHINFER_CUDA_ARCH_LIST chooses architectures, MAX_JOBS how many compile at once; --families, --dtypes and --filter
// (part of a name) choose kernels. What was built before from the same sources by the same compiler is kept.
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import {
  aotKernels,
  findNvcc,
  namedTarget,
  nvccCompiler,
  prebuildKernels,
  prebuiltArchs,
} from '../packages/core/dist/aot.js';
import { root } from './repository.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    families: { type: 'string' },
    dtypes: { type: 'string' },
    filter: { type: 'string', default: '' },
    output: { type: 'string' },
  },
});
const [name] = positionals;
if (name !== 'cubin' && name !== 'jit-cache') throw new Error(`build-kernels: ${name}; expected cubin or jit-cache`);

const nvcc = findNvcc();
if (nvcc.path === undefined || nvcc.release === undefined) {
  throw new Error(`build-kernels: no nvcc (${nvcc.error ?? nvcc.searched.join(', ')}); install it or set CUDA_HOME`);
}
const compiler = nvccCompiler(nvcc.path, nvcc.release);
const cuda = `cu${nvcc.release.replace('.', '')}`;
// Both packages hold the same kernels, so both builds share this folder.
const built = values.output ?? join(root, 'build/kernels', cuda);
const targets = (process.env.FLASHINFER_CUDA_ARCH_LIST?.split(/[\s,;]+/).filter(Boolean) ?? prebuiltArchs).map(
  namedTarget,
);

/** @param {string | undefined} list @returns {any} */
const items = (list) => list?.split(',');

/** @param {number} bytes */
const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(2)} MiB`;

const stop = new AbortController();
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM'])) process.once(signal, () => stop.abort());

for (const target of targets) {
  const start = performance.now();
  const selection = { arch: target, families: items(values.families), dtypes: items(values.dtypes) };
  const specs = aotKernels(selection).filter((spec) => spec.name.includes(values.filter));
  if (specs.length === 0) throw new Error(`build-kernels: no kernel for ${target} matches --filter '${values.filter}'`);
  let compiled = 0;
  const { modules } = await prebuildKernels({
    folder: built,
    target,
    specs,
    compiler,
    signal: stop.signal,
    onProgress: ({ done, total, name: kernel, reused }) => {
      if (!reused) compiled++;
      if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${target} ${done}/${total} ${kernel}`);
    },
  });
  const sizes = Object.values(modules);
  const bytes = sizes.reduce((sum, module) => sum + module.bytes, 0);
  const packed = sizes.reduce((sum, module) => sum + module.packedBytes, 0);
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  if (process.stdout.isTTY) process.stdout.write('\r\x1b[K');
  console.log(
    `${target}: ${sizes.length} kernels, ${compiled} of them compiled, ${mib(bytes)}, packed ${mib(packed)}, ${seconds} s`,
  );
}

if (values.output === undefined) {
  const data = name === 'cubin' ? 'packages/cubin/cubins' : `packages/jit-cache/modules/${cuda}`;
  rmSync(join(root, data), { recursive: true, force: true });
  mkdirSync(join(root, data), { recursive: true });
  for (const target of targets) cpSync(join(built, target), join(root, data, target), { recursive: true });
  console.log(`${targets.length} architectures, CUDA ${nvcc.release}, in ${data}`);
}
