//! The dump of the B-Tree, damage included.

use super::args::ShowArgs;
use super::json::hex;
use super::open::{Opened, open_with, view_options};
use super::{Context, Exit, Outcome, asof, record, size};
use crate::btree;
use crate::btree::dump::{Dump, ElementKind, Item, Place, Problems, Select};
use crate::error::{Error, Result};
use crate::format::node::{InternalElement, LeafElement};
use crate::format::{BIGBLOCK, Localization, Offset};
use crate::progress::{Progress, Status};
use crate::store::{Fetch, ViewOptions, freemap};
use serde_json::{Value, json};
use std::io::Write;

/// Opens a file system for a dump: even where the FIFO cannot be read.
pub fn open_damaged(cx: &Context, spec: &super::spec::Spec) -> Result<Opened> {
    let options = ViewOptions {
        despite_fifo_faults: true,
        ..view_options(cx)
    };
    let opened = open_with(cx, spec, &options)?;
    if let Some(fault) = opened.view.fifo_fault() {
        cx.ui.warn(format_args!(
            "the UNDO FIFO is damaged, so what follows may not be of one moment: {fault}"
        ));
    }
    Ok(opened)
}

/// `show`.
pub fn tree(args: &ShowArgs, cx: &Context) -> Outcome {
    let mut opened = open_damaged(cx, &args.spec)?;
    let mut meter = cx.meter("show", "items");
    let mut dump = Dump::new(Select {
        localization: args.lo.map(Localization),
        obj_id: args.obj.map(u64::cast_signed),
    });
    let mut tally = Tally::default();
    let mut status = Status::default();
    while let Some(item) = dump.next(&mut opened.view)? {
        status.items += 1;
        match &item {
            Item::Node { node, problems } => {
                tally.note(*problems);
                tally.nodes += 1;
                show_node(cx, &mut opened, node, *problems)?;
                meter.at(&status)?;
            }
            Item::Element {
                node,
                index,
                kind,
                problems,
            } => {
                tally.note(*problems);
                tally.elements += 1;
                match kind {
                    ElementKind::Leaf(leaf) => {
                        let data = Data::of(cx, &mut opened, leaf)?;
                        tally.damaged += u64::from(data.is_damaged());
                        show_leaf(cx, node, *index, leaf, &data, *problems)?;
                    }
                    ElementKind::Child(child) => show_child(cx, node, *index, child, *problems)?,
                    ElementKind::Boundary(bound) => show_boundary(cx, node, bound, *problems)?,
                }
            }
            Item::Unreadable { at, depth, error } => {
                tally.damaged += 1;
                match cx.json() {
                    true => cx.events.emit(
                        "unreadable",
                        json!({"at": hex(at.0), "depth": depth, "error": error.to_string()}),
                    )?,
                    false => writeln!(cx.out(), "????????  node {at}  depth {depth}  {error}")?,
                }
            }
        }
    }
    drop(meter);
    tally.finish(cx)
}

/// What a dump of the tree came across.
#[derive(Default)]
struct Tally {
    nodes: u64,
    elements: u64,
    damaged: u64,
    hidden: u64,
}

impl Tally {
    fn note(&mut self, problems: Problems) {
        self.damaged += u64::from(!(problems - Problems::MIRROR).is_empty());
        self.hidden += u64::from(problems.contains(Problems::MIRROR));
    }

    fn finish(self, cx: &Context) -> Outcome {
        let Tally {
            nodes,
            elements,
            damaged,
            hidden,
        } = self;
        cx.events.summary(json!({
            "nodes": nodes, "elements": elements, "damaged": damaged, "mirror_tid": hidden,
        }));
        if !cx.json() && (damaged > 0 || hidden > 0 || cx.ui.level() > 0) {
            writeln!(
                cx.out(),
                "{}, {}; {damaged} damaged, {hidden} with a mirror_tid that hides changes",
                size::counted(nodes, "node", "nodes"),
                size::counted(elements, "element", "elements"),
            )?;
        }
        Ok(if damaged > 0 {
            Exit::Damage
        } else {
            Exit::Done
        })
    }
}

fn show_node(
    cx: &Context,
    opened: &mut Opened,
    place: &Place,
    problems: Problems,
) -> anyhow::Result<()> {
    let node = &place.node;
    let kind = match node.kind {
        crate::format::node::INTERNAL => "internal".to_owned(),
        crate::format::node::LEAF => "leaf".to_owned(),
        other => format!("type 0x{other:02x}"),
    };
    let fill = fill_percent(&mut opened.view, place.at);
    if cx.json() {
        cx.events.emit(
            "node",
            json!({
                "at": hex(place.at.0),
                "depth": place.depth,
                "kind": kind,
                "count": node.count.get(),
                "parent": hex(node.parent.get()),
                "mirror_tid": hex(node.mirror_tid.get()),
                "crc": format!("0x{:08x}", node.crc.get()),
                "bigblock_percent": fill,
                "problems": problems.names(),
            }),
        )?;
        return Ok(());
    }
    let fill = fill.map_or("?".into(), |percent| percent.to_string());
    writeln!(
        cx.out(),
        "{problems}  node {}  {kind}  depth {}  count {}  parent {}  mirror {}  big-block {fill} % full",
        place.at,
        place.depth,
        node.count.get(),
        Offset(node.parent.get()),
        node.mirror_tid(),
    )?;
    Ok(())
}

