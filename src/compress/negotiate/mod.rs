//! Which codings does a client read, and which of them does it like best? (RFC 9110, section 12.5.3)
//!
//! Whatever a field says, this neither fails nor refuses: a member that cannot be read is one that the client does not
//! want, and where nothing suits, an answer goes out as it is (406 is allowed there, and helps nobody). It takes one
//! pass over the field and no memory. Whether an answer is coded at all is for [`super::rules`].

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use crate::config::Coding;

/// What a request says about codings, with weights in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Accepted {
    /// As in [`Coding::ALL`]; `None` is not named.
    codings: [Option<u16>; 4],
    /// `*`, which is all that is not named.
    others: Option<u16>,
    /// `identity`, which may be sent unless it is refused.
    identity: Option<u16>,
}

impl Accepted {
    /// What these fields say, in as many lines as they like. Without the field it is what an empty one says: a client
    /// that does not say what it reads hardly reads more than it could say, although we might send it anything.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        for line in headers.get_all(ACCEPT_ENCODING) {
            line.as_bytes().split(|byte| *byte == b',').for_each(|member| accepted.take(member));
        }
        accepted
    }

    /// The coding to send: of those that are offered, the one with the highest weight, and of equals the one that is
    /// offered first. `None` is `identity`: none of them is read, or the client says that it likes `identity` better.
    pub fn best(&self, offered: &[Coding]) -> Option<Coding> {
        let mut best = None;
        let mut most = 0;
        for coding in offered {
            let weight = self.weight(*coding);
            if weight > most {
                (best, most) = (Some(*coding), weight);
            }
        }
        // `*` is about what the client does not know by name; that it likes no coding best is something to be said.
        best.filter(|_| self.identity.is_none_or(|identity| identity <= most))
    }

    /// Whether an answer that is in this coding may be sent as it is. Without the field it may not, since the client is
    /// hardly able to read it; where RFC 9110 says that it may, a script that prints noise is no help.
    pub fn reads(&self, coding: Coding) -> bool {
        self.weight(coding) > 0
    }

    fn weight(&self, coding: Coding) -> u16 {
        self.codings[place(coding)].or(self.others).unwrap_or(0)
    }

    fn take(&mut self, member: &[u8]) {
        let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let weight = weight(parts);
        if name == b"*" {
            lower(&mut self.others, weight);
        } else if name.eq_ignore_ascii_case(b"identity") {
            lower(&mut self.identity, weight);
        } else if let Some(coding) = known(name) {
            // A weight that cannot be read is that of a client that had better not get this coding.
            lower(&mut self.codings[place(coding)], Some(weight.unwrap_or(0)));
        }
    }
}

/// The coding of this name; `x-gzip` is an old one of `gzip` (RFC 9110, section 8.4.1.3).
pub(super) fn known(name: &[u8]) -> Option<Coding> {
    if name.eq_ignore_ascii_case(b"x-gzip") {
        return Some(Coding::Gzip);
    }
    Coding::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()))
}

fn place(coding: Coding) -> usize {
    match coding {
        Coding::Zstd => 0,
        Coding::Br => 1,
        Coding::Gzip => 2,
        Coding::Deflate => 3,
    }
}

/// What is named twice has the lower weight: what was refused once is not sent.
fn lower(known: &mut Option<u16>, weight: Option<u16>) {
    if let Some(weight) = weight {
        *known = Some(known.map_or(weight, |known| known.min(weight)));
    }
}

/// The weight among a member's parameters, 1000 without one; `None` if it cannot be read or stands there twice. Other
/// parameters mean nothing here.
fn weight<'a>(parameters: impl Iterator<Item = &'a [u8]>) -> Option<u16> {
    let mut weight = None;
    for parameter in parameters {
        let mut halves = parameter.splitn(2, |byte| *byte == b'=');
        let name = halves.next().unwrap_or_default().trim_ascii_end();
        if name.eq_ignore_ascii_case(b"q") {
            let read = thousandths(halves.next()?)?;
            if weight.replace(read).is_some() {
                return None;
            }
        }
    }
    Some(weight.unwrap_or(1000))
}

/// `0`, `0.5`, `1.000`: at most three decimals, and nothing above 1 (RFC 9110, section 12.4.2).
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text {
        [whole] | [whole, b'.'] => (*whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (*whole, decimals),
        _ => return None,
    };
    let mut value = u16::from(whole.checked_sub(b'0').filter(|digit| *digit <= 1)?);
    for index in 0..3 {
        let digit = decimals.get(index).copied().unwrap_or(b'0');
        value = value * 10 + u16::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?);
    }
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests;
