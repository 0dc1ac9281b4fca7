//! The `tintype` program; see [`tintype_trainer::cli`].
#![recursion_limit = "256"]

use std::process::ExitCode;

fn main() -> ExitCode {
    tintype_trainer::cli::main()
}
