//! Which models make pictures of a class, in which order, and what is told of them.

use std::path::Path;
use std::sync::Arc;

use tintype::generate::Inspection;
use tintype::settings::Sampler;

use super::*;
use crate::engine::Choice;

fn paths(name: &str) -> ModelPaths {
    ModelPaths { model: Some(name.into()), ..ModelPaths::default() }
}

/// A SiT with classes of these names.
fn model(name: &str, classes: &[&str]) -> Answer {
    let architecture = tintype::preset::find("sit-xl-1").expect("a preset").architecture;
    Answer::Model(Box::new(Model {
        paths: paths(name),
        fingerprint: name.into(),
        name: name.into(),
        averages: Vec::new(),
        values: 1,
        defaults: architecture.default_settings(),
        inspection: Inspection {
            architecture,
            labels: Labels::new(classes.iter().map(|class| class.to_string()).collect()),
            image_size: [256, 256],
            reports: Vec::new(),
            notes: Vec::new(),
        },
        guide: None,
    }))
}

/// Models of these classes, each read, and what is typed.
fn comparison(models: &[(&str, &[&str])], query: &str) -> Comparison {
    let mut comparison = Comparison::new(egui::Context::default());
    for (name, classes) in models {
        assert!(comparison.add(name.to_string(), paths(name)));
        comparison.read(&model(name, classes));
    }
    comparison.query = query.into();
    comparison.look_up();
    comparison
}

/// Begins with a queue.
fn begin(comparison: &mut Comparison, queue: &mut Queue) {
    comparison.begin(|name, paths, settings, images| {
        let choice = Choice { paths: paths.clone(), ..Choice::default() };
        queue.add(name, choice, settings, images)
    });
}

fn stages(comparison: &Comparison, queue: &Queue) -> Vec<Stage> {
    comparison.rows().iter().map(|row| row.stage(queue)).collect()
}

fn left_out(reason: &str) -> Stage {
    Stage::LeftOut(reason.into())
}

fn picture(id: u64, evaluations: usize, side: usize) -> Picture {
    let grey = egui::Color32::from_gray(id as u8);
    Picture::new(id, evaluations, Arc::new(egui::ColorImage::filled([side, side], grey)))
}

#[test]
fn a_class_is_looked_up_by_name_in_every_model() {
    let models: [(&str, &[&str]); 5] = [
        ("a", &["tench, Tinca tinca", "golden retriever"]),
        ("b", &["Golden Retriever, dog", "fruit"]),
        ("c", &["fruit", "retriever"]),
        ("d", &[]),
        ("e", &["golden retriever", "golden retriever"]),
    ];
    let mut comparison = comparison(&models, " golden retriever ");
    let mut queue = Queue::default();
    let several = "has 2 classes that “golden retriever” may mean: type 0 or 1";
    let [unknown, classless, several] =
        ["does not know “golden retriever”", "has no classes", several].map(left_out);
    let expected = [Stage::Ready, Stage::Ready, unknown, classless, several];
    assert_eq!(stages(&comparison, &queue), expected);
    assert_eq!(comparison.summary(&queue), "5 models: 3 left out");

    (comparison.seed, comparison.count) = (7, 2);
    begin(&mut comparison, &mut queue);
    assert_eq!(comparison.summary(&queue), "5 models: 2 waiting, 3 left out");
    let made: Vec<_> = queue
        .waiting()
        .map(|job| {
            let specs = job.images.iter().map(|spec| (spec.class, spec.seed));
            (job.name.as_str(), job.choice.paths.clone(), specs.collect::<Vec<_>>())
        })
        .collect();
    let expected = [
        ("golden retriever: a", paths("a"), vec![(Some(1), 7), (Some(1), 8)]),
        ("Golden Retriever: b", paths("b"), vec![(Some(0), 7), (Some(0), 8)]),
    ];
    assert_eq!(made, expected);

    // A number is of each model's own list, and a name that none has is told of all.
    comparison.query = "1".into();
    comparison.look_up();
    assert_eq!(comparison.rows()[2].stage(&queue), Stage::Ready);
    comparison.query = "9".into();
    comparison.look_up();
    assert_eq!(
        comparison.rows()[2].stage(&queue),
        left_out("has no class 9; they run from 0 to 1")
    );
}

#[test]
fn averages_of_a_file_have_rows_of_their_own() {
    let mut comparison = Comparison::new(egui::Context::default());
    for average in [None, Some(2)] {
        let paths = ModelPaths { average, ..paths("a") };
        assert!(comparison.add("a".into(), paths.clone()));
        assert!(!comparison.add("again".into(), paths.clone()));
        let Answer::Model(mut read) = model("a", &["fruit"]) else { panic!("a model") };
        read.paths = paths;
        comparison.read(&Answer::Model(read));
    }
    comparison.query = "fruit".into();
    comparison.look_up();
    let mut queue = Queue::default();
    begin(&mut comparison, &mut queue);
    let jobs: Vec<_> =
        queue.waiting().map(|job| (job.name.as_str(), job.choice.paths.average)).collect();
    assert_eq!(jobs, [("fruit: a", None), ("fruit: a, average 2", Some(2))]);
}

