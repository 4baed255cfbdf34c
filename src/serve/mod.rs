//! A model of our own behind an HTTP server that speaks OpenAI's API: `thresh serve`.

mod answer;
mod request;
mod worker;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use answer::{Form, Wrong};
use worker::Events;
pub use worker::{MAX_TOKENS, ServeError, Worker};

/// The largest request.
const LARGEST: usize = 4 << 20;

/// How long a server that was stopped waits for replies that are being written.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer, whole or in pieces.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Answers requests until `stop` is done; then takes no new ones, and ends when those that run are answered or 30 seconds
/// have gone by.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, worker: Worker, stop: impl Future<Output = ()>) -> io::Result<()> {
    let worker = Arc::new(worker);
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // A client that went away again, or too many open files: neither is the listener's end.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        // Tokens of a stream are small and must go out at once.
        let _ = stream.set_nodelay(true);
        let (worker, mut closed) = (worker.clone(), closed.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| respond(worker.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => Some(ended),
                _ = closed.wait_for(|closed| *closed) => None,
            };
            if ended.is_none() {
                connection.as_mut().graceful_shutdown();
                // What a client does wrong is its own affair.
                let _ = connection.await;
            }
        });
    }
    drop(listener);
    let _ = closing.send(true);
    let _ = tokio::time::timeout(PATIENCE, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

/// The address under which clients find the server.
pub fn address(local: SocketAddr) -> String {
    format!("http://{local}/v1")
}

async fn respond(worker: Arc<Worker>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let answer = match route(&worker, request).await {
        Ok(answer) => answer,
        Err(wrong) => {
            let mut answer = json(wrong.status, wrong.body().to_string());
            if wrong.status == StatusCode::METHOD_NOT_ALLOWED {
                answer.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, POST"));
            }
            if wrong.status == StatusCode::TOO_MANY_REQUESTS {
                answer.headers_mut().insert(RETRY_AFTER, hyper::header::HeaderValue::from_static("5"));
            }
            answer
        }
    };
    Ok(answer)
}

async fn route(worker: &Arc<Worker>, request: Request<Incoming>) -> Result<Response<Body>, Wrong> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/health") => Ok(json(StatusCode::OK, worker.health()?.to_string())),
        (&Method::GET, "/v1/models") => Ok(json(StatusCode::OK, answer::models(worker.name()).to_string())),
        (&Method::POST, "/v1/chat/completions") => complete(worker, Form::Chat, request).await,
        (&Method::POST, "/v1/completions") => complete(worker, Form::Text, request).await,
        (_, "/health" | "/v1/models" | "/v1/chat/completions" | "/v1/completions") => Err(Wrong::method()),
        (&Method::GET, path) if path == format!("/v1/models/{}", worker.name()) => {
            Ok(json(StatusCode::OK, answer::model(worker.name()).to_string()))
        }
        (_, path) => Err(Wrong::path(path)),
    }
}

async fn complete(worker: &Arc<Worker>, form: Form, request: Request<Incoming>) -> Result<Response<Body>, Wrong> {
    let body = Limited::new(request.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| Wrong::request(None, format!("the body could not be read: {error}")))?.to_bytes();
    let head = answer::Head::new(form, worker.name(), worker.number());
    let worker = worker.clone();
    // Long prompts take their time, in which others are to be answered.
    let asked = move || {
        let asked = request::read(form, &body, &worker)?;
        Ok((asked.stream, asked.stream_usage, worker.submit(asked)?))
    };
    let asked = tokio::task::spawn_blocking(asked).await;
    let (streamed, usage, events) =
        asked.unwrap_or_else(|error| Err(Wrong::failed(format!("the request could not be read: {error}"))))?;
    if streamed {
        return Ok(in_pieces(head, events, usage));
    }
    Ok(json(StatusCode::OK, head.whole(events.all().await?).to_string()))
}

/// Server-sent events: one a piece of text, then `[DONE]`.
fn in_pieces(head: answer::Head, events: Events, usage: bool) -> Response<Body> {
    let pieces = stream::unfold((Some(events), answer::Pieces::new(head, usage)), |(events, mut pieces)| async move {
        let mut events = events?;
        let (text, more) = match events.next().await {
            Some(Ok(event)) => (pieces.piece(&event), true),
            Some(Err(wrong)) => (answer::sse(&wrong.body()), false),
            None => (pieces.last(), false),
        };
        let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(text)));
        Some((frame, (more.then_some(events), pieces)))
    });
    let mut answer = Response::new(StreamBody::new(pieces).boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-cache"));
    answer
}

fn json(status: StatusCode, text: String) -> Response<Body> {
    let mut answer = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    answer
}
