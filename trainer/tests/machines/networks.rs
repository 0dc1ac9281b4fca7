//! Two machines: network namespaces of this one, with a cable between them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::common::{TINTYPE, Workspace};
use crate::compare::{assert_same_bits, assert_same_log, lines};
use crate::mpirun::{Mpirun, Running, send, until_gone};
use crate::runs::hdit;

const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
/// By these Open MPI tells what is on the same machine.
const HOSTS: [&str; 2] = ["tintype-a", "tintype-b"];

/// Names the machine by the first argument, and then is the command of the others.
const NAMED: &str = r#"hostname "$1"; shift; exec "$@""#;

/// Notes a rank's process, its machine and its errors, which a cut cable keeps from the launcher.
const NOTED: &str = r#"rank="$OMPI_COMM_WORLD_RANK"
hostname >"host.$rank"
echo $$ >"pid.$rank"
exec "$@" 2>"errors.$rank""#;

/// Open MPI between the machines by TCP alone, where the launcher notices within half a minute that a machine is gone.
const PARAMETERS: [(&str, &str); 7] = [
    ("pml", "ob1"),
    ("btl", "tcp,self"),
    ("btl_tcp_if_include", "10.77.0.0/24"),
    ("oob_tcp_if_include", "10.77.0.0/24"),
    ("oob_tcp_keepalive_time", "10"),
    ("oob_tcp_keepalive_intvl", "2"),
    ("oob_tcp_keepalive_probes", "3"),
];

/// Runs `ip`; an error is what it says.
fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
    }
}

/// Two machines, which go with this and everything that runs on them.
struct Machines {
    namespaces: [String; 2],
}

impl Machines {
    /// The machines, if this system lets them be made; else says why not.
    fn new() -> Option<Self> {
        let namespaces = ["a", "b"].map(|name| format!("tintype-{}-{name}", std::process::id()));
        let machines = Self { namespaces };
        match machines.connect() {
            Ok(()) => Some(machines),
            Err(why) => {
                println!("skipped: there can be no network namespaces: {why}");
                None
            }
        }
    }

    fn connect(&self) -> Result<(), String> {
        let [a, b] = &self.namespaces;
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        let cable = ["link", "add", "va", "netns", a, "type", "veth", "peer", "name", "vb"];
        ip(&[&cable[..], &["netns", b]].concat())?;
        for (name, device, address) in [(a, "va", ADDRESSES[0]), (b, "vb", ADDRESSES[1])] {
            ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", device])?;
            ip(&["-n", name, "link", "set", device, "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            // What nobody confirms is sent again for 13 seconds instead of a quarter of an hour.
            let fewer = "echo 5 >/proc/sys/net/ipv4/tcp_retries2";
            ip(&["netns", "exec", name, "sh", "-c", fewer])?;
        }
        Ok(())
    }

    /// Starts a rank on each machine; `line` is one as in [`Workspace::command`].
    ///
    /// * `more`: options of the launcher
    fn start(&self, mpirun: &Mpirun, workspace: &Workspace, more: &[&str], line: &str) -> Running {
        let [a, b] = &self.namespaces;
        // In place of ssh, so it is called with a host and a command.
        let agent = workspace.path("agent");
        let (address, host) = (ADDRESSES[1], HOSTS[1]);
        let text = format!(
            r#"#!/bin/sh
[ "$1" = {address} ] || {{ echo "there is no machine $1" >&2; exit 1; }}
shift
exec ip netns exec {b} unshare --uts sh -c '{NAMED}' sh {host} sh -c "$*"
"#
        );
        std::fs::write(&agent, text).expect("it is written");
        std::fs::set_permissions(&agent, Permissions::from_mode(0o755)).expect("it may run");
        let on_a = ["ip", "netns", "exec", a, "unshare", "--uts", "sh", "-c", NAMED, "sh"];
        let mut command = mpirun.command(workspace, &[&on_a[..], &HOSTS[..1]].concat());
        command.args(["--mca", "plm_rsh_agent"]).arg(&agent);
        for (name, value) in PARAMETERS {
            command.args(["--mca", name, value]);
        }
        command.args(["--host", &ADDRESSES.join(",")]).args(more);
        command.args(["-n", "2", "sh", "-c", NOTED, "sh", TINTYPE]).args(line.split(' '));
        Running::start(command, workspace)
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.namespaces {
            if let Ok(left) = Command::new("ip").args(["netns", "pids", name]).output() {
                let left = String::from_utf8_lossy(&left.stdout).into_owned();
                left.lines().filter_map(|id| id.parse().ok()).for_each(|id| send("-KILL", id));
            }
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// The launcher, and machines for it; else says why not.
fn two_machines() -> Option<(Mpirun, Machines)> {
    let mpirun = Mpirun::find()?;
    if !mpirun.is_open_mpi(Some(4)) {
        println!("skipped: between machines, only the options of Open MPI 4 are known here");
        return None;
    }
    Some((mpirun, Machines::new()?))
}

/// What a rank noted; nothing if it never started.
fn noted(workspace: &Workspace, name: &str, rank: usize) -> String {
    std::fs::read_to_string(workspace.path(&format!("{name}.{rank}"))).unwrap_or_default()
}

#[test]
fn two_machines_make_the_bits_of_one() {
    let Some((mpirun, machines)) = two_machines() else { return };
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.succeeds("train run.toml --out threads --device cpu,cpu --quiet");
    let line = "train run.toml --out launched --device cpu --quiet";
    let ended = machines.start(&mpirun, &workspace, &[], line).ends();
    let errors = [0, 1].map(|rank| noted(&workspace, "errors", rank));
    assert_eq!(ended.code, Some(0), "{} {errors:?}", ended.said);
    let hosts = [0, 1].map(|rank| noted(&workspace, "host", rank).trim().to_string());
    assert_eq!(hosts, HOSTS, "one rank on each");
    assert_same_bits(&workspace, "launched", "threads");
    assert_same_log(&workspace, "launched", "threads", 0.0);
}

#[test]
fn a_cut_cable_ends_the_ranks_of_both_machines() {
    let Some((mpirun, machines)) = two_machines() else { return };
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    let line = "train run.toml --out run --device cpu --quiet --steps 1000000 --timeout 5";
    // By these the ranks have a connection besides MPI.
    let meeting = [format!("MASTER_ADDR={}", ADDRESSES[0]), "MASTER_PORT=29500".into()];
    let more = ["-x", &meeting[0], "-x", &meeting[1]];
    let mut run = machines.start(&mpirun, &workspace, &more, line);
    run.until("first steps", || lines(&workspace, "run") > 2);
    let processes = [run.process(0), run.process(1)];
    let far = machines.namespaces[1].as_str();
    ip(&["-n", far, "link", "set", "vb", "down"]).expect("the cable is cut");
    let ended = run.ends();
    assert_ne!(ended.code, Some(0), "{}", ended.said);
    processes.into_iter().for_each(until_gone);
    let errors = [0, 1].map(|rank| noted(&workspace, "errors", rank));
    for (rank, errors) in errors.iter().enumerate() {
        let lost = format!("rank {} on {}", 1 - rank, HOSTS[1 - rank]);
        let is_reason = |line: &str| {
            line.starts_with("error: ") && (line.contains("waited 5 s") || line.contains(&lost))
        };
        assert!(errors.lines().any(is_reason), "rank {rank}: {errors:?}; {}", ended.said);
    }
}
