//! One run over several processes by MPI: real processes, on this machine and on two that network namespaces make of
//! it.
//!
//! Without the feature `mpi`, or without `mpirun`, each test says so and checks nothing.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code)] // a part of it is used here
#[path = "../training/runs.rs"]
mod runs;

mod bits;
mod compare;
mod deaths;
mod disagreements;
mod launchers;
mod mpirun;
mod networks;
mod worlds;
