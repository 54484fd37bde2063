# A toolchain that makes core modules of plugins: a clang for wasm32-wasi with its C library. On Debian that is
#   apt-get install --no-install-recommends clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32
# elsewhere a wasi-sdk, whose clang is given by -DCMAKE_C_COMPILER=… or stands first on PATH.
set(CMAKE_SYSTEM_NAME WASI)
set(CMAKE_SYSTEM_PROCESSOR wasm32)
if(NOT CMAKE_C_COMPILER)
  find_program(CMAKE_C_COMPILER NAMES clang-19 clang REQUIRED)
endif()
set(CMAKE_C_COMPILER_TARGET wasm32-wasi)
# What is tried at first can't be run here, and has no main.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
find_program(MILLSTREAM_WASM_LD NAMES wasm-ld-19 wasm-ld)
set(CMAKE_EXE_LINKER_FLAGS_INIT "-mexec-model=reactor -s")
if(MILLSTREAM_WASM_LD)
  string(APPEND CMAKE_EXE_LINKER_FLAGS_INIT " -fuse-ld=${MILLSTREAM_WASM_LD}")
endif()
