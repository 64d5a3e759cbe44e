// SPDX-License-Identifier: Apache-2.0
// Programmatic dependent launch (PDL): a kernel is scheduled while the one before it drains, and waits inside.
import { smArch } from './device.ts';

/** Option of operators whose kernels wait for the previous grid themselves. */
export interface DependentLaunchOptions {
  /**
   * Launch while the previous kernel of the stream still drains (programmatic dependent launch). Default: where the
   * device can, from sm_90 on; elsewhere, and on the cpu, it changes nothing.
   */
  enablePdl?: boolean;
}

export function usesDependentLaunch(deviceIndex: number, enablePdl: boolean | undefined): boolean {
  return enablePdl !== false && smArch(deviceIndex) >= 90;
}
