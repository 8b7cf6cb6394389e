//! Whatever is written comes out again, by decoders that are not ours.

use std::io::Read;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// What the reference decoder of each library reads, and whether it came to the end of a whole stream.
fn reference(coding: Coding, coded: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let whole = match coding {
        Coding::Gzip => flate2::read::MultiGzDecoder::new(coded).read_to_end(&mut out).is_ok(),
        Coding::Deflate => flate2::read::ZlibDecoder::new(coded).read_to_end(&mut out).is_ok(),
        Coding::Br => brotli::Decompressor::new(coded, 4096).read_to_end(&mut out).is_ok(),
        Coding::Zstd => zstd_reference(coded, &mut out),
    };
    (out, whole)
}

fn zstd_reference(coded: &[u8], out: &mut Vec<u8>) -> bool {
    let (mut state, mut input) = (zstd_safe::DCtx::create(), zstd_safe::InBuffer::around(coded));
    let mut piece = vec![0; 64 << 10];
    loop {
        let mut output = zstd_safe::OutBuffer::around(&mut piece[..]);
        let left = state.decompress_stream(&mut output, &mut input).unwrap();
        let full = output.pos() == output.capacity();
        out.extend_from_slice(output.as_slice());
        if !full && input.pos() == coded.len() {
            return left == 0;
        }
    }
}

pub(in crate::compress) fn coded(coding: Coding, level: u8, length: Option<u64>, pieces: &[&[u8]]) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::new(coding, level, length).unwrap(), Vec::new());
    for piece in pieces {
        encoder.write(piece, &mut out).unwrap();
    }
    encoder.finish(&mut out).unwrap();
    out
}

pub(in crate::compress) fn most_level(coding: Coding) -> u8 {
    match coding {
        Coding::Zstd => 19,
        Coding::Br => 11,
        Coding::Gzip | Coding::Deflate => 9,
    }
}

/// Runs of words, of one byte and of noise, as bodies have them.
pub(in crate::compress) fn body(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let words = (0..200).map(|_| (0..random.usize(2..12)).map(|_| random.lowercase()).collect::<String>());
    let words = words.collect::<Vec<_>>();
    let mut body = Vec::with_capacity(length + 4096);
    while body.len() < length {
        match random.u8(..10) {
            0 => body.extend((0..random.usize(..2000)).map(|_| random.u8(..))),
            1 => body.resize(body.len() + random.usize(..3000), random.u8(..)),
            _ => (0..50).for_each(|_| body.extend_from_slice(random.choice(&words).unwrap().as_bytes())),
        }
    }
    body.truncate(length);
    body
}

#[test]
fn an_empty_body_is_a_whole_stream() {
    for coding in Coding::ALL {
        let empty = coded(coding, 5, None, &[]);
        assert!(!empty.is_empty());
        assert_eq!(reference(coding, &empty), (Vec::new(), true), "{coding}");
        assert_eq!(reference(coding, &encode_all(coding, 5, &[] as &[&[u8]]).unwrap()), (Vec::new(), true), "{coding}");
    }
}

#[test]
fn every_level_of_every_coding_gives_the_body_again() {
    let body = body(7, 50_000);
    for coding in Coding::ALL {
        for level in 0..=most_level(coding) + 1 {
            let coded = coded(coding, level, Some(body.len() as u64), &body.chunks(20_000).collect::<Vec<_>>());
            assert!(reference(coding, &coded) == (body.clone(), true), "{coding} {level}");
        }
    }
}

#[test]
fn a_wrong_announcement_does_no_harm() {
    let body = body(8, 200_000);
    for coding in Coding::ALL {
        for announced in [0, 1, 10, 199_999, 200_001, 1 << 40, u64::MAX] {
            let coded = coded(coding, 3, Some(announced), &[&body]);
            assert!(reference(coding, &coded) == (body.clone(), true), "{coding} {announced}");
        }
    }
}

