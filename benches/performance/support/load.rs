//! A load like Telegram's: connections that are kept, one update in flight on each, one chat a connection, and every
//! update sent again until it is acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Result;
use super::figures::Samples;
use super::service::SECRET;

/// Before an update that was not acknowledged is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The first `update_id`; ten digits, so that every body is of one length.
const FIRST_UPDATE_ID: i64 = 1_000_000_000;

/// What to send, and where.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) until: Until,
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After a time; what is acknowledged before `warm_up` has passed is not counted.
    Elapsed { warm_up: Duration, span: Duration },
    /// After so many acknowledged updates.
    Acked(i64),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadReport {
    /// Acknowledged, the warm-up included.
    pub(crate) acked: u64,
    /// Acknowledged a second after the warm-up.
    pub(crate) acks_a_second: f64,
    /// Answers that were no 200, and broken connections.
    pub(crate) failures: u64,
    /// From the first byte out to the answer, after the warm-up.
    pub(crate) latencies: Samples,
}

/// Hands out update ids, over all loads of one run.
#[derive(Clone, Debug)]
pub(crate) struct UpdateIds {
    next: Arc<AtomicI64>,
}

impl UpdateIds {
    pub(crate) fn new() -> Self {
        Self { next: Arc::new(AtomicI64::new(FIRST_UPDATE_ID)) }
    }

    pub(crate) fn next(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Sends a load and waits for its end.
pub(crate) async fn send(load: &Load, ids: &UpdateIds) -> Result<LoadReport> {
    let began = Instant::now();
    let budget = Arc::new(AtomicI64::new(match load.until {
        Until::Acked(count) => count,
        Until::Elapsed { .. } => i64::MAX,
    }));
    let mut connections = JoinSet::new();
    for number in 0..load.connections {
        let connection = Connection {
            load: load.clone(),
            ids: ids.clone(),
            budget: Arc::clone(&budget),
            began,
            chat_id: i64::try_from(number)? + 1,
            report: LoadReport::default(),
        };
        connections.spawn(connection.run());
    }
    let mut total = LoadReport::default();
    while let Some(report) = connections.join_next().await {
        let report = report??;
        total.acked += report.acked;
        total.failures += report.failures;
        total.latencies.append(report.latencies);
    }
    let counted = match load.until {
        Until::Elapsed { span, .. } => span,
        Until::Acked(_) => began.elapsed(),
    };
    #[allow(clippy::cast_precision_loss)]
    let counted_acks = total.latencies.count() as f64;
    total.acks_a_second = counted_acks / counted.as_secs_f64();
    Ok(total)
}

struct Connection {
    load: Load,
    ids: UpdateIds,
    budget: Arc<AtomicI64>,
    began: Instant,
    chat_id: i64,
    report: LoadReport,
}

impl Connection {
    async fn run(mut self) -> Result<LoadReport> {
        let mut stream: Option<TcpStream> = None;
        while self.goes_on() {
            let request = request(self.ids.next(), self.chat_id, "How late is it in Lisbon when it is noon here?");
            let began = Instant::now();
            loop {
                let open = match stream.take() {
                    Some(open) => Ok(open),
                    None => TcpStream::connect(self.load.address).await,
                };
                let answered = match open {
                    Ok(open) => exchange(open, &request).await,
                    Err(error) => Err(error.into()),
                };
                if let Ok((200, open)) = answered {
                    stream = Some(open);
                    break;
                }
                self.report.failures += 1;
                tokio::time::sleep(RETRY_PAUSE).await;
                if !self.has_time() {
                    return Ok(self.report);
                }
            }
            self.report.acked += 1;
            if self.is_counted() {
                self.report.latencies.push(began.elapsed());
            }
        }
        Ok(self.report)
    }

    fn has_time(&self) -> bool {
        match self.load.until {
            Until::Elapsed { warm_up, span } => self.began.elapsed() < warm_up + span,
            Until::Acked(_) => true,
        }
    }

    fn goes_on(&self) -> bool {
        self.has_time() && self.budget.fetch_sub(1, Ordering::Relaxed) > 0
    }

    fn is_counted(&self) -> bool {
        match self.load.until {
            Until::Elapsed { warm_up, span } => (warm_up..warm_up + span).contains(&self.began.elapsed()),
            Until::Acked(_) => true,
        }
    }
}

/// Posts one update over a fresh connection; the status.
pub(crate) async fn post(address: SocketAddr, update_id: i64, chat_id: i64, text: &str) -> Result<u16> {
    let stream = TcpStream::connect(address).await?;
    Ok(exchange(stream, &request(update_id, chat_id, text)).await?.0)
}

/// The bytes of a request as Telegram sends it.
pub(crate) fn request(update_id: i64, chat_id: i64, text: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"update_id":{update_id},"message":{{"message_id":{update_id},"from":{{"id":{chat_id},"is_bot":false,"first_name":"Ada","last_name":"Lovelace","username":"ada","language_code":"en"}},"chat":{{"id":{chat_id},"first_name":"Ada","last_name":"Lovelace","username":"ada","type":"private"}},"date":1760000000,"text":"{text}"}}}}"#
    );
    format!(
        "POST /telegram-webhook HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
         X-Telegram-Bot-Api-Secret-Token: {SECRET}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends a request and reads the whole answer: its status, and the connection for the next.
pub(crate) async fn exchange(mut stream: TcpStream, request: &[u8]) -> Result<(u16, TcpStream)> {
    stream.set_nodelay(true)?;
    stream.write_all(request).await?;
    let (mut answer, mut filled) = ([0_u8; 2_048], 0);
    loop {
        let read = stream.read(&mut answer[filled..]).await?;
        if read == 0 {
            return Err("the server closed the connection".into());
        }
        filled += read;
        let Some(end) = answer[..filled].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&answer[..end])?;
        let status = head.get(9..12).ok_or("no status line")?.parse()?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let mut missing = (end + 4 + length.unwrap_or(0)).saturating_sub(filled);
        while missing > 0 {
            missing -= stream.read(&mut answer[..missing.min(2_048)]).await?;
        }
        return Ok((status, stream));
    }
}
