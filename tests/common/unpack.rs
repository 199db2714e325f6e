//! Unpacks zstd files, sparse.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Unpacks the file `packed` into the empty file `out`; runs of zeros become holes.
pub fn sparse(packed: &Path, out: &mut File) {
    let source = File::open(packed).unwrap_or_else(|e| panic!("{}: {e}", packed.display()));
    let mut decoder = zstd::Decoder::new(source).expect("a zstd stream");
    decoder.window_log_max(27).expect("a window of 128 MiB");
    let mut chunk = vec![0; 65536];
    let mut len = 0u64;
    loop {
        let mut filled = 0;
        while filled < chunk.len() {
            match decoder.read(&mut chunk[filled..]).expect("packed data") {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            break;
        }
        if chunk[..filled].iter().any(|b| *b != 0) {
            out.seek(SeekFrom::Start(len)).expect("a position");
            out.write_all(&chunk[..filled])
                .expect("space for the unpacked file");
        }
        len += filled as u64;
    }
    out.set_len(len).expect("the unpacked size");
}
