//! Unpacks a zstd file, leaving holes where the contents are zero: `unpack IN OUT`.
//!
//! The volumes in `testdata/` are packed; this spares the reader a zstd program.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::ExitCode;

/// The files were packed with a window of up to 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;
/// The grain of holes.
const CHUNK: usize = 64 << 10;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let (Some(from), Some(to), None) = (words.next(), words.next(), words.next()) else {
        eprintln!("usage: unpack IN OUT");
        return ExitCode::from(2);
    };
    let done = File::open(&from)
        .map_err(Into::into)
        .and_then(|input| unpack(input, File::create(&to)?));
    match done {
        Ok(len) => {
            println!("{}: {len} bytes", to.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("unpack {} {}: {error}", from.display(), to.display());
            ExitCode::FAILURE
        }
    }
}

fn unpack(input: File, mut output: File) -> Result<u64, Box<dyn Error>> {
    let mut decoder = zstd::Decoder::new(input)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut len = 0;
    loop {
        chunk.clear();
        decoder
            .by_ref()
            .take(CHUNK as u64)
            .read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            break;
        }
        if chunk.iter().any(|byte| *byte != 0) {
            output.seek(SeekFrom::Start(len))?;
            output.write_all(&chunk)?;
        }
        len += chunk.len() as u64;
    }
    output.set_len(len)?;
    Ok(len)
}
