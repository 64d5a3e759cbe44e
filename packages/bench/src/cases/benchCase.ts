// SPDX-License-Identifier: Apache-2.0
// What a benchmark case is. A case file registers cases; the harness times, compares and reports them.
import type { Device } from '@flashinfer/core';

export type DeviceKind = 'cpu' | 'cuda';

export interface BenchContext {
  readonly device: Device;
  /** Fewer samples: a smoke run, not a measurement. */
  readonly quick: boolean;
}

export interface CaseDescription {
  /** `<family>/<params>`, unique on a device; patterns of the command line match against it. */
  readonly name: string;
  readonly params: Readonly<Record<string, string | number | boolean>>;
  readonly devices: readonly DeviceKind[];
  /** Row of the anchors file (packages/bench/anchors) that did the same work. */
  readonly anchor?: string;
  /** The same work for a peer process; absent where no peer has it. */
  readonly peer?: PeerRequest;
}

/** One operation on the device, timed by the harness. */
export interface DeviceCase extends CaseDescription {
  readonly kind: 'device';
  /** Bytes that must move once, the floor of a bandwidth-bound operation. */
  readonly bytes: number;
  /** Floating-point operations, 0 where they do not matter. */
  readonly flops: number;
  /** Element type of the matrix products, which sets the peak; only with `flops`. */
  readonly dtype?: string;
  /** False where the operation cannot be captured into a CUDA graph. Default true. */
  readonly capturable?: boolean;
  setup(context: BenchContext, rotations: number): Operation | Promise<Operation>;
}

/** Durations on the host that the case takes itself, e.g. of a child process. */
export interface HostCase extends CaseDescription {
  readonly kind: 'host';
  /** Each entry is one line of the report: name of the variant and its samples in microseconds. */
  measure(context: BenchContext): Promise<readonly HostSamples[]>;
}

export interface HostSamples {
  readonly variant: string;
  readonly samplesUs: readonly number[];
}

export type BenchCase = DeviceCase | HostCase;

export interface Operation {
  /** Launches once on buffer set `rotation`; returns before the device is done. */
  run(rotation: number): void;
  dispose(): void;
}

/** Attention for the peer script. */
export interface PeerRequest {
  readonly op: 'attention';
  /** Requests of these lengths. Default 1. */
  readonly batchSize?: number;
  readonly qoLen: number;
  readonly kvLen: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly dtype: string;
  readonly causal: boolean;
}
