//! What does a coding cost, and what does it save? Each level with a small and a larger JSON and a long text, by states
//! that are made anew and by those that are kept; and what it costs to read each again.
//!
//! Run with `cargo bench --bench codec`. MB/s are of the body as it was before, on one core; the ratio is the body's size
//! by the coded one's. The bodies are made of the same numbers on each run: keys that come again, values that do not,
//! words as often as languages have them, where some follow others.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and may stop at once")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use portcullis::compress::decode::Decoder;
use portcullis::compress::encode::Encoder;
use portcullis::config::Coding;

const LONG_ENOUGH: Duration = Duration::from_millis(150);

/// As a body comes from a backend.
const PIECE: usize = 32 << 10;

fn main() {
    let bodies = [("2 KiB JSON", json(2 << 10)), ("32 KiB JSON", json(32 << 10)), ("1 MiB text", text(1 << 20))];
    println!(
        "{:8} {:>5} {:>12} {:>10} {:>10} {:>7} {:>10}",
        "coding", "level", "body", "new MB/s", "kept MB/s", "ratio", "read MB/s"
    );
    for (coding, levels) in [
        (Coding::Gzip, &[1, 2, 3, 4, 5, 6, 9][..]),
        (Coding::Zstd, &[1, 2, 3, 4, 5, 6, 9, 15, 19]),
        (Coding::Br, &[0, 1, 2, 3, 4, 5, 6, 9, 11]),
    ] {
        for (name, body) in &bodies {
            levels.iter().for_each(|level| measure(coding, *level, name, body));
        }
    }
}

fn measure(coding: Coding, level: u8, name: &str, body: &[u8]) {
    let mut out = Vec::with_capacity(body.len() + 4096);
    let encode = |out: &mut Vec<u8>| {
        out.clear();
        let mut encoder = Encoder::new(coding, level, Some(body.len() as u64)).unwrap();
        body.chunks(PIECE).for_each(|piece| encoder.write(piece, out).unwrap());
        encoder.finish(out).unwrap();
    };
    // A stream that is left in the middle takes the kept state with it.
    let anew = per_body(|| encode(&mut out), || drop(Encoder::new(coding, level, None)));
    let kept = per_body(|| encode(&mut out), || ());
    let mut plain = Vec::with_capacity(body.len() + 4096);
    let read = per_body(|| decode(coding, &out, &mut plain), || ());
    let rate = |seconds: f64| body.len() as f64 / seconds / 1e6;
    let ratio = body.len() as f64 / out.len() as f64;
    let (anew, kept, read) = (rate(anew), rate(kept), rate(read));
    println!("{:8} {level:>5} {name:>12} {anew:>10.1} {kept:>10.1} {ratio:>7.2} {read:>10.1}", coding.name());
}

fn decode(coding: Coding, coded: &[u8], plain: &mut Vec<u8>) {
    plain.clear();
    let mut decoder = Decoder::new(coding).unwrap();
    coded.chunks(PIECE).for_each(|piece| decoder.write(piece, plain).unwrap());
    decoder.finish().unwrap();
    black_box(plain);
}

/// The median of what one takes; `between` is not counted.
fn per_body(mut one: impl FnMut(), mut between: impl FnMut()) -> f64 {
    one();
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < LONG_ENOUGH || times.len() < 3 {
        between();
        let begin = Instant::now();
        one();
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A list of orders, cut where it is long enough.
fn json(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(5);
    let words = words(&mut random);
    let mut out = String::from("{\"orders\":[");
    while out.len() < length {
        order(&mut random, &words, &mut out);
    }
    out.truncate(length);
    out.into_bytes()
}

fn order(random: &mut fastrand::Rng, words: &[String], out: &mut String) {
    let (id, number, total) = (random.u128(..), random.u32(100_000..1_000_000), random.f64() * 900.0);
    let (first, last, city) = (often(random, words), often(random, words), often(random, words));
    let status = ["open", "paid", "shipped", "returned"][rank(random, 4)];
    let (month, day, hour, milli) = (random.u8(1..13), random.u8(1..29), random.u8(..24), random.u32(..3_600_000));
    let (minute, second, milli) = (milli / 60_000, milli / 1000 % 60, milli % 1000);
    *out += &format!(
        "{{\"id\":\"{id:032x}\",\"number\":{number},\"status\":\"{status}\",\"created_at\":\"2026-{month:02}-{day:02}T\
         {hour:02}:{minute:02}:{second:02}.{milli:03}Z\",\"customer\":{{\"name\":\"{first} {last}\",\"email\":\"{first}.\
         {last}@example.com\",\"city\":\"{city}\"}},\"total\":{total:.2},\"currency\":\"EUR\",\"items\":["
    );
    for at in 0..random.usize(1..5) {
        let comma = if at > 0 { "," } else { "" };
        let (name, number, price) = (often(random, words), random.u16(..10_000), random.f64() * 300.0);
        let quantity = 1 + rank(random, 9);
        *out += &format!(
            "{comma}{{\"sku\":\"{name}-{number}\",\"quantity\":{quantity},\"price\":{price:.2},\"note\":null}}"
        );
    }
    *out += "]},";
}

/// Sentences and paragraphs, cut where they are long enough.
fn text(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(6);
    let words = words(&mut random);
    let (mut out, mut last) = (String::new(), 0_usize);
    while out.len() < length {
        // Most words are followed by few others.
        last = match random.u8(..10) {
            0..6 => last.wrapping_mul(2_654_435_761).wrapping_add(rank(&mut random, 8) * 7919) % words.len(),
            _ => rank(&mut random, words.len()),
        };
        out += &words[last];
        out += match random.u8(..120) {
            0..6 => ". ",
            6..14 => ", ",
            14 => ".\n\n",
            15..24 => "\n",
            _ => " ",
        };
    }
    out.truncate(length);
    out.into_bytes()
}

fn words(random: &mut fastrand::Rng) -> Vec<String> {
    const BEGIN: &[&str] =
        &["t", "s", "c", "p", "m", "d", "r", "b", "f", "l", "w", "h", "n", "st", "pr", "th", "ch", "gr", "v", ""];
    const MIDDLE: &[&str] = &["e", "a", "o", "i", "u", "ea", "ou", "io", "ai"];
    const END: &[&str] = &["", "n", "r", "s", "t", "l", "nd", "ng", "st", "ck", "m", "ly", "tion", "er", "ed"];
    let syllables = |at: usize| if at < 100 { 1..2 } else { 1..4 };
    let mut word = |at: usize| {
        let mut word = String::new();
        for _ in 0..random.usize(syllables(at)) {
            word += BEGIN[rank(random, BEGIN.len())];
            word += MIDDLE[rank(random, MIDDLE.len())];
        }
        word + END[rank(random, END.len())]
    };
    (0..6000).map(&mut word).collect()
}

fn often<'a>(random: &mut fastrand::Rng, words: &'a [String]) -> &'a str {
    &words[rank(random, words.len())]
}

/// A low number oftener than a high one, as words are used (Zipf's law).
fn rank(random: &mut fastrand::Rng, count: usize) -> usize {
    (((count + 1) as f64).powf(random.f64()) as usize - 1).min(count - 1)
}
