//! How do sockets pass from one process to the next? Over a pair of unix sockets, a message each.
//!
//! The pair keeps the borders of messages, and a file goes with the message that names it (`SCM_RIGHTS`, unix(7)).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::io::retry_on_intr;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// No message is longer: the longest holds what a process has to say about why it cannot start.
const LONGEST: usize = 16 * 1024;

/// How long the other side may take for a message. What takes longer is a process that hangs.
const MESSAGE: Duration = Duration::from_secs(10);

/// What one process tells the other.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// The socket that listens on an address, as the configuration has it; it comes along.
    Socket(String),
    /// What cookies were signed with so far, where the configuration names nothing.
    Secret(Vec<u8>),
    /// That was all.
    Whole,
    /// The successor accepts connections. `ready` is what its `/readyz` says.
    Serving {
        /// Whether it is ready.
        ready: bool,
    },
}

/// One end of the pair.
#[derive(Debug)]
pub(super) struct Line(OwnedFd);

impl Line {
    /// Both ends; the second is for another process.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// The end that a process was given.
    pub(super) fn new(end: OwnedFd) -> io::Result<Self> {
        set_socket_timeout(&end, Timeout::Send, Some(MESSAGE))?;
        set_socket_timeout(&end, Timeout::Recv, Some(MESSAGE))?;
        Ok(Self(end))
    }

    /// From now on, a message may take so long to come.
    pub(super) fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        Ok(set_socket_timeout(&self.0, Timeout::Recv, Some(time))?)
    }

    /// Sends a message, and a file with it.
    pub(super) fn send(&self, message: &Message, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        let files: Vec<_> = file.into_iter().collect();
        if !files.is_empty() && !along.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::Error::other("there is no room for a file"));
        }
        retry_on_intr(|| sendmsg(&self.0, &[IoSlice::new(&text)], &mut along, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Waits for a message, and the file that came with it.
    pub(super) fn receive(&self) -> io::Result<(Message, Option<OwnedFd>)> {
        let (mut text, mut space) = (vec![0; LONGEST], [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))]);
        let mut along = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut text)];
        let received = retry_on_intr(|| recvmsg(self.0.as_fd(), &mut parts, &mut along, RecvFlags::CMSG_CLOEXEC));
        let length = received?.bytes;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut file = None;
        for message in along.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                file = files.last();
            }
        }
        Ok((serde_json::from_slice(&text[..length])?, file))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    fn both_ends() -> (Line, Line) {
        let (ours, theirs) = Line::pair().expect("a pair of sockets");
        (ours, Line::new(theirs).expect("the other end"))
    }

    #[test]
    fn a_socket_that_is_passed_on_goes_on_listening() {
        let (ours, theirs) = both_ends();
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listening.local_addr().expect("its address");
        let message = Message::Socket(address.to_string());
        ours.send(&message, Some(listening.as_fd())).expect("it was sent");
        // It waits in the queue while nobody of ours holds the socket any more.
        drop(listening);
        let mut client = TcpStream::connect(address).expect("somebody listens");
        client.write_all(b"x").expect("a byte is sent");
        let (got, file) = theirs.receive().expect("it has come");
        assert_eq!(got, message);
        let inherited = TcpListener::from(file.expect("a socket came along"));
        let (_, peer) = inherited.accept().expect("the client waits there");
        assert_eq!(peer, client.local_addr().expect("its address"));
    }

    #[test]
    fn messages_keep_their_borders_and_their_order() {
        let (ours, theirs) = both_ends();
        let messages = [Message::Secret(vec![7; 32]), Message::Whole, Message::Serving { ready: true }];
        messages.iter().for_each(|message| ours.send(message, None).expect("it was sent"));
        for message in messages {
            assert_eq!(theirs.receive().map(|(got, file)| (got, file.is_some())).ok(), Some((message, false)));
        }
    }

    #[test]
    fn whoever_is_gone_is_an_error_and_not_a_wait() {
        let (ours, theirs) = both_ends();
        drop(theirs);
        assert_eq!(ours.receive().expect_err("nobody is there").kind(), ErrorKind::UnexpectedEof);
        ours.send(&Message::Whole, None).expect_err("nobody is there");
    }

    #[test]
    fn whoever_says_nothing_is_waited_for_no_longer_than_was_said() {
        let (ours, _theirs) = both_ends();
        ours.wait_at_most(Duration::from_millis(10)).expect("a time can be set");
        assert_eq!(ours.receive().expect_err("nothing came").kind(), ErrorKind::WouldBlock);
    }
}
