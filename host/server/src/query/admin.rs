//! HTTP that changes something: reloads and rollbacks, at an address of its own, for who has the token.
//!
//! Never answers anybody else, nor what a page of another origin asks. Invariant: nothing waits for ever, or grows: connections are few,
//! heads and bodies have their time and their size, and an outcome is waited for so long and no longer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::Listener as _;
use axum::{Json, Router};
use hyper::body::Body as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connection::Connections;
use super::token::Token;
use super::{Hosted, Refusal, Served, path, plugins, signature, signed};
use crate::reload::{Action, Answer, NotAsked, Verdict};

/// How many connections there may be; more wait to be taken.
const CONNECTIONS_MAX: usize = 64;
/// How long the head of a request may take to come, from the end of the one before on a connection; and then its body.
const ARRIVAL_MAX: Duration = Duration::from_secs(5);
/// Bytes that a body may have. They mean nothing.
const BODY_BYTES_MAX: usize = 4 << 10;
/// A larger one is read on so far: a client that still sends doesn't read why it is refused.
const FAREWELL_BYTES_MAX: usize = 16 << 20;
/// How long the outcome of a reload or a rollback is waited for.
const OUTCOME_WITHIN: Duration = Duration::from_secs(30);
/// Requests that are refused are told of at most so often.
const TELLING_PAUSE: Duration = Duration::from_secs(1);

/// Answers on a thread of its own, until the process ends: queries don't hold up who has to change something.
pub fn serve(listener: std::net::TcpListener, hosted: Hosted, token: Token) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = async move || {
        let connections = Connections(tokio::net::TcpListener::from_std(listener)?);
        accept(connections, router(hosted, token)).await;
        io::Result::Ok(())
    };
    let logged = move || {
        if let Err(error) = runtime.block_on(answer()) {
            tracing::error!("reloads can't be asked for over HTTP any more: {error}");
        }
    };
    std::thread::Builder::new()
        .name("admin".into())
        .spawn(logged)?;
    Ok(())
}

async fn accept(mut connections: Connections, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let (connection, _) = connections.accept().await;
        let service = TowerToHyperService::new(router.clone());
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(ARRIVAL_MAX)
            .serve_connection(TokioIo::new(connection), service);
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!("a connection of --admin ended: {error}");
            }
            drop(place);
        });
    }
}

fn router(hosted: Hosted, token: Token) -> Router {
    let guard = Guard {
        token,
        told: Arc::default(),
    };
    let sign = middleware::map_response_with_state(signature(&hosted), signed);
    Router::new()
        .route("/v1/pipelines/{pipeline}/reload", post(reload))
        .route("/v1/pipelines/{pipeline}/rollback", post(rollback))
        .route(
            "/v1/pipelines/{pipeline}/plugins/{plugin}/reload",
            post(reload_plugin),
        )
        .method_not_allowed_fallback(|| async {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "only POST is answered here")
        })
        .fallback(|| async {
            let why = "there is nothing at this path; what only reads is answered at the address of --http";
            Refusal::new(StatusCode::NOT_FOUND, why)
        })
        .layer(middleware::from_fn_with_state(guard, admit))
        .layer(sign)
        .with_state(hosted)
}

/// Who lets requests in.
#[derive(Clone, Debug)]
struct Guard {
    token: Token,
    /// When one that was refused was last told of.
    told: Arc<Mutex<Option<Instant>>>,
}

impl Guard {
    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let checked = own_origin(headers).and_then(|()| self.token.check(headers));
        if let Err(refusal) = &checked {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_none_or(|told| told.elapsed() >= TELLING_PAUSE) {
                *told = Some(Instant::now());
                let (status, error) = (refusal.status.as_u16(), &refusal.error);
                tracing::warn!(status, "a request to --admin is refused: {error}");
            }
        }
        checked
    }
}

/// Before anything is looked at, and whatever the path: who asks, and then how much they bring.
async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let admitted = match guard.check(&head.headers) {
        Ok(()) => read(body).await,
        refused => refused,
    };
    match admitted {
        Ok(()) => next.run(Request::from_parts(head, Body::empty())).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// A browser says which page asks. None of another host may, whatever it has got hold of.
fn own_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(HOST).map(|host| host.as_bytes());
    let is_own = |origin: &[u8]| {
        let schemes = [b"http://".as_slice(), b"https://"];
        let mut bare = schemes
            .iter()
            .filter_map(|scheme| origin.strip_prefix(*scheme));
        bare.next()
            .is_some_and(|bare| host.is_some_and(|host| bare.eq_ignore_ascii_case(host)))
    };
    let mut origins = headers.get_all(ORIGIN).iter();
    match origins.all(|origin| is_own(origin.as_bytes())) {
        true => Ok(()),
        false => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "this is asked by a page of another origin (`origin`), which may not",
        )),
    }
}

