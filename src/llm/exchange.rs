//! One HTTP exchange: a request, and either a whole response or what went wrong on the way.

use std::error::Error as StdError;

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response, StatusCode};

use super::ModelFault;

/// The largest response that is read, in bytes.
const ANSWER_LIMIT: usize = 4 * 1_024 * 1_024;
/// How much of an error response is read, in bytes.
const ERROR_LIMIT: usize = 64 * 1_024;

/// What a server responded, whatever its status.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Sends a request and reads its response, once.
///
/// If the connection breaks while an error is being read, the error's status still counts.
pub(super) async fn exchange(request: RequestBuilder) -> Result<Reply, ModelFault> {
    let mut response = request.send().await.map_err(fault)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = if status.is_success() { whole(&mut response).await? } else { beginning(&mut response).await };
    Ok(Reply { status, headers, body })
}

async fn whole(response: &mut Response) -> Result<Vec<u8>, ModelFault> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(fault)? {
        if body.len() + chunk.len() > ANSWER_LIMIT {
            let message = format!("the response is larger than {ANSWER_LIMIT} bytes");
            return Err(ModelFault::Failing { retry_after: None, message });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

async fn beginning(response: &mut Response) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < ERROR_LIMIT {
        let Ok(Some(chunk)) = response.chunk().await else { break };
        body.extend_from_slice(&chunk);
    }
    body.truncate(ERROR_LIMIT);
    body
}

/// Not having reached the server is one thing; what broke after that may have been caused by this request.
fn fault(error: reqwest::Error) -> ModelFault {
    // A URL may contain a key.
    let error = error.without_url();
    let what = match () {
        () if error.is_builder() => "cannot be sent this request",
        () if error.is_connect() => "cannot be reached",
        () if error.is_timeout() => "did not respond in time",
        () => "closed the connection early",
    };
    let mut message = what.to_owned();
    let mut cause: Option<&dyn StdError> = Some(&error);
    while let Some(deeper) = cause {
        message = format!("{message}: {deeper}");
        cause = deeper.source();
    }
    if error.is_builder() {
        return ModelFault::Rejected { message };
    }
    if error.is_connect() {
        return ModelFault::Unavailable { retry_after: None, message };
    }
    ModelFault::Failing { retry_after: None, message }
}
