// SPDX-License-Identifier: Apache-2.0
// Bits of bytes that are zero or not, written from the definition in numpy.packbits.

export function packBitsReference(elements: ArrayLike<number>, order: 'big' | 'little'): Uint8Array {
  const packed = new Uint8Array(Math.ceil(elements.length / 8));
  for (let i = 0; i < elements.length; ++i) {
    const place = order === 'big' ? 7 - (i % 8) : i % 8;
    if (elements[i] !== 0) packed[Math.floor(i / 8)]! |= 2 ** place;
  }
  return packed;
}
