//! Ranks that are processes, by MPI. Calls do not block inside MPI, so that one that never ends is noticed.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use ::mpi::Threading;
use ::mpi::collective::CommunicatorCollectives;
use ::mpi::datatype::PartitionMut;
use ::mpi::environment::Universe;
use ::mpi::request::{LocalScope, Request, scope};
use ::mpi::topology::{Communicator, SimpleCommunicator};
use ::mpi::traits::Root;

use super::{CommError, HostEngine};

/// Values of one call, whose counts have 32 bits: 256 MiB.
const PIECE: usize = 64 << 20;
/// How long MPI is asked again at once before the processor is left to others.
const SPIN: Duration = Duration::from_micros(200);
/// How long it is left to them.
const PAUSE: Duration = Duration::from_micros(50);
/// A longer pause between two looks is a suspended process.
const SUSPENDED: Duration = Duration::from_secs(1);

/// What ends this process where the others cannot be waited for any longer: MPI takes no buffer back.
pub type Fatal = fn(CommError) -> !;

/// MPI in this process; ends with it.
pub struct Session {
    universe: Option<Universe>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// Starts MPI. One thread at a time may call it from then on.
    ///
    /// # Errors
    ///
    /// If MPI was started already, or does not know threads.
    pub fn begin() -> Result<Self, CommError> {
        let fails = |problem: &str| CommError::Engine { engine: "MPI", problem: problem.into() };
        let (universe, threading) = ::mpi::initialize_with_threading(Threading::Serialized)
            .ok_or_else(|| fails("it was started before"))?;
        if threading < Threading::Serialized {
            return Err(fails("it was built without support for threads"));
        }
        Ok(Self { universe: Some(universe) })
    }

    /// Rank and world size.
    pub fn rank(&self) -> (usize, usize) {
        let world = SimpleCommunicator::world();
        (world.rank() as usize, world.size() as usize)
    }

    /// Leaves MPI without the others, which may wait for this rank.
    pub fn forget(mut self) {
        std::mem::forget(self.universe.take());
    }
}

/// A rank among the processes of an `mpirun`.
pub(super) struct Mpi {
    world: usize,
    /// How long the others are waited for.
    limit: Duration,
    fatal: Fatal,
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mpi {{ world: {} }}", self.world)
    }
}

impl Mpi {
    /// The rank of this process.
    pub fn new(session: &Session, limit: Duration, fatal: Fatal) -> Self {
        Self { world: session.rank().1, limit, fatal }
    }

    /// Waits for an operation.
    fn wait<'a, D: ?Sized>(&self, what: &'static str, request: Request<'a, D, &LocalScope<'a>>) {
        self.wait_for(self.limit, what, request);
    }

    fn wait_for<'a, D: ?Sized>(
        &self,
        limit: Duration,
        what: &'static str,
        mut request: Request<'a, D, &LocalScope<'a>>,
    ) {
        let (mut waited, mut awake) = (Duration::ZERO, Instant::now());
        loop {
            request = match request.test() {
                Ok(_) => return,
                Err(request) => request,
            };
            // Time in which this process was suspended is none of waiting.
            waited += awake.elapsed().min(SUSPENDED);
            awake = Instant::now();
            if waited > limit {
                (self.fatal)(CommError::TimedOut { what, limit });
            }
            if waited > SPIN {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// One sum of at most [`PIECE`] values: rank k adds the k-th part of all ranks' values, then all get all parts.
    fn sum_piece(&self, own: &[f32]) -> Vec<f32> {
        let comm = SimpleCommunicator::world();
        let part = own.len().div_ceil(self.world);
        let mut padded = own.to_vec();
        padded.resize(part * self.world, 0.0);
        let mut parts = vec![0.0f32; padded.len()];
        scope(|scope| {
            self.wait(
                "sum gradients",
                comm.immediate_all_to_all_into(scope, &padded[..], &mut parts[..]),
            );
        });
        let mut ranks = parts.chunks_exact(part);
        let mut sum = ranks.next().map_or(Vec::new(), <[f32]>::to_vec);
        for rank in ranks {
            sum.iter_mut().zip(rank).for_each(|(sum, &value)| *sum += value);
        }
        let mut all = padded;
        scope(|scope| {
            self.wait(
                "sum gradients",
                comm.immediate_all_gather_into(scope, &sum[..], &mut all[..]),
            );
        });
        all.truncate(own.len());
        all
    }
}

impl HostEngine for Mpi {
    fn all_gather(&self, mut own: Vec<u8>, patient: bool) -> Result<Vec<Vec<u8>>, CommError> {
        // Never empty: where an empty vector of bytes begins is `MPI_IN_PLACE` to Open MPI.
        own.push(0);
        let limit = if patient { Duration::MAX } else { self.limit };
        let comm = SimpleCommunicator::world();
        let mut lengths = vec![0u64; self.world];
        let length = [own.len() as u64];
        scope(|scope| {
            self.wait_for(
                limit,
                "exchange numbers",
                comm.immediate_all_gather_into(scope, &length[..], &mut lengths[..]),
            );
        });
        let total: u64 = lengths.iter().sum();
        if i32::try_from(total).is_err() {
            let problem = format!("{total} bytes are too many for one exchange");
            return Err(CommError::Engine { engine: "MPI", problem });
        }
        let counts: Vec<i32> = lengths.iter().map(|&n| n as i32).collect();
        let ends = Cell::new(0);
        let places: Vec<i32> = counts.iter().map(|n| ends.replace(ends.get() + n)).collect();
        let mut all = vec![0u8; total as usize];
        let mut partition = PartitionMut::new(&mut all[..], &counts[..], &places[..]);
        scope(|scope| {
            self.wait_for(
                limit,
                "exchange numbers",
                comm.immediate_all_gather_varcount_into(scope, &own[..], &mut partition),
            );
        });
        let of =
            |(&place, &count): (&i32, &i32)| all[place as usize..][..count as usize - 1].to_vec();
        Ok(places.iter().zip(&counts).map(of).collect())
    }

    fn sum(&self, own: Vec<f32>) -> Result<Vec<f32>, CommError> {
        Ok(own.chunks(PIECE).flat_map(|piece| self.sum_piece(piece)).collect())
    }

    fn broadcast(&self, mut own: Vec<f32>) -> Result<Vec<f32>, CommError> {
        let comm = SimpleCommunicator::world();
        for piece in own.chunks_mut(PIECE) {
            scope(|scope| {
                let first = comm.process_at_rank(0);
                self.wait("receive weights", first.immediate_broadcast_into(scope, piece));
            });
        }
        Ok(own)
    }
}
