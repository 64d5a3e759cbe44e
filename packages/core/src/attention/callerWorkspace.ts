// SPDX-License-Identifier: Apache-2.0
// Scratch that the caller of a batch wrapper owns.
import { Checker } from '../check/checker.ts';
import { InvalidArgumentError } from '../errors.ts';
import type { Device } from '../runtime/device.ts';
import { workspace as libraryWorkspace } from '../runtime/workspace.ts';
import { Tensor } from '../tensor/tensor.ts';

export function checkWorkspace(functionName: string, workspace: Tensor | undefined, device: Device): void {
  if (workspace === undefined) return;
  const dims = workspace instanceof Tensor ? workspace.shape.map(() => '*') : ['bytes'];
  new Checker(functionName).tensor('workspace', workspace, dims, { device, contiguous: true });
  if (workspace.ptr % 16 === 0) return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_LAYOUT',
    `${functionName}: workspace starts at an address that is no multiple of 16; expected one that is; pass a whole tensor`,
  );
}

/** That the workspace is still there and has the bytes a plan needs. */
export function checkWorkspaceSize(functionName: string, workspace: Tensor | undefined, bytes: number): void {
  if (workspace === undefined) return;
  new Checker(functionName).tensor(
    'workspace',
    workspace,
    workspace.shape.map(() => '*'),
  );
  if (workspace.byteLength >= bytes) return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_SHAPE',
    `${functionName}: workspace has ${workspace.byteLength} bytes; expected at least ${bytes} for this plan; make the ` +
      'wrapper with a larger one, or with none',
  );
}

/** Where `bytes` of scratch are: in the caller's, which must still be there and have as many, or in the library's. */
export function scratchAddress(
  functionName: string,
  workspace: Tensor | undefined,
  deviceIndex: number,
  bytes: number,
): number {
  checkWorkspaceSize(functionName, workspace, bytes);
  return workspace?.ptr ?? libraryWorkspace(deviceIndex, bytes);
}
