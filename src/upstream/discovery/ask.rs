//! What does DNS say, and for how long does that hold? A resolver's client: one question, one answer, over UDP and where
//! that is too small over TCP (RFC 1035, RFC 7766).
//!
//! The system's resolver tells no TTL and knows no SRV records, so names that backends are discovered by are asked for
//! here. It asks the servers of `/etc/resolv.conf` in turn, completes names as that file says, and caches nothing.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::{OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

/// What fits into one datagram on nearly every way (RFC 9715).
const DATAGRAM: u16 = 1232;

/// Where the system keeps its resolver's settings.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why a question got no answer.
#[derive(Debug, Error)]
pub enum Unanswered {
    /// There is no such name.
    #[error("there is no such name")]
    NoName,
    /// No server gave an answer; this is what the last one did.
    #[error("{0}")]
    Failed(String),
}

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Record {
    /// An address.
    Address(IpAddr),
    /// A service (RFC 2782).
    Service {
        /// The lowest is asked first.
        priority: u16,
        /// Among those of one priority.
        weight: u16,
        /// Where it listens.
        port: u16,
        /// The name of its host.
        target: String,
    },
}

/// The records of one answer, and for how long they hold.
pub type Answer = (BTreeSet<Record>, Duration);

/// The servers that are asked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    addresses: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with so many dots is tried as it is first.
    dots: usize,
    timeout: Duration,
    attempts: usize,
}

impl Servers {
    /// Those of the system, as its file says now.
    pub fn of_system() -> io::Result<Self> {
        Ok(Self::read(&std::fs::read_to_string(RESOLV_CONF)?))
    }

    /// This one alone.
    pub fn only(address: SocketAddr) -> Self {
        Self { addresses: vec![address], ..Self::read("") }
    }

    /// The text of a `resolv.conf`. Numbers are bounded as in the C library, and less patient: nobody waits for us.
    fn read(text: &str) -> Self {
        let mut servers =
            Self { addresses: Vec::new(), search: Vec::new(), dots: 1, timeout: Duration::from_secs(2), attempts: 2 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone, as in `fe80::1%eth0`, needs what std does not know.
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    servers.addresses.extend(address.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => {
                    servers.search = words.take(6).map(|word| word.trim_end_matches('.').to_owned()).collect();
                }
                Some("options") => words.for_each(|word| servers.option(word)),
                Some(_) | None => {}
            }
        }
        servers.addresses.truncate(3);
        if servers.addresses.is_empty() {
            servers.addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
        }
        servers
    }

    fn option(&mut self, word: &str) {
        let Some((key, value)) = word.split_once(':') else { return };
        let Ok(number) = value.parse::<usize>() else { return };
        match key {
            "ndots" => self.dots = number.min(15),
            "timeout" => self.timeout = Duration::from_secs(number.clamp(1, 5) as u64),
            "attempts" => self.attempts = number.clamp(1, 5),
            _ => {}
        }
    }

    /// The names that this one may stand for, in the order in which they are tried.
    fn names(&self, name: &str) -> Vec<String> {
        let plain = name.trim_end_matches('.');
        let mut names: Vec<_> = match name.ends_with('.') {
            true => Vec::new(),
            false => self.search.iter().map(|domain| format!("{plain}.{domain}")).collect(),
        };
        let first = plain.matches('.').count() >= self.dots;
        names.insert(if first { 0 } else { names.len() }, plain.to_owned());
        names
    }

    /// Asks for the records of a name, of this kind: A, AAAA or SRV.
    pub async fn ask(&self, name: &str, kind: TYPE) -> Result<Answer, Unanswered> {
        let mut nobody = Err(Unanswered::NoName);
        for name in self.names(name) {
            match self.ask_all(&name, kind).await {
                Ok(answer) if !answer.0.is_empty() => return Ok(answer),
                Ok(empty) => nobody = nobody.or(Ok(empty)),
                Err(Unanswered::NoName) => {}
                Err(failed) => return Err(failed),
            }
        }
        nobody
    }

    async fn ask_all(&self, name: &str, kind: TYPE) -> Result<Answer, Unanswered> {
        let mut last = Unanswered::Failed("there is no server to ask".to_owned());
        for server in std::iter::repeat_n(&self.addresses, self.attempts).flatten() {
            match self.ask_one(*server, name, kind).await {
                Ok(answer) => return Ok(answer),
                Err(Unanswered::NoName) => return Err(Unanswered::NoName),
                Err(failed) => last = failed,
            }
        }
        Err(last)
    }

    async fn ask_one(&self, server: SocketAddr, name: &str, kind: TYPE) -> Result<Answer, Unanswered> {
        let failed = |why: String| Unanswered::Failed(format!("{server}: {why}"));
        let id = fastrand::u16(..);
        let question = question(id, name, kind).map_err(|error| failed(error.to_string()))?;
        let end = Instant::now() + self.timeout;
        let exchange = async {
            let datagram = over_udp(server, &question, id).await?;
            match is_cut_short(&datagram) {
                true => over_tcp(server, &question).await,
                false => Ok(datagram),
            }
        };
        let answer = timeout_at(end, exchange).await.map_err(|_| failed(format!("no answer in {:?}", self.timeout)))?;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        read_answer(&answer, id, kind).map_err(|error| match error {
            Unanswered::NoName => Unanswered::NoName,
            Unanswered::Failed(why) => failed(why),
        })
    }
}

fn question(id: u16, name: &str, kind: TYPE) -> Result<Vec<u8>, simple_dns::SimpleDnsError> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name)?, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: DATAGRAM, version: 0 });
    packet.build_bytes_vec()
}

