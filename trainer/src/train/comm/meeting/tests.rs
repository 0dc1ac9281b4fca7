use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use super::super::CommError;
use super::super::watch::Watch;
use super::card::{Answer, Hello, Refusal, is_same_token};
use super::join::{Joining, Target};
use super::wire::Wire;
use super::*;
use crate::rank::Rank;

/// So that a fault does not hang the tests.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Where the limit is reached.
const SHORT: Duration = Duration::from_millis(200);
/// An address that every machine has.
pub const HERE: &str = "127.0.0.1";
const TOKEN: &str = "token";

fn card(rank: usize, world: usize) -> Card {
    let fields = vec![("seed".to_string(), "1".to_string()), ("batch".into(), "8".into())];
    Card::new(Rank { rank, world, local: rank }, Some("launch".into()), fields)
}

fn here() -> Listening {
    Listening::at(HERE, 0).expect("a free port")
}

/// A port where no program listens: to listen there takes a privilege, and nothing uses it any more.
const DESERTED: u16 = 1;

fn quiet(_: &str) {}

/// Rank 1 of 2 comes.
fn come(port: u16) -> (Vec<u8>, Watch) {
    join(HERE, port, card(1, 2), TOKEN, LIMIT, quiet).expect("it is let in")
}

/// What a meeting comes to, by rank; the first card is rank 0's.
fn meeting(cards: &[Card]) -> Vec<Result<(Vec<u8>, Watch), CommError>> {
    let listening = here();
    let port = listening.port();
    let payload = b"payload";
    thread::scope(|scope| {
        let come = |card: &Card| {
            let card = card.clone();
            scope.spawn(move || join(HERE, port, card, TOKEN, LIMIT, quiet))
        };
        let others: Vec<_> = cards[1..].iter().map(come).collect();
        let watch = listening.receive(cards[0].clone(), TOKEN, payload, LIMIT, quiet);
        let first = watch.map(|watch| (payload.to_vec(), watch));
        let others = others.into_iter().map(|thread| thread.join().expect("it ends"));
        std::iter::once(first).chain(others).collect()
    })
}

/// Ranks that have met.
pub fn watches(world: usize) -> Vec<Watch> {
    let cards: Vec<Card> = (0..world).map(|rank| card(rank, world)).collect();
    meeting(&cards).into_iter().map(|met| met.expect("they meet").1).collect()
}

