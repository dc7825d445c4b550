//! HTTP/1.1: a GET over a kept-alive connection, and an incremental parser of its answers.

use std::sync::Arc;

use crate::exchange::{Exchange, Progress, Wrong};

/// The same request again and again; each answer must be a complete 200 with the expected body.
pub(crate) struct Http {
    request: Arc<[u8]>,
    /// The only right body, or `None` for any.
    expect: Option<Arc<[u8]>>,
    part: Part,
    /// A line of which the end has not come yet.
    line: Vec<u8>,
    /// Bytes of the body so far.
    body: usize,
}

/// The part of an answer that comes next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    StatusLine,
    /// Fields up to the empty line, with what they have said so far.
    Fields(Framing),
    /// A body, or the rest of one, of known length.
    Body {
        left: usize,
    },
    /// The line with a chunk's size.
    ChunkSize,
    Chunk {
        left: usize,
    },
    /// The line end behind a chunk.
    ChunkEnd,
    /// Fields behind the last chunk, up to the empty line.
    Trailer,
    Done,
}

/// How the end of the body is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    Unknown,
    Length(usize),
    Chunked,
}

/// A line longer than this is no answer of a server under test.
const LONGEST_LINE: usize = 64 * 1024;

impl Http {
    pub(crate) fn new(request: Arc<[u8]>, expect: Option<Arc<[u8]>>) -> Self {
        Self {
            request,
            expect,
            part: Part::StatusLine,
            line: Vec::new(),
            body: 0,
        }
    }

    /// Takes one part, or what there is of it, and returns what follows it.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Wrong> {
        match self.part {
            Part::Body { left } => {
                let (taken, rest) = self.take_body(bytes, left)?;
                self.part = body_or_done(left - taken);
                Ok(rest)
            }
            Part::Chunk { left } => {
                let (taken, rest) = self.take_body(bytes, left)?;
                self.part = if taken == left {
                    Part::ChunkEnd
                } else {
                    Part::Chunk { left: left - taken }
                };
                Ok(rest)
            }
            Part::Done => Err(Wrong(String::from("bytes came behind the end of the answer"))),
            _ => self.take_line(bytes),
        }
    }

    /// Checks up to `left` bytes of a body and returns how many there were, and what follows them.
    fn take_body<'a>(&mut self, bytes: &'a [u8], left: usize) -> Result<(usize, &'a [u8]), Wrong> {
        let (body, rest) = bytes.split_at(left.min(bytes.len()));
        if self
            .expect
            .as_ref()
            .is_some_and(|expect| !expect[self.body..].starts_with(body))
        {
            return Err(Wrong(String::from("the body is not the expected one")));
        }
        self.body += body.len();
        Ok((body.len(), rest))
    }

    /// Takes bytes up to a line end, acts on the line when it is complete, and returns what follows it.
    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Wrong> {
        let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.line.extend_from_slice(bytes);
            if self.line.len() > LONGEST_LINE {
                return Err(Wrong(String::from("a line of the answer does not end")));
            }
            return Ok(&[]);
        };
        let (line, rest) = bytes.split_at(at + 1);
        self.line.extend_from_slice(line);
        let line = std::str::from_utf8(&self.line)
            .ok()
            .and_then(|line| line.strip_suffix("\r\n"));
        let line =
            line.ok_or_else(|| Wrong(format!("a bad line: {:?}", self.line.escape_ascii().to_string())))?;
        self.part = part_after_line(self.part, line)?;
        self.line.clear();
        Ok(rest)
    }
}

impl Exchange for Http {
    fn advance(&mut self) {
        self.part = Part::StatusLine;
        self.body = 0;
    }

    fn request(&self) -> &[u8] {
        &self.request
    }

    fn receive(&mut self, mut bytes: &[u8]) -> Result<Progress, Wrong> {
        while !bytes.is_empty() {
            bytes = self.step(bytes)?;
        }
        if self.part != Part::Done {
            return Ok(Progress::Partial);
        }
        match &self.expect {
            Some(expect) if expect.len() != self.body => Err(Wrong(format!(
                "the body has {} bytes, not {}",
                self.body,
                expect.len()
            ))),
            _ => Ok(Progress::Complete),
        }
    }
}

