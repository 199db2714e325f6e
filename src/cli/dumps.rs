//! Dumps of the UNDO FIFO and the freemap. Both show damage and go on.

use super::args::SpecArgs;
use super::json::hex;
use super::open::Opened;
use super::show::{open_damaged, with};
use super::{Context, Exit, Outcome};
use crate::format::freemap::Layer2;
use crate::format::{BIGBLOCK, Zone};
use crate::progress::{Progress, Status};
use crate::store::Fetch;
use crate::store::fifo::{Entry, EntryKind, Walk};
use crate::store::freemap::{self, BigBlock, BigBlocks};
use serde_json::json;
use std::io::Write;

/// `show-undo`.
pub fn undo(args: &SpecArgs, cx: &Context) -> Outcome {
    let mut opened = open_damaged(cx, &args.spec)?;
    let ring = *opened.view.volumes().root_header().zone(Zone::UNDO);
    let (first, next) = (ring.first_offset.get(), ring.next_offset.get());
    let mut meter = cx.meter("show-undo", "records");
    let mut walk = Walk::new();
    let (mut records, mut damaged) = (0u64, 0u64);
    loop {
        match walk.next(&mut opened.view) {
            Ok(None) => break,
            Ok(Some(entry)) => {
                damaged += u64::from(matches!(entry.kind, EntryKind::Damaged(_)));
                records += 1;
                show_fifo_entry(cx, &entry, first, next)?;
            }
            Err(error) if error.is_media() => {
                damaged += 1;
                match cx.json() {
                    true => {
                        let event = json!({"error": error.to_string()});
                        cx.events.emit("unreadable", event)?;
                    }
                    false => writeln!(cx.out(), "    {error}")?,
                }
            }
            Err(error) => return Err(error.into()),
        }
        meter.at(&Status {
            items: records,
            ..Status::default()
        })?;
    }
    drop(meter);
    cx.events
        .summary(json!({"records": records, "damaged": damaged}));
    Ok(if damaged > 0 {
        Exit::Damage
    } else {
        Exit::Done
    })
}

fn show_fifo_entry(cx: &Context, entry: &Entry, first: u64, next: u64) -> anyhow::Result<()> {
    let (is_first, is_next) = (entry.at.0 == first, entry.at.0 == next);
    let (kind, more, text) = match &entry.kind {
        EntryKind::Undo { target, bytes } => (
            "undo",
            json!({"target": hex(target.0), "bytes": bytes}),
            format!("{bytes} old bytes of {target}"),
        ),
        EntryKind::Redo {
            obj_id,
            localization,
            offset,
            bytes,
            flags,
        } => (
            "redo",
            json!({
                "obj": hex(obj_id.cast_unsigned()),
                "localization": format!("0x{localization:08x}"),
                "offset": hex(*offset),
                "bytes": bytes,
                "flags": redo_flags(*flags),
            }),
            format!(
                "{} lo={localization:08x} obj={obj_id:016x} offset=0x{offset:x} bytes={bytes}",
                redo_flags(*flags).join("+")
            ),
        ),
        EntryKind::Dummy => ("dummy", json!({}), String::new()),
        EntryKind::Pad => ("pad", json!({}), String::new()),
        EntryKind::Unknown(kind) => (
            "unknown",
            json!({"code": kind}),
            format!("record type 0x{kind:04x}"),
        ),
        EntryKind::Damaged(fault) => (
            "damaged",
            json!({"error": fault.to_string()}),
            fault.to_string(),
        ),
    };
    if cx.json() {
        let event = json!({
            "at": hex(entry.at.0),
            "kind": kind,
            "size": entry.size,
            "seq": entry.seq,
            "first": is_first,
            "next": is_next,
        });
        cx.events.emit("fifo", with(event, more))?;
        return Ok(());
    }
    let seq = entry.seq.map_or("-".into(), |seq| format!("{seq:08x}"));
    writeln!(
        cx.out(),
        "{}{} {}  {kind:7} seq={seq:8} size={:5}  {text}",
        if is_first { '>' } else { ' ' },
        if is_next { '<' } else { ' ' },
        entry.at,
        entry.size,
    )?;
    Ok(())
}

fn redo_flags(flags: u32) -> Vec<&'static str> {
    let names = ["write", "trunc", "term-write", "term-trunc", "sync"];
    let set = names.into_iter().enumerate();
    set.filter(|(bit, _)| flags & (1 << bit) != 0)
        .map(|(_, name)| name)
        .collect()
}

