//! Pictures of the main views, drawn by the software GPU. `UPDATE_SNAPSHOTS=1` writes them anew.

use super::bench::{Bench, settings, sized};
use eframe::egui::{Key, Theme};
use egui_kittest::SnapshotOptions;
use egui_kittest::kittest::Queryable;
use tintype_desktop::action::{Action, View};

/// A picture's last bit differs between processors, text and edges between GPU drivers.
fn options() -> SnapshotOptions {
    SnapshotOptions::new().threshold(2.0).max_failed_pixels(300)
}

fn bench(size: [f32; 2], theme: Theme) -> Bench {
    let mut settings = settings(20);
    settings["form"]["classes"] = serde_json::json!([17]);
    let builder = sized(size).wgpu().with_theme(theme).with_render_cursor(false);
    let mut bench = Bench::built(&settings, builder, |_| {});
    bench.until("ready", |app| app.ready().is_some());
    bench
}

/// Compares the window with its picture; the folder has another name in each run, and each device its memory.
fn compare(mut bench: Bench, name: &str) {
    bench.harness.run_steps(4);
    let folder = bench.pictures().display().to_string();
    for other in [folder.as_str(), "of this device"] {
        let named = bench.harness.query_all_by_label_contains(other);
        let rects: Vec<_> = named.map(|node| node.rect()).collect();
        for rect in rects {
            bench.harness.mask(rect.expand(2.0));
        }
    }
    // So is how long a picture takes, below the buttons.
    let named = bench.harness.query_all_by_label_contains(", about ");
    let rects: Vec<_> = named.map(|node| node.rect()).collect();
    for rect in rects {
        bench.harness.mask(rect.with_max_y(rect.max.y + 22.0));
    }
    bench.harness.snapshot_options(name, &options());
}

#[test]
fn picker() {
    let mut bench = bench([960.0, 640.0], Theme::Dark);
    let ctx = bench.harness.ctx.clone();
    for class in [36, 21] {
        bench.harness.state_mut().act(Action::Favourite(class), &ctx);
    }
    bench.harness.state_mut().act(Action::Choose { class: 36, add: true }, &ctx);
    compare(bench, "picker");
}

#[test]
fn finished_in_the_light() {
    let mut bench = bench([780.0, 560.0], Theme::Light);
    bench.harness.key_press(Key::Enter);
    bench.harness.step();
    bench.idle();
    compare(bench, "finished");
}

#[test]
fn gallery() {
    let mut bench = bench([960.0, 640.0], Theme::Dark);
    let ctx = bench.harness.ctx.clone();
    bench.harness.state_mut().act(Action::Choose { class: 21, add: true }, &ctx);
    bench.harness.key_press(Key::Enter);
    bench.harness.step();
    bench.idle();
    bench.harness.state_mut().act(Action::Show(View::Gallery), &ctx);
    compare(bench, "gallery");
}

#[test]
fn published_models() {
    let mut bench = bench([960.0, 640.0], Theme::Dark);
    let ctx = bench.harness.ctx.clone();
    bench.harness.state_mut().act(Action::Show(View::Models), &ctx);
    bench.until("looked for", |app| app.browser().cards().iter().all(|c| c.status.is_some()));
    compare(bench, "models");
}