/// How full the big-block at `at` is; `None` where the freemap does not say.
fn fill_percent<F: Fetch + ?Sized>(fetch: &mut F, at: Offset) -> Option<i64> {
    let (_, entry) = freemap::layer2(fetch, at).ok()??;
    let used = BIGBLOCK.cast_signed() - i64::from(entry.bytes_free.get());
    Some(used * 100 / BIGBLOCK.cast_signed())
}

/// The data of a record, as far as it was looked at.
enum Data {
    None,
    Unchecked,
    Good(String),
    BadCrc(String),
    Bad(Error),
}

impl Data {
    /// Reads and checks the data of `leaf`; `-q` leaves it alone.
    fn of(cx: &Context, opened: &mut Opened, leaf: &LeafElement) -> Result<Data> {
        if leaf.data_len.get() == 0 {
            return Ok(Data::None);
        }
        if cx.ui.level() < 0 {
            return Ok(Data::Unchecked);
        }
        match btree::data(&mut opened.view, leaf) {
            Ok(data) if data.crc_ok => Ok(Data::Good(record::describe(leaf, &data.bytes))),
            Ok(data) => Ok(Data::BadCrc(record::describe(leaf, &data.bytes))),
            Err(error) if error.is_media() => Ok(Data::Bad(error)),
            Err(error) => Err(error),
        }
    }

    fn is_damaged(&self) -> bool {
        matches!(self, Data::BadCrc(_) | Data::Bad(_))
    }

    fn state(&self) -> &'static str {
        match self {
            Data::None => "none",
            Data::Unchecked => "unchecked",
            Data::Good(_) => "good",
            Data::BadCrc(_) => "bad-crc",
            Data::Bad(_) => "unreadable",
        }
    }

    fn text(&self) -> String {
        match self {
            Data::None | Data::Unchecked => String::new(),
            Data::Good(text) | Data::BadCrc(text) => text.clone(),
            Data::Bad(error) => error.to_string(),
        }
    }
}

/// The fields that all elements share.
fn element(
    node: &Place,
    index: usize,
    base: &crate::format::node::Base,
    problems: Problems,
) -> Value {
    let key = base.key();
    json!({
        "node": hex(node.at.0),
        "index": index,
        "localization": format!("0x{:08x}", key.localization.0),
        "obj": hex(key.obj_id.cast_unsigned()),
        "rec_type": key.rec_type,
        "key": hex(key.key.cast_unsigned()),
        "create_tid": hex(key.create_tid.0),
        "delete_tid": hex(base.delete_tid().0),
        "obj_type": base.obj_type,
        "problems": problems.names(),
    })
}

/// `event` with more fields.
pub fn with(mut event: Value, more: Value) -> Value {
    if let (Value::Object(event), Value::Object(more)) = (&mut event, more) {
        event.extend(more);
    }
    event
}

fn show_leaf(
    cx: &Context,
    node: &Place,
    index: usize,
    leaf: &LeafElement,
    data: &Data,
    problems: Problems,
) -> anyhow::Result<()> {
    let text = data.text();
    if cx.json() {
        let more = json!({
            "create_ts": leaf.create_ts.get(),
            "delete_ts": leaf.delete_ts.get(),
            "data_offset": hex(leaf.data_offset.get()),
            "data_len": leaf.data_len.get(),
            "data_crc": format!("0x{:08x}", leaf.data_crc.get()),
            "data": data.state(),
            "text": text,
        });
        let event = with(element(node, index, &leaf.base, problems), more);
        cx.events.emit("record", event)?;
        return Ok(());
    }
    let mark = match data {
        Data::BadCrc(_) => "  BAD CRC",
        Data::Bad(_) => "  UNREADABLE",
        _ => "",
    };
    writeln!(
        cx.out(),
        "{problems}  {index:3}  {} del={:016x}  {} .. {}  data {}+{} crc={:08x}{mark}  {text}",
        leaf.base.key(),
        leaf.base.delete_tid().0,
        asof::show_seconds(leaf.create_ts.get()),
        asof::show_seconds(leaf.delete_ts.get()),
        leaf.data_offset(),
        leaf.data_len.get(),
        leaf.data_crc.get(),
    )?;
    Ok(())
}

fn show_child(
    cx: &Context,
    node: &Place,
    index: usize,
    child: &InternalElement,
    problems: Problems,
) -> anyhow::Result<()> {
    let (at, mirror) = (child.subtree_offset.get(), child.mirror_tid.get());
    if cx.json() {
        let more = json!({"child": hex(at), "mirror_tid": hex(mirror)});
        let event = with(element(node, index, &child.base, problems), more);
        cx.events.emit("child", event)?;
        return Ok(());
    }
    writeln!(
        cx.out(),
        "{problems}  {index:3}  {}  below {}  mirror 0x{mirror:016x}",
        child.base.key(),
        Offset(at),
    )?;
    Ok(())
}

fn show_boundary(
    cx: &Context,
    node: &Place,
    bound: &InternalElement,
    problems: Problems,
) -> anyhow::Result<()> {
    if cx.json() {
        let index = node.node.count();
        let event = element(node, index, &bound.base, problems);
        cx.events.emit("boundary", event)?;
        return Ok(());
    }
    writeln!(cx.out(), "{problems}  end  {}", bound.base.key())?;
    Ok(())
}
