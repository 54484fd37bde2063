//! HTTP: what the process is doing, and what its maps hold. It reads committed contents and worker's reports, and changes nothing.
//!
//! Invariant: a key is reported absent only by a partition that is held here and fully restored.

mod entry;
mod health;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use millstream_engine::pipeline::Pipeline;
use serde_json::json;

use crate::directory::Directory;
use crate::status::SharedStatus;

/// What queries are answered from.
#[derive(Clone, Debug)]
pub struct Served {
    pub pipeline: Arc<Pipeline>,
    pub instance: String,
    /// Name of each step, and what its plugin says it is.
    pub steps: Vec<(String, String)>,
    /// Of every map.
    pub map_partitions: u32,
    pub directory: Arc<Directory>,
    /// By worker.
    pub workers: Vec<SharedStatus>,
}

/// An error as clients see it: `{"error": "…"}` with the status.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    error: String,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.error }))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(
                "retry-after",
                "1".parse().expect("a digit is a header value"),
            );
        }
        response
    }
}

/// The HTTP interface on a thread of its own, until the process ends.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
}

impl Server {
    /// Listens; nothing is answered before [`Server::serve`]. Port 0 stands for any free one.
    pub fn bind(address: SocketAddr) -> std::io::Result<(Self, std::net::TcpListener)> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok((
            Self {
                address: listener.local_addr()?,
            },
            listener,
        ))
    }

    pub fn serve(listener: std::net::TcpListener, served: Served) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let serve = move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, router(served)).await
            })
        };
        let logged = move || {
            if let Err(error) = serve() {
                tracing::error!("HTTP ended: {error}");
            }
        };
        std::thread::Builder::new()
            .name("http".into())
            .spawn(logged)?;
        Ok(())
    }
}

fn router(served: Served) -> Router {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/v1/status", get(health::status))
        .route(
            "/v1/pipelines/{pipeline}/maps/{map}/entries/",
            get(entry::get),
        )
        .route(
            "/v1/pipelines/{pipeline}/maps/{map}/entries/{*key}",
            get(entry::get),
        )
        .method_not_allowed_fallback(|| async {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here")
        })
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .with_state(served)
}
