//! Rank and world size from the environment of torchrun, Slurm or MPI.

use anyhow::{Result, bail};

/// The rank of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Rank, from 0.
    pub rank: usize,
    /// World size.
    pub world: usize,
    /// Local rank on this machine, which selects the GPU.
    pub local: usize,
}

/// Variables of a launcher: rank, world size, rank on this machine.
const LAUNCHERS: [[&str; 3]; 5] = [
    ["RANK", "WORLD_SIZE", "LOCAL_RANK"], // torchrun, or set by hand
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"], // Open MPI
    ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"], // MPICH, Intel MPI
    ["MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"], // MVAPICH
    ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"], // srun (not sbatch's own shell)
];

/// The launcher that started this process. Inside of a Slurm job mpirun's processes inherit srun's variables, so it comes
/// before; but srun itself may set `PMI_RANK` without the local rank that mpirun tells.
pub(crate) fn launcher(variable: impl Fn(&str) -> Option<String>) -> Option<[&'static str; 3]> {
    let tells = |names: &[&str]| names.iter().all(|name| variable(name).is_some());
    let [by_hand, rest @ ..] = LAUNCHERS;
    let whole = rest.iter().find(|names| tells(&names[..]));
    let partly = || rest.iter().find(|names| tells(&names[..2])).copied();
    match tells(&by_hand[..2]) {
        true => Some(by_hand),
        false => whole.copied().or_else(partly),
    }
}

impl Rank {
    /// A single process.
    pub const ALONE: Self = Self { rank: 0, world: 1, local: 0 };

    /// Reads the environment; a single process if no launcher's variables are set.
    ///
    /// # Errors
    ///
    /// If a launcher's variable is not a number, or the rank is not below the world size.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok()).map(|(rank, _)| rank)
    }

    /// Whether this process is known to be another than the first of its machine. It is not known where the launcher
    /// tells no local rank, and each process may be on a machine of its own.
    ///
    /// # Errors
    ///
    /// As [`from_environment`](Self::from_environment).
    pub fn is_later_on_machine() -> Result<bool> {
        let (_, local) = Self::from_variables(|name| std::env::var(name).ok())?;
        Ok(local.is_some_and(|local| local > 0))
    }

    /// The rank from a source of variables, and the local rank if they tell it.
    ///
    /// # Errors
    ///
    /// If a launcher's variable is not a number, or the rank is not below the world size.
    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<(Self, Option<usize>)> {
        if let Some([rank, world, local]) = launcher(&variable) {
            let text = |name: &str| variable(name).unwrap_or_default();
            let (rank_text, world_text) = (text(rank), text(world));
            let number = |name: &str, text: &str| -> Result<usize> {
                match text.trim().parse() {
                    Ok(n) => Ok(n),
                    Err(_) => bail!("the environment variable {name} is {text:?}, not a number"),
                }
            };
            let (rank_number, world_number) =
                (number(rank, &rank_text)?, number(world, &world_text)?);
            if rank_number >= world_number {
                bail!("{rank} is {rank_number} and {world} {world_number}; ranks run from 0");
            }
            let told = variable(local).map(|text| number(local, &text)).transpose()?;
            let local = told.unwrap_or(rank_number);
            return Ok((Self { rank: rank_number, world: world_number, local }, told));
        }
        Ok((Self::ALONE, Some(0)))
    }

    /// This process's contiguous part of `n` items.
    ///
    /// # Panics
    ///
    /// If [`world`](Self::world) is 0.
    pub fn share(self, n: usize) -> std::ops::Range<usize> {
        n * self.rank / self.world..n * (self.rank + 1) / self.world
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rank, and the local rank if it is told.
    fn told(variables: &[(&str, &str)]) -> Result<(Rank, Option<usize>)> {
        Rank::from_variables(|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string())
        })
    }

    fn with(variables: &[(&str, &str)]) -> Result<Rank> {
        told(variables).map(|(rank, _)| rank)
    }

    #[test]
    fn a_local_rank_is_known_where_it_is_told() {
        let local = |variables: &[(&str, &str)]| told(variables).expect("numbers").1;
        assert_eq!(local(&[]), Some(0));
        // On a second machine, this is the first process.
        let second = [("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")];
        assert_eq!(local(&second), Some(0));
        assert_eq!(local(&second[..2]), None);
        assert_eq!(local(&[second[0], second[1], ("LOCAL_RANK", "3")]), Some(3));
    }

    #[test]
    fn launcher_variables_are_parsed() {
        let rank = |rank, world, local| Rank { rank, world, local };
        assert_eq!(with(&[]).unwrap(), Rank::ALONE);
        let torchrun = [("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")];
        assert_eq!(with(&torchrun).unwrap(), rank(5, 8, 1));
        let srun = [("SLURM_PROCID", "2"), ("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_LOCALID", "0")];
        assert_eq!(with(&srun).unwrap(), rank(2, 4, 0));
        // A shell that sbatch started is not one of several tasks.
        assert_eq!(with(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]).unwrap(), Rank::ALONE);
        let mpi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
        assert_eq!(with(&mpi).unwrap(), rank(1, 2, 1));
        // mpirun in a shell that srun started.
        let shell = [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_LOCALID", "0")];
        let ompi = [
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
        ];
        assert_eq!(with(&[&shell[..], &ompi].concat()).unwrap(), rank(3, 4, 1));
        let hydra = [("PMI_RANK", "3"), ("PMI_SIZE", "4"), ("MPI_LOCALRANKID", "1")];
        assert_eq!(with(&[&shell[..], &hydra].concat()).unwrap(), rank(3, 4, 1));
        // srun with PMI.
        let pmi = [("PMI_RANK", "2"), ("PMI_SIZE", "4")];
        assert_eq!(with(&[&srun[..], &pmi].concat()).unwrap(), rank(2, 4, 0));
        assert_eq!(with(&pmi).unwrap(), rank(2, 4, 2));
        let error = with(&[("RANK", "x"), ("WORLD_SIZE", "8")]).unwrap_err().to_string();
        assert!(error.contains("RANK"), "{error}");
        assert!(with(&[("RANK", "8"), ("WORLD_SIZE", "8")]).is_err());
    }

    #[test]
    fn shares_cover_everything_once() {
        for (n, world) in [(10, 3), (2, 4), (50_000, 7), (0, 2)] {
            let parts = (0..world).map(|rank| Rank { rank, world, local: 0 }.share(n));
            let all: Vec<usize> = parts.flatten().collect();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
        }
    }
}
