//! What was coded comes out again, and what was damaged, cut or blown up does not.

use brotli::enc::BrotliEncoderParams;
use proptest::prelude::*;

use super::*;
use crate::compress::encode::tests::{body, coded};

/// What comes out of these pieces.
fn decoded<'a>(coding: Coding, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, CodecError> {
    let (mut decoder, mut out) = (Decoder::new(coding)?, Vec::new());
    pieces.into_iter().try_for_each(|piece| decoder.write(piece, &mut out))?;
    decoder.finish().map(|()| out)
}

/// Checks what comes out, whether the body comes at once, byte by byte, or cut in two.
fn check(coding: Coding, body: &[u8], expected: Result<&[u8], CodecError>, what: &str) {
    let expected = expected.map(<[u8]>::to_vec);
    assert!(decoded(coding, [body]) == expected, "{coding} at once: {what}");
    assert!(decoded(coding, body.chunks(1)) == expected, "{coding} byte by byte: {what}");
    for cut in [1, 2, 5, 11, body.len() / 2, body.len() - 1] {
        let (one, other) = body.split_at(cut.min(body.len()));
        assert!(decoded(coding, [one, other]) == expected, "{coding} cut at {cut}: {what}");
    }
}

const TEXT: &[u8] = b"a text that is long enough that a text has a reason to be made smaller: a text, a text, a text";

