use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, Command, Stdio};

use super::super::meeting::tests::{HERE, LIMIT, watches};
use super::super::meeting::{Card, Listening, host_name, join};
use super::*;
use crate::launch::Launch;
use crate::rank::Rank;

/// A rank that watches, and the errors that it is told.
fn start(watch: Watch, silence: Duration) -> (Watching, Receiver<CommError>) {
    let (sender, told) = mpsc::channel();
    let lost = move |error| sender.send(error).expect("the test listens");
    (watch.start(silence, lost), told)
}

/// So many ranks that watch.
fn ranks(world: usize) -> Vec<(Watching, Receiver<CommError>)> {
    watches(world).into_iter().map(|watch| start(watch, LIMIT)).collect()
}

/// All that a rank is told until it watches no more.
fn all(told: &Receiver<CommError>) -> Vec<CommError> {
    told.iter().collect()
}

fn lost(rank: usize, what: &str) -> CommError {
    CommError::Lost { rank, host: host_name(), what: what.into() }
}

#[test]
fn a_rank_that_ends_is_named_once_by_all_others() {
    for victim in 0..4 {
        let mut ranks = ranks(4);
        let (watching, told) = ranks.remove(victim);
        drop(watching);
        assert!(all(&told).is_empty());
        for (watching, told) in ranks {
            assert_eq!(all(&told), [lost(victim, "ended without a word")]);
            // It has nothing to add, and does not wait.
            watching.fail("the others have ended");
            watching.goodbye();
        }
    }
}

#[test]
fn a_rank_that_ended_before_is_named() {
    for victim in 0..3 {
        let mut watches = watches(3);
        drop(watches.remove(victim));
        let ranks: Vec<_> = watches.into_iter().map(|watch| start(watch, LIMIT)).collect();
        for (_watching, told) in &ranks {
            assert_eq!(all(told), [lost(victim, "ended without a word")]);
        }
    }
}

#[test]
fn all_others_hear_the_error_of_a_rank() {
    let sentence = "the disk is full: \"é\"\n";
    for failing in 0..3 {
        let ranks = ranks(3);
        ranks[failing].0.fail(sentence);
        for (rank, (_watching, told)) in ranks.iter().enumerate() {
            let expected = [lost(failing, &format!("failed: {sentence}"))];
            let own = rank == failing;
            assert_eq!(all(told), expected[..usize::from(!own)], "{rank}");
        }
    }
}

#[test]
fn a_long_error_is_cut() {
    let ranks = ranks(2);
    ranks[1].0.fail(&"\u{1}".repeat(100_000));
    let expected = "\u{1}".repeat(MOST_OF_SENTENCE);
    assert_eq!(all(&ranks[0].1), [lost(1, &format!("failed: {expected}"))]);
}

#[test]
fn a_silent_rank_is_named() {
    let silence = Duration::from_millis(200);
    for silent in [0, 1] {
        let mut watches = watches(2);
        // Connected, but without a sign of life.
        let other = watches.remove(silent);
        let (_watching, told) = start(watches.remove(0), silence);
        let error = lost(silent, "was not heard of for 0.2 s");
        assert_eq!(all(&told), std::slice::from_ref(&error));
        let (_watching, told) = start(other, LIMIT);
        // Rank 0 tells the silent one what became of it.
        let heard = if silent == 1 { error } else { lost(1, "ended without a word") };
        assert_eq!(all(&told), [heard]);
    }
}

#[test]
fn signs_of_life_keep_a_rank() {
    let silence = Duration::from_secs(2);
    let ranks: Vec<_> = watches(3).into_iter().map(|watch| start(watch, silence)).collect();
    std::thread::sleep(silence * 3 / 2);
    // The first of which rank 0 hears.
    ranks[1].0.fail("enough");
    assert_eq!(all(&ranks[0].1), [lost(1, "failed: enough")]);
}

