//! Tests of what the module of one answer lets out, and when.

use super::*;
use crate::config::Coding;

/// An answer's module, as Pingora has it.
struct Answer(HttpModuleCtx);

impl Answer {
    fn new(order: Order) -> Self {
        Self(modules(order))
    }

    fn with(coding: Coding, pauses: bool) -> Self {
        Self::new(Order::Encode(Encoding { coding, level: 5, length: None, pauses }))
    }

    fn encoding(coding: Coding) -> Self {
        Self::with(coding, true)
    }

    /// Pieces that come together; what leaves in place of each.
    fn pieces(&mut self, pieces: &[&'static str]) -> Vec<Option<Bytes>> {
        pieces.iter().for_each(|_| self.0.get_mut::<Recoder>().unwrap().announce());
        pieces.iter().map(|piece| self.piece(piece, false)).collect()
    }

    fn piece(&mut self, piece: &'static str, end: bool) -> Option<Bytes> {
        let mut body = Some(Bytes::from_static(piece.as_bytes()));
        self.0.response_body_filter(&mut body, end).unwrap();
        body
    }

    fn outcome(&self) -> Outcome {
        self.0.get::<Recoder>().unwrap().outcome().unwrap()
    }
}

fn encoded(coding: Coding, text: &'static str) -> Vec<u8> {
    Answer::encoding(coding).piece(text, true).unwrap().to_vec()
}

/// Reads what there is so far, as a client does.
struct Reader(Decoder, Vec<u8>);

impl Reader {
    fn new(coding: Coding) -> Self {
        Self(Decoder::new(coding).unwrap(), Vec::new())
    }