#[test]
fn a_part_of_a_name_means_the_one_class_that_has_it() {
    let models: [(&str, &[&str]); 3] =
        [("a", &["tench, Tinca tinca", "fruit"]), ("b", &["fruit"]), ("c", &["1", "2"])];
    let mut some = comparison(&models[..2], "fru");
    some.settle();
    assert_eq!((some.query.as_str(), some.suggested().len()), ("fru", 0));
    let queue = Queue::default();
    assert_eq!(stages(&some, &queue), [Stage::Ready, Stage::Ready]);
    let class = |comparison: &Comparison, row: usize| {
        comparison.rows()[row].captions(Quality::Best).get(1).cloned()
    };
    let seen = [class(&some, 0), class(&some, 1)];
    assert_eq!(seen, ["class 1: fruit", "class 0: fruit"].map(|class| Some(class.to_string())));
    // A place in the list, and a class that is called by a number.
    let places = comparison(&models, "#1");
    let none = left_out("has no class 1; they run from 0 to 0");
    assert_eq!(stages(&places, &queue), [Stage::Ready, none, Stage::Ready]);
    assert_eq!(class(&places, 2).as_deref(), Some("class 1: 2"));
    // Many classes are counted, and suggested.
    let many: Vec<String> = (0..9).map(|n| format!("dog {n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let dogs = comparison(&[("dogs", many.as_slice())], "dog");
    assert_eq!(stages(&dogs, &queue), [left_out("has 9 classes that “dog” may mean")]);
    assert_eq!(dogs.suggested()[0], "dog 0");
}

#[test]
fn models_without_classes_need_no_name_and_others_do() {
    let without = comparison(&[("a", &[])], "");
    assert_eq!(
        (without.obstacle(), without.rows()[0].stage(&Queue::default())),
        (None, Stage::Ready)
    );
    let mut both = comparison(&[("a", &[]), ("b", &["fruit"])], "");
    assert_eq!(both.obstacle(), Some("Name a class first."));
    assert!(both.add("c".into(), paths("c")) && !both.add("again".into(), paths("a")));
    assert_eq!(both.obstacle(), Some("The models are still being read."));
    both.read(&Answer::Trouble(paths("c"), "no such file".into()));
    both.query = "fruit".into();
    both.look_up();
    assert_eq!(both.obstacle(), None);
    let failed = Stage::Failed("no such file".into());
    let expected = [left_out("has no classes"), Stage::Ready, failed];
    assert_eq!(stages(&both, &Queue::default()), expected);
    assert_eq!(both.summary(&Queue::default()), "3 models: 1 failed, 1 left out");
    assert!(Comparison::new(egui::Context::default()).obstacle().is_some());
}

#[test]
fn the_first_suggestion_is_taken_unless_a_model_has_just_that_name() {
    let models: [(&str, &[&str]); 3] = [
        ("a", &["goldfish, Carassius auratus", "golden retriever", "fruit"]),
        ("b", &["goldfish, Carassius auratus", "golden retriever", "fruit"]),
        ("c", &["gold", "old-timer"]),
    ];
    let mut some = comparison(&models[..2], "gold");
    assert_eq!(some.suggested(), ["goldfish", "golden retriever"]);
    some.settle();
    assert_eq!((some.query.as_str(), some.suggested().len()), ("goldfish", 0));
    let mut exact = comparison(&models, "gold");
    assert!(exact.suggested().is_empty());
    exact.settle();
    assert_eq!(exact.query, "gold");
    let unknown = comparison(&models, "zebra");
    assert!(unknown.suggested().is_empty());
    // The closest of each come first.
    assert_eq!(comparison(&models, "old").suggested()[..2], ["goldfish", "old-timer"]);
    // A model that is not read yet may have just that name.
    let mut reading = comparison(&models[..2], "gold");
    assert!(reading.add("c".into(), paths("c")));
    reading.settle();
    assert_eq!(reading.query, "gold");
}

#[test]
fn a_row_goes_from_the_queue_to_its_end() {
    let classes: &[&str] = &["fruit"];
    let models = [("a", classes), ("b", classes), ("c", classes)];
    let mut comparison = comparison(&models, "fruit");
    let mut queue = Queue::default();
    comparison.count = 2;
    begin(&mut comparison, &mut queue);
    let jobs = comparison.jobs();
    let work = queue.next(Path::new("out")).expect("work");
    assert_eq!((work.job, jobs.len()), (jobs[0], 3));
    let (waiting, running) = (Stage::Waiting, Stage::Running);
    assert_eq!(stages(&comparison, &queue), [running, waiting.clone(), waiting.clone()]);
    assert!(comparison.is_busy(&queue) && !comparison.has_pictures());

    // A lost device: what is left is made elsewhere.
    comparison.picture(work.job, picture(1, 16, 4), 1 << 20);
    queue.picture(work.job);
    let lost = Outcome::DeviceLost("gone".into());
    let job = queue.end(work.job).expect("it ran");
    assert!(comparison.end(job.id, &lost, 1.0) && !comparison.end(99, &lost, 1.0));
    comparison.again(job.id);
    queue.again(job, "cpu");
    assert_eq!(comparison.rows()[0].stage(&queue), Stage::Waiting);
    let work = queue.next(Path::new("out")).expect("work");
    comparison.picture(work.job, picture(2, 16, 4), 1 << 20);
    queue.end(work.job);
    comparison.end(work.job, &Outcome::Done, 1.5);
    let captions = comparison.rows()[0].captions(Quality::Best);
    let cost = "16 evaluations (NFE) each · 2.5 s for 2 pictures · 1.0 MiB of memory";
    assert_eq!(captions[2], cost);
    let seed = comparison.seed;
    assert_eq!(captions[1], format!("class 0: fruit, seeds {seed} to {}", seed + 1));

    // One fails and goes on to the next, which somebody takes out of the queue.
    let work = queue.next(Path::new("out")).expect("work");
    queue.end(work.job);
    comparison.end(work.job, &Outcome::Failed("too large".into()), 0.0);
    queue.cancel(jobs[2]);
    let failed = Stage::Failed("too large".into());
    assert_eq!(stages(&comparison, &queue), [Stage::Done, failed, Stage::Stopped]);
    assert_eq!(comparison.summary(&queue), "3 models: 1 finished, 1 stopped, 1 failed");
    assert!(!comparison.is_busy(&queue));
    let last = comparison.rows()[2].id;
    assert_eq!((comparison.remove(last), comparison.rows().len()), (Some(jobs[2]), 2));

    // The next time begins anew.
    begin(&mut comparison, &mut queue);
    assert_eq!(stages(&comparison, &queue), [waiting.clone(), waiting]);
    assert!(!comparison.has_pictures());
}

#[test]
fn a_quality_is_that_of_every_model() {
    let comparison = comparison(&[("a", &["fruit"])], "fruit");
    let captions = |quality| comparison.rows()[0].captions(quality).remove(0);
    let draft = captions(Quality::Draft);
    assert!(draft.starts_with("unipc · 8 steps · "), "{draft}");
    assert!(captions(Quality::Good).contains(" · 16 steps · "));
    let defaults = comparison.rows()[0].model().expect("it is read").defaults;
    assert_ne!(defaults.sampler, Sampler::UniPc);
    assert!(captions(Quality::Best).starts_with(defaults.sampler.name()));
}

#[test]
fn a_sheet_has_the_pictures_of_all_rows() {
    let classes: &[&str] = &["fruit"];
    let mut comparison = comparison(&[("a", classes), ("b", classes), ("c", classes)], "fruit");
    let mut queue = Queue::default();
    comparison.count = 2;
    begin(&mut comparison, &mut queue);
    let jobs = comparison.jobs();
    comparison.picture(jobs[0], picture(10, 1, 8), 0);
    comparison.picture(jobs[2], picture(20, 1, 16), 0);
    comparison.picture(jobs[2], picture(30, 1, 16), 0);
    // Cells of 16 pixels with 8 between them, behind the captions; the second row has no picture, and the picture of 8
    // pixels is enlarged.
    let lines = sheet::lines(comparison.rows(), comparison.quality);
    let sheet = sheet::draw(&lines).expect("it is small");
    let (left, pitch) = (sheet.width - 48, (sheet.height - 8) / 2);
    let at = |x: usize, y: usize| sheet.pixels[(y * sheet.width + left + x) * 3];
    assert_eq!([at(0, 8), at(15, 23), at(24, 8)], [10, 10, 255]);
    let second = [at(0, 8 + pitch), at(15, 23 + pitch), at(17, 8 + pitch), at(24, 8 + pitch)];
    assert_eq!(second, [20, 20, 255, 30]);
    let letters = sheet.pixels.chunks(sheet.width * 3).flat_map(|row| &row[..left * 3]);
    assert!(letters.filter(|value| **value == 0).count() > 0, "no captions");

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sheet.png");
    let written = |path: &Path| {
        comparison.save(path.into());
        comparison.inbox.recv().expect("an answer")
    };
    assert_eq!(written(&file), Ok(file.clone()));
    let read = image::open(&file).expect("a picture");
    assert_eq!((read.width() as usize, read.height() as usize), (sheet.width, sheet.height));
    let blocked = written(&file.join("inside.png")).expect_err("that is a file");
    assert!(blocked.contains("inside.png"), "{blocked}");

    let small = Arc::new(egui::ColorImage::filled([16, 16], egui::Color32::BLACK));
    for id in 0..100_000 {
        comparison.picture(jobs[2], Picture::new(id, 1, small.clone()), 0);
    }
    let lines = sheet::lines(comparison.rows(), comparison.quality);
    let refused = sheet::draw(&lines).expect_err("it is too large");
    assert!(refused.contains("128 million are the most"), "{refused}");
}