/// Only what comes from the server, with our number and our question, is an answer to it.
async fn over_udp(server: SocketAddr, question: &[u8], id: u16) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let datagram = buffer.get(..length).unwrap_or_default();
        if is_answer_to(datagram, question, id) {
            return Ok(datagram.to_vec());
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn is_answer_to(datagram: &[u8], question: &[u8], id: u16) -> bool {
    let (datagram, question) = (without_records(datagram), without_records(question));
    let (Ok(answer), Ok(asked)) = (Packet::parse(&datagram), Packet::parse(&question)) else { return false };
    let names = |packet: &Packet<'_>| -> Vec<_> {
        packet.questions.iter().map(|it| (it.qname.to_string().to_ascii_lowercase(), it.qtype)).collect()
    };
    answer.id() == id && answer.has_flags(PacketFlag::RESPONSE) && names(&answer) == names(&asked)
}

fn is_cut_short(datagram: &[u8]) -> bool {
    Packet::parse(&without_records(datagram)).is_ok_and(|packet| packet.has_flags(PacketFlag::TRUNCATION))
}

/// A message that says that it has a question and no more: what is cut short may end in the middle of a record, which
/// could not be read.
fn without_records(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    // How many answers, authorities and additional records there are (RFC 1035, 4.1.1).
    if let Some(counts) = message.get_mut(6..12) {
        counts.fill(0);
    }
    message
}

/// The records of the kind that was asked for. What else stands in the answer, as aliases on the way, is passed over:
/// the server has followed them.
#[expect(clippy::wildcard_enum_match_arm, reason = "the lists of codes and of records are long, open, and not ours")]
fn read_answer(bytes: &[u8], id: u16, kind: TYPE) -> Result<Answer, Unanswered> {
    let failed = |why: String| Unanswered::Failed(why);
    let packet = Packet::parse(bytes).map_err(|error| failed(format!("malformed: {error}")))?;
    if packet.id() != id {
        return Err(failed("an answer to another question".to_owned()));
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Err(Unanswered::NoName),
        code => return Err(failed(format!("{code:?}"))),
    }
    let mut ttl = u32::MAX;
    let mut records = BTreeSet::new();
    for answer in &packet.answers {
        let record = match &answer.rdata {
            RData::A(address) if kind == TYPE::A => Record::Address(Ipv4Addr::from(address.address).into()),
            RData::AAAA(address) if kind == TYPE::AAAA => Record::Address(Ipv6Addr::from(address.address).into()),
            RData::SRV(service) if kind == TYPE::SRV => Record::Service {
                priority: service.priority,
                weight: service.weight,
                port: service.port,
                target: service.target.to_string(),
            },
            // An alias may hold for less time than what it leads to.
            _ => {
                ttl = ttl.min(answer.ttl);
                continue;
            }
        };
        ttl = ttl.min(answer.ttl);
        records.insert(record);
    }
    Ok((records, Duration::from_secs(ttl.into())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::ResourceRecord;

    use super::*;

    #[test]
    fn the_file_of_the_system_is_read_as_the_system_does() {
        let text = "# a comment\nnameserver 10.0.0.53\nnameserver fd00::53\nnameserver nonsense\nsearch a.internal. b.internal\n\
                    options ndots:5 timeout:60 attempts:0 rotate\n";
        let servers = Servers::read(text);
        assert_eq!(servers.addresses, ["10.0.0.53:53".parse().unwrap(), "[fd00::53]:53".parse().unwrap()]);
        assert_eq!((servers.dots, servers.timeout, servers.attempts), (5, Duration::from_secs(5), 1));
        assert_eq!(servers.names("app"), ["app.a.internal", "app.b.internal", "app"]);
        assert_eq!(servers.names("app."), ["app"]);
        assert_eq!(servers.names("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(Servers::read("").addresses, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let asked = question(7, "app.internal", TYPE::A).unwrap();
        let answered = |id, name, kind| {
            let mut packet = Packet::parse(&asked).unwrap().into_reply();
            packet.set_id(id);
            packet.questions =
                vec![Question::new(Name::new(name).unwrap(), QTYPE::TYPE(kind), CLASS::IN.into(), false)];
            packet.set_flags(PacketFlag::RESPONSE);
            is_answer_to(&packet.build_bytes_vec().unwrap(), &asked, 7)
        };
        assert!(answered(7, "APP.internal", TYPE::A));
        assert!(!answered(8, "app.internal", TYPE::A));
        assert!(!answered(7, "app.evil", TYPE::A));
        assert!(!answered(7, "app.internal", TYPE::AAAA));
        assert!(!is_answer_to(&asked, &asked, 7), "a question is no answer");
    }

    #[test]
    fn an_answer_that_ends_in_the_middle_of_a_record_is_one_that_was_cut_short() {
        let asked = question(7, "app.internal", TYPE::A).unwrap();
        let mut packet = Packet::parse(&asked).unwrap().into_reply();
        packet.set_flags(PacketFlag::RESPONSE | PacketFlag::TRUNCATION);
        let name = Name::new("app.internal").unwrap();
        packet.answers = vec![ResourceRecord::new(name, CLASS::IN, 0, RData::A(Ipv4Addr::LOCALHOST.into())); 2];
        let whole = packet.build_bytes_vec().unwrap();
        for length in [whole.len(), whole.len() - 20] {
            assert!(is_answer_to(&whole[..length], &asked, 7) && is_cut_short(&whole[..length]), "{length}");
        }
        assert!(!is_cut_short(&asked));
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let asked = question(7, "app.internal", TYPE::A).unwrap();
            let _ = (is_answer_to(&bytes, &asked, 7), is_cut_short(&bytes), read_answer(&bytes, 7, TYPE::SRV));
        }
    }
}
