// SPDX-License-Identifier: Apache-2.0
import { activeCapture } from '@flashinfer/core/internal';

/** Two wrappers of one plan: launches are timed with an ordinary one, graphs with one in graph mode. */
export function pickWrapper<W extends { dispose(): void }>(
  make: (graph: boolean) => W,
): { current(): W; dispose(): void } {
  const eager = make(false);
  let graph: W | undefined;
  return {
    current() {
      if (activeCapture() === undefined) {
        // Made outside of captures, where plan() may copy.
        graph ??= make(true);
        return eager;
      }
      return graph!;
    },
    dispose() {
      eager.dispose();
      graph?.dispose();
    },
  };
}
