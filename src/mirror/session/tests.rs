//! Sessions from the first record to the last, in words.

use super::*;
use crate::format::Tid;

fn window(begin: u64, end: u64) -> Window {
    Window {
        begin: Tid(begin),
        end: Tid(end),
        resume: None,
    }
}

/// What a session with these windows says, if their records end as told.
fn said(windows: &[Window], mut ends: &[Ended]) -> String {
    let pfs = SourcePfs {
        id: 1,
        data: PfsData::default_for([3; 16]),
        end: Tid(90),
        committed: Tid(90),
    };
    let mut session = Session::one_way(pfs, Tid(90));
    let mut said = String::new();
    for _ in 0..100 {
        match session.action() {
            Action::Send(Message::Pfsd(pfs) | Message::Hello(pfs, _)) => {
                let (begin, end) = (pfs.sync_beg_tid.get(), pfs.sync_end_tid.get());
                said += &format!("pfsd {begin}-{end} ");
            }
            Action::Send(message) => said += &format!("{message:?} ").to_lowercase(),
            Action::Plan => session.plan(windows.iter().copied()),
            Action::Take | Action::Identify | Action::Wait => panic!("one-way, once"),
            Action::Bulk(window) => {
                said += &format!("bulk {}-{} ", window.begin.0, window.end.0);
                session.bulk_ended(ends[0]);
                ends = &ends[1..];
            }
            Action::Done => return said.trim_end().to_owned(),
        }
    }
    panic!("no end: {said}");
}

#[test]
fn sessions() {
    use Ended::*;
    assert_eq!(
        said(&[window(5, 90)], &[Complete]),
        "pfsd 0-90 pfsd 5-90 bulk 5-90 sync term"
    );
    assert_eq!(
        said(&[window(91, 90)], &[Idle]),
        "pfsd 0-90 pfsd 91-90 bulk 91-90 idle term"
    );
    assert_eq!(
        said(&[window(5, 50), window(51, 90)], &[Complete, Complete]),
        "pfsd 0-90 pfsd 5-50 bulk 5-50 sync pfsd 0-90 pfsd 51-90 bulk 51-90 sync term"
    );
    assert_eq!(
        said(&[window(5, 50), window(51, 90)], &[Stopped]),
        "pfsd 0-90 pfsd 5-50 bulk 5-50 term"
    );
}

fn body(pfs: PfsData) -> Body<'static> {
    Body::Pfsd(mrecord::PfsdBody {
        version: 1.into(),
        reserved: 0.into(),
        pfs,
    })
}

/// What a two-way session says to a target that has everything up to `has`, and what it takes.
fn talk(has: u64, ends: &[Ended], acked: &[u64]) -> Result<String> {
    converse(has, ends, acked, false)
}

/// The same; one that `follows` is renewed as long as ends are left.
fn converse(has: u64, ends: &[Ended], acked: &[u64], follows: bool) -> Result<String> {
    let mut pfs = SourcePfs {
        id: 1,
        data: PfsData::default_for([3; 16]),
        end: Tid(90),
        committed: Tid(95),
    };
    pfs.data.sync_beg_tid.set(1);
    let mut slave = PfsData::default_for([3; 16]);
    slave.mirror_flags.set(PfsData::SLAVE);
    slave.sync_end_tid.set(has);
    let mut session = Session::two_way(pfs);
    if follows {
        session = session.following();
    }
    let (mut said, mut ends, mut acked) = (String::new(), ends.iter(), acked.iter());
    let mut hello = true;
    for _ in 0..100 {
        match session.action() {
            Action::Send(Message::Pfsd(_) | Message::Hello(..)) => said += "pfsd ",
            Action::Identify => panic!("nothing was announced"),
            Action::Send(message) => said += &format!("{message:?} ").to_lowercase(),
            Action::Take if hello => {
                session.take(&body(slave))?;
                hello = false;
                said += "<pfsd ";
            }
            Action::Take => {
                let tid = *acked.next().expect("an answer");
                session.take(&Body::Update(tid))?;
                slave.sync_end_tid.set(tid);
                hello = true;
                said += "<update ";
            }
            Action::Plan => {
                let begin = session.target().expect("a target").next().0;
                session.plan([window(begin, 60), window(61, 90)]);
            }
            Action::Bulk(window) => {
                said += &format!("bulk {}-{} ", window.begin.0, window.end.0);
                session.bulk_ended(*ends.next().expect("an end"));
            }
            Action::Wait if ends.as_slice().is_empty() => session.end(),
            Action::Wait => {
                said += "| ";
                session.renew(pfs);
            }
            Action::Done => return Ok(said.trim_end().to_owned()),
        }
    }
    panic!("no end: {said}");
}

