//! The question before a download, in a terminal.

use std::fs::File;
use std::io::{Error, Read, Write};
use std::os::fd::FromRawFd;
use std::process::{Child, Command};
use std::ptr;

use tintype_test_hub::wait_until;

use crate::published::Scene;

/// A terminal: its screen and keyboard, and what a program has of it.
fn terminal() -> (File, File) {
    let (mut screen, mut program) = (-1, -1);
    // SAFETY: both numbers outlive the calls, and nothing else is asked for. No other program gets the screen, so that
    // one at the terminal ends when the test does.
    unsafe {
        let failed =
            libc::openpty(&mut screen, &mut program, ptr::null_mut(), ptr::null(), ptr::null());
        assert_eq!(failed, 0, "{}", Error::last_os_error());
        libc::fcntl(screen, libc::F_SETFD, libc::FD_CLOEXEC);
    }
    // SAFETY: they are open and have no other owner.
    unsafe { (File::from_raw_fd(screen), File::from_raw_fd(program)) }
}

/// Starts a command at a terminal, and waits for its question.
fn asked(scene: &Scene, line: &str) -> (Child, File) {
    let (mut screen, program) = terminal();
    let mut command = scene.command(line);
    command.stdin(program.try_clone().expect("a handle")).stderr(program);
    let child = command.spawn().expect("the program starts");
    // Only the program has the terminal now, so that reading ends when it does.
    drop(command);
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !said.ends_with(b"Download? [y/N] ") {
        let read = screen.read_exact(&mut byte);
        read.unwrap_or_else(|e| panic!("{e} after {}", String::from_utf8_lossy(&said)));
        said.push(byte[0]);
    }
    (child, screen)
}

fn code(mut child: Child) -> Option<i32> {
    wait_until("the program's end", || child.try_wait().expect("it can be asked").is_some());
    child.wait().expect("it has ended").code()
}

#[test]
fn no_is_an_answer() {
    let scene = Scene::new();
    let (child, mut keyboard) = asked(&scene, "download tiny-sit");
    keyboard.write_all(b"n\n").expect("it is typed");
    assert_eq!(code(child), Some(1));
}

#[test]
fn ctrl_c_ends_the_command() {
    let scene = Scene::new();
    let (child, _screen) = asked(&scene, "download tiny-sit");
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(signal.expect("it is sent").success());
    assert_eq!(code(child), Some(130));
    assert!(scene.hub.requests().is_empty(), "nothing was fetched");
}
