//! Takes events over HTTP into a log: a request is answered when its event is durable. On axum and
//! tokio, with metrics.
//!
//! `cargo run --release --example http_ingest -- DIRECTORY [ADDRESS]`; the default address is
//! 127.0.0.1:8080.
//!
//!  - `POST /events`, the event as the body: 201 and its position. The answer waits for the disk,
//!    which is the backpressure. Concurrent requests share writes.
//!  - `GET /events/POSITION`: the event.
//!  - `GET /events?from=POSITION&limit=N`: lines of position, tab, event.
//!  - `GET /metrics`: metrics for Prometheus. `examples/grafana/` has a dashboard.
//!  - `GET /health`: 200 while the service accepts events.
//!
//! ```text
//! curl --data 'paid 7.50' localhost:8080/events
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use std::collections::HashMap;
use std::path::Path as FilePath;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use ringwal::{Error, Lsn, Wal};

type Failure = Box<dyn std::error::Error>;

/// Bytes of an event at most.
const LARGEST: usize = 64 << 10;
/// Number of events in an answer at most.
const MOST: usize = 10_000;

#[derive(Clone)]
struct Service {
    wal: Wal,
    prometheus: PrometheusHandle,
}

/// An error of the log, as a status that a client can act on.
struct Refused(Error);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match &self.0 {
            Error::RecordTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            // The service accepts events again once there is space.
            Error::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            // The event may or may not be durable. The client sends it again, elsewhere or later.
            Error::Poisoned { .. } | Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Error::Pruned { .. } => StatusCode::GONE,
            Error::NoRecord { .. } | Error::NotAppended { .. } | Error::NotDurable { .. } => {
                StatusCode::NOT_FOUND
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, format!("{}\n", self.0)).into_response()
    }
}

/// Appends an event. If the client disconnects, the whole event is appended or none of it.
async fn take(State(service): State<Service>, event: Bytes) -> Result<Response, Refused> {
    let lsn = service.wal.append_async(&event).await?;
    service.wal.when_durable(lsn).await?;
    Ok((StatusCode::CREATED, format!("{lsn}\n")).into_response())
}

async fn one(
    State(service): State<Service>,
    Path(position): Path<u64>,
) -> Result<Vec<u8>, Refused> {
    // A read may wait for the disk, so it must not run on the runtime's threads.
    let read = move || service.wal.read(Lsn::new(position));
    let record = tokio::task::spawn_blocking(read).await.unwrap_or(Err(Error::Closed))?;
    Ok(record.payload)
}

async fn list(
    State(service): State<Service>,
    Query(query): Query<HashMap<String, u64>>,
) -> Result<Vec<u8>, Refused> {
    let from = Lsn::new(query.get("from").copied().unwrap_or(0));
    let limit = query.get("limit").map_or(100, |n| (*n as usize).min(MOST));
    let read = move || {
        let mut lines = Vec::new();
        for record in service.wal.reader(from).take(limit) {
            let record = record?;
            lines.extend_from_slice(format!("{}\t", record.lsn).as_bytes());
            lines.extend_from_slice(&record.payload);
            lines.push(b'\n');
        }
        Ok(lines)
    };
    Ok(tokio::task::spawn_blocking(read).await.unwrap_or(Err(Error::Closed))?)
}

async fn metrics(State(service): State<Service>) -> String {
    service.wal.publish_metrics("events");
    service.prometheus.render()
}

async fn health(State(service): State<Service>) -> Result<&'static str, Refused> {
    service.wal.health()?;
    Ok("ok\n")
}

#[cfg(unix)]
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (interrupted, terminated) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    if let (Ok(mut interrupted), Ok(mut terminated)) = (interrupted, terminated) {
        tokio::select! { _ = interrupted.recv() => {} _ = terminated.recv() => {} }
    }
}

#[cfg(not(unix))]
async fn told_to_stop() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: http_ingest DIRECTORY [ADDRESS]")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let wal = Wal::builder(FilePath::new(&dir)).max_record_size(LARGEST).open()?;
    println!("{}", wal.recovery());
    println!("{}", wal.backend());
    let service = Service { wal, prometheus: PrometheusBuilder::new().install_recorder()? };
    let wal = service.wal.clone();
    let router = Router::new()
        .route("/events", post(take).get(list))
        .route("/events/{position}", get(one))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(service);
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, router).with_graceful_shutdown(told_to_stop()).await?;
    wal.close()?;
    println!("closed");
    Ok(())
}
