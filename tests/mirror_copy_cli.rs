//! `mirror-copy` as people and scripts meet it.

mod common;

use common::golden;
use common::program::{copy_to, err, events, out, run, status, text};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

const MASTERS: [&str; 3] = [
    "mirror/master-5.img",
    "mirror/master-10.img",
    "mirror/master-20.img",
];

fn masters(dir: &Path) -> Vec<String> {
    let master = |name: &&str| format!("{}#1", text(&golden::file(dir, name)));
    MASTERS.iter().map(master).collect()
}

/// A fresh file system.
fn volume(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let made = run(&["newfs", "-L", name, "--size", "1g", "-y", text(&path)]);
    assert_eq!(status(&made), 0, "{}", err(&made));
    path
}

fn spec(path: &Path, pfs: u16) -> String {
    format!("{}#{pfs}", text(path))
}

fn copied(words: &[&str]) -> (Output, Vec<Value>) {
    let mut line = vec!["mirror-copy", "--json"];
    line.extend(words);
    let output = run(&line);
    let told = events(&out(&output), status(&output));
    (output, told)
}

fn of_kind<'v>(told: &'v [Value], kind: &str) -> Vec<&'v Value> {
    told.iter().filter(|event| event["type"] == kind).collect()
}

/// What is in a PFS, but for what mirroring does not keep.
fn listing(spec: &str, asof: &str) -> Vec<Value> {
    let output = run(&["ls", "-R", "--json", "--sha256", "--as-of", asof, spec, "/"]);
    let mut entries = events(&out(&output), 0);
    entries.retain(|event| event["type"] == "entry");
    for entry in &mut entries {
        entry.as_object_mut().expect("an object").remove("mtime_us");
    }
    assert!(entries.len() > 5);
    entries
}

fn tid_of(spec: &str) -> String {
    let output = run(&["pfs-status", "--json", spec]);
    let told = events(&out(&output), 0);
    told[0]["sync_end_tid"].as_str().expect("a TID").to_owned()
}

#[test]
fn slaves_are_made_and_follow() {
    let Some(dir) = golden::dir() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (volume(folder.path(), "a"), volume(folder.path(), "b"));
    let (a, b) = (spec(&a, 3), spec(&b, 1));
    let masters = masters(&dir);
    let (output, _) = copied(&[&masters[0], &a]);
    assert_eq!(status(&output), 2);
    assert!(err(&output).contains("-y makes it"), "{}", err(&output));
    for (at, master) in masters.iter().enumerate() {
        let (output, told) = copied(&["-y", master, &a]);
        assert_eq!(status(&output), 0, "{}", err(&output));
        assert_eq!(of_kind(&told, "acknowledged").len(), 1, "{told:?}");
        let tid = tid_of(&a);
        assert_eq!(tid, tid_of(master));
        assert_eq!(listing(&a, &tid), listing(master, &tid));
        // Nothing is left to do, and the plan says so too.
        let planned = run(&["mirror-plan", master, &a]);
        assert_eq!(status(&planned), 0, "{}", err(&planned));
        let idle = format!("nothing to do, as of {tid}");
        assert!(out(&planned).contains(&idle), "{}", out(&planned));
        assert!(!out(&planned).contains("window"), "{}", out(&planned));
        let (_, told) = copied(&["-n", master, &a]);
        let plan = of_kind(&told, "plan")[0];
        assert_eq!(plan["idle"], true, "{plan}");
        assert_eq!(plan["sync_end_tid"].as_str(), Some(&*tid), "{plan}");
        let (_, told) = copied(&[master, &a]);
        let standing = of_kind(&told, "standing");
        assert_eq!(standing.len(), 1, "{told:?}");
        assert_eq!(standing[0]["sync_end_tid"].as_str(), Some(&*tid));
        // The second slave lacks more than the first from here on, and both come along in one pass.
        if at == 1 {
            let (output, told) = copied(&["-y", &masters[2], &a, &b]);
            assert_eq!(status(&output), 0, "{}", err(&output));
            let summary = told.last().expect("a summary");
            assert_eq!(summary["passes"], 1, "{summary}");
            let created = |at: usize| summary["targets"][at]["created"].as_u64().expect("a count");
            assert!(created(1) > created(0) && created(0) > 0, "{summary}");
            let tid = tid_of(&b);
            assert_eq!(listing(&b, &tid), listing(&masters[2], &tid));
            assert_eq!(listing(&a, &tid), listing(&b, &tid));
            break;
        }
    }
    for slave in [&a, &b] {
        let checked = run(&["check", "--data", slave.split('#').next().expect("a path")]);
        assert_eq!(status(&checked), 0, "{}", out(&checked));
    }
}

