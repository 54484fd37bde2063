//! The `millstream-faulty` binary: as the server's `main.rs`, around the library that has the faults.

/// The product's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    millstream_faulty::main()
}
