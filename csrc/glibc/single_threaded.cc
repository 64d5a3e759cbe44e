// SPDX-License-Identifier: Apache-2.0
// glibc 2.32 exports this flag, by which libstdc++ leaves out atomic operations; older ones do not have it. Node.js always
// has threads. Only in published builds; see glibc.cmake.
#ifdef FLASHINFER_PORTABLE
extern "C" {
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}
#endif
