//! An X server of a test's own, and programs on it. Needs `Xvfb` (Debian: xvfb).

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use x11rb::connection::Connection;
use x11rb::protocol::xproto::{self, ConnectionExt as _, Window};
use x11rb::rust_connection::RustConnection;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub const WIDTH: u16 = 1000;
pub const HEIGHT: u16 = 700;
/// A picture on a software GPU takes over a minute of processor time, and other tests run beside this one.
pub const PATIENCE: Duration = Duration::from_secs(900);

/// Programs side by side would only take each other's processor.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that does not outlive the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Asks the process to end, as a session does that closes, and returns how it did.
    pub fn close(&mut self) -> Result<ExitStatus> {
        Command::new("kill").arg(self.0.id().to_string()).status()?;
        self.ended()
    }

    /// How it ended, once it did.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("the program does not end".into())
    }
}

/// An X server and what it is asked through.
pub struct Screen {
    _server: Process,
    pub name: String,
    pub connection: RustConnection,
    pub root: Window,
}

impl Screen {
    pub fn open() -> Result<Self> {
        let size = format!("{WIDTH}x{HEIGHT}x24");
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", &size, "-nolisten", "tcp"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("Xvfb does not start ({e}); Debian has it in the package xvfb"))?;
        let mut number = String::new();
        let output = server.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut number)?;
        let name = format!(":{}", number.trim());
        let (connection, screen) = x11rb::connect(Some(&name))?;
        let root = connection.setup().roots[screen].root;
        Ok(Self { _server: Process(server), name, connection, root })
    }

    /// Windows of apps that are shown.
    pub fn windows(&self) -> Result<Vec<Window>> {
        let mut windows = Vec::new();
        for window in self.connection.query_tree(self.root)?.reply()?.children {
            let visible = self.connection.get_window_attributes(window)?.reply()?.map_state
                == xproto::MapState::VIEWABLE;
            let large = self.connection.get_geometry(window)?.reply()?.width > 500;
            if visible && large {
                windows.push(window);
            }
        }
        Ok(windows)
    }

    /// The window of an app, the only one, once it is there.
    pub fn window(&self, app: &mut Process) -> Result<Window> {
        self.until(app, "no window", |screen| Ok(screen.windows()?.first().copied()))
    }

    /// Looks until there is what was looked for, while the app runs.
    pub fn until<T>(
        &self,
        app: &mut Process,
        otherwise: &str,
        find: impl Fn(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = app.0.try_wait()? {
                return Err(format!("the app ended: {status}").into());
            }
            if let Some(found) = find(self)? {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(otherwise.into())
    }

    /// What is on the screen, `[red, green, blue]` by row.
    pub fn photograph(&self) -> Result<Vec<[u8; 3]>> {
        let format = xproto::ImageFormat::Z_PIXMAP;
        let image =
            self.connection.get_image(format, self.root, 0, 0, WIDTH, HEIGHT, !0)?.reply()?;
        Ok(image.data.chunks_exact(4).map(|p| [p[2], p[1], p[0]]).collect())
    }

    /// A photograph of the window once classes are listed on its left, which is when the model is read.
    pub fn with_classes(&self, app: &mut Process) -> Result<Vec<[u8; 3]>> {
        self.until(app, "no classes are listed", |screen| {
            let photograph = screen.photograph()?;
            Ok((colours(&photograph, 0..240, 100..500) > 20).then_some(photograph))
        })
    }
}

/// Different colours in a part of the screen.
pub fn colours(photograph: &[[u8; 3]], xs: Range<usize>, ys: Range<usize>) -> usize {
    let places = ys.flat_map(|y| xs.clone().map(move |x| y * usize::from(WIDTH) + x));
    places.map(|at| photograph[at]).collect::<BTreeSet<_>>().len()
}
