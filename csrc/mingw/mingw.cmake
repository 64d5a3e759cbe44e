# SPDX-License-Identifier: Apache-2.0
# Windows by MinGW-w64. cmake-js covers Visual Studio alone: the import library of the program that loads the addon is made
# here, from Node-API's list of symbols. It is a delayed one, see node_program.cc.
find_program(FLASHINFER_DLLTOOL NAMES ${CMAKE_CXX_COMPILER_TARGET}-dlltool x86_64-w64-mingw32-dlltool dlltool REQUIRED)
if(NOT CMAKE_JS_NODELIB_DEF)
  message(FATAL_ERROR "CMAKE_JS_NODELIB_DEF is not set; expected node_api.def of the package node-api-headers")
endif()
set(library ${CMAKE_CURRENT_BINARY_DIR}/libnode.a)
execute_process(COMMAND ${FLASHINFER_DLLTOOL} --input-def ${CMAKE_JS_NODELIB_DEF} --dllname node.exe --output-delaylib ${library}
  COMMAND_ERROR_IS_FATAL ANY)
target_link_libraries(flashinfer PRIVATE ${library})
# libstdc++, libgcc and winpthreads are not part of Windows.
target_link_options(flashinfer PRIVATE -static -Wl,--gc-sections)
# GCC keeps vectors in stack frames that Windows aligns to 16 bytes alone, with moves that need 32 or 64 (GCC bug 54412):
# the assembler turns them into moves that do not.
target_compile_options(flashinfer PRIVATE -Wa,-muse-unaligned-vector-move)
