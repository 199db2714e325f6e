use super::*;
use crate::format::record::PfsData;
use crate::fs::pfs::Pfs;
use crate::mirror::throttle::tests::Virtual;
use crate::mirror::verify::compare::tests::{Listed, Records};
use crate::mirror::verify::{Depth, Edge, How, Place, Range, Report, Wanted, verify};
use proptest::prelude::*;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

/// Asks [`Listed`] records, and looks at the clock between them.
struct Slow {
    listed: Listed,
    looks: u64,
}

impl Witness for Slow {
    fn answer(&mut self, asks: &[Ask], tick: Tick<'_>) -> Result<Vec<Answer>> {
        for _ in 0..self.looks {
            tick(Seen {
                records: 3,
                bytes: 5,
                object: 7,
            })?;
        }
        self.listed.answer(asks, tick)
    }
}

impl Changes for Slow {
    fn newest(&mut self, first: Tid, last: Tid, _: Tick<'_>) -> Result<Option<Change>> {
        let tid = Tid(5);
        let change = Change {
            tid,
            time: 77,
            bytes: 99,
        };
        Ok((first..=last).contains(&tid).then_some(change))
    }
}

/// Every look at it takes two fifths of a second.
struct Ticking(Virtual);

impl Clock for Ticking {
    fn now(&mut self) -> Duration {
        self.0.now += Duration::from_millis(400);
        self.0.now
    }
    fn sleep(&mut self, time: Duration) {
        self.0.sleep(time);
    }
}

fn standing() -> Standing {
    let mut data = PfsData::default_for([3; 16]);
    data.mirror_flags.set(PfsData::SLAVE);
    Standing {
        version: 7,
        pfs: Pfs {
            id: 4,
            data,
            leaf: None,
            sync_end: Tid(9),
            unfinished: None,
        },
    }
}

type Link = Far<UnixStream, UnixStream>;

/// Somebody elsewhere who answers for these records.
fn elsewhere(records: &Records, looks: u64, service: Service) -> (Link, JoinHandle<Result<()>>) {
    let (near, far) = UnixStream::pair().expect("a pair");
    let listed = Listed {
        records: records.clone(),
        lie: false,
    };
    let serving = thread::spawn(move || {
        let mut side = Slow { listed, looks };
        let to = far.try_clone().expect("another handle");
        let mut clock = Ticking(Virtual::new());
        let mut host = Host {
            clock: &mut clock,
            progress: &mut (),
        };
        serve(&standing(), &mut side, service, (far, to), &mut host)
    });
    let to = near.try_clone().expect("another handle");
    let (link, told) = Far::meet(near, to, "there").expect("a greeting");
    assert_eq!(format!("{told:?}"), format!("{:?}", standing()));
    (link, serving)
}

/// Ends the link; how the other end took it.
fn end(link: Link, serving: JoinHandle<Result<()>>) -> Result<()> {
    link.end.to.shutdown(Shutdown::Write).expect("an end");
    serving.join().expect("no panic")
}

fn compare(one: &mut dyn Witness, other: &mut dyn Witness) -> (Report, Vec<(Place, How)>) {
    let mut found = Vec::new();
    let mut edge = Edge {
        progress: &mut (),
        found: &mut |one| {
            found.push((one.place, one.how));
            Ok(())
        },
    };
    let report = verify(one, other, Tid(9), Depth::Sums, &mut edge);
    (report.expect("answers"), found)
}

fn near(records: &Records) -> Listed {
    Listed {
        records: records.clone(),
        lie: false,
    }
}

