// SPDX-License-Identifier: Apache-2.0
// An nvcc that makes a cubin's header and nothing else: what is resolved and launched is seen without compiling.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** The ELF header of a cubin of CUDA 13 for a compute capability. */
export function stubCubin(sm: number): Buffer {
  const image = Buffer.alloc(64);
  image.write('\x7fELF\x02\x01\x01\x41', 'latin1');
  image.writeUInt16LE(190, 18);
  image.writeUInt32LE(sm << 8, 48);
  return image;
}

/** Makes a toolkit in `folder`, for CUDA_HOME, whose nvcc compiles for `sm` only. */
export function fakeToolkit(folder: string, sm: number): string {
  mkdirSync(join(folder, 'bin'), { recursive: true });
  writeFileSync(join(folder, 'stub.cubin'), stubCubin(sm));
  const script = [
    '#!/bin/sh',
    '[ "$1" = --version ] && echo "Cuda compilation tools, release 13.0, V13.0.88" && exit',
    'while [ "$1" != -o ]; do shift; done',
    `exec cp '${folder}/stub.cubin' "$2"`,
    '',
  ];
  writeFileSync(join(folder, 'bin', 'nvcc'), script.join('\n'), { mode: 0o755 });
  return folder;
}
