use super::*;
use crate::format::Tid;
use clap::CommandFactory;

fn read(line: &str) -> Cli {
    Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"))
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn options_stand_on_either_side() {
    for line in [
        "mallet -v -S 8M -b 1k --json --lock-wait 3 mirror-read a.img 0x10",
        "mallet mirror-read -v -S 8M -b 1k --json --lock-wait 3 a.img 0x10",
        "mallet mirror-read a.img 0x10 -v -S 8M -b 1k --json --lock-wait 3",
        "mallet -v -S8M mirror-read a.img -b 1k 0x10 --json --lock-wait=3",
    ] {
        let cli = read(line);
        let global = &cli.global;
        assert_eq!(
            (
                global.level(),
                global.split,
                global.bandwidth,
                global.json,
                global.lock_wait
            ),
            (1, Some(8 << 20), Some(1024), true, Duration::from_secs(3)),
            "{line}"
        );
        assert!(matches!(cli.command, Command::MirrorRead(a) if a.begin == Some(Tid(16))));
    }
}

#[test]
fn letters_of_the_original_are_taken_everywhere() {
    for line in [
        "mallet -y -n -F get a / d",
        "mallet get -y a / --dry-run d --force",
        "mallet get -ynF a / d",
    ] {
        let cli = read(line);
        assert!(
            cli.global.yes && cli.global.dry_run && cli.global.force,
            "{line}"
        );
        assert!(matches!(cli.command, Command::Get(a) if a.force), "{line}");
    }
    assert!(read("mallet ls -F a").global.force);
    assert!(!read("mallet get a / d").global.force);
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("--dry-run") && help.contains("--force"));
}

#[test]
fn verbose_and_quiet_cancel() {
    assert_eq!(read("mallet -vv version a").global.level(), 2);
    assert_eq!(read("mallet -v version -q a").global.level(), 0);
    assert_eq!(read("mallet version -q a").global.level(), -1);
}

#[test]
fn names_agree() {
    let known: Vec<String> = Cli::command()
        .get_subcommands()
        .map(|c| c.get_name().to_owned())
        .collect();
    for line in [
        "newfs -L x a",
        "info a",
        "show a",
        "show-undo a",
        "blockmap a",
        "check a",
        "ls a",
        "stat a /",
        "cat a /f",
        "get a / d",
        "put a s /f",
        "append a - /f",
        "truncate a /f 1m",
        "mkdir -p a /d",
        "rm -rf a /d",
        "mv a /f /g",
        "ln -s a t /l",
        "chmod a u+x /f",
        "chown a 1:2 /f",
        "batch a",
        "history a /f",
        "diff a --from 0x1",
        "pfs-status a",
        "pfs-master a",
        "pfs-slave a#1",
        "pfs-update a#1 label=x",
        "pfs-upgrade a#1",
        "pfs-downgrade a#1",
        "pfs-destroy a#1",
        "snapls a",
        "mirror-read a",
        "mirror-read-stream a 0x10 -i 5",
        "mirror-dump",
        "mirror-plan a",
        "mirror-status a b",
        "mirror-verify a b --data",
        "mirror-write a",
        "mirror-copy a b",
        "mirror-stream -i 5 --retries 3 a b c",
        "version a",
        "volume-list a",
        "completions bash",
        "man",
    ] {
        let name = read(&format!("mallet {line}")).command.name();
        assert_eq!(Some(name), line.split(' ').next());
        assert!(known.iter().any(|k| k == name));
    }
    assert_eq!(known.len(), 44);
}
