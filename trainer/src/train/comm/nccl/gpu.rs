//! Two ranks on one GPU, each in a process of its own, where there is a GPU and an NCCL that lets them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;
use crate::alone;

/// The rank of a process, and the folder where both meet.
const RANK: &str = "TINTYPE_TEST_RANK";
const FOLDER: &str = "TINTYPE_TEST_FOLDER";

const LIMIT: Duration = Duration::from_secs(120);
const ROUNDS: u16 = 1000;
/// Kernels before a sum. Without an order between Burn's work and NCCL's they would not be done.
const CHAIN: u16 = 200;
const COUNT: usize = 1 << 18;

#[test]
fn two_ranks_on_one_gpu_exchange_what_was_computed() {
    let name = "train::comm::nccl::gpu::two_ranks_on_one_gpu_exchange_what_was_computed";
    if let Some(reason) = real::unavailable() {
        eprintln!("NCCL is not tested: {reason}");
        return;
    }
    if let Ok(rank) = std::env::var(RANK) {
        let folder = std::env::var_os(FOLDER).expect("it is set with the rank");
        return exchange(rank.parse().expect("it is a number"), &PathBuf::from(folder));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("it has a plain name");
    std::thread::scope(|scope| {
        for rank in ["0", "1"] {
            let variables = [(RANK, rank), (FOLDER, path), ("NCCL_MULTI_RANK_GPU_ENABLE", "1")];
            scope.spawn(move || alone::said(name, &variables).expect("it runs in its own process"));
        }
    });
}

/// The id, which rank 0 leaves in the folder for the other.
fn meet(rank: usize, folder: &Path) -> [u8; 128] {
    let path = folder.join("id");
    if rank == 0 {
        let id = Nccl::unique_id().expect("NCCL makes one");
        let unfinished = folder.join("id.tmp");
        std::fs::write(&unfinished, id).expect("it is written");
        std::fs::rename(&unfinished, &path).expect("it is renamed");
        return id;
    }
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < LIMIT, "rank 0 does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::read(&path).expect("it is read").try_into().expect("it has 128 bytes")
}

fn host(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}

fn exchange(rank: usize, folder: &Path) {
    let device = Device::cuda(0);
    let nccl = Nccl::join(meet(rank, folder), rank, 2, &device, LIMIT).expect("both join");
    let upload = |values: &[f32]| {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        Tensor::<1>::from_data(data, (&device, DType::F32))
    };
    let bytes: [&[u8]; 2] = [b"rank 0", b""];
    assert_eq!(nccl.all_gather(bytes[rank].to_vec(), false).expect("they exchange"), bytes);

    // Two buckets.
    let long = vec![rank as f32; nccl.bucket / size_of::<f32>()];
    let own = Flat::from([
        ("long".to_owned(), upload(&long)),
        ("short".to_owned(), upload(&[rank as f32 + 3.0])),
    ]);
    let theirs = nccl.broadcast(own).expect("rank 0 sends");
    assert!(host(&theirs["long"]).iter().all(|&value| value == 0.0));
    assert_eq!(host(&theirs["short"]), [3.0]);
    drop(theirs);

    let pattern: Vec<f32> = (0..COUNT).map(|i| (i % 251) as f32).collect();
    let base = upload(&pattern);
    let small = rank as f32;
    for round in 0..ROUNDS {
        // Whole numbers, so that every order of additions has the same bits.
        let start = base.clone() + (small + f32::from(round));
        let own = (0..CHAIN).fold(start, |sum, _| sum + 1.0);
        // One of them lies within the other's memory.
        let tensors = Flat::from([
            ("all".to_owned(), own.clone()),
            ("some".to_owned(), own.clone().slice(5..8)),
        ]);
        let sums = if round % 2 == 0 {
            nccl.sum(tensors)
        } else {
            let pending = nccl.begin(tensors).expect("it begins");
            // Meanwhile the device goes on, in memory that was free.
            let other = (0..CHAIN).fold(base.clone() * 0.0, |sum, _| sum + 1.0);
            let sums = nccl.finish(pending);
            assert!(host(&other).iter().all(|&value| value == f32::from(CHAIN)));
            sums
        };
        let sums = sums.expect("they sum");
        let both = f32::from(2 * (CHAIN + round) + 1);
        let wanted: Vec<f32> = pattern.iter().map(|value| 2.0 * value + both).collect();
        // By a kernel of Burn's, which NCCL's must precede.
        assert!(host(&(sums["all"].clone() * 1.0)) == wanted, "round {round}");
        assert_eq!(host(&sums["some"]), wanted[5..8], "round {round}");
        if round % 10 == 0 {
            let mine = own.slice(0..2);
            let first = f32::from(CHAIN + round);
            let wanted = [first, first + 1.0, first + 1.0, first + 2.0];
            assert_eq!(host(&nccl.gather(mine).expect("they exchange")), wanted, "round {round}");
        }
    }
}