fn part_after_line(part: Part, line: &str) -> Result<Part, Wrong> {
    match part {
        Part::StatusLine => match line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.split(' ').next())
        {
            Some("200") => Ok(Part::Fields(Framing::Unknown)),
            _ => Err(Wrong(format!("the status line is {line:?}"))),
        },
        Part::Fields(framing) if !line.is_empty() => framing_after_field(framing, line).map(Part::Fields),
        Part::Fields(Framing::Length(length)) => Ok(body_or_done(length)),
        Part::Fields(Framing::Chunked) => Ok(Part::ChunkSize),
        Part::Fields(Framing::Unknown) => Err(Wrong(String::from(
            "the answer ends with its connection; keep-alive was wanted",
        ))),
        Part::ChunkSize => match chunk_size(line)? {
            0 => Ok(Part::Trailer),
            left => Ok(Part::Chunk { left }),
        },
        Part::ChunkEnd if line.is_empty() => Ok(Part::ChunkSize),
        Part::ChunkEnd => Err(Wrong(String::from("a chunk is longer than its size says"))),
        Part::Trailer => Ok(if line.is_empty() {
            Part::Done
        } else {
            Part::Trailer
        }),
        Part::Body { .. } | Part::Chunk { .. } | Part::Done => unreachable!("no lines in {part:?}"),
    }
}

fn framing_after_field(framing: Framing, field: &str) -> Result<Framing, Wrong> {
    let (name, value) = field
        .split_once(':')
        .ok_or_else(|| Wrong(format!("a field without a colon: {field:?}")))?;
    let value = value.trim();
    if name.eq_ignore_ascii_case("transfer-encoding") {
        return match value.eq_ignore_ascii_case("chunked") {
            true => Ok(Framing::Chunked),
            false => Err(Wrong(format!("an unknown transfer encoding: {value:?}"))),
        };
    }
    if name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
        let length = value
            .parse()
            .map_err(|_| Wrong(format!("a bad content length: {value:?}")))?;
        return Ok(Framing::Length(length));
    }
    Ok(framing)
}

fn chunk_size(line: &str) -> Result<usize, Wrong> {
    let digits = line.split(';').next().unwrap_or_default().trim();
    usize::from_str_radix(digits, 16).map_err(|_| Wrong(format!("a bad chunk size: {line:?}")))
}

fn body_or_done(left: usize) -> Part {
    if left == 0 {
        Part::Done
    } else {
        Part::Body { left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nserver: x\r\n\r\nhello";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n02;note=1\r\nlo\r\n0\r\nx: y\r\n\r\n";

    /// Feeds an answer in pieces of one size to a parser that expects `hello`.
    fn fed(answer: &[u8], piece: usize) -> Result<Progress, Wrong> {
        let mut http = Http::new(Arc::from(&b""[..]), Some(Arc::from(&b"hello"[..])));
        http.advance();
        let mut progress = Progress::Partial;
        for bytes in answer.chunks(piece) {
            assert_eq!(progress, Progress::Partial, "complete too early");
            progress = http.receive(bytes)?;
        }
        Ok(progress)
    }

    #[test]
    fn an_answer_is_right_in_any_pieces() {
        for answer in [PLAIN, CHUNKED] {
            for piece in 1..=answer.len() {
                assert_eq!(fed(answer, piece), Ok(Progress::Complete), "in pieces of {piece}");
            }
        }
    }

    #[test]
    fn an_answer_is_not_complete_before_its_last_byte() {
        for answer in [PLAIN, CHUNKED] {
            for end in 1..answer.len() {
                assert_eq!(
                    fed(&answer[..end], end),
                    Ok(Progress::Partial),
                    "the first {end} bytes"
                );
            }
        }
    }

    #[test]
    fn answers_follow_each_other_on_a_connection() {
        let mut http = Http::new(Arc::from(&b""[..]), Some(Arc::from(&b"hello"[..])));
        for answer in [PLAIN, CHUNKED, CHUNKED, PLAIN] {
            http.advance();
            assert_eq!(http.receive(answer), Ok(Progress::Complete));
        }
    }

    #[test]
    fn an_empty_body_is_complete_with_its_head() {
        let mut http = Http::new(Arc::from(&b""[..]), Some(Arc::from(&b""[..])));
        http.advance();
        assert_eq!(
            http.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            Ok(Progress::Complete)
        );
    }

    #[test]
    fn any_body_is_right_where_none_is_expected() {
        let mut http = Http::new(Arc::from(&b""[..]), None);
        http.advance();
        assert_eq!(http.receive(PLAIN), Ok(Progress::Complete));
    }

    #[test]
    fn wrong_answers_are_wrong_in_any_pieces() {
        for answer in [
            &b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhullo",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell",
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhelp\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\xff: 1\r\n\r\n",
        ] {
            for piece in [1, 2, answer.len()] {
                assert!(
                    fed(answer, piece).is_err(),
                    "{:?} by {piece}",
                    String::from_utf8_lossy(answer)
                );
            }
        }
    }

    #[test]
    fn bytes_behind_the_answer_are_wrong() {
        let answer = [PLAIN, b"x"].concat();
        assert!(fed(&answer, answer.len()).is_err());
    }

    #[test]
    fn a_line_without_end_is_wrong() {
        let answer = [&b"HTTP/1.1 200 OK\r\nx: "[..], &vec![b'y'; LONGEST_LINE]].concat();
        assert!(fed(&answer, 1000).is_err());
    }
}
