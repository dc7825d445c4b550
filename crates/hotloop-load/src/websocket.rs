//! WebSocket: binary messages over an upgraded connection, each of which comes back.

use crate::exchange::{Exchange, Progress, Wrong};

/// The first exchange is the handshake, all others are messages, of which each begins with its number.
pub(crate) struct WebSocket {
    /// Whether the connection speaks frames already.
    is_open: bool,
    /// What is sent: the handshake, then a frame.
    request: Vec<u8>,
    /// The right answer, unless that is to a handshake.
    answer: Vec<u8>,
    /// What has come of an answer to a handshake.
    head: Vec<u8>,
    /// How many bytes of the answer have come.
    received: usize,
    /// The number of the current message.
    number: u64,
    /// Bytes a message.
    size: usize,
}

/// A final frame of binary data.
const BINARY: u8 = 0x82;
/// What a client's frame has beside its length.
const MASKED: u8 = 0x80;
/// The mask: one that changes nothing, so that an answer is easily compared. The server unmasks it like any other.
const MASK: [u8; 4] = [0; 4];
/// A head longer than this is no answer of a server under test.
const LONGEST_HEAD: usize = 64 * 1024;

impl WebSocket {
    pub(crate) fn new(path: &str, host: &str, size: usize) -> Self {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        Self {
            is_open: false,
            request: request.into_bytes(),
            answer: Vec::new(),
            head: Vec::new(),
            received: 0,
            number: 0,
            size,
        }
    }

    fn receive_head(&mut self, bytes: &[u8]) -> Result<Progress, Wrong> {
        self.head.extend_from_slice(bytes);
        if !self.head.ends_with(b"\r\n\r\n") {
            if self.head.len() > LONGEST_HEAD {
                return Err(Wrong(String::from("the answer to the handshake does not end")));
            }
            return Ok(Progress::Partial);
        }
        if !self.head.starts_with(b"HTTP/1.1 101 ") {
            let line = self.head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            return Err(Wrong(format!(
                "no WebSocket: {:?}",
                line.escape_ascii().to_string()
            )));
        }
        self.is_open = true;
        Ok(Progress::Complete)
    }
}

impl Exchange for WebSocket {
    fn advance(&mut self) {
        if !self.is_open {
            return;
        }
        self.number += 1;
        self.received = 0;
        let payload: Vec<u8> = self
            .number
            .to_le_bytes()
            .into_iter()
            .cycle()
            .take(self.size)
            .collect();
        self.request = [frame_head(self.size, MASKED).as_slice(), &MASK, &payload].concat();
        self.answer = [frame_head(self.size, 0), payload].concat();
    }

    fn request(&self) -> &[u8] {
        &self.request
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<Progress, Wrong> {
        if !self.is_open {
            return self.receive_head(bytes);
        }
        if !self.answer[self.received..].starts_with(bytes) {
            return Err(Wrong(format!(
                "message number {} is not what was sent",
                self.number
            )));
        }
        self.received += bytes.len();
        Ok(if self.received == self.answer.len() {
            Progress::Complete
        } else {
            Progress::Partial
        })
    }
}

/// What stands before a payload, or before its mask.
fn frame_head(size: usize, masked: u8) -> Vec<u8> {
    let mut head = vec![BINARY];
    if size < 126 {
        head.push(masked | size as u8);
    } else if let Ok(size) = u16::try_from(size) {
        head.push(masked | 126);
        head.extend(size.to_be_bytes());
    } else {
        head.push(masked | 127);
        head.extend((size as u64).to_be_bytes());
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(size: usize) -> WebSocket {
        let mut socket = WebSocket::new("/", "here", size);
        socket.advance();
        assert!(socket.request().starts_with(b"GET / HTTP/1.1\r\nHost: here\r\n"));
        assert_eq!(
            socket.receive(b"HTTP/1.1 101 Switching Protocols\r\na: b\r\n"),
            Ok(Progress::Partial)
        );
        assert_eq!(socket.receive(b"\r\n"), Ok(Progress::Complete));
        socket
    }

    #[test]
    fn messages_have_frames_of_their_length() {
        for (size, head) in [
            (125, &[0x82, 0x80 | 125][..]),
            (126, &[0x82, 0x80 | 126, 0, 126]),
            (65536, &[0x82, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut socket = opened(size);
            socket.advance();
            assert!(socket.request().starts_with(head), "{size}");
            assert_eq!(socket.request().len(), head.len() + 4 + size);
        }
    }

    #[test]
    fn a_message_is_complete_with_its_last_byte() {
        let mut socket = opened(300);
        for number in 1..4_u8 {
            socket.advance();
            let answer = [
                &[0x82, 126, 1, 44][..],
                &[number, 0, 0, 0, 0, 0, 0, 0].repeat(38)[..300],
            ]
            .concat();
            assert_eq!(socket.receive(&answer[..3]), Ok(Progress::Partial));
            assert_eq!(socket.receive(&answer[3..303]), Ok(Progress::Partial));
            assert_eq!(socket.receive(&answer[303..]), Ok(Progress::Complete));
        }
    }

    #[test]
    fn wrong_answers_are_wrong() {
        let mut socket = opened(1);
        socket.advance();
        assert!(socket.receive(&[0x82, 1, 2]).is_err(), "another payload");
        let mut socket = opened(1);
        socket.advance();
        assert!(socket.receive(&[0x81, 1, 1]).is_err(), "text");
        let mut socket = opened(1);
        socket.advance();
        assert!(socket.receive(&[0x82, 1, 1, 0]).is_err(), "too long");
        let mut socket = WebSocket::new("/", "here", 1);
        assert!(socket.receive(b"HTTP/1.1 404 Not Found\r\n\r\n").is_err());
    }
}
