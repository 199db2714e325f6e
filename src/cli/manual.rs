//! Manual pages and completions, from the one definition of the command line.

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::{Context, Exit, Outcome};
use crate::error::Error;
use anyhow::Context as _;
use clap::CommandFactory;
use clap_mangen::Man;
use std::fs;
use std::io::Write;

/// `completions`.
pub fn completions(args: &CompletionsArgs, cx: &Context) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mallet", &mut text);
    cx.raw(false)?.write_all(&text)?;
    Ok(Exit::Done)
}

/// `man`.
pub fn man(args: &ManArgs, cx: &Context) -> Outcome {
    let mut root = Cli::command();
    root.build();
    if let Some(folder) = &args.all {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let pages = root
            .get_subcommands()
            .map(|c| format!("mallet-{}", c.get_name()));
        for name in std::iter::once("mallet".to_owned()).chain(pages) {
            let path = folder.join(format!("{name}.1"));
            fs::write(&path, page(&root, &name)?).with_context(|| path.display().to_string())?;
        }
        return Ok(Exit::Done);
    }
    let name = match &args.command {
        Some(command) => format!("mallet-{command}"),
        None => "mallet".to_owned(),
    };
    cx.raw(false)?.write_all(&page(&root, &name)?)?;
    Ok(Exit::Done)
}

/// The page called `name`: `mallet`, or `mallet-COMMAND`.
fn page(root: &clap::Command, name: &str) -> anyhow::Result<Vec<u8>> {
    let command = match name.strip_prefix("mallet-") {
        None => root.clone(),
        Some(command) => root
            .find_subcommand(command)
            .ok_or_else(|| Error::usage(format!("there is no command {command:?}")))?
            .clone(),
    };
    let mut text = Vec::new();
    Man::new(command).render(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let mut root = Cli::command();
        root.build();
        for command in root.get_subcommands() {
            let text = page(&root, &format!("mallet-{}", command.get_name())).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{}", command.get_name());
        }
        assert!(page(&root, "mallet-frobnicate").is_err());
    }
}
