//! Single updates to a webhook, over kept-alive connections, as Telegram does.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tokio::net::TcpStream;

use super::Result;
use super::load::{exchange, request};

/// A webhook and the open connections to it; one more is opened when all are busy.
#[derive(Debug)]
pub(crate) struct Webhook {
    address: SocketAddr,
    free: Mutex<Vec<TcpStream>>,
}

impl Webhook {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, free: Mutex::default() }
    }

    /// Posts one update; an error when it is not acknowledged.
    pub(crate) async fn post(&self, update_id: i64, chat_id: i64, text: &str) -> Result<()> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let stream = match free {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await?,
        };
        let (status, stream) = exchange(stream, &request(update_id, chat_id, text)).await?;
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        if status == 200 { Ok(()) } else { Err(format!("the webhook answered {status}").into()) }
    }
}