#[test]
fn two_way_sessions() {
    use Ended::*;
    assert_eq!(
        talk(50, &[Complete, Complete], &[60, 90]).unwrap(),
        "pfsd <pfsd pfsd bulk 51-60 sync <update pfsd <pfsd pfsd bulk 61-90 sync <update term"
    );
    assert_eq!(
        talk(50, &[Stopped], &[]).unwrap(),
        "pfsd <pfsd pfsd bulk 51-60 term"
    );
    // The target says what it has; it acknowledges nothing behind damage.
    assert_eq!(
        talk(50, &[Damaged, Complete], &[50, 50]).unwrap(),
        "pfsd <pfsd pfsd bulk 51-60 idle <update pfsd <pfsd pfsd bulk 51-90 idle <update term"
    );
    let wrong = talk(50, &[Complete], &[59]).unwrap_err();
    assert_eq!(wrong.class(), Class::Protocol);
    // Beyond the newest record, and not beyond what is committed: there is no work.
    assert!(talk(95, &[Idle, Idle], &[95, 95]).is_ok());
    let ahead = talk(96, &[], &[]).unwrap_err();
    assert_eq!(ahead.class(), Class::Incompatible);
    let impossible = talk(u64::MAX, &[], &[]).unwrap_err();
    assert_eq!(impossible.class(), Class::Protocol);
}

