//! A stream holds no more memory than it says, whatever is written: read from what the kernel has given to this process.
//! Alone in its file, so that no other test has a part in the numbers.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

use portcullis::compress::encode::{Encoder, most_memory};
use portcullis::config::Coding;

const STREAMS: usize = 8;

#[test]
fn a_stream_holds_no_more_memory_than_it_says() {
    let body = body(2 << 20);
    for (coding, levels) in [
        (Coding::Gzip, &[1, 5, 9][..]),
        (Coding::Deflate, &[5]),
        (Coding::Zstd, &[1, 3, 6, 9, 12, 15, 19]),
        (Coding::Br, &[1, 4, 6]),
    ] {
        for level in levels {
            let (mut out, mut held) = (Vec::with_capacity(2 * body.len()), Vec::new());
            out.resize(out.capacity(), 1); // so that the kernel has given it by now
            let before = resident();
            for _ in 0..STREAMS {
                out.clear();
                let mut encoder = Encoder::new(coding, *level, Some(1 << 40)).unwrap();
                // Little for the slow ones: their tables are all there from the first block on.
                let length = if *level > 12 { 300_000 } else { body.len() };
                body[..length].chunks(16 << 10).for_each(|piece| encoder.write(piece, &mut out).unwrap());
                held.push(encoder);
            }
            let each = resident().saturating_sub(before) / STREAMS;
            assert!(each <= most_memory(coding, *level), "{coding} {level}: {each} bytes");
        }
    }
}

/// The bytes of this process that are in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn body(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut body = Vec::new();
    while body.len() < length {
        body.extend(format!("{} of {} are {}, ", random.u32(..), random.u8(..), random.u16(..999)).bytes());
    }
    body
}