fn ask(wanted: Wanted) -> Ask {
    Ask {
        range: Range::ALL,
        as_of: Tid(9),
        depth: Depth::Sums,
        wanted,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// What is found, and what it costs, is the same wherever the sides are.
    #[test]
    fn over_links_as_side_by_side(
        both in prop::collection::btree_map(0i64..3000, (0u8..4, 0u8..4), 0..900),
        changes in prop::collection::vec((0i64..3000, 0u8..4), 0..20),
        first_is_far: bool,
    ) {
        let (mut source, mut slave) = (both.clone(), both);
        for (key, what) in changes {
            match what {
                0 => { source.remove(&key); }
                1 => { slave.remove(&key); }
                data => { slave.insert(key, (data, data)); }
            }
        }
        let expected = compare(&mut near(&source), &mut near(&slave));
        let (mut one, one_serves) = elsewhere(&source, 0, Service::Ranges);
        let (mut other, other_serves) = elsewhere(&slave, 0, Service::Ranges);
        prop_assert_eq!(&compare(&mut one, &mut other), &expected);
        let mut greeting = Vec::new();
        Message::Standing(Box::new(standing())).append(&mut greeting);
        let crossed = one.crossed() + other.crossed() - 2 * greeting.len() as u64;
        prop_assert_eq!(crossed, expected.0.crossed);
        // The same links, one of them with a side that is near.
        let found = match first_is_far {
            true => compare(&mut one, &mut near(&slave)),
            false => compare(&mut near(&source), &mut other),
        };
        prop_assert_eq!(&found, &expected);
        end(one, one_serves).expect("a good end");
        end(other, other_serves).expect("a good end");
    }
}

#[test]
fn what_changed() {
    let (mut link, serving) = elsewhere(&Records::new(), 0, Service::Changes);
    let change = link.newest(Tid(2), Tid(9), &mut |_| Ok(()));
    let change = change.expect("an answer").expect("a change");
    assert_eq!((change.tid, change.time, change.bytes), (Tid(5), 77, 99));
    let change = link.newest(Tid(6), Tid(9), &mut |_| Ok(()));
    assert_eq!(change.expect("an answer"), None);
    end(link, serving).expect("a good end");
}

/// Words on how far it is come in between, and none is lost but what came after the last.
#[test]
fn how_far_it_is() {
    let records = Records::from([(1, (1, 1))]);
    let (mut link, serving) = elsewhere(&records, 30, Service::Ranges);
    let (mut words, mut seen) = (0, Seen::default());
    let mut tick = |more: Seen| {
        words += 1;
        seen.records += more.records;
        seen.bytes += more.bytes;
        seen.object = more.object;
        Ok(())
    };
    let answers = link.answer(&[ask(Wanted::Whole)], &mut tick);
    assert_eq!(answers.expect("an answer").len(), 1);
    assert!((5..30).contains(&words), "{words}");
    assert!(
        (50..=90).contains(&seen.records) && seen.object == 7,
        "{seen:?}"
    );
    assert_eq!(seen.records / 3, seen.bytes / 5);
    // Whoever asks can end it.
    let mut tick = |_| Err(Error::new(Class::Interrupted, "enough"));
    let ended = link.answer(&[ask(Wanted::Whole)], &mut tick);
    assert_eq!(ended.expect_err("an end").class(), Class::Interrupted);
    // What is left of the answer is in the way of nobody.
    drop(link);
    let _ = serving.join().expect("no panic");
}

/// Questions posed are answered by the next ones only if these are the same.
#[test]
fn posed_questions() {
    let records: Records = (0..200).map(|key| (key, (1, 1))).collect();
    let (mut link, serving) = elsewhere(&records, 0, Service::Ranges);
    let mut quiet = |_| Ok(());
    link.pose(&[ask(Wanted::Whole)]).expect("a question");
    link.pose(&[ask(Wanted::Records)]).expect("a question");
    let pieces = [ask(Wanted::Pieces(50))];
    let answers = link.answer(&pieces, &mut quiet).expect("an answer");
    assert!(matches!(&answers[..], [Answer::Pieces(pieces)] if pieces.len() == 4));
    link.pose(&pieces).expect("a question");
    let before = link.crossed();
    let same = link.answer(&pieces, &mut quiet).expect("an answer");
    assert_eq!(same, answers);
    assert!(link.crossed() > before);
    // More of them than one message holds.
    let many = [ask(Wanted::Whole); 3 * ASKS_MAX + 1];
    link.pose(&many).expect("no question");
    let answers = link.answer(&many, &mut quiet).expect("answers");
    assert_eq!(answers.len(), many.len());
    end(link, serving).expect("a good end");
}

#[test]
fn questions_that_are_not_to_be_asked() {
    let records = Records::from([(1, (1, 1))]);
    let late = Ask {
        as_of: Tid(10),
        ..ask(Wanted::Whole)
    };
    for (service, ask, range) in [
        (Service::Ranges, late, true),
        (Service::Changes, ask(Wanted::Whole), true),
        (Service::Ranges, late, false),
        (Service::Changes, late, false),
    ] {
        let (mut link, serving) = elsewhere(&records, 0, service);
        let ended = match range {
            true => link.answer(&[ask], &mut |_| Ok(())).map(drop),
            false => link.newest(Tid(1), Tid(10), &mut |_| Ok(())).map(drop),
        };
        let error = ended.expect_err("no answer");
        assert_eq!(error.class(), Class::Protocol);
        assert!(error.to_string().starts_with("there: "), "{error}");
        let error = serving.join().expect("no panic").expect_err("a refusal");
        assert_eq!(error.class(), Class::Protocol, "{error}");
    }
}

/// Whatever the other end says, an error says what was wrong with it.
#[test]
fn others_who_say_something_else() {
    let said = |messages: &[Message], more: &[u8]| {
        let mut bytes = Vec::new();
        messages
            .iter()
            .for_each(|message| message.append(&mut bytes));
        bytes.extend(more);
        let mut sent = Vec::new();
        let met = Far::meet(&bytes[..], &mut sent, "there");
        let asked = met.and_then(|(mut far, _)| {
            far.answer(&[ask(Wanted::Whole)], &mut |_| Ok(()))?;
            far.newest(Tid(1), Tid(2), &mut |_| Ok(()))
        });
        let error = asked.map(drop).expect_err("a mistake");
        assert_eq!(error.class(), Class::Protocol, "{error}");
        error.to_string()
    };
    let hello = Message::Standing(Box::new(standing()));
    let answer = Message::Answer(Answer::Records(Vec::new()));
    for (messages, more, text) in [
        (vec![], &b""[..], "said nothing"),
        (vec![], b"hammer: unknown directive\n", "byte 0: expected 1"),
        (vec![answer.clone()], b"", "something else than who it is"),
        (vec![hello.clone()], b"", "where an answer was due"),
        (
            vec![hello.clone(), hello.clone()],
            b"",
            "else than an answer",
        ),
        (
            vec![hello.clone(), answer.clone()],
            b"",
            "an answer was due",
        ),
        (
            vec![hello.clone(), answer.clone(), answer.clone()],
            b"",
            "something else than what changed",
        ),
        (
            vec![hello.clone(), answer.clone()],
            b"\x01",
            "it ends after 1",
        ),
    ] {
        let told = said(&messages, more);
        assert!(told.contains(text), "{told}");
    }
}
