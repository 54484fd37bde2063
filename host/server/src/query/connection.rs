//! A connection whose answers always have a body: what hyper refuses before any of our code sees it (a path or headers that are too
//! long, a request that is none) it answers with a status alone. Here that answer gets its reason, as all others have.
//!
//! hyper writes such an answer at once and as its last; nothing else that is written looks like it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;

/// A client that was refused may still be sending; if the connection ended under it, it would not read why. So long, and for so
/// many bytes, it is listened to.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
const FAREWELL_BYTES_MAX: usize = 16 << 20;

/// hyper's longest answer without a body.
const BARE_BYTES_MAX: usize = 512;

pub struct Connections(pub TcpListener);

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Answers go out as they are written; where that fails they come a little later.
        let _ = stream.set_nodelay(true);
        (Connection::new(stream), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

pub struct Connection<S = TcpStream> {
    stream: S,
    /// A line has come to its end since the last answer: it isn't the path that is too long.
    line_ended: bool,
    /// What goes out in place of hyper's answer, and how much of it has.
    refusal: Option<(Vec<u8>, usize)>,
    farewell: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Connection<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            line_ended: false,
            refusal: None,
            farewell: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.line_ended = self.line_ended || buffer.filled()[before..].contains(&b'\n');
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.refusal.is_none() {
            let Some(status) = bare_refusal(bytes) else {
                this.line_ended = false;
                return Pin::new(&mut this.stream).poll_write(context, bytes);
            };
            this.refusal = Some((answer(status, this.line_ended), 0));
        }
        while let Some((answer, written)) = &mut this.refusal
            && *written < answer.len()
        {
            *written +=
                ready!(Pin::new(&mut this.stream).poll_write(context, &answer[*written..]))?;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.farewell.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        }
        if self.refusal.is_none() {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let (time, left) = this.farewell.get_or_insert_with(|| {
            (
                Box::pin(tokio::time::sleep(FAREWELL_MAX)),
                FAREWELL_BYTES_MAX,
            )
        });
        while time.as_mut().poll(context).is_pending() {
            let mut bytes = [0; 16 << 10];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer));
            let count = buffer.filled().len();
            *left = left.saturating_sub(count);
            if read.is_err() || count == 0 || *left == 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The status of an answer that hyper gave on its own. All of ours have a body.
fn bare_refusal(bytes: &[u8]) -> Option<u16> {
    if bytes.len() > BARE_BYTES_MAX {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
    let (status, headers) = head.strip_prefix("HTTP/1.")?.split_once("\r\n")?;
    let status = status.split(' ').nth(1)?.parse().ok()?;
    let bare = headers
        .split("\r\n")
        .any(|header| header == "content-length: 0");
    (bare && matches!(status, 400 | 414 | 431)).then_some(status)
}

fn answer(status: u16, line_ended: bool) -> Vec<u8> {
    let (status, why) = match status {
        400 => (
            "400 Bad Request",
            "this is not an HTTP/1.1 request; in a query `<` is written %3C, `>` %3E, a quote %22, a space %20",
        ),
        431 if line_ended => (
            "431 Request Header Fields Too Large",
            "the headers are too large: 100 of them and 400 KB are allowed",
        ),
        _ => (
            "414 URI Too Long",
            "path and query are too long: 65534 bytes are allowed",
        ),
    };
    let body = format!("{{\"error\":\"{why}\"}}");
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_without_a_body_get_another() {
        let check =
            |bytes: &str, expected| assert_eq!(bare_refusal(bytes.as_bytes()), expected, "{bytes}");
        check(
            "HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            Some(414),
        );
        check(
            "HTTP/1.0 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
            Some(400),
        );
        check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", None);
        check(
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 14\r\n\r\n{\"error\":\"no\"}",
            None,
        );
        check("HTTP/1.1 400 Bad Request\r\ncontent-length: 0", None);
        check("", None);
    }
}
