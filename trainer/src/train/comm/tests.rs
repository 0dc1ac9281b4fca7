use serde_json::json;
use tintype::burn::tensor::Device;

use super::*;

/// What each of so many ranks makes of its communicator, in threads of their own.
fn each<T: Send>(world: usize, work: impl Fn(&Comm) -> T + Sync) -> Vec<T> {
    let ranks = Comm::threads(world);
    std::thread::scope(|scope| {
        let threads: Vec<_> = ranks.iter().map(|comm| scope.spawn(|| work(comm))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
    })
}

fn row(values: Vec<f32>) -> Tensor<1> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), &Device::flex())
}

fn values(x: &Tensor<1>) -> Vec<f32> {
    x.to_data().iter::<f32>().collect()
}

/// A value of a rank whose sums depend on their order.
fn value(rank: usize, i: usize) -> f32 {
    1.0 / (1 + i * 7 + rank * 13) as f32 * if (rank + i).is_multiple_of(3) { 1e4 } else { 1.0 }
}

#[test]
fn sums_run_in_rank_order() {
    for world in 1..=5 {
        for n in 0..=17 {
            let sums = each(world, |comm| {
                let own = (0..n).map(|i| value(comm.rank, i)).collect();
                let tensors = Flat::from([("a".into(), row(own)), ("b".into(), row(vec![1.0]))]);
                comm.sum(tensors).expect("all are there")
            });
            let expected: Vec<f32> = (0..n)
                .map(|i| (1..world).fold(value(0, i), |sum, rank| sum + value(rank, i)))
                .collect();
            for sum in sums {
                assert_eq!(values(&sum["a"]), expected, "{world} ranks, {n} values");
                assert_eq!(values(&sum["b"]), [world as f32]);
            }
        }
    }
}

#[test]
fn losses_are_summed_in_float64_and_carry_the_wish_to_stop() {
    let wishes = [None, Some(0), Some(1)];
    for wish in wishes {
        let numbers = each(2, |comm| {
            if wish == Some(comm.rank) {
                comm.ask_to_stop();
            }
            comm.gather(row(vec![16_777_216.0, 0.1 + comm.rank as f32])).expect("both").read()
        });
        for Numbers { sums, stop } in numbers {
            assert_eq!(sums, [33_554_432.0, f64::from(0.1f32) + f64::from(1.1f32)]);
            assert_eq!(stop, wish.is_some());
        }
    }
    // A single rank hears it elsewhere.
    let alone = Comm::alone();
    alone.ask_to_stop();
    let numbers = alone.gather(row(vec![0.5])).expect("one").read();
    assert_eq!(numbers, Numbers { sums: vec![0.5], stop: false });
}

#[test]
fn gradients_of_other_names_or_lengths_are_not_mixed() {
    let of = |pairs: &[(&str, usize)]| -> Flat {
        pairs.iter().map(|&(name, n)| (name.to_string(), row(vec![1.0; n]))).collect()
    };
    let refused = |first: &[(&str, usize)], second: &[(&str, usize)]| {
        let errors = each(2, |comm| {
            comm.sum(of(if comm.rank == 0 { first } else { second })).expect_err("they differ")
        });
        assert_eq!(errors[0], errors[1]);
        errors[0].to_string()
    };
    let said = refused(&[("a", 2), ("b", 3)], &[("a", 2), ("c", 3)]);
    assert_eq!(said, "rank 1 has b none, but rank 0 has 3");
    let said = refused(&[("a", 2)], &[("a", 3)]);
    assert_eq!(said, "rank 1 has a 3, but rank 0 has 2");
}

#[test]
fn first_weights_and_texts_are_those_of_rank_0() {
    let found = each(3, |comm| {
        let own = Flat::from([("w".into(), row(vec![comm.rank as f32; 4]))]);
        let text = comm.text_of_first(format!("from {}", comm.rank)).expect("all");
        comm.barrier().expect("all");
        (values(&comm.broadcast(own).expect("all")["w"]), text)
    });
    assert_eq!(found, vec![(vec![0.0; 4], "from 0".to_string()); 3]);
}

#[test]
fn what_differs_between_ranks_is_named_on_all_of_them() {
    let same = each(3, |comm| comm.same(&json!({"run": {"batch": 8}})));
    assert_eq!(same, vec![Ok(()); 3]);
    let found = each(3, |comm| {
        let lr = if comm.rank == 2 { 2e-4 } else { 1e-4 };
        comm.same(&json!({"run": {"batch": 8}, "optimizer": {"lr": lr}}))
    });
    for error in found {
        let error = error.expect_err("rank 2 differs").to_string();
        assert_eq!(error, "rank 2 has optimizer.lr 0.0002, but rank 0 has 0.0001");
    }
}

#[test]
fn buckets_keep_all_tensors_in_order() {
    let tensors: Flat = (0..9).map(|i| (format!("{i}"), row(vec![0.0; i]))).collect();
    let names: Vec<String> = buckets(tensors).into_iter().flatten().map(|(name, _)| name).collect();
    assert_eq!(names, (0..9).map(|i| i.to_string()).collect::<Vec<_>>());
    assert!(buckets(Flat::new()).is_empty());
}
