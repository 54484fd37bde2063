//! Asking other processes of the pipeline: as much of an HTTP client as that takes. Connections are kept and used again.
//!
//! Invariant: an answer counts only if the instance that was meant says that it is its own. An address may be another process's by now.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::routing::{Owner, listed};

/// Who asks. A request that has it is answered from what the process holds, and never passed on.
pub const ROUTED: &str = "millstream-routed";
/// Of the map's partitions, those that are asked for.
pub const PARTITIONS: &str = "millstream-partitions";
/// Who answers.
pub const INSTANCE: &str = "millstream-instance";
/// What of an answer goes on to the client.
const PASSED_ON: [&str; 6] = [
    "content-type",
    "millstream-looked",
    "millstream-offset",
    "millstream-partition",
    "retry-after",
    INSTANCE,
];

const CONNECT_MAX: Duration = Duration::from_secs(1);
/// From the question to the end of the answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Of an answer's body: a page's entries, in base64 where they are no text, and one that is larger than a page.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Connections kept for each address.
const IDLE_MAX: usize = 32;

#[derive(Debug, Default)]
pub struct Peers {
    /// By address: connections that nobody uses right now.
    idle: Mutex<HashMap<String, Vec<SendRequest<Body>>>>,
}

/// What another instance answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The reason in an answer that is a refusal.
    pub fn error(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let error = body["error"].as_str();
        error.map_or_else(|| self.status.to_string(), str::to_owned)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        headers.clear();
        for name in PASSED_ON {
            if let Some(value) = self.headers.get(name) {
                headers.insert(name, value.clone());
            }
        }
        response
    }
}

impl Peers {
    /// Asks the owner of these partitions. `target` is path and query, `own` the name of this instance.
    ///
    /// # Errors
    ///
    /// Why nothing that counts came.
    pub async fn ask(
        &self,
        owner: &Owner,
        address: &str,
        target: &str,
        partitions: &[u32],
        own: &str,
    ) -> Result<Answer, String> {
        let list = listed(partitions);
        let request = || {
            let request = Request::get(target)
                .header("host", address)
                .header(ROUTED, own)
                .header(PARTITIONS, &list);
            request.body(Body::empty()).map_err(|why| why.to_string())
        };
        let asked = timeout(ANSWER_MAX, self.exchange(address, request)).await;
        let answer = asked.map_err(|_| format!("no answer within {ANSWER_MAX:?}"))??;
        match answer.header(INSTANCE) {
            Some(instance) if instance == owner.instance => Ok(answer),
            Some(other) => Err(format!(
                "instance {other} answers there; is its --advertise right?"
            )),
            None => Err("what answers there is no instance of this version".into()),
        }
    }

    async fn exchange(
        &self,
        address: &str,
        request: impl Fn() -> Result<Request<Body>, String>,
    ) -> Result<Answer, String> {
        // One that was kept may have been closed by the other end meanwhile; nothing was answered then, and nothing is changed by asking.
        while let Some(mut kept) = self.take(address) {
            if kept.ready().await.is_ok()
                && let Ok(response) = kept.send_request(request()?).await
            {
                return self.read(address, kept, response).await;
            }
        }
        let mut connection = connect(address).await?;
        let response = connection.send_request(request()?).await;
        let response = response.map_err(|why| why.to_string())?;
        self.read(address, connection, response).await
    }

    async fn read(
        &self,
        address: &str,
        connection: SendRequest<Body>,
        response: Response<hyper::body::Incoming>,
    ) -> Result<Answer, String> {
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(Body::new(body), BODY_BYTES_MAX).await;
        let body = body.map_err(|why| format!("its answer can't be read: {why}"))?;
        self.keep(address, connection);
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    fn take(&self, address: &str) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().expect("nobody panics with it held");
        let kept = idle.get_mut(address)?;
        std::iter::from_fn(|| kept.pop()).find(|connection| !connection.is_closed())
    }

    fn keep(&self, address: &str, connection: SendRequest<Body>) {
        let mut idle = self.idle.lock().expect("nobody panics with it held");
        let kept = idle.entry(address.to_owned()).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(connection);
        }
    }

    /// Closes what is kept for other addresses than these.
    pub fn forget_others(&self, addresses: &[&str]) {
        let mut idle = self.idle.lock().expect("nobody panics with it held");
        idle.retain(|address, _| addresses.contains(&address.as_str()));
    }
}

async fn connect(address: &str) -> Result<SendRequest<Body>, String> {
    let connected = timeout(CONNECT_MAX, TcpStream::connect(address)).await;
    let stream = connected.map_err(|_| format!("no connection within {CONNECT_MAX:?}"))?;
    let stream = stream.map_err(|why| why.to_string())?;
    // Requests go out as they are written; where that fails they come a little later.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|why| why.to_string())?;
    tokio::spawn(async move {
        // Whoever waits for an answer learns of it.
        let _ = connection.await;
    });
    Ok(sender)
}