/// Reads a body to its end. Nothing is done with it.
async fn read(body: Body) -> Result<(), Refusal> {
    let large = || {
        let why = format!(
            "the body is too large: {BODY_BYTES_MAX} bytes are allowed, and none are needed"
        );
        Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, why))
    };
    if body.size_hint().lower() > FAREWELL_BYTES_MAX as u64 {
        return large();
    }
    let read = timeout(ARRIVAL_MAX, bytes(body)).await;
    let late = |_| {
        let why = format!("the body has not come within {ARRIVAL_MAX:?}");
        Refusal::new(StatusCode::REQUEST_TIMEOUT, why)
    };
    match read.map_err(late)? {
        Ok(bytes) if bytes > BODY_BYTES_MAX => large(),
        Ok(_) => Ok(()),
        Err(why) => Err(Refusal::bad(format!("the body can't be read: {why}"))),
    }
}

/// How many there are, as far as they are read.
async fn bytes(mut body: Body) -> Result<usize, axum::Error> {
    let mut bytes = 0;
    while bytes <= FAREWELL_BYTES_MAX {
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(frame) = frame else { break };
        bytes += frame?.data_ref().map_or(0, |data| data.len());
    }
    Ok(bytes)
}

/// `POST /v1/pipelines/{pipeline}/reload`: looks at the files now.
async fn reload(State(hosted): State<Hosted>, uri: Uri) -> Result<Response, Refusal> {
    let served = path::pipeline(&hosted, path::parts(uri.path())[0])?;
    ask(&served, Action::Reload).await
}

/// `POST /v1/pipelines/{pipeline}/plugins/{plugin}/reload`: the same, if there is such a plugin. What runs is a version of the whole
/// pipeline file, so all of it is looked at.
async fn reload_plugin(State(hosted): State<Hosted>, uri: Uri) -> Result<Response, Refusal> {
    let [pipeline, _, plugin, ..] = path::parts(uri.path());
    let served = path::pipeline(&hosted, pipeline)?;
    plugins::named(&served, plugin)?;
    ask(&served, Action::Reload).await
}

/// `POST /v1/pipelines/{pipeline}/rollback`: goes back to what ran before.
async fn rollback(State(hosted): State<Hosted>, uri: Uri) -> Result<Response, Refusal> {
    let served = path::pipeline(&hosted, path::parts(uri.path())[0])?;
    ask(&served, Action::Rollback).await
}

async fn ask(served: &Served, action: Action) -> Result<Response, Refusal> {
    let unavailable =
        |why: NotAsked| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why.to_string());
    let receiver = served.plugins.requests.ask(action).map_err(unavailable)?;
    let answer = match timeout(OUTCOME_WITHIN, receiver).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => return Err(unavailable(NotAsked::Ends)),
        Err(_) => Answer {
            verdict: None,
            revision: None,
        },
    };
    Ok(told(action, &answer))
}

/// The answer to who asked. One that is a failure has its `error`, as all have.
fn told(action: Action, answer: &Answer) -> Response {
    let (word, why) = (answer.word(), answer.why());
    let mut body = json!({
        "action": action.word(),
        "verdict": word,
        "why": why,
        "revision": answer.revision,
    });
    let status = match &answer.verdict {
        None => StatusCode::ACCEPTED,
        Some(Verdict::Taken | Verdict::Unchanged) => StatusCode::OK,
        Some(Verdict::Rejected(why) | Verdict::Refused(why)) => {
            let action = action.word();
            let error = format!("the {action} is {word}, and the old version runs on: {why}");
            body["error"] = error.into();
            StatusCode::CONFLICT
        }
    };
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_origins_are_refused() {
        let check = |headers: &[(&str, &str)], expected: bool| {
            let mut all = HeaderMap::new();
            for (name, value) in headers {
                let name: axum::http::HeaderName = name.parse().expect("a name");
                all.append(name, value.parse().expect("a value"));
            }
            let refused = own_origin(&all).err().map(|refusal| refusal.status);
            let forbidden = (!expected).then_some(StatusCode::FORBIDDEN);
            assert_eq!(refused, forbidden, "{headers:?}");
        };
        let host = ("host", "127.0.0.1:8081");
        check(&[host], true);
        check(&[host, ("origin", "http://127.0.0.1:8081")], true);
        check(&[host, ("origin", "https://127.0.0.1:8081")], true);
        check(&[host, ("origin", "http://127.0.0.1:8080")], false);
        check(
            &[host, ("origin", "http://127.0.0.1:8081.example.org")],
            false,
        );
        check(&[host, ("origin", "null")], false);
        check(&[host, ("origin", "")], false);
        check(&[("origin", "http://127.0.0.1:8081")], false);
        let own = ("origin", "http://127.0.0.1:8081");
        check(&[host, own, ("origin", "http://example.org")], false);
    }

    #[test]
    fn the_status_says_whether_to_look_at_the_body() {
        let check = |verdict, expected| {
            let answer = Answer {
                verdict,
                revision: Some("abc".into()),
            };
            assert_eq!(told(Action::Reload, &answer).status(), expected);
        };
        check(None, StatusCode::ACCEPTED);
        check(Some(Verdict::Taken), StatusCode::OK);
        check(Some(Verdict::Unchanged), StatusCode::OK);
        let why = || "it traps".to_owned();
        check(Some(Verdict::Rejected(why())), StatusCode::CONFLICT);
        check(Some(Verdict::Refused(why())), StatusCode::CONFLICT);
    }
}
