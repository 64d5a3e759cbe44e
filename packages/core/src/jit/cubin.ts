// SPDX-License-Identifier: Apache-2.0
// What the ELF header of a cubin says, so that a file for another GPU is refused with its name, not by the driver.

const machineCuda = 190;
const abiOfCuda13 = 0x41;

/**
 * Compute capability a cubin was built for (90 for sm_90 and sm_90a: the header does not tell them apart), or undefined
 * when the bytes are no cubin. Since CUDA 13 (OS ABI 0x41) it is in bits 8-15 of e_flags, before in bits 0-7.
 */
export function cubinSm(image: Uint8Array): number | undefined {
  if (image.byteLength < 64) return undefined;
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const isElf64 = view.getUint32(0) === 0x7f454c46 && image[4] === 2;
  if (!isElf64 || view.getUint16(18, true) !== machineCuda) return undefined;
  const flags = view.getUint32(48, true);
  return image[7] === abiOfCuda13 ? (flags >>> 8) & 0xff : flags & 0xff;
}