/// The error of a meeting, which all ranks have.
fn error(cards: &[Card]) -> CommError {
    let errors = meeting(cards).into_iter().map(|met| met.expect_err("they cannot meet"));
    let mut errors: Vec<CommError> = errors.collect();
    assert_eq!(errors.len(), cards.len());
    errors.dedup();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[test]
fn one_to_five_ranks_meet() {
    for world in 1..=5 {
        let cards: Vec<Card> = (0..world).map(|rank| card(rank, world)).collect();
        let met = meeting(&cards);
        assert_eq!(met.len(), world);
        for met in met {
            assert_eq!(met.expect("they meet").0, b"payload");
        }
    }
}

#[test]
fn an_answer_may_be_long() {
    let payload = vec![255u8; MOST_OF_PAYLOAD];
    let listening = here();
    let port = listening.port();
    thread::scope(|scope| {
        let other = scope.spawn(move || come(port).0);
        listening.receive(card(0, 2), TOKEN, &payload, LIMIT, quiet).expect("they meet");
        assert!(other.join().expect("it ends") == payload);
    });
    let payload = vec![0u8; MOST_OF_PAYLOAD + 1];
    let met = here().receive(card(0, 2), TOKEN, &payload, LIMIT, quiet);
    assert!(met.expect_err("it is too long").to_string().contains("131073 bytes"));
}

#[test]
fn who_does_not_belong_here_is_turned_away_alone() {
    let mut listening = here();
    listening.pace.note = LIMIT;
    let port = listening.port();
    let (sender, notes) = mpsc::channel();
    thread::scope(|scope| {
        let note = move |sentence: &str| sender.send(sentence.to_string()).expect("it is heard");
        let first =
            scope.spawn(move || listening.receive(card(0, 2), TOKEN, b"payload", LIMIT, note));
        for token in ["", "tokem", "token1"] {
            let met = join(HERE, port, card(1, 2), token, LIMIT, quiet);
            let error = met.expect_err("the token is wrong").to_string();
            assert!(error.contains("has another token"), "{error}");
            assert!(notes.recv().expect("a note").contains("has another token"));
        }
        let earlier = Card { launch: Some("earlier".into()), ..card(1, 2) };
        let met = join(HERE, port, earlier, TOKEN, LIMIT, quiet);
        let error = met.expect_err("the launch is another").to_string();
        assert!(error.ends_with("is of launch launch, this process of earlier"), "{error}");
        assert_eq!(come(port).0, b"payload");
        first.join().expect("it ends").expect("they meet");
    });
}

#[test]
fn all_ranks_hear_of_a_number_that_two_have() {
    let text = error(&[card(0, 3), card(1, 3), card(1, 3)]).to_string();
    assert!(text.contains(": two processes have rank 1: "), "{text}");
    assert!(text.contains(&card(1, 3).process()), "{text}");
    let text = error(&[card(0, 2), card(0, 2)]).to_string();
    assert!(text.contains(": two processes have rank 0: "), "{text}");
    let text = error(&[card(0, 2), card(5, 2)]).to_string();
    assert!(text.contains("has rank 5 of 2"), "{text}");
}

#[test]
fn all_ranks_hear_of_what_differs() {
    let differs = |field: &str, rank: usize, theirs: &str, ours: &str| CommError::Differs {
        field: field.into(),
        rank,
        theirs: theirs.into(),
        ours: ours.into(),
    };
    let mut other = card(2, 3);
    other.fields[1].1 = "16".into();
    let found = error(&[card(0, 3), card(1, 3), other]);
    assert_eq!(found, differs("batch", 2, "16", "8"));
    let mut less = card(1, 2);
    less.fields.remove(0);
    assert_eq!(error(&[card(0, 2), less]), differs("seed", 1, "none", "1"));
    let mut more = card(1, 2);
    more.fields.push(("ema".into(), "0.9".into()));
    assert_eq!(error(&[card(0, 2), more]), differs("ema", 1, "0.9", "none"));
    let program = Card { program: "0.0.1".into(), ..card(1, 2) };
    let found = error(&[card(0, 2), program]);
    assert_eq!(found, differs("program version", 1, "0.0.1", &card(0, 2).program));
    assert_eq!(error(&[card(0, 2), card(1, 3)]), differs("world size", 1, "3", "2"));
}

#[test]
fn late_ranks_hear_of_it_too() {
    let mut listening = here();
    listening.pace.late = LIMIT;
    let port = listening.port();
    thread::scope(|scope| {
        let first = scope.spawn(move || listening.receive(card(0, 3), TOKEN, b"", LIMIT, quiet));
        let program = Card { program: "0.0.1".into(), ..card(1, 3) };
        let one = join(HERE, port, program, TOKEN, LIMIT, quiet).expect_err("it differs");
        let two = join(HERE, port, card(2, 3), TOKEN, LIMIT, quiet).expect_err("it is late");
        let first = first.join().expect("it ends").expect_err("one differs");
        assert!(matches!(one, CommError::Differs { rank: 1, .. }), "{one}");
        assert!(one == two && one == first, "{one}; {two}; {first}");
    });
}

#[test]
fn a_process_of_another_version_is_told() {
    let listening = here();
    let stream = TcpStream::connect((HERE, listening.port())).expect("it connects");
    let mut wire = Wire::new(stream, MOST_OF_ANSWER).expect("it is open");
    let hello = Hello { version: VERSION + 1, token: TOKEN.into(), card: "of another form" };
    wire.send(&hello).expect("it sends");
    let met = listening.receive(card(0, 2), TOKEN, b"", LIMIT, quiet);
    let text = met.expect_err("the version is another").to_string();
    assert!(text.contains("is of another version than rank 0"), "{text}");
    let Answer::Refused(Refusal::ForAll(sentence)) = answer(&mut wire) else {
        panic!("it is let in");
    };
    assert!(text.ends_with(&sentence), "{text}");
}

/// What rank 0 has answered.
fn answer(wire: &mut Wire) -> Answer {
    loop {
        match wire.receive().expect("it is open") {
            Some(answer) => return answer,
            None => thread::sleep(TICK),
        }
    }
}

#[test]
fn missing_ranks_are_named() {
    let listening = here();
    let port = listening.port();
    // This one is connected before the short time begins.
    let stream = TcpStream::connect((HERE, port)).expect("it connects");
    let mut wire = Wire::new(stream, MOST_OF_ANSWER).expect("it is open");
    let hello = Hello { version: VERSION, token: TOKEN.into(), card: card(2, 4) };
    wire.send(&hello).expect("it sends");
    let met = listening.receive(card(0, 4), TOKEN, b"", SHORT, quiet);
    let text = met.expect_err("two are missing").to_string();
    let expected = format!(": ranks 1, 3 of 4 did not come to {HERE}:{port} within 0.2 s; ");
    assert!(text.contains(&expected) && text.contains("WORLD_SIZE"), "{text}");
    assert!(matches!(answer(&mut wire), Answer::Heard));
    let Answer::Refused(Refusal::ForAll(sentence)) = answer(&mut wire) else {
        panic!("it is let in");
    };
    assert!(text.ends_with(&sentence), "{text}");
}

#[test]
fn a_missing_rank_0_is_named() {
    let port = DESERTED;
    let met = join(HERE, port, card(1, 2), TOKEN, SHORT, quiet);
    let text = met.expect_err("nobody is there").to_string();
    let expected = format!(": waited 0.2 s for rank 0, which does not answer at {HERE}:{port} (");
    assert!(text.contains(&expected) && text.contains("WORLD_SIZE"), "{text}");
    // A program listens that does not know such a message.
    let other = TcpListener::bind((HERE, 0)).expect("a free port");
    let port = other.local_addr().expect("an address").port();
    let met = join(HERE, port, card(1, 2), TOKEN, SHORT, quiet);
    let text = met.expect_err("nobody answers").to_string();
    assert!(text.contains(&format!("at {HERE}:{port} (nothing came)")), "{text}");
}

#[test]
fn who_is_waited_for_is_told_once() {
    let notes = RefCell::new(Vec::new());
    let note = |sentence: &str| notes.borrow_mut().push(sentence.to_string());
    let mut listening = here();
    listening.pace.note = Duration::ZERO;
    let port = listening.port();
    listening.receive(card(0, 2), TOKEN, b"", SHORT, note).expect_err("nobody comes");
    let expected = format!("waiting for 1 of 2 processes (rank 1) at {HERE}:{port}");
    assert_eq!(notes.take(), [expected]);
    let pace = Pace { note: Duration::ZERO, ..PACE };
    let port = DESERTED;
    let target = || Ok(Target { address: HERE.into(), port, token: TOKEN.into() });
    let joining = Joining { card: &card(1, 2), limit: SHORT, pace, note: &note, patient: false };
    joining.until_met(target).expect_err("nobody is there");
    let notes = notes.take();
    let expected = format!("waiting for rank 0, which does not answer at {HERE}:{port} (");
    assert!(notes.len() == 1 && notes[0].starts_with(&expected), "{notes:?}");
}

/// Whether the other side closes a connection.
fn is_closed(mut stream: &TcpStream) -> bool {
    let _ = stream.set_read_timeout(Some(LIMIT)); // which some systems refuse once it is closed
    let closed = [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
    match stream.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => closed.contains(&error.kind()),
    }
}

#[test]
fn strangers_do_not_stop_the_meeting() {
    let too_long = u32::try_from(MOST_OF_CARD + 1).expect("it is small").to_be_bytes();
    let garbage: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[255; 8], &too_long, &[0, 0, 0, 2, b'{', b'x']];
    let mut listening = here();
    listening.pace.card = LIMIT;
    let port = listening.port();
    thread::scope(|scope| {
        let first = scope.spawn(move || listening.receive(card(0, 2), TOKEN, b"", LIMIT, quiet));
        let silent: Vec<TcpStream> =
            (0..3).map(|_| TcpStream::connect((HERE, port)).expect("it connects")).collect();
        for bytes in garbage {
            let mut stream = TcpStream::connect((HERE, port)).expect("it connects");
            stream.write_all(bytes).expect("it sends");
            assert!(is_closed(&stream), "{bytes:?}");
        }
        come(port);
        first.join().expect("it ends").expect("they meet");
        assert!(silent.iter().all(is_closed));
        assert!(TcpStream::connect((HERE, port)).is_err(), "it listens no more");
    });
}