    fn read(&mut self, pieces: impl IntoIterator<Item = Option<Bytes>>) -> &str {
        for piece in pieces.into_iter().flatten() {
            self.0.write(&piece, &mut self.1).unwrap();
        }
        std::str::from_utf8(&self.1).unwrap()
    }
}

#[test]
fn what_has_come_is_let_out_at_each_pause_and_not_before() {
    for coding in Coding::ALL {
        let (mut answer, mut reader) = (Answer::encoding(coding), Reader::new(coding));
        let together = answer.pieces(&["one, ", "two, ", "three. "]);
        let early: usize = together[..2].iter().flatten().map(Bytes::len).sum();
        assert!(early <= 12, "{coding}: a head at most, not {early} bytes");
        assert_eq!(reader.read(together), "one, two, three. ", "{coding}");
        assert_eq!(reader.read(answer.pieces(&["four. "])), "one, two, three. four. ", "{coding}");
        assert_eq!(reader.read([answer.piece("five.", true)]), "one, two, three. four. five.", "{coding}");
        reader.0.finish().unwrap();
    }
}

#[tokio::test]
async fn a_piece_that_takes_long_ends_the_turn_of_its_task() {
    let mut answer = Answer::encoding(Coding::Gzip);
    answer.piece(String::leak("Some words. ".repeat(200_000)), false);
    assert!(!has_budget_remaining());
    tokio::task::yield_now().await;
    assert!(has_budget_remaining(), "and the next one is whole");
}

#[test]
fn what_was_done_ahead_leaves_as_if_it_were_done_now() {
    for coding in Coding::ALL {
        let all: [&'static str; 3] = ["one, ", "two, ", "three."];
        let mut now = Answer::encoding(coding);
        let mut left = now.pieces(&all[..2]);
        left.push(now.piece(all[2], true));
        let mut early = Answer::encoding(coding);
        let recoder = early.0.get_mut::<Recoder>().unwrap();
        recoder.announce();
        recoder.announce();
        let pieces = all.map(|piece| Some(Bytes::from_static(piece.as_bytes())));
        recoder.work_ahead(pieces.iter().zip([false, false, true]));
        // Nothing is asked of the pieces themselves any more.
        assert_eq!(["", "", ""].map(|nothing| early.piece(nothing, false)).to_vec(), left, "{coding}");
        assert_eq!(early.outcome().after, now.outcome().after);
    }
}

#[test]
fn long_is_what_takes_longer_than_a_turn() {
    let takes = |length, bytes| {
        let mut answer = Answer::new(Order::Encode(Encoding { coding: Coding::Br, level: 4, length, pauses: true }));
        answer.0.get_mut::<Recoder>().unwrap().takes_long(bytes)
    };
    assert!(takes(None, 64 << 10) && takes(Some(1 << 20), 64 << 10));
    assert!(!takes(None, 4 << 10) && !takes(Some(64 << 10), 64 << 10), "a short piece, or a short body");
}

#[test]
fn what_is_all_there_has_no_pauses() {
    let mut answer = Answer::with(Coding::Gzip, false);
    let early: usize = answer.pieces(&["one, ", "two."]).iter().flatten().map(Bytes::len).sum();
    assert!(early <= 12, "{early}");
    let mut reader = Reader::new(Coding::Gzip);
    let mut whole = Answer::with(Coding::Gzip, false);
    let pieces = [whole.piece("one, ", false), whole.piece("two.", true)];
    assert_eq!(reader.read(pieces), "one, two.");
    reader.0.finish().unwrap();
}

#[test]
fn every_way_to_end_ends_the_stream_once() {
    for coding in Coding::ALL {
        for by_trailers in [false, true] {
            let (mut answer, mut reader) = (Answer::encoding(coding), Reader::new(coding));
            let first = answer.piece("text", false);
            let last = match by_trailers {
                true => {
                    let mut trailers = Some(Box::new(HeaderMap::new()));
                    let last = answer.0.response_trailer_filter(&mut trailers).unwrap();
                    assert_eq!(trailers, None, "{coding}: they are true of another body");
                    last
                }
                false => answer.0.response_done_filter().unwrap(),
            };
            assert_eq!(reader.read([first, last]), "text", "{coding}");
            reader.0.finish().unwrap();
            assert_eq!(answer.0.response_done_filter().unwrap(), None, "{coding}: it has ended");
        }
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_its_head_has_no_coding() {
    for (status, coded) in [(200, false), (103, true)] {
        let mut answer = Answer::encoding(Coding::Gzip);
        let mut head = ResponseHeader::build(status, None).unwrap();
        head.insert_header(CONTENT_ENCODING, "gzip").unwrap();
        head.insert_header(TRANSFER_ENCODING, "chunked").unwrap();
        answer.0.response_header_filter(&mut head, true).await.unwrap();
        assert_eq!(head.headers.contains_key(CONTENT_ENCODING), coded, "{status}");
        assert_eq!(head.headers.contains_key(TRANSFER_ENCODING), coded, "{status}");
        assert_eq!(head.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0"), !coded, "{status}");
        assert_eq!(answer.0.response_done_filter().unwrap().is_some(), coded, "{status}");
        assert_eq!(answer.0.get::<Recoder>().unwrap().outcome().is_some(), coded, "{status}: nothing was recoded");
    }
    let mut answer = Answer::encoding(Coding::Gzip);
    let mut head = ResponseHeader::build(200, None).unwrap();
    head.insert_header(CONTENT_ENCODING, "gzip").unwrap();
    answer.0.response_header_filter(&mut head, false).await.unwrap();
    assert!(head.headers.contains_key(CONTENT_ENCODING));
}

#[test]
fn what_cannot_be_decoded_is_an_error_of_the_backend() {
    let text = "a text that has some length, some length";
    for coding in Coding::ALL {
        let whole = encoded(coding, text);
        let mut answer = Answer::new(Order::Decode(coding));
        let mut body = Some(Bytes::from(whole.clone()));
        answer.0.response_body_filter(&mut body, true).unwrap();
        assert_eq!(body.as_deref(), Some(text.as_bytes()), "{coding}");

        let mut damaged = vec![0xff; 64];
        damaged[..4].copy_from_slice(&whole[..4]);
        for bytes in [whole[..whole.len() - 1].to_vec(), damaged] {
            let mut answer = Answer::new(Order::Decode(coding));
            let error = answer.0.response_body_filter(&mut Some(bytes.into()), true).unwrap_err();
            assert_eq!(*error.esource(), pingora::ErrorSource::Upstream, "{coding}");
        }
    }
}

#[test]
fn what_was_done_is_counted() {
    let mut answer = Answer::encoding(Coding::Zstd);
    let sent = [answer.piece("some text", false), answer.piece(" and more", true)];
    let sent: usize = sent.iter().flatten().map(Bytes::len).sum();
    let outcome = answer.outcome();
    assert_eq!((outcome.work, outcome.before, outcome.after), (Work::Encode(Coding::Zstd), 18, sent as u64));
    assert!(outcome.took > std::time::Duration::ZERO);
}

#[test]
fn what_was_encoded_before_leaves_in_the_place_of_what_comes() {
    let stored: &[&[u8]] = &[b"first", b"second", b"third"];
    let cases: [(&[&str], &[&str]); 4] = [
        (&["a", "b", "c", "d"], &["first", "second", "third", ""]),
        (&["a", "", "c"], &["first", "", "secondthird"]),
        (&["a"], &["firstsecondthird"]),
        (&["a", "b", "c"], &["first", "second", "third"]),
    ];
    for (pieces, expected) in cases {
        let stored = stored.iter().map(|piece| Bytes::from_static(piece)).collect();
        let took = Duration::from_secs(7);
        let mut answer = Answer::new(Order::Replace { coding: Coding::Zstd, pieces: stored, took });
        let last = pieces.len() - 1;
        let sent: Vec<Bytes> = pieces
            .iter()
            .enumerate()
            .map(|(index, piece)| {
                let mut body = Some(Bytes::from(piece.to_string()));
                answer.0.response_body_filter(&mut body, index == last).unwrap();
                body.unwrap_or_default()
            })
            .collect();
        assert_eq!(sent, expected, "{pieces:?}");
        let outcome = answer.outcome();
        assert_eq!((outcome.work, outcome.after), (Work::Encode(Coding::Zstd), 16));
        assert!(outcome.took >= took, "who encoded it for this answer has said how long that took");
    }
}
