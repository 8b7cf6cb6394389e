//! A DNS server that says what a test tells it to, over UDP and TCP on one port of loopback.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use simple_dns::rdata::{A, AAAA, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// What a server says to every question.
#[derive(Clone, Debug)]
pub enum Says {
    /// These records, each as `NAME TYPE DATA`, with this TTL; `NAME FAILURE` is for a name that it cannot answer for.
    Records(Vec<String>, u32),
    /// That there is no such name.
    NoName,
    /// That it cannot answer.
    Failure,
    /// Nothing.
    Nothing,
    /// Bytes that are no answer.
    Garbage,
}

/// A DNS server.
pub struct DnsServer {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl DnsServer {
    /// One that says this. Answers that do not fit into a datagram are sent over TCP.
    pub async fn saying(says: Says) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // Another process may have the same port for UDP.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let (says, asked) = (Arc::new(Mutex::new(says)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        tasks.spawn(over_udp(udp, says.clone(), asked.clone()));
        tasks.spawn(over_tcp(tcp, says.clone()));
        Self { address, says, asked, _tasks: tasks }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it says from now on.
    pub fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    /// How many questions it has had over UDP.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Records of addresses for one name.
pub fn addresses(name: &str, ips: &[&str], ttl: u32) -> Says {
    let record = |ip: &&str| format!("{name} {} {ip}", if ip.contains(':') { "AAAA" } else { "A" });
    Says::Records(ips.iter().map(record).collect(), ttl)
}

async fn over_udp(socket: UdpSocket, says: Arc<Mutex<Says>>, asked: Arc<AtomicUsize>) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        asked.fetch_add(1, Ordering::Relaxed);
        let now = says.lock().unwrap().clone();
        if let Some(mut reply) = answer(&buffer[..length], &now) {
            if reply.len() > 1232 {
                // In the middle of a record, as some do, with the bit that says "truncated" (RFC 1035, 4.1.1).
                reply.truncate(1232);
                reply[2] |= 0x02;
            }
            let _ = socket.send_to(&reply, from).await;
        }
    }
}

async fn over_tcp(listener: TcpListener, says: Arc<Mutex<Says>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let Ok(length) = stream.read_u16().await else { continue };
        let mut question = vec![0; length.into()];
        if stream.read_exact(&mut question).await.is_ok() {
            let now = says.lock().unwrap().clone();
            if let Some(reply) = answer(&question, &now) {
                let length = u16::try_from(reply.len()).unwrap();
                let _ = stream.write_all(&[&length.to_be_bytes()[..], &reply].concat()).await;
            }
        }
    }
}

fn answer(question: &[u8], says: &Says) -> Option<Vec<u8>> {
    let asked = Packet::parse(question).unwrap();
    let mut reply = Packet::new_reply(asked.id());
    reply.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE);
    reply.questions = asked.questions.clone();
    match says {
        Says::Nothing => return None,
        Says::Garbage => return Some([&question[..2], &[0xff; 40]].concat()),
        Says::NoName => *reply.rcode_mut() = RCODE::NameError,
        Says::Failure => *reply.rcode_mut() = RCODE::ServerFailure,
        Says::Records(records, ttl) => {
            let (name, kind) = (asked.questions[0].qname.to_string(), asked.questions[0].qtype);
            if records.contains(&format!("{name} FAILURE")) {
                return answer(question, &Says::Failure);
            }
            reply.answers = records.iter().filter_map(|text| record(text, &name, kind, *ttl)).collect();
        }
    }
    Some(reply.build_bytes_vec().unwrap())
}

/// The record, if it is of this name and kind. An SRV record's data is `PRIORITY WEIGHT PORT TARGET`.
fn record<'a>(text: &'a str, name: &str, kind: QTYPE, ttl: u32) -> Option<ResourceRecord<'a>> {
    let words: Vec<&str> = text.split(' ').collect();
    let ip = || words[2].parse::<IpAddr>().unwrap();
    let (of, data) = match words[1] {
        "A" => (
            TYPE::A,
            RData::A(A::from(match ip() {
                IpAddr::V4(ip) => ip,
                IpAddr::V6(_) => unreachable!(),
            })),
        ),
        "AAAA" => (
            TYPE::AAAA,
            RData::AAAA(AAAA::from(match ip() {
                IpAddr::V6(ip) => ip,
                IpAddr::V4(_) => unreachable!(),
            })),
        ),
        "SRV" => {
            let number = |index: usize| words[index].parse().unwrap();
            let target = Name::new(words[5]).unwrap();
            (TYPE::SRV, RData::SRV(SRV { priority: number(2), weight: number(3), port: number(4), target }))
        }
        "FAILURE" => return None,
        other => panic!("{other} is not known here"),
    };
    let meant = QTYPE::TYPE(of) == kind && words[0].eq_ignore_ascii_case(name);
    meant.then(|| ResourceRecord::new(Name::new(words[0]).unwrap(), CLASS::IN, ttl, data))
}
