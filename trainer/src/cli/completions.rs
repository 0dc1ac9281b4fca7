//! `tintype completions`

use std::io::Write;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shell that will read the script
    shell: Shell,
}

/// Runs the command.
///
/// # Errors
///
/// If standard output cannot be written.
pub fn run(args: Args) -> Result<()> {
    // Made in memory, since the generator panics where its output cannot be written.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Args::command(), "tintype", &mut script);
    let mut out = std::io::stdout().lock();
    out.write_all(&script).and_then(|()| out.flush()).context("standard output cannot be written")
}