#[test]
fn a_flush_brings_out_all_that_was_written_and_a_second_one_nothing() {
    let body = body(9, 50_000);
    for coding in Coding::ALL {
        for level in 0..=most_level(coding) {
            let (mut encoder, mut out) = (Encoder::new(coding, level, None).unwrap(), Vec::new());
            encoder.flush(&mut out).unwrap();
            assert!(out.is_empty(), "{coding} {level}");
            for end in [1, 2, 1000, 1001, 33_000, 50_000] {
                let start = reference(coding, &out).0.len();
                encoder.write(&body[start..end], &mut out).unwrap();
                encoder.flush(&mut out).unwrap();
                assert!(reference(coding, &out) == (body[..end].to_vec(), false), "{coding} {level}");
                let length = out.len();
                encoder.flush(&mut out).unwrap();
                assert_eq!(out.len(), length, "{coding} {level}");
            }
            encoder.finish(&mut out).unwrap();
            assert!(reference(coding, &out) == (body.clone(), true), "{coding} {level}");
        }
    }
}

/// Nor does a stream that was left in the middle.
#[test]
fn nothing_of_one_stream_gets_into_another() {
    let (secret, body) = (body(10, 90_000), body(11, 70_000));
    for coding in Coding::ALL {
        let expected = (0..=9).map(|level| coded(coding, level, None, &[&body])).collect::<Vec<_>>();
        for round in 0..40_u8 {
            let (mut abandoned, mut out) = (Encoder::new(coding, round % 10, Some(900)).unwrap(), Vec::new());
            abandoned.write(&secret[..usize::from(round) * 2000], &mut out).unwrap();
            if round % 3 == 0 {
                abandoned.flush(&mut out).unwrap();
            }
            drop(abandoned);
            let level = round % 7;
            assert!(coded(coding, level, None, &[&body]) == expected[usize::from(level)], "{coding} {level} {round}");
        }
    }
}

#[test]
fn a_length_fits_into_its_window() {
    for (length, log2) in [(0, 10), (1, 10), (1024, 10), (1025, 11), (4096, 12), (4097, 13), (u64::MAX, 20)] {
        assert_eq!(Length::Announced(length).log2(10..=20, 19), log2, "{length}");
    }
    assert_eq!(Length::Unknown.log2(10..=20, 19), 19);
}

#[test]
fn a_whole_body_in_pieces_is_as_good_as_in_one() {
    let body = body(12, 100_000);
    for coding in Coding::ALL {
        let pieces = body.chunks(7_000).map(Bytes::copy_from_slice).collect::<Vec<_>>();
        assert!(reference(coding, &encode_all(coding, 4, &pieces).unwrap()) == (body.clone(), true), "{coding}");
        let one = [Bytes::from(body.clone())];
        assert!(reference(coding, &encode_all(coding, 4, &one).unwrap()) == (body.clone(), true), "{coding}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_borders_and_flushes_the_body_comes_out_again(
        coding in prop::sample::select(&Coding::ALL[..]),
        level in 0..10_u8,
        seed: u64,
        length in 0..300_000_usize,
        most_piece in 1..100_000_usize,
        flushed: u8,
    ) {
        let (body, mut random) = (body(seed, length), fastrand::Rng::with_seed(seed));
        let announced = random.bool().then_some(length as u64);
        let (mut encoder, mut out) = (Encoder::new(coding, level, announced).unwrap(), Vec::new());
        let (mut at, mut pieces) = (0, 0);
        while at < length {
            // At most so many, else a body of single bytes takes its time.
            let piece = if pieces > 500 { length } else { random.usize(..=most_piece) }.min(length - at);
            encoder.write(&body[at..at + piece], &mut out).unwrap();
            (at, pieces) = (at + piece, pieces + 1);
            if random.u8(..) < flushed {
                encoder.flush(&mut out).unwrap();
                if pieces < 4 {
                    prop_assert_eq!(&reference(coding, &out).0, &body[..at]);
                }
            }
        }
        encoder.finish(&mut out).unwrap();
        prop_assert!(reference(coding, &out) == (body, true));
    }
}
