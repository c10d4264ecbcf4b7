//! The program: its allocator, then hidden helpers, then the command line.

use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

/// Keeps the memory of many idle connections dense, and gives it back to the system when they leave without waiting
/// for somebody to allocate again: it has a thread for that.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    tidegate::main()
}
