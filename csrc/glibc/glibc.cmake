# SPDX-License-Identifier: Apache-2.0
# A published addon must load on every glibc that Node.js itself runs on (2.28), whatever is on the machine that builds it.
# The linker binds a symbol to its newest version. So it is given stand-ins of glibc's libraries first, which have the few
# symbols that changed since, at the version that every glibc has; the system's loader never sees them.
# scripts/addon-format.mjs fails when a newer symbol gets in. libstdc++ is linked into the addon, libgcc_s comes with Node.js.
set(FLASHINFER_GLIBC_SYMBOLS_libdl.so.2 dlopen dlsym dlerror dladdr)
set(FLASHINFER_GLIBC_SYMBOLS_libpthread.so.0 pthread_create pthread_join pthread_detach pthread_once pthread_getspecific
  pthread_setspecific pthread_key_create __pthread_key_create pthread_key_delete)
set(FLASHINFER_GLIBC_SYMBOLS_libm.so.6 exp exp2 expf exp2f log log2 logf log2f pow powf)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(version GLIBC_2.2.5)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(version GLIBC_2.17)
else()
  message(STATUS "${CMAKE_SYSTEM_PROCESSOR}: glibc's oldest symbol version is not known; the addon is for this system alone")
  return()
endif()

foreach(library libdl.so.2 libpthread.so.0 libm.so.6)
  set(base ${CMAKE_CURRENT_BINARY_DIR}/glibc/${library})
  string(REPLACE ";" "; " symbols "${FLASHINFER_GLIBC_SYMBOLS_${library}}")
  file(CONFIGURE OUTPUT ${base}.map CONTENT "${version} { global: ${symbols}; local: *; };\n")
  set(source "")
  foreach(symbol ${FLASHINFER_GLIBC_SYMBOLS_${library}})
    string(APPEND source "extern \"C\" void ${symbol}() {}\n")
  endforeach()
  file(CONFIGURE OUTPUT ${base}.cc CONTENT "${source}")
  string(MAKE_C_IDENTIFIER glibc_${library} target)
  add_library(${target} SHARED ${base}.cc)
  set_target_properties(${target} PROPERTIES PREFIX "" OUTPUT_NAME ${library} SUFFIX "" CXX_VISIBILITY_PRESET default
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/glibc)
  # libm.so.6 has functions the compiler knows under other types.
  target_compile_options(${target} PRIVATE -fno-builtin)
  target_link_options(${target} PRIVATE -nostdlib -Wl,--version-script,${base}.map)
  # As a target: of a file CMake would look for the soname before it is built, and name it -ldl, which is the system's.
  target_link_libraries(flashinfer PRIVATE ${target})
endforeach()

# Without the parts of libstdc++ that nothing uses: some need the newest glibc. The rest asks for symbols of the stand-ins
# after the linker has passed them.
target_link_options(flashinfer PRIVATE -static-libstdc++ -Wl,--exclude-libs,ALL -Wl,--gc-sections -Wl,--no-as-needed)
# No search path to the stand-ins.
set_target_properties(flashinfer PROPERTIES SKIP_BUILD_RPATH ON)
