// SPDX-License-Identifier: Apache-2.0
// Programmatic dependent launch (PTX ISA 9.7.13.13, griddepcontrol; sm_90 and up). Both do nothing in a kernel that was
// launched without the attribute, and before sm_90.
#pragma once

namespace flashinfer {

/** Waits until the grids before this one are complete and their memory is visible: before any read or write of memory. */
__device__ __forceinline__ void wait_for_previous_grid() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}

/** Lets the next grid be scheduled; it waits for this one as above, so the place of the call decides only overlap. */
__device__ __forceinline__ void launch_next_grid() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n" ::);
#endif
}

}  // namespace flashinfer
