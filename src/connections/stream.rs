//! The stream of a connection: neither a client that does not read holds it for ever, nor one that does not end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::clock::Clock;

/// How long, and how long without a byte, a client may go on sending after it was answered: a connection that is closed
/// before its bytes are read is reset, and many clients then lose the answer.
const LINGER: Duration = Duration::from_secs(10);
const LINGER_QUIET: Duration = Duration::from_millis(500);
/// How many bytes it may send then: a few times the largest update.
const LINGER_BYTES: usize = 64 * 1_024 * 1_024;
/// Bytes dropped at a time.
const LINGER_CHUNK: usize = 16 * 1_024;

/// A stream whose writes fail if the other end reads nothing for too long, and that is not closed while the other end
/// is still sending.
pub(super) struct BoundedStream {
    stream: TcpStream,
    clock: Clock,
    limit: Duration,
    /// Runs while a write waits.
    waiting: Option<BoxFuture<'static, ()>>,
    /// Once nothing more is written.
    lingering: Option<Lingering>,
}

/// What is left for a client that goes on sending.
struct Lingering {
    bytes: usize,
    time: BoxFuture<'static, ()>,
    quiet: BoxFuture<'static, ()>,
}

impl BoundedStream {
    pub(super) fn new(stream: TcpStream, clock: &Clock, limit: Duration) -> Self {
        Self { stream, clock: clock.clone(), limit, waiting: None, lingering: None }
    }

    fn in_time<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let waiting = self.waiting.get_or_insert_with(|| self.clock.sleep(self.limit).boxed());
        ready!(waiting.poll_unpin(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }

    /// Reads and drops what the client still sends, until it has seen the end, or for as long as it may.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, clock, lingering, .. } = self;
        let left = lingering.get_or_insert_with(|| Lingering {
            bytes: LINGER_BYTES,
            time: clock.sleep(LINGER).boxed(),
            quiet: clock.sleep(LINGER_QUIET).boxed(),
        });
        loop {
            let is_over = left.time.poll_unpin(context).is_ready() || left.quiet.poll_unpin(context).is_ready();
            if is_over || left.bytes == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut dropped = [0; LINGER_CHUNK];
            let mut into = ReadBuf::new(&mut dropped);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut into)) {
                Ok(()) if !into.filled().is_empty() => {
                    left.bytes = left.bytes.saturating_sub(into.filled().len());
                    left.quiet = clock.sleep(LINGER_QUIET).boxed();
                }
                // The end, or a reset, which is one.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.in_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.in_time(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        }
        self.poll_linger(context)
    }
}