#[test]
fn strangers_have_little_time() {
    let mut listening = here();
    listening.pace.card = SHORT;
    let port = listening.port();
    thread::scope(|scope| {
        let first = scope.spawn(move || listening.receive(card(0, 2), TOKEN, b"", LIMIT, quiet));
        let stream = TcpStream::connect((HERE, port)).expect("it connects");
        assert!(is_closed(&stream));
        assert!(!first.is_finished());
        come(port);
        first.join().expect("it ends").expect("they meet");
    });
}

#[test]
fn only_one_address_of_this_machine_is_listened_at() {
    let listening = here();
    let port = listening.port();
    let text = Listening::at(HERE, port).expect_err("it is taken").to_string();
    assert!(text.contains(&format!("rank 0 cannot listen at {HERE}:{port}: ")), "{text}");
    for everywhere in ["0.0.0.0", "::"] {
        let text = Listening::at(everywhere, 0).expect_err("it is no address").to_string();
        assert!(text.contains("name one address"), "{text}");
    }
    // Kept for documentation: no machine has it.
    assert!(Listening::at("192.0.2.1", 0).is_err());
}

#[test]
fn ranks_meet_by_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path();
    thread::scope(|scope| {
        let come = |rank| scope.spawn(move || join_by_file(run, card(rank, 3), LIMIT, quiet));
        let others: Vec<_> = (1..3).map(come).collect();
        receive_by_file(run, card(0, 3), b"payload", LIMIT, quiet).expect("they meet");
        for other in others {
            assert_eq!(other.join().expect("it ends").expect("they meet").0, b"payload");
        }
    });
    assert!(!run.join(".rendezvous").exists());
    let nameless = Card { launch: None, ..card(0, 2) };
    let error = receive_by_file(run, nameless, b"", LIMIT, quiet).expect_err("it has no name");
    assert!(error.to_string().contains("TINTYPE_RUN"), "{error}");
}

