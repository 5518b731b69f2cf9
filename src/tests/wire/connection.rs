//! The connection between `object_store` and the bucket, on which requests and answers get lost, late and torn.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::header::{IF_NONE_MATCH, RANGE};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use object_store::aws::AmazonS3Builder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions, Result};
use tokio::runtime::Handle;
use url::Url;

use super::bucket::{Bucket, NAME, Request, answer, refusal};
use super::script::{Fault, Operation, WireScript};
use crate::clock::Clock;
use crate::storage::Storage;
use crate::tests::kit::Dice;

/// All that a process is connected to. Outlives it.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) bucket: Arc<Bucket>,
    pub(super) script: Arc<WireScript>,
    pub(super) clock: Clock,
    /// What is under way arrives, whoever has sent it and died.
    pub(super) network: Handle,
}

impl Wire {
    /// The storage of a process, opened as the product does.
    pub(super) fn open(&self) -> Storage {
        let client = AmazonS3Builder::new()
            .with_region("eu-central-1")
            .with_access_key_id("a-key")
            .with_secret_access_key("a-secret-of-tests")
            .with_http_connector(self.clone());
        Storage::open_amazon(&format!("s3://{NAME}/in/here"), client).unwrap()
    }
}

impl HttpConnector for Wire {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        let timeout = options.get_config_value(&ClientConfigKey::Timeout).expect("a request has an end");
        let timeout = humantime::parse_duration(&timeout).unwrap();
        Ok(HttpClient::new(Connection { wire: self.clone(), timeout }))
    }
}

#[derive(Debug)]
struct Connection {
    wire: Wire,
    /// How long the client waits for an answer, as the product has set it.
    timeout: Duration,
}

fn broken(kind: HttpErrorKind, why: &'static str) -> HttpError {
    HttpError::new(kind, std::io::Error::other(why))
}

/// A reset after the request is out: the client of the product tells the two kinds apart by how it learns of it.
fn reset(dice: &mut Dice) -> HttpError {
    match dice.per_mille(500) {
        true => broken(HttpErrorKind::Interrupted, "connection reset by peer"),
        false => broken(HttpErrorKind::Request, "connection closed before message completed"),
    }
}

#[async_trait]
impl HttpService for Connection {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = whole(request).await;
        let (fault, mut dice) = self.wire.script.next(Operation::of(&request));
        // The stand-in is never at once: whoever races for it is to meet others.
        self.wire.clock.sleep(Duration::from_millis(dice.below(400))).await;
        let serve = || self.wire.bucket.serve(&request);
        match fault {
            None => Ok(serve()),
            Some(Fault::Connect) => Err(broken(HttpErrorKind::Connect, "connection refused")),
            Some(Fault::Reset) => Err(reset(&mut dice)),
            Some(Fault::Lost) => {
                serve();
                Err(reset(&mut dice))
            }
            Some(Fault::Internal) => Ok(refusal(500, "InternalError")),
            Some(Fault::InternalDone) => {
                serve();
                Ok(refusal(500, "InternalError"))
            }
            Some(Fault::SlowDown) => Ok(refusal(503, "SlowDown")),
            Some(Fault::Busy) => Ok(refusal(429, "TooManyRequests")),
            Some(Fault::Conflict) => Ok(refusal(409, "ConditionalRequestConflict")),
            Some(Fault::Inside) => {
                let error =
                    |key| format!("<Error><Key>{key}</Key><Code>InternalError</Code><Message>-</Message></Error>");
                let errors: String = request.doomed().into_iter().map(error).collect();
                Ok(answer(200, format!("<DeleteResult>{errors}</DeleteResult>")))
            }
            Some(Fault::Torn) => Ok(torn(serve()).await),
            Some(Fault::Late) => self.late(request, &mut dice).await,
        }
    }
}

impl Connection {
    /// The request arrives some time, whether its sender still waits or not.
    async fn late(&self, request: Request, dice: &mut Dice) -> Result<HttpResponse, HttpError> {
        let delay = self.timeout.mul_f64(dice.below(1_500) as f64 / 1_000.0);
        let (bucket, clock) = (Arc::clone(&self.wire.bucket), self.wire.clock.clone());
        let arrival = self.wire.network.spawn(async move {
            clock.sleep(delay).await;
            bucket.serve(&request)
        });
        match self.wire.clock.timeout(self.timeout, arrival).await {
            Some(served) => Ok(served.unwrap()),
            None => Err(broken(HttpErrorKind::Timeout, "operation timed out")),
        }
    }
}

async fn whole(request: HttpRequest) -> Request {
    let (parts, body) = request.into_parts();
    let range = parts.headers.get(RANGE).map(|range| {
        let (first, last) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        (first.parse().unwrap(), last.parse().unwrap())
    });
    Request {
        url: Url::parse(&parts.uri.to_string()).unwrap(),
        create_only: parts.headers.get(IF_NONE_MATCH).is_some_and(|value| value == "*"),
        range,
        body: body.collect().await.unwrap().to_bytes(),
        method: parts.method,
    }
}

/// An answer whose second half never comes.
async fn torn(whole: HttpResponse) -> HttpResponse {
    let (parts, body) = whole.into_parts();
    let bytes: Bytes = body.collect().await.unwrap().to_bytes();
    let half = bytes.slice(..bytes.len() / 2);
    let broken = broken(HttpErrorKind::Interrupted, "end of file before message length reached");
    let frames = stream::iter([Ok(Frame::data(half)), Err(broken)]);
    HttpResponse::from_parts(parts, HttpResponseBody::new(StreamBody::new(frames)))
}