/// A session up to the plan with a target that has everything up to 50 and says `cursor`, of a
/// source that has everything up to 95.
fn resumed(theirs: Capabilities, cursor: (i64, u64)) -> Result<Option<Resume>> {
    let mut pfs = SourcePfs {
        id: 1,
        data: PfsData::default_for([3; 16]),
        end: Tid(90),
        committed: Tid(95),
    };
    pfs.data.sync_beg_tid.set(1);
    let mut slave = PfsData::default_for([3; 16]);
    slave.mirror_flags.set(PfsData::SLAVE);
    slave.sync_end_tid.set(50);
    let mut session = Session::two_way(pfs).announcing(Capabilities::ALL);
    assert!(
        matches!(session.action(), Action::Send(Message::Hello(_, what)) if what == Capabilities::ALL)
    );
    assert!(session.take(&Body::Alive).is_err(), "not announced yet");
    session.take(&Body::Pfsd(mrecord::PfsdBody {
        version: 1.into(),
        reserved: theirs.0.into(),
        pfs: slave,
    }))?;
    let mut steps = 0;
    loop {
        steps += 1;
        match session.action() {
            Action::Identify => session.identified(Tid(7)),
            Action::Send(Message::Source(leaf)) => assert_eq!(leaf, Tid(7)),
            Action::Take => {
                let alive = session.take(&Body::Alive).is_ok();
                assert_eq!(alive, theirs.has(Capabilities::ALIVE));
                let key = Key {
                    obj_id: cursor.0,
                    ..Key::pfs_min(44)
                };
                session.take(&Body::Cursor {
                    key: crate::format::node::Base::from_key(key),
                    end: Tid(cursor.1),
                })?;
            }
            Action::Plan => {
                let asked = theirs.has(Capabilities::RESUME);
                assert_eq!(steps, if asked { 4 } else { 1 });
                return Ok(session.resume());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn targets_say_where_to_go_on() {
    let all = Capabilities::ALL;
    let at = |obj, end| Resume {
        key: Key {
            obj_id: obj,
            ..Key::pfs_min(1)
        },
        end: Tid(end),
    };
    assert_eq!(resumed(Capabilities::NONE, (5, 80)).unwrap(), None);
    assert_eq!(resumed(Capabilities::ALIVE, (5, 80)).unwrap(), None);
    assert_eq!(
        resumed(Capabilities::RESUME, (5, 80)).unwrap(),
        Some(at(5, 80))
    );
    assert_eq!(resumed(all, (5, 0)).unwrap(), None);
    assert_eq!(resumed(all, (5, 95)).unwrap(), Some(at(5, 95)));
    for (end, class) in [
        (96, Class::Incompatible),
        (50, Class::Protocol),
        (u64::MAX, Class::Protocol),
    ] {
        assert_eq!(resumed(all, (5, end)).unwrap_err().class(), class, "{end}");
    }
}

/// What a followed source says to a target that goes on at the record: a batch for each of `ends`,
/// with its PFS record as created at a TID.
fn told_who(ends: &[(Ended, u64)]) -> String {
    let mut pfs = SourcePfs {
        id: 1,
        data: PfsData::default_for([3; 16]),
        end: Tid(90),
        committed: Tid(95),
    };
    pfs.data.sync_beg_tid.set(1);
    let mut slave = PfsData::default_for([3; 16]);
    slave.mirror_flags.set(PfsData::SLAVE);
    slave.sync_end_tid.set(50);
    let mut session = Session::two_way(pfs)
        .following()
        .announcing(Capabilities::RESUME);
    let (mut said, mut batch, mut last) = (String::new(), 0, Message::Term);
    loop {
        match session.action() {
            Action::Send(message) => {
                if let Message::Source(_) = message {
                    said += "source ";
                }
                last = message;
            }
            Action::Take => {
                let answer = match last {
                    Message::Hello(..) => Body::Pfsd(mrecord::PfsdBody {
                        version: 1.into(),
                        reserved: Capabilities::RESUME.0.into(),
                        pfs: slave,
                    }),
                    Message::Source(_) => Body::Cursor {
                        key: crate::format::node::Base::from_key(Key::MIN),
                        end: Tid::ZERO,
                    },
                    _ => Body::Update(95),
                };
                session.take(&answer).expect("what belongs there");
            }
            Action::Identify => session.identified(Tid(ends[batch].1)),
            Action::Plan => session.plan([window(51, 95)]),
            Action::Bulk(_) => {
                said += "bulk ";
                session.bulk_ended(ends[batch].0);
                batch += 1;
            }
            Action::Wait if batch < ends.len() => session.renew(pfs),
            Action::Wait => session.end(),
            Action::Done => return said.trim_end().to_owned(),
        }
    }
}

#[test]
fn who_it_is_is_said_where_there_may_be_something_to_go_on_with() {
    use Ended::*;
    for (ends, expected) in [
        (&[(Complete, 7), (Complete, 7)][..], "source bulk bulk"),
        // It has nothing to go on with: but it has not said so.
        (&[(Idle, 7), (Idle, 7)], "source bulk source bulk"),
        (
            &[(Complete, 7), (Idle, 7), (Complete, 7)],
            "source bulk bulk bulk",
        ),
        (&[(Overtaken, 7), (Complete, 7)], "source bulk source bulk"),
        (
            &[(Complete, 7), (Overtaken, 7), (Complete, 7)],
            "source bulk bulk source bulk",
        ),
        // Its record was made anew.
        (&[(Complete, 7), (Complete, 8)], "source bulk source bulk"),
    ] {
        assert_eq!(told_who(ends), expected, "{ends:?}");
    }
}

#[test]
fn a_followed_source_goes_on() {
    use Ended::*;
    let said = |ends: &[Ended], acked: &[u64]| converse(50, ends, acked, true).unwrap();
    assert_eq!(
        said(&[Complete, Complete, Idle, Idle], &[60, 90, 90, 90]),
        "pfsd <pfsd pfsd bulk 51-60 sync <update pfsd <pfsd pfsd bulk 61-90 sync <update | \
         pfsd <pfsd pfsd bulk 91-60 idle <update pfsd <pfsd pfsd bulk 91-90 idle <update term"
    );
    // The next view begins where the one that was overtaken did.
    assert_eq!(
        said(&[Overtaken, Complete, Complete], &[50, 60, 90]),
        "pfsd <pfsd pfsd bulk 51-60 idle <update | \
         pfsd <pfsd pfsd bulk 51-60 sync <update pfsd <pfsd pfsd bulk 61-90 sync <update term"
    );
    // Nobody waits behind damage.
    assert_eq!(
        said(&[Damaged, Complete, Complete], &[50, 50]),
        "pfsd <pfsd pfsd bulk 51-60 idle <update pfsd <pfsd pfsd bulk 51-90 idle <update term"
    );
}

#[test]
fn nothing_behind_damage_can_be_acknowledged() {
    use Ended::*;
    let windows = [window(1, 10), window(11, 20), window(21, 90)];
    let said = said(&windows, &[Complete, Damaged, Complete]);
    let marks: Vec<&str> = said
        .split(' ')
        .filter(|w| ["sync", "idle"].contains(w))
        .collect();
    assert_eq!(marks, ["sync", "idle", "idle"]);
}

#[test]
fn sizes_are_those_of_the_bytes() {
    for message in [
        Message::Pfsd(PfsData::default_for([3; 16])),
        Message::Hello(PfsData::default_for([3; 16]), Capabilities::ALL),
        Message::Source(Tid(5)),
        Message::Sync,
        Message::Idle,
        Message::Term,
    ] {
        let mut bytes = Vec::new();
        message.append(&mut bytes);
        assert_eq!(bytes.len() as u64, message.stream_bytes());
    }
}