#[test]
fn after_goodbye_nobody_is_lost() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (mut watching, told): (Vec<_>, Vec<_>) =
            ranks(3).into_iter().map(|(watching, told)| (Some(watching), told)).unzip();
        for rank in order {
            watching[rank].take().expect("once each").goodbye();
        }
        for told in &told {
            assert!(all(told).is_empty(), "{order:?}");
        }
    }
    // All at once.
    let (watching, told): (Vec<_>, Vec<_>) = ranks(4).into_iter().unzip();
    std::thread::scope(|scope| {
        for watching in watching {
            scope.spawn(move || watching.goodbye());
        }
    });
    for told in &told {
        assert!(all(told).is_empty());
    }
}

#[test]
fn the_others_are_watched_after_a_goodbye() {
    let mut ranks = ranks(4);
    let (done, told_done) = ranks.remove(2);
    done.goodbye();
    let (ended, _) = ranks.remove(1);
    drop(ended);
    for (_watching, told) in &ranks {
        assert_eq!(all(told), [lost(1, "ended without a word")]);
    }
    assert!(all(&told_done).is_empty());
}

/// Set in the processes that a test starts.
const RANK_OF_A_TEST: &str = "TINTYPE_TEST_RANK";

/// A rank in a process of its own.
struct Process {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Process {
    /// Runs a test once more, as a rank.
    fn start(test: &str, rank: usize, world: usize, port: u16) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([test, "--exact", "--nocapture"])
            .env(RANK_OF_A_TEST, "1")
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", world.to_string())
            .env("MASTER_ADDR", HERE)
            .env("MASTER_PORT", port.to_string())
            .env("TINTYPE_RUN", "test")
            .env_remove("LOCAL_RANK")
            .env_remove("TORCHELASTIC_RUN_ID")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = BufReader::new(child.stderr.take().expect("it is piped"));
        Self { child, said }
    }

    /// Waits until it has said a line with this.
    fn wait_for(&mut self, words: &str) {
        let mut said = String::new();
        loop {
            let before = said.len();
            self.said.read_line(&mut said).expect("it is text");
            assert!(said.len() > before, "it ended: {said}");
            if said[before..].contains(words) {
                return;
            }
        }
    }

    /// Waits for its end; what it has said since.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.said.read_to_string(&mut said).expect("it is text");
        (self.child.wait().expect("it ends").code(), said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that the system gives to no other connection meanwhile, since it is below those that it takes for them.
fn free_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).expect("it is small");
    let is_free = |port: &u16| TcpListener::bind((HERE, *port)).is_ok();
    (first..32_000).find(is_free).expect("a free port")
}

/// What the started processes do.
fn be_a_rank() {
    let rank = Rank::from_environment().expect("they are numbers");
    let launch = Launch::from_environment().expect("they are right").expect("they are set");
    let address = launch.address.expect("it is set");
    let port = launch.port.expect("it is set");
    let token = launch.id.clone().expect("it is set");
    let card = Card::new(rank, launch.id, Vec::new());
    let note = |sentence: &str| eprintln!("{sentence}");
    let watch = if rank.rank == 0 {
        let listening = Listening::at(&address, port).expect("it is free");
        listening.receive(card, &token, b"", LIMIT, note).expect("they come")
    } else {
        join(&address, port, card, &token, LIMIT, note).expect("rank 0 is there").1
    };
    let _watching = watch.start(LIMIT, |error| {
        eprintln!("lost: {error}");
        std::process::exit(3);
    });
    eprintln!("watching");
    std::thread::sleep(LIMIT);
}

#[test]
fn processes_name_the_one_that_was_killed() {
    if std::env::var_os(RANK_OF_A_TEST).is_some() {
        return be_a_rank();
    }
    let test = "train::comm::watch::tests::processes_name_the_one_that_was_killed";
    for victim in [1, 0] {
        let port = free_port();
        let mut ranks: Vec<Process> =
            (0..3).map(|rank| Process::start(test, rank, 3, port)).collect();
        for rank in &mut ranks {
            rank.wait_for("watching");
        }
        let mut killed = ranks.remove(victim);
        killed.child.kill().expect("it runs");
        for rank in &mut ranks {
            let (code, said) = rank.end();
            let expected = format!("lost: {}\n", lost(victim, "ended without a word"));
            assert!(code == Some(3) && said.ends_with(&expected), "{code:?}: {said}");
        }
    }
}
