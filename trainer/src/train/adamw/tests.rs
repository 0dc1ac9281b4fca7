use super::*;
use crate::train::ema::EmaConfig;

#[test]
fn clipping_is_part_of_a_step() {
    let row = |v: [f32; 3]| Tensor::<1>::from_floats(v, &Device::flex());
    let of = |v: [f32; 3]| Flat::from([("a".to_string(), row(v))]);
    let gradients = of([3.0, -7.0, 0.1]);
    let norm = norm_of(&gradients);
    assert!((norm - 58.01f64.sqrt()).abs() < 1e-5, "{norm}");
    assert_eq!(norm_of(&Flat::new()), 0.0);
    let clipping = guard(&gradients, None, Some(0.25));
    let scale = StepGuard::scale(&clipping.read(), Some(0.25)).expect("it is finite");
    for muon in [false, true] {
        let config = AdamWConfig { muon, ..AdamWConfig::new(0.1, [0.9, 0.999]) };
        let [mut inside, mut before] = [0, 1].map(|_| AdamW::new(config, |_| Group::PLAIN));
        let (mut a, mut b) = (of([1.0, 2.0, 3.0]), of([1.0, 2.0, 3.0]));
        for _ in 0..3 {
            let clipped = Flat::from([("a".to_string(), gradients["a"].clone() * scale)]);
            let free = guard(&clipped, None, None);
            a = inside.update(a, gradients.clone(), &clipping, &mut [], 0.1);
            b = before.update(b, clipped, &free, &mut [], 0.1);
        }
        a["a"].to_data().assert_eq(&b["a"].to_data(), true);
        let moments = |adam: &AdamW| adam.to_tensors()["second.a"].to_f32();
        assert_eq!(moments(&inside), moments(&before));
    }
}

#[test]
fn a_step_that_is_not_finite_leaves_no_trace() {
    let row = |v: [f32; 2]| Tensor::<1>::from_floats(v, &Device::flex());
    let of = |v: [f32; 2]| Flat::from([("a".to_string(), row(v))]);
    let bits =
        |x: &Tensor<1>| -> Vec<u32> { x.to_data().iter::<f32>().map(f32::to_bits).collect() };
    for muon in [false, true] {
        let config = AdamWConfig { muon, ..AdamWConfig::new(0.1, [0.9, 0.999]) };
        let run = |bad: &[usize]| {
            let mut adam = AdamW::new(config, |_| Group::PLAIN);
            let mut ema = [Ema::new(EmaConfig::Constant { decay: 0.5 }, 1, of([1.0, 2.0]))];
            let mut p = of([1.0, 2.0]);
            for step in 0..5 {
                let is_bad = bad.contains(&step);
                let g = of(if is_bad { [1.0, f32::NAN] } else { [0.5, -3.0] });
                // A loss can be at fault alone, too.
                let loss = if step == 0 && is_bad { f32::INFINITY } else { 1.0 };
                let loss = Tensor::from_floats([loss], &Device::flex());
                let guard = guard(&g, Some(loss), Some(1.0));
                p = adam.update(p, g, &guard, &mut ema, 0.1);
                ema[0].move_rest(&p, &guard);
                match StepGuard::scale(&guard.read(), None).is_some() {
                    true => ema[0].updates += 1,
                    false => adam.take_back(),
                }
            }
            (bits(&p["a"]), bits(&ema[0].values["a"]), ema[0].updates, adam.to_tensors())
        };
        let (p, average, updates, state) = run(&[0, 3]);
        let mut three = AdamW::new(config, |_| Group::PLAIN);
        let mut expected = of([1.0, 2.0]);
        for _ in 0..3 {
            let g = of([0.5, -3.0]);
            let guard = guard(&g, None, Some(1.0));
            expected = three.update(expected, g, &guard, &mut [], 0.1);
        }
        assert_eq!((p, updates), (bits(&expected["a"]), 3));
        assert_eq!(state["steps.a"].to_i64(), [3]);
        assert_eq!(state["first.a"].to_f32(), three.to_tensors()["first.a"].to_f32());
        assert!(average.iter().all(|&bits| f32::from_bits(bits).is_finite()));
        // All of them bad: no state at all.
        let (p, average, updates, state) = run(&[0, 1, 2, 3, 4]);
        let start = bits(&row([1.0, 2.0]));
        assert_eq!((p, average, updates, state.len()), (start.clone(), start, 0, 0));
    }
}

#[test]
fn missing_and_misshapen_moments_are_noticed() {
    let device = Device::flex();
    let of = |n: usize| Tensor::<1>::from_data(TensorData::new(vec![1.0f32; n], [n]), &device);
    let parameters = Flat::from([("a".to_string(), of(3)), ("b".to_string(), of(2))]);
    let mut adam = AdamW::new(AdamWConfig::new(0.1, [0.9, 0.999]), |_| Group::PLAIN);
    let new = || AdamW::new(AdamWConfig::new(0.1, [0.9, 0.999]), |_| Group::PLAIN);
    let saved = |adam: &AdamW| Weights {
        file: "optimizer".into(),
        tensors: adam.to_tensors(),
        metadata: adam.metadata(),
        ..Weights::default()
    };
    // Nothing was stepped: nothing to restore.
    assert_eq!(new().restore(&saved(&adam), &parameters, &device), Ok(()));
    let free = guard(&parameters, None, None);
    adam.update(parameters.clone(), parameters.clone(), &free, &mut [], 0.1);
    let whole = saved(&adam);
    assert_eq!(new().restore(&whole, &parameters, &device), Ok(()));
    let without = |names: &[&str]| {
        let mut weights = whole.clone();
        weights.tensors.retain(|name, _| !names.contains(&name.as_str()));
        new().restore(&weights, &parameters, &device).expect_err("a hole").to_string()
    };
    assert!(without(&["second.a"]).contains("second.a"), "{}", without(&["second.a"]));
    let message = without(&["first.b", "second.b", "steps.b"]);
    assert!(message.contains("1 parameters") && message.contains("of 2"), "{message}");
    let mut weights = whole.clone();
    weights.tensors.insert("first.b".into(), whole.tensors["first.a"].clone());
    let message = new().restore(&weights, &parameters, &device).expect_err("misshapen");
    assert!(message.to_string().contains("first.b has 3 values"), "{message}");
    let mut weights = whole.clone();
    let bad = TensorView::from_f32(vec![2], &[1.0, f32::NAN]).expect("they fit");
    weights.tensors.insert("second.b".into(), bad);
    let message = new().restore(&weights, &parameters, &device).expect_err("NaN").to_string();
    assert_eq!(message, "optimizer: second.b is not finite");
}
