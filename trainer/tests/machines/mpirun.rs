//! `mpirun`: ranks are started by it, end with it, and are found by their number.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::common::{TINTYPE, Workspace};

/// How long a run may take before a test says that it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A script that writes the number of its process to `pid.RANK`, and then is the command after it.
pub const NOTED: &str = r#"echo $$ >"pid.${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"; exec "$@""#;

/// What every process is told by its environment.
pub const ENVIRONMENT: [(&str, &str); 5] = [
    // A core a rank.
    ("RAYON_NUM_THREADS", "1"),
    // Open MPI waits in a loop that leaves the core to nobody, unless it starts more ranks than there are cores; here
    // other tests run, too.
    ("OMPI_MCA_mpi_yield_when_idle", "1"),
    // In a container a process may not read another's memory.
    ("OMPI_MCA_btl_vader_single_copy_mechanism", "none"),
    ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
    ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
];

/// Options by which Open MPI starts more ranks than there are cores, by root as well; other MPIs know none of them.
const OPEN_MPI: [&str; 4] = ["--oversubscribe", "--bind-to", "none", "--allow-run-as-root"];

/// The launcher. One test at a time has it, since the ranks of one take all cores.
pub struct Mpirun {
    version: String,
    _turn: MutexGuard<'static, ()>,
}

impl Mpirun {
    /// The launcher, if this program can be started by it; else says why not.
    ///
    /// # Panics
    ///
    /// In continuous integration, if the program needs it and it is not there.
    pub fn find() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        if !cfg!(feature = "mpi") {
            println!("skipped: the program is built without the feature mpi");
            return None;
        }
        let Ok(output) = Command::new("mpirun").arg("--version").output() else {
            assert!(std::env::var_os("CI").is_none(), "there is no mpirun, which these tests need");
            println!("skipped: there is no mpirun");
            return None;
        };
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(Self { version, _turn: TURN.lock().unwrap_or_else(PoisonError::into_inner) })
    }

    /// Whether it is Open MPI of this major version; of any where none is given.
    pub fn is_open_mpi(&self, major: Option<u32>) -> bool {
        let major = major.map_or(String::new(), |major| format!(" {major}."));
        self.version.contains(&format!("(Open MPI){major}"))
    }

    /// The launcher and the options of all tests.
    pub fn words(&self) -> Vec<&'static str> {
        let options: &[&str] = if self.is_open_mpi(None) { &OPEN_MPI } else { &[] };
        ["mpirun"].iter().chain(options).copied().collect()
    }

    /// The launcher with the options of all tests, behind `before` if that is a command which runs another one.
    pub fn command(&self, workspace: &Workspace, before: &[&str]) -> Command {
        let words = [before, &self.words()[..]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).envs(ENVIRONMENT).current_dir(workspace.path(""));
        command
    }

    /// Starts the program as so many ranks; `line` is one as in [`Workspace::command`].
    pub fn start(&self, workspace: &Workspace, ranks: usize, line: &str) -> Running {
        let mut command = self.command(workspace, &[]);
        command.args(["-n", &ranks.to_string(), "sh", "-c", NOTED, "sh", TINTYPE]);
        command.args(line.split(' '));
        Running::start(command, workspace)
    }

    /// Runs the program as so many ranks.
    pub fn run(&self, workspace: &Workspace, ranks: usize, line: &str) -> Ended {
        self.start(workspace, ranks, line).ends()
    }

    /// The same where it must succeed; returns what all ranks said.
    pub fn succeeds(&self, workspace: &Workspace, ranks: usize, line: &str) -> String {
        let ended = self.run(workspace, ranks, line);
        assert_eq!(ended.code, Some(0), "{line}: {}", ended.said);
        ended.said
    }

    /// Runs a rank for each folder and line.
    pub fn run_each(&self, workspace: &Workspace, ranks: &[(&str, &str)]) -> Ended {
        let mut command = self.command(workspace, &[]);
        for (rank, (folder, line)) in ranks.iter().enumerate() {
            if rank > 0 {
                command.arg(":");
            }
            let folder = workspace.path(folder);
            command.args(["-n", "1", "-wdir"]).arg(folder).arg(TINTYPE).args(line.split(' '));
        }
        Running::start(command, workspace).ends()
    }

    /// The exit code of the launcher where all ranks end with this one.
    pub fn code_of(&self, workspace: &Workspace, code: u8) -> Option<i32> {
        let mut command = self.command(workspace, &[]);
        command.args(["-n", "2", "sh", "-c", &format!("exit {code}")]);
        Running::start(command, workspace).ends().code
    }
}

