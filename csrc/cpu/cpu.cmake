# SPDX-License-Identifier: Apache-2.0
# Instruction set flags of the kernel files of the cpu device, one file an instruction set; included by csrc/CMakeLists.txt.
# A file whose flags are missing (another architecture, another compiler) compiles to nothing and is never chosen.
set(FLASHINFER_AVX2_FLAGS "-mavx2 -mfma -mf16c")
set(FLASHINFER_AVX512_FLAGS "${FLASHINFER_AVX2_FLAGS} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512")

file(GLOB_RECURSE FLASHINFER_CPU_KERNELS CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cpu/*_kernels_*.cc)
if(NOT MSVC)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC before 13 warns of the undefined values inside its own AVX-512 intrinsics.
    string(APPEND FLASHINFER_AVX512_FLAGS " -Wno-uninitialized -Wno-maybe-uninitialized")
  endif()
  foreach(source ${FLASHINFER_CPU_KERNELS})
    set(flags "-O3 -ffp-contract=off")
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
      if(source MATCHES "_avx2\\.cc$")
        string(APPEND flags " ${FLASHINFER_AVX2_FLAGS}")
      elseif(source MATCHES "_avx512\\.cc$")
        string(APPEND flags " ${FLASHINFER_AVX512_FLAGS}")
      elseif(source MATCHES "_avx512bf16\\.cc$")
        string(APPEND flags " ${FLASHINFER_AVX512_FLAGS} -mavx512bf16")
      endif()
    endif()
    set_source_files_properties(${source} PROPERTIES COMPILE_FLAGS "${flags}")
  endforeach()
endif()

# Elementwise loops are vectorised by the compiler, from one source for all instruction sets (elementwise/versions.h).
# Equal random bits everywhere need every multiplication and addition rounded by itself.
file(GLOB FLASHINFER_CPU_ELEMENTWISE CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cpu/elementwise/*.cc
     ${CMAKE_CURRENT_SOURCE_DIR}/cpu/quantization/*.cc ${CMAKE_CURRENT_SOURCE_DIR}/cpu/sampling/*.cc)
if(NOT MSVC)
  set_source_files_properties(${FLASHINFER_CPU_ELEMENTWISE} PROPERTIES
    COMPILE_FLAGS "-O3 -ffp-contract=off -fno-math-errno -fno-trapping-math")
endif()