#[test]
fn plans_change_nothing_and_tell_the_space() {
    let Some(dir) = golden::dir() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = volume(folder.path(), "a");
    let slave = spec(&path, 1);
    let masters = masters(&dir);
    let (output, told) = copied(&["-n", "-y", &masters[0], &slave]);
    assert_eq!(status(&output), 0, "{}", err(&output));
    let plan = of_kind(&told, "plan")[0];
    assert_eq!(plan["makes_slave"], true);
    let number = |plan: &Value, name: &str| plan[name].as_u64().expect("a number");
    let (rec, payload) = (number(plan, "rec"), number(plan, "payload_bytes"));
    assert!(number(plan, "space_bytes") > payload && payload > 0);
    assert!(number(plan, "free_bytes") > number(plan, "space_bytes"));
    let (_, told) = copied(&["-y", &masters[0], &slave]);
    let done = &told.last().expect("a summary")["targets"][0];
    assert_eq!(
        (done["created"].as_u64(), done["bytes"].as_u64()),
        (Some(rec), Some(payload))
    );
    // As the next one would go, whichever way it is asked.
    let before = fs::read(&path).expect("the image");
    let (_, told) = copied(&["-n", &masters[1], &slave]);
    let output = run(&["mirror-plan", "--json", &masters[1], &slave]);
    let also = events(&out(&output), 0);
    let plan = of_kind(&told, "plan")[0];
    assert_eq!(plan, of_kind(&also, "plan")[0]);
    assert!(number(plan, "rec") > 0 && number(plan, "payload_bytes") > 0);
    assert!(
        before == fs::read(&path).expect("the image"),
        "a plan wrote"
    );
    let text = run(&["mirror-copy", "-n", &masters[1], &slave]);
    assert!(out(&text).contains("space "), "{}", out(&text));
}

#[test]
fn what_does_not_fit_is_refused() {
    let Some(dir) = golden::dir() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = volume(folder.path(), "a");
    let masters = masters(&dir);
    let image = text(&path);
    let (slave, root) = (spec(&path, 1), spec(&path, 0));
    let made = run(&[
        "pfs-slave",
        &slave,
        "shared-uuid=00000000-0000-0000-0000-000000000001",
    ]);
    assert_eq!(status(&made), 0, "{}", err(&made));
    for (target, code, words) in [
        (slave.as_str(), 3, "another master"),
        (&root, 3, "no slave"),
    ] {
        let (output, _) = copied(&[&masters[0], target]);
        assert_eq!(status(&output), code, "{target}: {}", err(&output));
        assert!(err(&output).contains(words), "{target}: {}", err(&output));
    }
    // A plan needs both ends here.
    for ends in [["host:/master#1", &slave], [&masters[0], "host:/slave#1"]] {
        let (output, _) = copied(&["-n", ends[0], ends[1]]);
        assert_eq!(status(&output), 2);
        assert!(err(&output).contains("another machine"), "{}", err(&output));
    }
    let (output, _) = copied(&[
        "-y",
        &masters[0],
        &format!("{image}#2"),
        &format!("{image}#2"),
    ]);
    assert_eq!(status(&output), 2, "{}", err(&output));
    let (output, _) = copied(&[&slave, &format!("{image},{image}#1")]);
    assert_eq!(status(&output), 2, "{}", err(&output));
}

#[test]
fn master_and_slave_in_one_file() {
    let Some(dir) = golden::dir() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let image = golden::file(&dir, "mirror/pfs.img");
    let path = copy_to(&image, folder.path(), "pfs.img", 0);
    // Another name of the same file.
    let link = folder.path().join("link.img");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    let (master, slave) = (spec(&link, 1), spec(&path, 9));
    let (output, told) = copied(&["-y", &master, &slave]);
    assert_eq!(status(&output), 0, "{}", err(&output));
    assert_eq!(of_kind(&told, "acknowledged").len(), 1);
    let tid = tid_of(&slave);
    assert_eq!(listing(&slave, &tid), listing(&master, &tid));
    let checked = run(&["check", "--data", text(&path)]);
    assert_eq!(status(&checked), 0, "{}", out(&checked));
}

/// How many deletions a plan says are implied, and whether it says that the copy would be stopped.
fn implied(words: &[&str]) -> (u64, bool) {
    let mut line = vec!["-n"];
    line.extend(words);
    let (output, told) = copied(&line);
    assert_eq!(status(&output), 0, "{}", err(&output));
    let plan = of_kind(&told, "plan")[0];
    let count = plan["implied_deletes"].as_u64().expect("a count");
    (count, plan["would_stop"].as_bool().expect("yes or no"))
}

