//! HTTP: what the process is doing, and what its maps hold. It reads committed contents and worker's reports, and changes nothing; what
//! does is apart, in `admin`.
//!
//! What other instances hold is asked of them.
//!
//! Invariant: a key is reported absent only by the process that holds its partition, fully restored.

mod admin;
mod connection;
mod cursor;
mod entry;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod health;
mod hosted;
mod list;
mod maps;
mod metrics;
mod parameters;
mod path;
mod peers;
mod plugins;
mod routing;
#[cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        reason = "calls the system, which no safe crate does for this"
    )
)]
mod short_slice;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use millstream_engine::pipeline::Pipeline;
use serde_json::json;

pub use self::admin::serve as serve_admin;
use self::connection::Connections;
pub use self::hosted::{Hosted, Standing};
pub use self::routing::{AskGroup, Routing};
pub use self::token::Token;
use crate::directory::Directory;
use crate::map_memory::MapMemory;
use crate::reload::Plugins;
use crate::snapshots::MapCounts;
use crate::standby::Standbys;
use crate::status::SharedStatus;

/// What queries of a pipeline are answered from.
#[derive(Clone, Debug)]
pub struct Served {
    pub pipeline: Arc<Pipeline>,
    pub instance: String,
    pub plugins: Arc<Plugins>,
    /// Of every map's topic, parallel to the pipeline's maps.
    pub partitions_of: Vec<u32>,
    pub directory: Arc<Directory>,
    pub memory: Arc<MapMemory>,
    pub standbys: Arc<Standbys>,
    /// By worker.
    pub workers: Vec<SharedStatus>,
    pub routing: Arc<Routing>,
    /// By map.
    pub snapshots: Arc<[MapCounts]>,
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

    fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// A map partition that is read up to `at` and not to its `end`.
    fn restoring(number: u32, at: i64, end: i64) -> Self {
        let error =
            format!("partition {number} is being restored: at changelog offset {at} of {end}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.error }))).into_response();
        let header = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, "1")),
            StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
            _ => None,
        };
        if let Some((name, value)) = header {
            let headers = response.headers_mut();
            headers.insert(name, HeaderValue::from_static(value));
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

    pub fn serve(listener: std::net::TcpListener, hosted: Hosted) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let serve = move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(Connections(listener), router(hosted)).await
            })
        };
        let logged = move || {
            short_slice::ask();
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

/// `GET /openapi.json`: what is answered here, for programs.
async fn openapi() -> Response {
    let document = include_str!("openapi.json");
    ([("content-type", "application/json")], document).into_response()
}

/// Says which instance answers, where it isn't another one's answer.
async fn signed(State(instance): State<HeaderValue>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(peers::INSTANCE).or_insert(instance);
    response
}

/// The instance, as answers name it.
fn signature(hosted: &Hosted) -> HeaderValue {
    let instance = HeaderValue::from_str(hosted.instance());
    instance.expect("an instance's name is letters, digits and signs of ASCII")
}

fn router(hosted: Hosted) -> Router {
    let sign = map_response_with_state(signature(&hosted), signed);
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(openapi))
        .route("/v1/status", get(health::status))
        .route("/metrics", get(metrics::get))
        .route("/v1/pipelines", get(maps::pipelines))
        .route("/v1/pipelines/{pipeline}/readyz", get(health::one_ready))
        .route("/v1/pipelines/{pipeline}/plugins", get(plugins::plugins))
        .route(
            "/v1/pipelines/{pipeline}/plugins/{plugin}",
            get(plugins::plugin),
        )
        .route("/v1/pipelines/{pipeline}/maps", get(maps::maps))
        .route(
            "/v1/pipelines/{pipeline}/maps/{map}/entries",
            get(list::list),
        )
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
        .layer(sign)
        .with_state(hosted)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    /// What the system tests don't see in answers: the document's numbers are the code's.
    #[test]
    fn the_document_has_the_codes_numbers() {
        let text = include_str!("openapi.json");
        let document: Value = serde_json::from_str(text).expect("the document is JSON");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let listing = &document["paths"]["/v1/pipelines/{pipeline}/maps/{map}/entries"]["get"];
        let named = |name: &str| {
            let mut parameters = listing["parameters"].as_array().into_iter().flatten();
            parameters.find(|parameter| parameter["name"] == name)
        };
        let limit = &named("limit").expect("there is a limit")["schema"];
        assert_eq!(limit["maximum"], super::parameters::LIMIT_MAX);
        assert_eq!(limit["default"], super::parameters::LIMIT_DEFAULT);
        let says = |part: &Value, words: String| {
            let found = part["description"]
                .as_str()
                .is_some_and(|text| text.contains(&words));
            assert!(found, "{words:?} is not in {part}");
        };
        let slots = super::list::PAGE_SLOTS_MAX;
        says(
            listing,
            format!(
                "{slots} entries or {} MiB",
                super::list::PAGE_BYTES_MAX >> 20
            ),
        );
        let conditions = millstream_engine::state::search::CONDITIONS_MAX;
        says(
            named("where").expect("there is a where"),
            format!("{conditions} are allowed"),
        );
    }
}
