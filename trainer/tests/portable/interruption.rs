//! Ctrl-C ends a training with a checkpoint.

use std::fs::File;
use std::process::Child;

use tintype_test_hub::wait_until;

use crate::images::CLASSES;
use crate::place::{Place, not_tested_here, read};
use crate::run::{self, RUN};

/// Steps of a run that ends only when it is asked to.
const ENDLESS: u64 = 1_000_000;

/// A process that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ctrl_c_leaves_a_checkpoint_from_which_the_run_goes_on() {
    let place = Place::new();
    run::begin(&place, &CLASSES, ENDLESS, "");
    let mut command = run::training(&place, ENDLESS);
    command.stderr(File::create(place.path("gesagt.txt")).expect("a file"));
    keyboard::alone(&mut command);
    let mut running = Running(command.spawn().expect("the program starts"));
    let log = place.path(RUN).join("log.jsonl");
    wait_until("a first step", || std::fs::read(&log).is_ok_and(|log| !log.is_empty()));
    if let Err(reason) = keyboard::interrupt(&running.0) {
        return not_tested_here(&format!("Ctrl-C ({reason})"));
    }
    wait_until("the run's end", || running.0.try_wait().expect("it can be asked").is_some());
    let status = running.0.wait().expect("it has ended");
    let said = String::from_utf8(read(&place.path("gesagt.txt"))).expect("text");
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("run the same command to resume"), "{said}");

    let checkpoints = run::checkpoints(&place);
    assert_eq!(checkpoints.len(), 1, "{checkpoints:?}");
    let step: u64 = checkpoints[0].parse().expect("a whole checkpoint");
    assert!(step > 0);
    run::train(&place, step + 1);
    let next = format!("{:08}", step + 1);
    assert_eq!(run::checkpoints(&place), [checkpoints[0].as_str(), next.as_str()]);
    assert_eq!(run::logged_steps(&place), (1..=step + 1).collect::<Vec<_>>());
}

/// What a terminal does when Ctrl-C is pressed.
#[cfg(unix)]
mod keyboard {
    use std::io;
    use std::process::{Child, Command};

    /// Lets the process be interrupted without this one.
    pub fn alone(_command: &mut Command) {}

    /// Interrupts the process.
    pub fn interrupt(child: &Child) -> io::Result<()> {
        // SAFETY: a signal is sent, and the process is not waited for yet, so its number is no other's.
        match unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// What a console does when Ctrl-Break is pressed: Ctrl-C cannot be sent to one group of processes alone, and programs
/// handle both alike.
#[cfg(windows)]
mod keyboard {
    use std::io;
    use std::os::windows::process::CommandExt;
    use std::process::{Child, Command};

    const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
    const CTRL_BREAK_EVENT: u32 = 1;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GenerateConsoleCtrlEvent(event: u32, group: u32) -> i32;
    }

    /// Lets the process be interrupted without this one.
    pub fn alone(command: &mut Command) {
        command.creation_flags(CREATE_NEW_PROCESS_GROUP);
    }

    /// Interrupts the process; an error where there is no console.
    pub fn interrupt(child: &Child) -> io::Result<()> {
        // SAFETY: two numbers; a group has that of its first process, which is not waited for yet.
        match unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, child.id()) } {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}
