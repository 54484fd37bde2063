#!/bin/sh
# Builds the plugin in C: build.sh OUT.wasm. Needs a clang for wasm32-wasi with its libc (Debian: clang-19 lld-19 wasi-libc
# libclang-rt-19-dev-wasm32; elsewhere a wasi-sdk's clang, first on PATH or in CC) and cargo. GUESTS may name a `guests` built
# before.
set -eu

out=${1:?usage: build.sh OUT.wasm}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

guests() {
  if [ -n "${GUESTS:-}" ]; then
    "$GUESTS" "$@"
  else
    cargo run --quiet --manifest-path "$root/Cargo.toml" --package guests -- "$@"
  fi
}

# Whether a compiler makes a program for wasm32-wasi, libc and linker included.
makes_wasm() {
  command -v "$1" >"$work/found" || return 1
  printf '#include <stdlib.h>\nvoid *probe(void) { return malloc(1); }\n' >"$work/probe.c"
  "$1" --target=wasm32-wasi -mexec-model=reactor $2 -o "$work/probe.wasm" "$work/probe.c" 2>"$work/why"
}

linker() {
  for name in wasm-ld-19 wasm-ld; do
    command -v "$name" >"$work/found" && echo "-fuse-ld=$(cat "$work/found")" && return
  done
  true
}

ld=$(linker)
compiler=
for candidate in ${CC:-} clang-19 clang; do
  if makes_wasm "$candidate" "$ld"; then compiler=$candidate; break; fi
  # A wasi-sdk's clang finds its own linker.
  if makes_wasm "$candidate" ""; then compiler=$candidate; ld=; break; fi
done
if [ -z "$compiler" ]; then
  echo "c-filter: no clang here builds for wasm32-wasi. On Debian, install with" >&2
  echo "  apt-get install --no-install-recommends clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32" >&2
  if [ -s "$work/why" ]; then echo "The last one tried said:" >&2; cat "$work/why" >&2; fi
  exit 1
fi

guests c-bindings "$work"
mkdir -p "$(dirname "$out")"
"$compiler" --target=wasm32-wasi -O2 -std=c17 -Wall -Wextra -Werror -I "$work" \
  -c -o "$work/filter.o" "$here/plugin.c"
"$compiler" --target=wasm32-wasi -O2 -I "$work" -c -o "$work/bindings.o" "$work/plugin.c"
"$compiler" --target=wasm32-wasi -mexec-model=reactor $ld -O2 -s -o "$work/core.wasm" \
  "$work/filter.o" "$work/bindings.o" "$work/plugin_component_type.o"
guests componentize "$work/core.wasm" -o "$out"
