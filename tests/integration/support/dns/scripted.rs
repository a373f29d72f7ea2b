//! A name server for what honest ones don't do. It writes the bytes of its answers itself (RFC 1035, section 4).

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    V4,
    V6,
}

/// What becomes of a question.
#[derive(Debug, Clone)]
pub(crate) enum Say {
    /// No answer.
    Nothing,
    /// A response code without any record.
    Code(u8),
    /// These addresses, good for a second.
    Addresses(Vec<IpAddr>),
}

/// A running server, which ends when it goes out of scope.
pub(super) struct Scripted {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    pub(super) fn start(socket: UdpSocket, script: impl Fn(Kind) -> Say + Send + 'static) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 512];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = socket.recv_from(&mut packet) {
                    let answer = answer(&packet[..length], &script);
                    let _ = answer.map(|answer| socket.send_to(&answer, peer));
                }
            }
        });
        Self { stopping, thread: Some(thread) }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The answer to a query: its header and question, and what the script says.
fn answer(query: &[u8], script: impl Fn(Kind) -> Say) -> Option<Vec<u8>> {
    const ANSWER: u8 = 0x80;
    const RECURSION_AVAILABLE: u8 = 0x80;
    let name = query.get(HEADER..)?.iter().position(|&byte| byte == 0)?;
    let question_end = HEADER + name + 5;
    let kind = u16::from_be_bytes([*query.get(question_end - 4)?, *query.get(question_end - 3)?]);
    let say = match kind {
        TYPE_A => script(Kind::V4),
        TYPE_AAAA => script(Kind::V6),
        _ => Say::Code(0),
    };
    let (code, addresses) = match say {
        Say::Nothing => return None,
        Say::Code(code) => (code, Vec::new()),
        Say::Addresses(addresses) => (0, addresses),
    };
    let mut answer = query.get(..question_end)?.to_vec();
    answer[2] |= ANSWER;
    answer[3] = RECURSION_AVAILABLE | code;
    // One question, the answers, no records of other sections.
    answer[4..HEADER].copy_from_slice(&[0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]);
    for address in addresses {
        answer.extend(record(kind, address));
    }
    Some(answer)
}

/// A record of the name in the question, good for a second.
fn record(kind: u16, address: IpAddr) -> Vec<u8> {
    const NAME_OF_QUESTION: [u8; 2] = [0xc0, HEADER as u8];
    const CLASS_INTERNET: [u8; 2] = [0, 1];
    const TTL: [u8; 4] = [0, 0, 0, 1];
    let data = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = (data.len() as u16).to_be_bytes();
    [&NAME_OF_QUESTION, &kind.to_be_bytes()[..], &CLASS_INTERNET, &TTL, &length, &data].concat()
}
