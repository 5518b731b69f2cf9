//! A `lakegram` on ports that the test knows, for tests in which nobody reads its log.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A process that ends with the test.
pub(crate) struct Reaped(pub Child);

/// Makes a command serve on two free ports; returns those of the webhook and the console.
pub(crate) fn on_free_ports(command: &mut Command) -> [u16; 2] {
    let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = listeners.map(|listener| listener.local_addr().unwrap().port());
    command.env("LAKEGRAM_LISTEN", format!("127.0.0.1:{}", ports[0]));
    command.env("LAKEGRAM_CONSOLE", format!("127.0.0.1:{}", ports[1]));
    ports
}

impl Reaped {
    /// Waits until it answers at a URL.
    pub(crate) async fn wait_for_answer(&mut self, client: &reqwest::Client, url: &str) {
        let deadline = Instant::now() + PATIENCE;
        while client.get(url).send().await.is_err() {
            assert!(self.0.try_wait().unwrap().is_none(), "it ended");
            assert!(Instant::now() < deadline, "it never listened");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it as an operator would, and returns its exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        tokio::task::spawn_blocking(move || self.0.wait().unwrap()).await.unwrap().code()
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // Already gone where the test came to its end.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
