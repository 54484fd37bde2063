//! As much of an HTTP/1.1 client as the tests need: one request a connection, whole answers, no
//! TLS.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 256 << 20;

#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// The body as text, as far as somebody reads it.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 1000;
        let text: String = String::from_utf8_lossy(&self.body)
            .chars()
            .take(SHOWN)
            .collect();
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("bytes", &self.body.len())
            .field("body", &text)
            .finish()
    }
}

impl Answer {
    /// The first header of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body, which must be UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the body of {self:?}"))
    }
}

/// `path` is percent-encoded already and may have a query.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    request(address, "GET", path, &[])
}

pub fn request(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
    request_with(address, method, path, &[], body)
}

/// The same with headers of its own, names and values.
pub fn request_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let more = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let more: String = more.collect();
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\n\
         connection: close\r\ncontent-length: {length}\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    parse(&bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a whole HTTP answer"))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, rest) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 4..]);
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Option<Vec<_>> = lines
        .map(|line| {
            line.split_once(':')
                .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        })
        .collect();
    let mut answer = Answer {
        status,
        headers: headers?,
        body: Vec::new(),
    };
    answer.body = if answer
        .header("transfer-encoding")
        .is_some_and(|coding| coding.contains("chunked"))
    {
        dechunked(rest)?
    } else {
        let length = answer
            .header("content-length")
            .map_or(Some(rest.len()), |length| length.parse().ok())?;
        rest.get(..length)?.to_vec()
    };
    Some(answer)
}

fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn check(bytes: &str, expected: Option<(u16, &str)>) {
        let parsed = parse(bytes.as_bytes());
        assert_eq!(
            parsed.as_ref().map(|answer| (answer.status, answer.text())),
            expected,
            "{bytes:?}"
        );
    }

    #[test]
    fn answers_are_taken_whole_or_not_at_all() {
        check(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Some((200, "ok")),
        );
        check("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", None);
        check(
            "HTTP/1.1 404 Not Found\r\n\r\nto the end",
            Some((404, "to the end")),
        );
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n",
            Some((200, "abc")),
        );
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            None,
        );
        check("HTTP/1.1 200 OK\r\n", None);
    }
}