/// How a launcher ended.
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it and its ranks wrote.
    pub said: String,
}

/// A launcher at work, which ends with this.
pub struct Running {
    launcher: Child,
    said: PathBuf,
    folder: PathBuf,
}

impl Running {
    /// Starts a launcher in a workspace.
    pub fn start(mut command: Command, workspace: &Workspace) -> Self {
        let folder = workspace.path("");
        for name in crate::common::names(&folder) {
            if name.starts_with("pid.") {
                std::fs::remove_file(folder.join(name)).expect("an earlier run's is deleted");
            }
        }
        let said = folder.join("said");
        let out = File::create(&said).expect("a file");
        let errors = out.try_clone().expect("a second handle of it");
        let command = command.stdin(Stdio::null()).stdout(out).stderr(errors);
        Self { launcher: command.spawn().expect("it starts"), said, folder }
    }

    /// What the launcher and its ranks wrote until now.
    pub fn said(&self) -> String {
        let said = std::fs::read(&self.said).expect("it is there");
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Waits until something is so while the ranks run.
    ///
    /// # Panics
    ///
    /// If they end before, or within [`PATIENCE`] it is not so.
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            let ended = self.launcher.try_wait().expect("it can be asked");
            assert!(ended.is_none(), "{what}: before that, they ended: {}", self.said());
            assert!(begun.elapsed() < PATIENCE, "{what}: it never happens: {}", self.said());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The process of a rank that [`NOTED`] started.
    pub fn process(&mut self, rank: usize) -> u32 {
        let file = self.folder.join(format!("pid.{rank}"));
        let read = || -> Option<u32> {
            std::fs::read_to_string(&file).ok()?.strip_suffix('\n')?.parse().ok()
        };
        self.until("a rank's process", || read().is_some());
        read().expect("it was there")
    }

    /// Waits for the end.
    ///
    /// # Panics
    ///
    /// If it does not come within [`PATIENCE`].
    pub fn ends(mut self) -> Ended {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.launcher.try_wait().expect("it can be asked") {
                return Ended { code: status.code(), said: self.said() };
            }
            assert!(begun.elapsed() < PATIENCE, "they do not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let is_over = |launcher: &mut Child| !matches!(launcher.try_wait(), Ok(None));
        if is_over(&mut self.launcher) {
            return;
        }
        // A launcher that is asked to end ends its ranks before; one that is killed may leave them.
        send("-TERM", self.launcher.id());
        let begun = Instant::now();
        while !is_over(&mut self.launcher) && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
    }
}

/// Sends a signal; to a process that has ended it does nothing.
pub fn send(signal: &str, process: u32) {
    let mut kill = Command::new("kill");
    kill.args([signal, &process.to_string()]).stderr(Stdio::null());
    kill.status().expect("kill runs");
}

/// Waits until a process has ended.
///
/// # Panics
///
/// If it does not within [`PATIENCE`].
pub fn until_gone(process: u32) {
    let begun = Instant::now();
    // One that nobody has waited for yet is a zombie; its state follows its name in parentheses.
    let runs = || match std::fs::read_to_string(format!("/proc/{process}/stat")) {
        Ok(stat) => !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")),
        Err(_) => false,
    };
    while runs() {
        assert!(begun.elapsed() < PATIENCE, "process {process} does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}
