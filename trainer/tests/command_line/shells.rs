//! What installing the program needs: `--version`, completion scripts and manual pages.

use std::collections::BTreeSet;
use std::env::consts::{ARCH, OS};

use tempfile::TempDir;
use tintype::version::BURN;

use crate::common::names;
use crate::{refused, run, text};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a command that succeeds prints.
fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn versions_have_one_line_or_three_with_features_burn_and_platform() {
    assert_eq!(printed(&["-V"]), format!("tintype {VERSION}\n"));
    assert_eq!(printed(&["generate", "-V"]), format!("tintype-generate {VERSION}\n"));
    let long = printed(&["--version"]);
    let [name, features, burn] = long.lines().collect::<Vec<_>>()[..] else {
        panic!("not three lines: {long}")
    };
    assert_eq!(name, format!("tintype {VERSION}"));
    assert_eq!(burn, format!("burn {BURN} ({OS} {ARCH})"));
    let features = features.strip_prefix("features: ").expect("the second line lists them");
    let features: Vec<_> = features.split(", ").collect();
    // The tests have the program's features. Another package may turn the library's on as well.
    for (feature, on) in [
        ("cpu", true),
        ("wgpu", cfg!(feature = "wgpu")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("cuda", cfg!(feature = "cuda")),
        ("autotune", cfg!(feature = "autotune")),
        ("fusion", cfg!(feature = "fusion")),
        ("embedded-model", cfg!(feature = "embedded-model")),
    ] {
        assert!(!on || features.contains(&feature), "{feature} is not in {features:?}");
    }
    assert_eq!(features.contains(&"mpi"), cfg!(feature = "mpi"), "{features:?}");
    let of_command = printed(&["generate", "--version"]);
    assert_eq!(of_command, long.replacen("tintype", "tintype-generate", 1));
}

#[test]
fn scripts_of_every_shell_name_commands_and_options() {
    for (shell, option) in [
        ("bash", "--steps"),
        ("elvish", "--steps"),
        ("fish", "-l steps"),
        ("powershell", "--steps"),
        ("zsh", "--steps"),
    ] {
        let script = printed(&["completions", shell]);
        for word in ["generate", option] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    refused(&["completions", "tcsh"], &["tcsh"]);
}

#[cfg(unix)]
#[test]
fn bash_completes_commands_and_options() {
    let script = printed(&["completions", "bash"]);
    assert!(script.contains("complete -F _tintype"), "{script}");
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("tintype.bash");
    std::fs::write(&path, script).expect("it is written");
    let bash = |commands: &str| {
        std::process::Command::new("bash").args(["-c", commands]).env("SCRIPT", &path).output()
    };
    // Some systems have no bash, others one without completion.
    if !bash("type compgen complete").is_ok_and(|output| output.status.success()) {
        return;
    }
    let completed = |words: &str, last: usize, call: &str| {
        // As bash calls the function: with the program, the word and the one before it.
        let output = bash(&format!(
            r#"source "$SCRIPT" && COMP_WORDS=({words}) COMP_CWORD={last} && _tintype {call} &&
            echo "${{COMPREPLY[*]}}""#
        ));
        let output = output.expect("bash starts");
        assert!(output.status.success(), "{words}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(completed("tintype gen", 1, "tintype gen tintype"), "generate\n");
    let option = completed("tintype generate --ste", 2, "tintype --ste generate");
    assert_eq!(option, "--steps\n");
}

/// Commands in the program's help, without `help` itself.
fn commands(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        // Deeper lines continue a description.
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| line.split(' ').next())
        .filter(|command| *command != "help")
        .collect()
}

/// Long options in the help of a command.
fn options(help: &str) -> BTreeSet<&str> {
    // Descriptions go on further to the right, and may begin with an alias.
    let is_option =
        |line: &&str| line.find('-').is_some_and(|at| at <= 6 && line[..at].trim().is_empty());
    help.lines()
        .filter(is_option)
        .map(str::trim_start)
        .filter_map(|l| l.split([' ', ',', '[', ']', '=']).find(|word| word.starts_with("--")))
        .collect()
}

#[test]
fn every_visible_command_has_a_manual_page_with_its_options() {
    let folder = TempDir::new().expect("a folder");
    let pages = folder.path().join("share/man1");
    printed(&["man", pages.to_str().expect("a name")]);
    let help = printed(&["--help"]);
    let commands = commands(&help);
    assert!(commands.contains(&"generate") && commands.contains(&"completions"), "{help}");
    assert!(!commands.contains(&"man"), "{help}");

    let mut expected = vec!["tintype.1".to_string()];
    expected.extend(commands.iter().map(|command| format!("tintype-{command}.1")));
    expected.sort();
    assert_eq!(names(&pages), expected);
    let has = |title: &str, help: &str| {
        let page = std::fs::read_to_string(pages.join(format!("{title}.1"))).expect("a page");
        // Hyphens that are not to be typeset as dashes have a backslash.
        let page = page.replace(r"\-", "-");
        // No date, and no features.
        let heading = format!(".TH {title} 1 \"\" \"tintype {VERSION}\"");
        assert!(page.lines().any(|line| line.trim_end() == heading), "{page}");
        assert!(page.ends_with(&format!(".SH VERSION\nv{VERSION}\n")), "{page}");
        let options = options(help);
        assert!(options.contains("--help") && options.contains("--plain"), "{help}");
        for option in options {
            assert!(page.contains(option), "{title} lacks {option}");
        }
    };
    has("tintype", &help);
    for command in commands {
        has(&format!("tintype-{command}"), &printed(&[command, "--help"]));
    }
    let generate = printed(&["generate", "--help"]);
    assert!(options(&generate).contains("--steps"), "{generate}");
}

#[test]
fn manual_pages_are_not_written_into_a_file() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "kept").expect("it is written");
    let name = file.to_str().expect("a name");
    refused(&["man", name], &["FOLDER", name, "cannot be written"]);
    assert_eq!(run(&["man", name]).status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "kept");
}
