//! A stream holds no more memory than it says, whatever is written: read from what the kernel has given to this process.
//! Alone in its file, so that no other test has a part in the numbers.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

use portcullis::compress::decode::{Decoder, MOST_MEMORY};
use portcullis::compress::encode::{Encoder, most_memory};
use portcullis::config::Coding;

/// One test, since two at a time would count each other's memory. What was measured is held to the end, and nothing large
/// is let go of before that: the allocator would give it to the next ones, and they would seem to need none.
#[test]
fn a_stream_holds_no_more_memory_than_it_says() {
    let body = body(700_000);
    let mut out = Vec::with_capacity(40 << 20);
    out.resize(out.capacity(), 1); // so that the kernel has given it by now
    let begins = [(Coding::Br, br_with_the_largest_window()), (Coding::Zstd, zstd_with_the_largest_window())];
    let encoders = encoders(&body, &mut out);
    let decoders = decoders(&begins, &mut out);
    assert_eq!((decoders.len(), encoders.len()), (2 * FEW, 2 * 18 * FEW));
}

/// How many of a kind: few, and the system's own pages are a part of what is measured.
const FEW: usize = 2;

/// What so many hold, each, and themselves.
fn measured<T>(make: impl FnMut() -> T) -> (usize, Vec<T>) {
    let before = resident();
    let held = std::iter::repeat_with(make).take(FEW).collect();
    (resident().saturating_sub(before) / FEW, held)
}

fn encoders(body: &[u8], out: &mut Vec<u8>) -> Vec<Encoder> {
    let mut all = Vec::new();
    for (coding, levels) in [
        (Coding::Gzip, &[1, 5, 9][..]),
        (Coding::Deflate, &[5]),
        (Coding::Zstd, &[1, 3, 6, 9, 12, 15, 19]),
        (Coding::Br, &[1, 4, 6, 7, 9, 10, 11]),
    ] {
        for (level, length) in levels.iter().flat_map(|level| [(*level, None), (*level, Some(1 << 40))]) {
            // Little for the slow ones: their tables are all there from the first block on.
            let body = if level > 9 { &body[..60_000] } else { body };
            let (each, held) = measured(|| {
                out.clear();
                let mut encoder = Encoder::new(coding, level, length).unwrap();
                for half in body.chunks(body.len().div_ceil(2)) {
                    half.chunks(16 << 10).for_each(|piece| encoder.write(piece, out).unwrap());
                    encoder.flush(out).unwrap();
                }
                encoder
            });
            assert!(each <= most_memory(coding, level), "{coding} {level} {length:?}: {each} bytes");
            all.extend(held);
        }
    }
    all
}

fn decoders(begins: &[(Coding, Vec<u8>)], out: &mut Vec<u8>) -> Vec<Decoder> {
    let mut all = Vec::new();
    for (coding, begin) in begins {
        let (each, held) = measured(|| {
            out.clear();
            let mut decoder = Decoder::new(*coding).unwrap();
            begin.chunks(64 << 10).for_each(|piece| decoder.write(piece, out).unwrap());
            assert_eq!(out.len(), WINDOW, "{coding}");
            decoder
        });
        assert!(each <= MOST_MEMORY, "{coding}: {each} bytes");
        all.extend(held);
    }
    all
}

/// Fills the largest window that there is.
const WINDOW: usize = 16 << 20;

/// RFC 7932, sections 9.1 and 9.2: a window of 2^24 bytes; not the last part; its length in six nibbles; as it is.
fn br_with_the_largest_window() -> Vec<u8> {
    let head = 0b1111 | (0b10 << 5) | ((WINDOW as u32 - 1) << 7) | (1 << 31);
    let mut coded = Vec::with_capacity(4 + WINDOW);
    coded.extend(head.to_le_bytes());
    coded.resize(4 + WINDOW, b'1');
    coded
}

/// RFC 8878, section 3.1.1: a window of 2^23 bytes, and blocks of 128 KiB as they are.
fn zstd_with_the_largest_window() -> Vec<u8> {
    const BLOCK: usize = 128 << 10;
    let mut coded = Vec::with_capacity(2 * WINDOW);
    coded.extend([0x28, 0xB5, 0x2F, 0xFD, 0, (23 - 10) << 3]);
    for _ in 0..WINDOW / BLOCK {
        coded.extend(&((BLOCK as u32) << 3).to_le_bytes()[..3]);
        coded.resize(coded.len() + BLOCK, b'1');
    }
    coded
}

/// The bytes of this process that are in memory, without those of the program itself.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn body(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut body = Vec::with_capacity(2 * length);
    while body.len() < length {
        body.extend(format!("{} of {} are {}, ", random.u32(..), random.u8(..), random.u16(..999)).bytes());
    }
    body
}
