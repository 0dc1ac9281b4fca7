//! The ranks of this process and their connection to those of others.

#[cfg(any(feature = "cuda", feature = "mpi"))]
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use tintype::burn::tensor::Device;
#[cfg(any(feature = "cuda", feature = "mpi"))]
use tintype::labels::printable;

#[cfg(any(feature = "cuda", feature = "mpi"))]
use super::watch::Watching;
use super::{CommError, Seat};
use crate::launch::Launch;
use crate::rank::Rank;

/// What ends this process when another rank is lost.
pub type Lost = fn(CommError) -> !;

/// How long a rank may be silent before it counts as lost; each is heard of every second.
#[cfg(any(feature = "cuda", feature = "mpi"))]
const SILENCE: Duration = Duration::from_secs(30);

/// The ranks of this process.
#[derive(Debug)]
pub struct Group {
    seats: Vec<(Seat, Device)>,
    world: usize,
    limit: Duration,
    leads: bool,
    #[cfg(any(feature = "cuda", feature = "mpi"))]
    watching: Option<Watching>,
    #[cfg(feature = "mpi")]
    session: Option<super::mpi::Session>,
}

impl Group {
    /// One rank for each device, all of this process.
    ///
    /// * `limit`: how long GPUs wait for each other
    ///
    /// # Errors
    ///
    /// If there are several of NVIDIA's GPUs and no NCCL.
    pub fn of_devices(devices: Vec<Device>, limit: Duration) -> Result<Self, CommError> {
        let seats = Seat::of_devices(&devices)?;
        let seats: Vec<_> = seats.into_iter().zip(devices).collect();
        Ok(Self::new(seats, limit))
    }

    fn new(seats: Vec<(Seat, Device)>, limit: Duration) -> Self {
        Self {
            world: seats.len(),
            leads: seats.iter().any(|(seat, _)| seat.rank() == 0),
            seats,
            limit,
            #[cfg(any(feature = "cuda", feature = "mpi"))]
            watching: None,
            #[cfg(feature = "mpi")]
            session: None,
        }
    }

    /// The rank of this process among those of a launcher, which meet here: by NCCL on CUDA, else by MPI.
    ///
    /// * `run`: the run's folder, in which they find each other where the launcher does not say where rank 0 is
    /// * `limit`: how long they wait for each other
    /// * `lost`: called when another rank ends, fails or falls silent, and under MPI at the limit
    ///
    /// # Errors
    ///
    /// If they do not meet, differ in world size or version, or neither NCCL nor MPI can be used.
    pub fn of_processes(
        rank: Rank,
        launch: &Launch,
        device: Device,
        run: &Path,
        limit: Duration,
        lost: Lost,
    ) -> Result<Self, CommError> {
        #[cfg(feature = "cuda")]
        if super::is_cuda(&device) {
            return Self::by_nccl(rank, launch, device, run, limit, lost);
        }
        let _ = run;
        #[cfg(feature = "mpi")]
        return Self::by_mpi(rank, launch, device, limit, lost);
        #[cfg(not(feature = "mpi"))]
        {
            let _ = (launch, limit, lost, device);
            let problem = format!(
                "this is one of {} processes; without CUDA they need MPI: build with `--features tintype-trainer/mpi` and start with mpirun, or train in one process (unset RANK and WORLD_SIZE)",
                rank.world
            );
            Err(CommError::Engine { engine: "MPI", problem })
        }
    }

    /// World size, over all processes.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Whether rank 0 is in this process.
    pub fn leads(&self) -> bool {
        self.leads
    }

    /// How long ranks wait for each other.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// The seats, each with its device; there are none afterwards.
    pub(in crate::train) fn take_seats(&mut self) -> Vec<(Seat, Device)> {
        std::mem::take(&mut self.seats)
    }

    /// Leaves the others, who are told if this process fails.
    ///
    /// * `error`: what it fails with
    #[cfg_attr(not(any(feature = "cuda", feature = "mpi")), allow(unused_variables))]
    pub fn end(mut self, error: Option<&str>) {
        self.leave(error);
    }

    #[cfg_attr(not(any(feature = "cuda", feature = "mpi")), allow(unused_variables))]
    fn leave(&mut self, error: Option<&str>) {
        #[cfg(any(feature = "cuda", feature = "mpi"))]
        if let Some(watching) = self.watching.take() {
            match error {
                Some(error) => watching.fail(error),
                None => watching.goodbye(),
            }
        }
        #[cfg(feature = "mpi")]
        if let Some(session) = self.session.take()
            && error.is_some()
        {
            session.forget();
        }
    }
}

impl Drop for Group {
    /// Of a process that panics; [`end`](Self::end) has left already.
    fn drop(&mut self) {
        self.leave(Some("it panicked"));
    }
}

/// Tells something on standard error, which may be a file on a full disk.
#[cfg(any(feature = "cuda", feature = "mpi"))]
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "note: {}", printable(text));
}

#[cfg(feature = "mpi")]
mod by_mpi {
    use std::net::ToSocketAddrs;
    use std::sync::Arc;