fn text(coding: Coding) -> Vec<u8> {
    coded(coding, 5, None, &[TEXT])
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn what_was_coded_comes_out_again() {
    for coding in Coding::ALL {
        check(coding, &text(coding), Ok(TEXT), "a text");
        check(coding, &coded(coding, 5, None, &[]), Ok(b""), "an empty stream");
        check(coding, &coded(coding, 1, None, &[&body(1, 40_000)]), Ok(&body(1, 40_000)), "a longer one");
    }
}

#[test]
fn a_body_without_a_byte_is_an_empty_body() {
    for coding in Coding::ALL {
        assert_eq!(decoded(coding, []), Ok(Vec::new()), "{coding}");
        assert_eq!(decoded(coding, [&b""[..], b""]), Ok(Vec::new()), "{coding}");
    }
}

#[test]
fn a_body_that_is_cut_short_anywhere_is_an_error() {
    for coding in Coding::ALL {
        let whole = coded(coding, 5, None, &[&body(2, 3_000)]);
        for end in 1..whole.len() {
            assert_eq!(decoded(coding, [&whole[..end]]), Err(CodecError::Truncated(coding)), "{coding} {end}");
        }
    }
}

#[test]
fn bytes_behind_the_end_are_an_error() {
    for coding in Coding::ALL {
        // Fewer of them could be the beginning of another frame or member, and would be one that is cut short.
        for behind in [&b"and so on"[..], &[0xFF; 4]] {
            let body = joined(&[&text(coding), behind]);
            check(coding, &body, Err(CodecError::Malformed(coding)), "bytes behind the end");
        }
        assert!(decoded(coding, [&joined(&[&text(coding), b"x"])[..]]).is_err(), "{coding}");
    }
}

#[test]
fn zeros_behind_a_gzip_member_are_passed_over_and_nothing_else_is() {
    let text = text(Coding::Gzip);
    check(Coding::Gzip, &joined(&[&text, &[0; 700]]), Ok(TEXT), "padding");
    for behind in [&b"x"[..], &text] {
        let body = joined(&[&text, &[0; 7], behind]);
        check(Coding::Gzip, &body, Err(CodecError::Malformed(Coding::Gzip)), "bytes behind the padding");
    }
    for coding in [Coding::Br, Coding::Deflate] {
        check(coding, &joined(&[&self::text(coding), &[0]]), Err(CodecError::Malformed(coding)), "a zero");
    }
}

#[test]
fn the_members_of_a_gzip_file_are_one_body() {
    let (one, empty, two) =
        (text(Coding::Gzip), coded(Coding::Gzip, 9, None, &[]), coded(Coding::Gzip, 1, None, &[b"!"]));
    let expected = joined(&[TEXT, b"!", TEXT]);
    check(Coding::Gzip, &joined(&[&one, &empty, &two, &one]), Ok(&expected), "four members");
    for end in one.len() + 1..one.len() + two.len() {
        let body = joined(&[&one, &two]);
        assert_eq!(decoded(Coding::Gzip, [&body[..end]]), Err(CodecError::Truncated(Coding::Gzip)), "{end}");
    }
}

/// RFC 1952, section 2.3: a head with all that a head may have.
fn gzip_with_all_fields(spoil_head_checksum: bool) -> Vec<u8> {
    const FHCRC: u8 = 2;
    const FEXTRA: u8 = 4;
    const FNAME: u8 = 8;
    const FCOMMENT: u8 = 16;
    let mut head = vec![0x1F, 0x8B, 8, FHCRC | FEXTRA | FNAME | FCOMMENT, 1, 2, 3, 4, 0, 3];
    head.extend([6, 0, b'A', b'p', 2, 0, 9, 9]);
    head.extend(b"name.txt\0a comment\0");
    let mut checksum = flate2::Crc::new();
    checksum.update(&head);
    head.extend((checksum.sum() as u16 ^ u16::from(spoil_head_checksum)).to_le_bytes());
    head.extend(&text(Coding::Gzip)[10..]);
    head
}

#[test]
fn every_optional_field_of_a_gzip_head_is_read() {
    check(Coding::Gzip, &gzip_with_all_fields(false), Ok(TEXT), "all fields");
    let malformed = Err(CodecError::Malformed(Coding::Gzip));
    check(Coding::Gzip, &gzip_with_all_fields(true), malformed, "a wrong checksum of the head");
}

#[test]
fn a_wrong_checksum_or_length_is_an_error() {
    for (coding, from_the_end) in
        [(Coding::Gzip, 8), (Coding::Gzip, 4), (Coding::Gzip, 1), (Coding::Deflate, 4), (Coding::Deflate, 1)]
    {
        let mut body = text(coding);
        let at = body.len() - from_the_end;
        body[at] ^= 1;
        check(coding, &body, Err(CodecError::Malformed(coding)), "a wrong trailer");
    }
}

#[test]
fn deflate_is_read_with_and_without_a_frame() {
    let framed = text(Coding::Deflate);
    let bare = &framed[2..framed.len() - 4];
    check(Coding::Deflate, bare, Ok(TEXT), "bare");
    check(Coding::Deflate, &[3, 0], Ok(b""), "bare and empty");
    check(Coding::Deflate, &joined(&[bare, b"x"]), Err(CodecError::Malformed(Coding::Deflate)), "bare, and more");
    let with_dictionary = joined(&[&[0x78, 0xBB, 1, 2, 3, 4], &framed[2..]]);
    check(Coding::Deflate, &with_dictionary, Err(CodecError::Malformed(Coding::Deflate)), "a dictionary");
}

#[test]
fn frames_of_zstandard_are_one_body_and_some_are_skipped() {
    let (text, empty) = (text(Coding::Zstd), coded(Coding::Zstd, 1, None, &[]));
    let skipped = [&[0x5A, 0x2A, 0x4D, 0x18, 5, 0, 0, 0][..], b"hello"].concat();
    check(Coding::Zstd, &joined(&[&skipped, &text, &empty, &skipped, &text]), Ok(&joined(&[TEXT, TEXT])), "frames");
    check(Coding::Zstd, &skipped, Ok(b""), "nothing but a frame to be skipped");
    let truncated = Err(CodecError::Truncated(Coding::Zstd));
    check(Coding::Zstd, &skipped[..skipped.len() - 1], truncated, "a cut frame to be skipped");
}

#[test]
fn the_formats_before_zstandard_are_not_read() {
    for last in 0x22..0x28 {
        let body = [&[last, 0xB5, 0x2F, 0xFD][..], &text(Coding::Zstd)[4..]].concat();
        check(Coding::Zstd, &body, Err(CodecError::Malformed(Coding::Zstd)), "another magic number");
    }
}

#[test]
fn a_window_of_zstandard_beyond_8_mib_is_refused() {
    // RFC 8878, section 3.1.1.1: no checksum, no content size; window; then a block of one byte, the last one.
    let frame = |window_log: u8| [0x28, 0xB5, 0x2F, 0xFD, 0, (window_log - 10) << 3, 0b1001, 0, 0, b'x'];
    check(Coding::Zstd, &frame(23), Ok(b"x"), "8 MiB");
    check(Coding::Zstd, &frame(24), Err(CodecError::Malformed(Coding::Zstd)), "16 MiB");
    check(Coding::Zstd, &frame(31), Err(CodecError::Malformed(Coding::Zstd)), "2 GiB");
}

#[test]
fn a_large_window_of_brotli_is_refused() {
    for (large_window, lgwin, expected) in [(false, 24, Ok(TEXT)), (true, 26, Err(CodecError::Malformed(Coding::Br)))] {
        let (parameters, mut body) = (BrotliEncoderParams { large_window, lgwin, ..Default::default() }, Vec::new());
        brotli::BrotliCompress(&mut &TEXT[..], &mut body, &parameters).unwrap();
        check(Coding::Br, &body, expected, "a window");
    }
}

/// The head of a frame of Zstandard with a window of 128 KiB, and a block that says "128 KiB of this byte" (RFC 8878,
/// section 3.1.1).
const ZSTD_FRAME: [u8; 6] = [0x28, 0xB5, 0x2F, 0xFD, 0, 7 << 3];
const ZSTD_128_KIB: [u8; 4] = [0x02, 0x00, 0x10, b'0'];

/// Feeds one piece again and again until it is refused, which must happen within the bounds.
fn blow_up(coding: Coding, begin: &[u8], again: &[u8]) {
    let (mut decoder, mut out) = (Decoder::new(coding).unwrap(), Vec::new());
    decoder.write(begin, &mut out).unwrap();
    let mut fed = begin.len();
    let error = loop {
        fed += again.len();
        assert!(fed < 4 << 20, "{coding}: {} bytes came out", out.len());
        if let Err(error) = decoder.write(again, &mut out) {
            break error;
        }
    };
    assert_eq!(error, CodecError::Bomb(coding));
    let most = (fed as u64 * MOST_GROWTH).max(MOST_FREE);
    assert!(out.len() as u64 <= most, "{coding}: {} of {fed}", out.len());
    assert!(out.len() as u64 > most / 2, "{coding}: {} of {fed}", out.len());
}

#[test]
fn a_bomb_is_refused_before_it_fills_the_memory() {
    let zeros = vec![0; 1 << 20];
    blow_up(Coding::Gzip, &[], &coded(Coding::Gzip, 9, None, &[&zeros]));
    // 32 in a piece: 32,000 times its size.
    blow_up(Coding::Zstd, &ZSTD_FRAME, &ZSTD_128_KIB.repeat(32));
    // At once: 10 GiB in 320 KiB.
    let whole = [&ZSTD_FRAME[..], &ZSTD_128_KIB.repeat(80 << 10)].concat();
    let (mut decoder, mut out) = (Decoder::new(Coding::Zstd).unwrap(), Vec::new());
    assert_eq!(decoder.write(&whole, &mut out), Err(CodecError::Bomb(Coding::Zstd)));
    assert!(out.len() as u64 <= whole.len() as u64 * MOST_GROWTH);
}

/// A frame without an end whose blocks hold these bytes as they are.
fn zstd_as_it_is(bytes: &[u8]) -> Vec<u8> {
    let blocks = bytes.chunks(128 << 10).map(|block| [&((block.len() as u32) << 3).to_le_bytes()[..3], block].concat());
    [&ZSTD_FRAME[..], &blocks.collect::<Vec<_>>().concat()].concat()
}

#[test]
fn a_bomb_behind_what_was_harmless_is_refused_as_early() {
    let harmless = vec![b'1'; 25 << 20];
    let (mut decoder, mut out) = (Decoder::new(Coding::Zstd).unwrap(), Vec::new());
    for piece in zstd_as_it_is(&harmless).chunks(64 << 10) {
        decoder.write(piece, &mut out).unwrap();
        out.clear();
    }
    // 64 KiB that would be 2 GiB, of the 2.6 GB that a hundred times the whole would be.
    let piece = ZSTD_128_KIB.repeat(16 << 10);
    assert_eq!(decoder.write(&piece, &mut out), Err(CodecError::Bomb(Coding::Zstd)));
    assert!(out.len() as u64 <= MOST_FREE + MOST_GROWTH * piece.len() as u64, "{} bytes came out", out.len());
}

#[test]
fn what_many_small_pieces_give_is_bounded_together() {
    let (mut decoder, mut out) = (Decoder::new(Coding::Zstd).unwrap(), Vec::new());
    decoder.write(&zstd_as_it_is(&vec![b'0'; 2 << 20]), &mut out).unwrap();
    out.clear();
    let refused = (1..).find(|_| decoder.write(&ZSTD_128_KIB, &mut out).is_err()).unwrap();
    assert!(out.len() as u64 <= MOST_FREE + MOST_GROWTH * 4 * refused, "{} bytes of {refused} pieces", out.len());
}

#[test]
fn what_is_blown_up_no_more_than_a_hundred_times_comes_through_in_whatever_pieces() {
    // 1,330 bytes as they are, then 128 KiB in four: 99 times what they take, for 40 MiB.
    let block = [&(1330_u32 << 3).to_le_bytes()[..3], &[b'1'; 1330], &ZSTD_128_KIB].concat();
    let body = [&ZSTD_FRAME[..], &block.repeat(320)].concat();
    for piece in [7, 1000, 64 << 10, body.len()] {
        let (mut decoder, mut out) = (Decoder::new(Coding::Zstd).unwrap(), Vec::new());
        body.chunks(piece).for_each(|piece| decoder.write(piece, &mut out).unwrap());
        assert_eq!(out.len(), 320 * ((128 << 10) + 1330), "in pieces of {piece}");
    }
}

#[test]
fn pieces_without_a_byte_do_no_harm() {
    for coding in Coding::ALL {
        let text = text(coding);
        for cut in [0, 5, text.len() / 2, text.len()] {
            let (begin, rest) = text.split_at(cut);
            let pieces = [begin].into_iter().chain([&b""[..]; 40]).chain([rest]);
            assert_eq!(decoded(coding, pieces).as_deref(), Ok(TEXT), "{coding} {cut}");
        }
    }
}

#[test]
fn a_bomb_in_one_stream_is_refused_too() {
    for coding in [Coding::Deflate, Coding::Br] {
        let bomb = coded(coding, 5, None, &[&[0; 1 << 20][..]; 11]);
        assert!(bomb.len() < 20_000, "{coding}");
        let (mut decoder, mut out) = (Decoder::new(coding).unwrap(), Vec::new());
        assert_eq!(decoder.write(&bomb, &mut out), Err(CodecError::Bomb(coding)));
        assert!(out.len() as u64 <= MOST_FREE, "{coding}");
    }
}

#[test]
fn ten_mib_are_let_through_whatever_they_were_made_of() {
    let body = coded(Coding::Gzip, 5, None, &[&[0; 1 << 20][..]; 10]);
    assert_eq!(decoded(Coding::Gzip, [&body[..]]).map(|out| out.len() as u64), Ok(MOST_FREE));
}

#[test]
fn a_limit_is_kept_to_the_byte() {
    for coding in Coding::ALL {
        for (limit, expected) in [
            (TEXT.len(), Ok(())),
            (TEXT.len() - 1, Err(CodecError::TooLarge(coding, TEXT.len() as u64 - 1))),
            (0, Err(CodecError::TooLarge(coding, 0))),
        ] {
            let (decoder, mut out) = (Decoder::new(coding).unwrap(), Vec::new());
            let mut decoder = decoder.limited(Some(limit as u64));
            assert_eq!(decoder.write(&text(coding), &mut out), expected, "{coding} {limit}");
            assert!(out.len() <= limit, "{coding} {limit}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_the_borders_the_body_comes_out_again(
        coding in prop::sample::select(&Coding::ALL[..]),
        level in 0..8_u8,
        seed: u64,
        length in 0..200_000_usize,
        piece in 1..20_000_usize,
    ) {
        let body = body(seed, length);
        let coded = coded(coding, level, Some(length as u64), &[&body]);
        let out = decoded(coding, coded.chunks(piece.max(coded.len() / 1000)));
        prop_assert!(out.as_ref() == Ok(&body));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_damage_makes_it_panic_or_grow(
        coding in prop::sample::select(&Coding::ALL[..]),
        seed: u64,
        length in 0..5_000_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        piece in 1..6_000_usize,
    ) {
        let mut coded = coded(coding, 4, None, &[&body(seed, length)]);
        for (at, byte) in damage {
            let at = at.index(coded.len());
            coded[at] = byte;
        }
        let (mut decoder, mut out) = (Decoder::new(coding).unwrap(), Vec::new());
        for piece in coded.chunks(piece) {
            if decoder.write(piece, &mut out).is_err() {
                break;
            }
        }
        prop_assert!(out.len() as u64 <= MOST_FREE);
    }

    #[test]
    fn no_noise_makes_it_panic_or_grow(
        coding in prop::sample::select(&Coding::ALL[..]),
        noise in prop::collection::vec(any::<u8>(), 0..300),
        with_a_head: bool,
    ) {
        let head = if with_a_head { text(coding)[..6].to_vec() } else { Vec::new() };
        let (mut decoder, mut out) = (Decoder::new(coding).unwrap(), Vec::new());
        let _ = decoder.write(&joined(&[&head, &noise]), &mut out);
        prop_assert!(out.len() as u64 <= MOST_FREE);
    }
}
