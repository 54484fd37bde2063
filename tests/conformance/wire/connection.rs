//! One connection to the broker: requests go out and answers come back in the same order.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::codec::{Fields, Form, Request};

/// Longer than any rebalance of a script takes.
const TIMEOUT: Duration = Duration::from_secs(45);

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    client_id: String,
}

impl Connection {
    pub fn open(bootstrap: &str, client_id: &str) -> Self {
        let stream = TcpStream::connect(bootstrap);
        let stream = stream.unwrap_or_else(|error| panic!("{bootstrap}: {error}"));
        let set = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(TIMEOUT)));
        set.unwrap_or_else(|error| panic!("{bootstrap}: {error}"));
        Self {
            stream,
            client_id: client_id.into(),
        }
    }

    pub fn call(&mut self, request: &Request) -> Fields {
        self.send(request);
        self.receive(request.form)
    }

    pub fn send(&mut self, request: &Request) {
        let mut head = Request::new(request.api_key, request.api_version, Form::Plain);
        head.i16(request.api_key).i16(request.api_version);
        head.i32(0).string(&self.client_id);
        if request.form == Form::Compact {
            head.i8(0);
        }
        let mut frame = Request::new(0, 0, Form::Plain);
        frame.bytes(&[head.body, request.body.clone()].concat());
        let written = self.stream.write_all(&frame.body);
        written.unwrap_or_else(|error| panic!("{request:?}: {error}"));
    }

    /// The answer to the request before, which had that form.
    pub fn receive(&mut self, form: Form) -> Fields {
        let mut length = [0; 4];
        let mut bytes = Vec::new();
        let read = self.stream.read_exact(&mut length).and_then(|()| {
            bytes.resize(u32::from_be_bytes(length) as usize, 0);
            self.stream.read_exact(&mut bytes)
        });
        read.unwrap_or_else(|error| panic!("Kafka does not answer: {error}"));
        let mut fields = Fields::new(form, bytes);
        fields.i32();
        fields.tags();
        fields
    }

    /// Whether something of an answer is there.
    pub fn is_answered(&self) -> bool {
        let set = self.stream.set_nonblocking(true);
        let found = self.stream.peek(&mut [0]);
        let set = set.and_then(|()| self.stream.set_nonblocking(false));
        set.expect("a socket can be told whether to wait");
        found.is_ok()
    }
}
