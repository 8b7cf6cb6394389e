//! How does something stored leave in a coding? As it was encoded before, for everybody.
//!
//! What is small is encoded for the first who asks, who waits for it a moment. What is not is encoded beside the requests,
//! in its own time: no client is waited for, and none waits. Those who come meanwhile have it encoded in passing.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::cache::store::{Coded, CodedFilling, Object};
use crate::compress::encode::encode_all;
use crate::compress::{CodecError, Encoder, Level};
use crate::config::Coding;
use crate::proxy::exchange::Exchange;

/// The largest body that a client waits for, in bytes: at the levels that are fast it is a millisecond or two.
const AT_ONCE: usize = 64 << 10;

impl Exchange {
    /// What a stored body is in a coding; where nobody knows, that is seen to, for this client or for those after it.
    pub(super) fn stored_form(&self, object: &Arc<Object>, coding: Coding, level: Level) -> Coded {
        let known = object.coded(coding);
        // What is made in a hurry is not worth keeping.
        if !matches!(known, Coded::Unknown) || level.now < level.asked {
            return known;
        }
        let small = object.body_in_one_piece().filter(|body| body.len() <= AT_ONCE && !level.is_slow(coding));
        if let Some(body) = small {
            if let Some(filling) = self.claim(object, coding) {
                encode_small(filling, coding, level.asked, &body);
            }
        } else if let Some(permit) = self.workshop.try_work()
            && let Some(filling) = self.claim(object, coding)
            && let Some(pieces) = object.pieces()
        {
            spawn_blocking(move || {
                // What cannot be encoded is sent as it is, as it was before.
                let _ = encode_large(filling, coding, level.asked, &pieces);
                drop(permit);
            });
        }
        object.coded(coding)
    }

    fn claim(&self, object: &Arc<Object>, coding: Coding) -> Option<CodedFilling> {
        self.store()?.claim_coding(object, coding)
    }
}

fn encode_small(mut filling: CodedFilling, coding: Coding, level: u8, body: &Bytes) {
    if let Ok(encoded) = encode_all(coding, level, &[body])
        && filling.write(&encoded)
    {
        filling.finish();
    }
}

/// Piece by piece, so that what there is of it is accounted for, and nothing is done in vain.
fn encode_large(mut filling: CodedFilling, coding: Coding, level: u8, pieces: &[Bytes]) -> Result<(), CodecError> {
    let length = pieces.iter().map(|piece| piece.len() as u64).sum();
    let mut encoder = Encoder::new(coding, level, Some(length))?;
    let mut out = Vec::new();
    for piece in pieces {
        encoder.write(piece, &mut out)?;
        if !filling.write(&out) {
            return Ok(());
        }
        out.clear();
    }
    encoder.finish(&mut out)?;
    if filling.write(&out) {
        filling.finish();
    }
    Ok(())
}