    use super::super::meeting::{Card, Listening, host_name, join, random_token};
    use super::super::mpi::{Mpi, Session};
    use super::super::{Comm, Engine};
    use super::*;

    /// How long the ranks try to connect to rank 0.
    const CONNECT: Duration = Duration::from_secs(10);

    impl Group {
        /// The processes of an `mpirun`.
        pub(super) fn by_mpi(
            rank: Rank,
            launch: &Launch,
            device: Device,
            limit: Duration,
            lost: Lost,
        ) -> Result<Self, CommError> {
            let session = Session::begin()?;
            let (own, world) = session.rank();
            if (own, world) != (rank.rank, rank.world) {
                let problem = format!(
                    "MPI knows of {world} process{} and the environment of {}; start with mpirun, or srun --mpi=pmix, of the MPI that this program was built with",
                    if world == 1 { "" } else { "es" },
                    rank.world
                );
                session.forget();
                return Err(CommError::Engine { engine: "MPI", problem });
            }
            let engine = Arc::new(Mpi::new(&session, limit, lost));
            let comm = Comm::new(own, world, Engine::Host(engine));
            let mut group = Self::new(vec![(Seat::Ready(comm.clone()), device)], limit);
            (group.world, group.session) = (world, Some(session));
            group.watching = watched(&comm, launch, lost)?;
            Ok(group)
        }
    }

    /// A connection from each rank to rank 0, by which it is noticed that one ends; `None`, with a note, where there is no
    /// way from one to the other but MPI's own.
    fn watched(comm: &Comm, launch: &Launch, lost: Lost) -> Result<Option<Watching>, CommError> {
        let hosts = comm.texts(host_name())?;
        let address = match &launch.address {
            Some(address) => address.clone(),
            None if hosts.iter().all(|host| *host == hosts[0]) => "127.0.0.1".into(),
            None => hosts[0].clone(),
        };
        let is_known = (address.as_str(), 0).to_socket_addrs().is_ok();
        let listening = match comm.rank {
            0 if is_known => Listening::at(&address, launch.port.unwrap_or(0)).ok(),
            _ => None,
        };
        let token = random_token();
        let place = listening.as_ref().map_or(String::new(), |l| format!("{} {token}", l.port()));
        let place = comm.text_of_first(place)?;
        let rank = Rank { rank: comm.rank, world: comm.world, local: 0 };
        let card = Card::new(rank, launch.id.clone(), Vec::new());
        let quiet = |_: &str| {};
        let watch = match (listening, place.split_once(' ')) {
            (Some(listening), _) => listening.receive(card, &token, &[], CONNECT, quiet).ok(),
            (None, Some((port, token))) => {
                let port = port.parse().unwrap_or(0);
                join(&address, port, card, token, CONNECT, quiet).ok().map(|(_, watch)| watch)
            }
            (None, None) => None,
        };
        let all = comm.texts(if watch.is_some() { "watched" } else { "" }.to_string())?;
        match watch {
            Some(watch) if all.iter().all(|rank| !rank.is_empty()) => {
                Ok(Some(watch.start(SILENCE, move |error| lost(error))))
            }
            _ => {
                if comm.rank == 0 {
                    note(&format!(
                        "the ranks cannot connect to rank 0 at {address}, so it is left to MPI to notice one that dies; MASTER_ADDR and MASTER_PORT set the address"
                    ));
                }
                Ok(None)
            }
        }
    }
}

#[cfg(feature = "cuda")]
mod by_nccl {
    use super::super::meeting::{Card, Listening, join, join_by_file, receive_by_file};
    use super::super::nccl::Nccl;
    use super::*;

    impl Group {
        /// Processes with a GPU each.
        pub(super) fn by_nccl(
            rank: Rank,
            launch: &Launch,
            device: Device,
            run: &Path,
            limit: Duration,
            lost: Lost,
        ) -> Result<Self, CommError> {
            Nccl::prepare()?;
            let Rank { rank: own, world, .. } = rank;
            let card = Card::new(rank, launch.id.clone(), Vec::new());
            let token = launch.token();
            let at = launch.address.as_deref().zip(launch.port);
            let (id, watch) = match (own, at) {
                (0, at) => {
                    let id = Nccl::unique_id()?;
                    let watch = match at {
                        Some((address, port)) => {
                            Listening::at(address, port)?.receive(card, &token, &id, limit, note)?
                        }
                        None => receive_by_file(run, card, &id, limit, note)?,
                    };
                    (id.to_vec(), watch)
                }
                (_, Some((address, port))) => join(address, port, card, &token, limit, note)?,
                (_, None) => join_by_file(run, card, limit, note)?,
            };
            let id: [u8; 128] = id.try_into().map_err(|_| {
                CommError::Meeting("rank 0 did not send the id of NCCL's communicator".into())
            })?;
            let watching = watch.start(SILENCE, move |error| lost(error));
            let seat = Seat::Nccl { id, rank: own, world };
            let mut group = Self::new(vec![(seat, device)], limit);
            (group.world, group.watching) = (world, Some(watching));
            Ok(group)
        }
    }
}