/// Another state of the master would delete nearly everything: it is stopped and taken back.
#[test]
fn the_brake() {
    let folder = tempfile::tempdir().expect("a folder");
    let (master, slave) = (volume(folder.path(), "m"), volume(folder.path(), "s"));
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).expect("a folder");
    for at in 0..4000 {
        fs::write(tree.join(format!("{at}")), format!("contents of {at}")).expect("a file");
    }
    let good = |words: &[&str]| {
        let output = run(words);
        assert_eq!(status(&output), 0, "{words:?}: {}", err(&output));
    };
    good(&["pfs-master", &spec(&master, 1)]);
    let other = copy_to(&master, folder.path(), "other", 0);
    let (master, slave, other) = (spec(&master, 1), spec(&slave, 1), spec(&other, 1));
    good(&["put", &master, text(&tree), "/tree"]);
    good(&["mirror-copy", "-y", &master, &slave]);
    let tid = tid_of(&slave);
    let before = listing(&slave, &tid);
    // The other one goes its own way, and further.
    good(&["mkdir", &other, "/other"]);
    good(&["put", &other, text(&tree), "/other/a"]);
    good(&["put", &other, text(&tree), "/other/b"]);
    good(&["rm", "-r", &other, "/other/a"]);
    let (count, stops) = implied(&[&other, &slave]);
    assert!(count > 10_000 && stops, "{count}");
    let also = implied(&["--allow-deletes", &other, &slave]);
    assert_eq!(also, (count, false));
    let plan = run(&["mirror-plan", &other, &slave]);
    assert_eq!(status(&plan), 0);
    let line = format!("implied   {count} deletes\n");
    assert!(out(&plan).contains(&line), "{}", out(&plan));
    let stops = "would stop: --allow-deletes";
    assert!(out(&plan).contains(stops), "{}", out(&plan));
    let (output, told) = copied(&[&other, &slave]);
    assert_eq!(status(&output), 8, "{}", err(&output));
    assert_eq!(of_kind(&told, "taken_back").len(), 1, "{}", err(&output));
    assert!(err(&output).contains("--allow-deletes"), "{}", err(&output));
    // As many as planned.
    let words = format!("the deletion of {count} of");
    assert!(err(&output).contains(&words), "{}", err(&output));
    assert_eq!(tid_of(&slave), tid);
    assert_eq!(listing(&slave, &tid), before);
    // Nothing is left of it.
    good(&["mkdir", &master, "/more"]);
    assert_eq!(implied(&[&master, &slave]), (0, false));
    good(&["mirror-copy", &master, &slave]);
    let tid = tid_of(&slave);
    assert_eq!(listing(&slave, &tid), listing(&master, &tid));
    good(&["check", "--data", slave.split('#').next().expect("a path")]);
    good(&["rm", "-r", &other, "/other/b"]);
    let (count, stops) = implied(&["--allow-deletes", &other, &slave]);
    assert!(count > 10_000 && !stops, "{count}");
    let (output, told) = copied(&["--allow-deletes", &other, &slave]);
    assert_eq!(status(&output), 0, "{}", err(&output));
    let done = &told.last().expect("a summary")["targets"][0];
    assert_eq!(done["gap_deleted"].as_u64(), Some(count), "{done}");
    assert!(tid_of(&slave) > tid);
}

fn done(words: &[&str]) {
    let output = run(words);
    assert_eq!(status(&output), 0, "{words:?}: {}", err(&output));
}

fn refused(words: &[&str], code: i32, text: &str) {
    let output = run(words);
    assert_eq!(status(&output), code, "{words:?}: {}", err(&output));
    assert!(err(&output).contains(text), "{}", err(&output));
}

/// A slave of the root PFS has its master's PFS records, which mean nothing there.
#[test]
fn slaves_of_the_root_are_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (volume(folder.path(), "a"), volume(folder.path(), "b"));
    done(&["pfs-master", "-q", text(&a), "label=one"]);
    done(&["mkdir", text(&a), "/dir"]);
    done(&["mirror-copy", "-q", "-y", text(&a), &spec(&b, 1)]);
    done(&["check", "--data", text(&b)]);
}

/// A master restored from an older copy has changes that the slave would never get.
#[test]
fn a_slave_that_is_ahead_is_not_up_to_date() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (volume(folder.path(), "a"), volume(folder.path(), "b"));
    done(&["pfs-master", "-q", &spec(&a, 1)]);
    done(&["mkdir", &spec(&a, 1), "/first"]);
    let old = copy_to(&a, folder.path(), "old", 0);
    done(&["mkdir", &spec(&a, 1), "/second"]);
    done(&["mirror-copy", "-q", "-y", &spec(&a, 1), &spec(&b, 1)]);
    let state = |image: &Path| out(&run(&["show", text(image)]));
    let before = state(&b);
    refused(
        &["mirror-copy", &spec(&old, 1), &spec(&b, 1)],
        3,
        "restored",
    );
    assert!(before == state(&b));
    done(&["mirror-copy", "-q", "-F", &spec(&old, 1), &spec(&b, 1)]);
}

/// What cannot be carried out as written is said to be so.
#[test]
fn requests_that_make_no_sense() {
    let folder = tempfile::tempdir().expect("a folder");
    let a = volume(folder.path(), "a");
    let twice = format!("{},{}", text(&a), text(&a));
    refused(&["mkdir", &twice, "/x"], 2, "named twice");
    let state = |image: &Path| out(&run(&["show", text(image)]));
    let before = state(&a);
    let output = common::program::mallet()
        .args(["mirror-write", "-n", "-y", &spec(&a, 1)])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the program runs");
    assert_eq!(status(&output), 2);
    assert!(before == state(&a));
}
