//! The `millstream` binary. All of it is in the library beside.

/// One allocator for us and for the reference that `cargo xtask bench` compares us with, on any system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    millstream::main()
}
