//! `tintype man`, for those who make packages: one manual page for the program and one for each command.

use std::path::PathBuf;

use anyhow::Result;
use clap::CommandFactory;
use clap_mangen::Man;
use tintype::files::write_whole;

use super::output::check_folder;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for the pages; created if it is missing
    folder: PathBuf,
}

/// What pages are from, in their footer.
const SOURCE: &str = concat!("tintype ", env!("CARGO_PKG_VERSION"));

/// An empty argument of `.TH` in quotes: clap_mangen writes none, and roff then takes the next argument,
/// the source, for the date.
const NO_DATE: &str = r#""""#;

/// Runs the command. The same version writes the same pages, whatever its features, platform and day.
///
/// # Errors
///
/// If a page cannot be written.
pub fn run(args: Args) -> Result<()> {
    check_folder("FOLDER", &args.folder, &args.folder)?;
    let mut program =
        super::Args::command().long_version(None::<&str>).disable_help_subcommand(true);
    program.build();
    let visible = program.get_subcommands().filter(|command| !command.is_hide_set());
    for command in std::iter::once(&program).chain(visible) {
        let page = Man::new(command.clone()).date(NO_DATE).source(SOURCE);
        let mut text = Vec::new();
        page.render(&mut text)?;
        write_whole(&args.folder.join(page.get_filename()), &text)?;
    }
    Ok(())
}
