//! The program: hidden helpers first, then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::main()
}