/// `blockmap`.
pub fn blockmap(args: &SpecArgs, cx: &Context) -> Outcome {
    let mut opened = open_damaged(cx, &args.spec)?;
    let volumes: Vec<(u8, u64)> = opened
        .view
        .volumes()
        .volumes()
        .map(|(number, _, header)| (number, header.buffer_space()))
        .collect();
    let mut meter = cx.meter("blockmap", "big-blocks");
    let (mut status, mut damaged) = (Status::default(), 0u64);
    for (number, space) in volumes {
        let mut blocks = BigBlocks::new(number, space);
        loop {
            match blocks.next(&mut opened.view) {
                Ok(None) => break,
                Ok(Some(block)) => {
                    let problems = problems_of(&block, opened.view.version());
                    damaged += u64::from(!problems.is_empty());
                    show_bigblock(cx, &mut opened, &block, &problems)?;
                    status.items += 1;
                }
                Err(error) if error.is_media() => {
                    damaged += 1;
                    match cx.json() {
                        true => {
                            let event = json!({"error": error.to_string()});
                            cx.events.emit("unreadable", event)?;
                        }
                        false => writeln!(cx.out(), "  ???  {error}")?,
                    }
                }
                Err(error) => return Err(error.into()),
            }
            meter.at(&status)?;
        }
    }
    drop(meter);
    cx.events
        .summary(json!({"bigblocks": status.items, "damaged": damaged}));
    Ok(if damaged > 0 {
        Exit::Damage
    } else {
        Exit::Done
    })
}

/// What is wrong with a big-block's entry: letter and name.
fn problems_of(block: &BigBlock, version: u32) -> Vec<(char, &'static str)> {
    let Layer2 {
        append_off,
        bytes_free,
        ..
    } = block.entry;
    let (append, free) = (u64::from(append_off.get()), i64::from(bytes_free.get()));
    let mut problems = Vec::new();
    if block.entry.check(block.place, version).is_err() {
        problems.push(('B', "crc"));
    }
    if append > BIGBLOCK {
        problems.push(('A', "append"));
    }
    // Deduplication counts shared data several times, since version 5.
    if free > BIGBLOCK.cast_signed() || (free < 0 && version < 5) {
        problems.push(('F', "free"));
    }
    problems
}

fn show_bigblock(
    cx: &Context,
    opened: &mut Opened,
    block: &BigBlock,
    problems: &[(char, &'static str)],
) -> anyhow::Result<()> {
    let owner = block.entry.owner();
    let (append, free) = (block.entry.append_off.get(), block.entry.bytes_free.get());
    if block.at.layer2_index() == 0
        && let Ok((place, layer1)) = freemap::layer1(&mut opened.view, block.at)
    {
        match cx.json() {
            true => cx.events.emit(
                "layer1",
                json!({
                    "at": hex(block.at.0),
                    "place": hex(place.0),
                    "array": hex(layer1.phys_offset.get()),
                    "blocks_free": layer1.blocks_free.get(),
                }),
            )?,
            false => writeln!(
                cx.out(),
                "layer 1 at {place}: from {} on, {} big-blocks free, layer 2 at {}",
                block.at,
                layer1.blocks_free.get(),
                layer1.array(),
            )?,
        }
    }
    if cx.json() {
        let problems: Vec<&str> = problems.iter().map(|(_, name)| *name).collect();
        cx.events.emit(
            "bigblock",
            json!({
                "at": hex(block.at.0),
                "zone": owner.0,
                "owner": owner.label(),
                "append": append,
                "bytes_free": free,
                "problems": problems,
            }),
        )?;
        return Ok(());
    }
    let marks: String = problems.iter().map(|(letter, _)| *letter).collect();
    writeln!(
        cx.out(),
        "{marks:>5}  {}  zone {:2} {:11} append {append:7} free {free:8}",
        block.at,
        owner.0,
        owner.label(),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Offset;
    use zerocopy::FromZeros;

    #[test]
    fn flags_have_names() {
        assert_eq!(redo_flags(1 | 16), ["write", "sync"]);
        assert!(redo_flags(0x80).is_empty());
    }

    #[test]
    fn freemap_marks() {
        let block = |free: i32, append: u32| {
            let mut entry = Layer2::new_zeroed();
            entry.bytes_free.set(free);
            entry.append_off.set(append);
            entry.entry_crc.set(entry.sum(crate::format::CrcKind::Ieee));
            BigBlock {
                at: Offset::NULL,
                place: Offset::NULL,
                entry,
            }
        };
        let marks = |block, version| -> String {
            problems_of(&block, version)
                .iter()
                .map(|(letter, _)| *letter)
                .collect()
        };
        assert_eq!(marks(block(0, 0), 4), "");
        assert_eq!(marks(block(-1, 0), 4), "F");
        assert_eq!(marks(block(-1, 0), 5), "");
        assert_eq!(marks(block(8_388_609, 8_388_609), 5), "AF");
        let mut wrong = block(0, 0);
        wrong.entry.zone = 9;
        assert_eq!(marks(wrong, 5), "B");
    }
}