#[test]
fn files_of_earlier_launches_are_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path();
    let files = run.join(".rendezvous");
    std::fs::create_dir(&files).expect("a folder");
    let write = |name: &str, port: u16| {
        let note = serde_json::json!(
            { "version": VERSION, "address": HERE, "port": port, "token": "earlier" }
        );
        std::fs::write(files.join(name), note.to_string()).expect("it is written");
    };
    write("earlier", DESERTED);
    write("launch", DESERTED);
    let mut other = here();
    other.pace.note = LIMIT;
    let port = other.port();
    let (sender, notes) = mpsc::channel();
    thread::scope(|scope| {
        let rank = scope.spawn(|| join_by_file(run, card(1, 2), LIMIT, quiet));
        // Now another run has the port.
        write("launch", port);
        let note = move |sentence: &str| drop(sender.send(sentence.to_string()));
        let other = scope.spawn(move || other.receive(card(0, 2), TOKEN, b"", LIMIT, note));
        assert!(notes.recv().expect("a note").contains("has another token"));
        assert!(!rank.is_finished());
        receive_by_file(run, card(0, 2), b"payload", LIMIT, quiet).expect("they meet");
        assert_eq!(rank.join().expect("it ends").expect("they meet").0, b"payload");
        come(port);
        other.join().expect("it ends").expect("they meet");
    });
    let left = std::fs::read_dir(&files).expect("a folder");
    let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left, ["earlier"]);
    std::fs::write(files.join("launch"), "{}").expect("it is written");
    let error = join_by_file(run, card(1, 2), SHORT, quiet).expect_err("nobody is there");
    assert!(error.to_string().contains("in another version; "), "{error}");
    std::fs::remove_file(files.join("launch")).expect("it is there");
    let error = join_by_file(run, card(1, 2), SHORT, quiet).expect_err("nobody is there");
    assert!(error.to_string().contains("rank 0, which has not written "), "{error}");
}

#[cfg(unix)]
#[test]
fn the_file_is_its_owners() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path();
    let file = run.join(".rendezvous").join("launch");
    thread::scope(|scope| {
        let first = scope.spawn(|| receive_by_file(run, card(0, 2), b"", LIMIT, quiet));
        let about = loop {
            assert!(!first.is_finished(), "it waits");
            match std::fs::metadata(&file) {
                Ok(about) => break about,
                Err(_) => thread::sleep(TICK),
            }
        };
        assert_eq!(about.permissions().mode() & 0o777, 0o600);
        join_by_file(run, card(1, 2), LIMIT, quiet).expect("they meet");
        first.join().expect("it ends").expect("they meet");
    });
}

#[test]
fn tokens_are_compared_whole() {
    assert!(is_same_token("", "") && is_same_token("token", "token"));
    for other in ["", "toke", "tokens", "Token", "tokem"] {
        assert!(!is_same_token("token", other) && !is_same_token(other, "token"), "{other}");
    }
}
