//! Mirroring over a link to another program: `mirror-copy` whose ends are called as hammer calls
//! them, through a stand-in for ssh.

mod common;

use common::far::{Place, ends};
use common::program::{err, status};
use std::fs;

#[test]
fn whichever_end_is_far() {
    for at in 0..3 {
        let place = Place::new();
        let (from, to) = ends(&place, "host")[at].clone();
        place.good(&["-y", "mirror-copy", "-p", "2222", "-X", &from, &to]);
        place.assert_equal();
        for n in 2..4 {
            place.change(n);
            place.good(&["mirror-copy", &from, &to]);
            place.assert_equal();
        }
        // Nothing to do is no error, beside a writer neither.
        place.good(&["mirror-copy", &from, &to]);
        if at == 0 {
            place.good(&["mirror-copy", "--live", &from, &to]);
        }
        let log = place.log();
        let directive = if at == 0 {
            "mirror-write"
        } else {
            "mirror-read"
        };
        let name = if at == 0 { "slave" } else { "master" };
        let spec = place.spec(name);
        let expected = format!("-C host -p 2222 hammer -y -2 {directive} {spec}");
        // Two far ends are started together, and say so in any order.
        assert!(log.lines().take(2).any(|line| line == expected), "{log}");
    }
}

/// `old` has no hammer, and `host` no mallet: each end finds the program that is there.
#[test]
fn a_host_without_hammer_may_have_mallet() {
    let place = Place::new();
    let (far_master, slave) = (place.far("host", "master"), place.far("old", "slave"));
    let (old_master, host_slave) = (place.far("old", "master"), place.far("host", "slave"));
    let mixed = [(far_master, slave), (old_master, host_slave)];
    for (n, (from, to)) in ends(&place, "old").into_iter().chain(mixed).enumerate() {
        place.good(&["-y", "mirror-copy", &from, &to]);
        place.assert_equal();
        place.change(20 + n as u8);
    }
    assert!(place.log().contains(" mallet "), "{}", place.log());
    // A name that is given is the only one tried.
    for (from, to) in ends(&place, "old") {
        let output = place.run(&["mirror-copy", "--remote-command", "hammer", &from, &to]);
        assert_eq!(status(&output), 11, "{}", err(&output));
    }
}

#[test]
fn what_the_other_end_refuses_is_the_exit_status() {
    let place = Place::new();
    // No slave, and nobody to ask.
    for (from, to) in ends(&place, "host") {
        let output = place.run(&["mirror-copy", &from, &to]);
        assert_eq!(status(&output), 2, "{from} {to}: {}", err(&output));
    }
    // Another master's slave.
    place.good(&["pfs-slave", &place.spec("slave")]);
    for (from, to) in ends(&place, "host") {
        let output = place.run(&["mirror-copy", &from, &to]);
        assert_eq!(status(&output), 3, "{from} {to}: {}", err(&output));
    }
}

#[test]
fn a_far_source_sends_no_faster_than_allowed() {
    for at in 1..3 {
        let place = Place::new();
        let (from, to) = ends(&place, "host")[at].clone();
        let start = std::time::Instant::now();
        // 340 000 bytes, of which a quarter of a second's may come at once.
        place.good(&["-y", "-b", "200k", "mirror-copy", &from, &to]);
        let took = start.elapsed().as_secs_f64();
        assert!(took > 1.0, "{took} s");
        place.assert_equal();
    }
}

/// A key that allows one thing: what a peer's ssh asks for is carried out, and nothing else.
#[test]
fn a_forced_command() {
    let place = Place::new();
    let allowed = place.spec("slave");
    let key = format!(
        "#!/bin/sh\n[ \"$1\" = host ] && shift\nSSH_ORIGINAL_COMMAND=\"$*\" exec \"$MALLET_PROGRAM\" \
         ssh-remote --only mirror-write --path '{allowed}'\n"
    );
    fs::write(&place.rsh, key).expect("a script");
    let (from, to) = (place.spec("master"), place.far("host", "slave"));
    place.good(&["-y", "mirror-copy", &from, &to]);
    place.assert_equal();
    for (from, to) in [
        (place.far("host", "master"), place.spec("slave")),
        (place.spec("master"), place.far("host", "master")),
    ] {
        let output = place.run(&["mirror-copy", &from, &to]);
        assert_eq!(status(&output), 2, "{}", err(&output));
        assert!(err(&output).contains("this key does not allow"));
    }
}

/// A link that is cut at any byte leaves a slave that shows what it acknowledged, and the next copy
/// goes on.
#[test]
fn cut_links() {
    let place = Place::new();
    let (from, to) = (place.spec("master"), place.far("host", "slave"));
    place.good(&["-y", "mirror-copy", &from, &to]);
    for (n, cut) in [1, 100, 330, 640, 5_000, 60_000, 200_000]
        .into_iter()
        .enumerate()
    {
        place.change(10 + n as u8);
        let before = place.tid("slave");
        let mut command = place.command(&["mirror-copy", &from, &to]);
        let output = command.env("MALLET_RSH_CUT", cut.to_string()).output();
        let output = output.expect("the program");
        assert_ne!(status(&output), 0, "cut at {cut}: {}", err(&output));
        assert_eq!(place.tid("slave"), before, "cut at {cut}");
        assert_eq!(
            place.listing("slave", &before),
            place.listing("master", &before)
        );
        place.good(&["mirror-copy", &from, &to]);
        place.assert_equal();
    }
}

#[test]
fn letters_that_hammer_does_not_have_are_refused() {
    let place = Place::new();
    for words in [
        ["-2", "-Z", "mirror-write", "x"],
        ["-2", "mirror-read", "--frobnicate", "x"],
    ] {
        assert_eq!(status(&place.run(&words)), 2, "{words:?}");
    }
}
