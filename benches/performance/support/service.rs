//! The measured programs, as child processes: the real binary as a user starts it, and the peers.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Result;
use super::process::{Usage, family, usage};

/// The webhook secret of every server here.
pub(crate) const SECRET: &str = "performance-secret";
/// The token of the bot, of the shape that Telegram gives.
pub(crate) const TOKEN: &str = "4839574812:AAFD39kkdpWt3ywyRZergyOLMaJhac60qcc";
const PATIENCE: Duration = Duration::from_secs(60);

/// A running child. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    /// Where webhooks go.
    pub(crate) address: SocketAddr,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command of the real binary, with its data below `folder` and no network access.
pub(crate) fn lakegram(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lakegram"));
    command.args(arguments).current_dir(folder).env_clear();
    command
        .env("HOSTNAME", "bench-lane")
        .env("LAKEGRAM_DATA", folder.join("data"))
        .env("LAKEGRAM_LISTEN", "127.0.0.1:0")
        .env("LAKEGRAM_CONSOLE", "127.0.0.1:0")
        .env("TELEGRAM_API_URL", "http://127.0.0.1:9")
        .env("TELEGRAM_BOT_TOKEN", TOKEN)
        .env("TELEGRAM_WEBHOOK_SECRET", SECRET)
        .env("LLM_BASE_URL", "http://127.0.0.1:9/v1")
        .env("LLM_API_KEY", "none")
        .env("RUST_LOG", "info");
    command
}

impl Service {
    /// Starts a long-running command of the real binary and waits until it listens.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let lines = lines(child.stderr.take().ok_or("no log")?);
        let (mut address, mut console, mut seen) = (None, None::<SocketAddr>, Vec::new());
        while address.is_none() || console.is_none() {
            let Ok(line) = lines.recv_timeout(PATIENCE) else {
                child.kill()?;
                return Err(format!("it did not start: {}", seen.join("\n")).into());
            };
            let found = |mark: &str| line.split_once(mark).and_then(|(_, rest)| rest.trim().parse().ok());
            address = address.or_else(|| found("listening on http://"));
            console = console.or_else(|| found("console on http://"));
            seen.push(line);
        }
        match (address, console) {
            (Some(address), Some(_)) => Ok(Self { child, address }),
            _ => Err("it printed no addresses".into()),
        }
    }

    /// Starts a peer that listens on `address` and waits until it does.
    pub(crate) fn start_peer(mut command: Command, address: SocketAddr) -> Result<Self> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let peer = Self { child, address };
        let began = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            if began.elapsed() > PATIENCE {
                return Err(format!("{command:?} did not start").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(peer)
    }

    /// Starts a command of the real binary that listens on `address`, without waiting.
    pub(crate) fn launch(mut command: Command, address: SocketAddr) -> Result<Self> {
        let heard = std::env::var_os("LAKEGRAM_BENCH_LOG").is_some();
        let log = if heard { Stdio::inherit() } else { Stdio::null() };
        Ok(Self { child: command.stdout(Stdio::null()).stderr(log).spawn()?, address })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has used so far, its children included.
    pub(crate) fn usage(&self) -> Result<Usage> {
        usage(self.pid())
    }

    /// SIGKILL, as a power cut would end it.
    pub(crate) fn kill(&mut self) {
        // The workers of a peer do not end with it. Any of them may have ended by itself.
        for pid in family(self.pid()).into_iter().skip(1) {
            let _ended = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// SIGTERM, and waits until it has drained.
    pub(crate) fn stop(mut self) -> Result<()> {
        Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        self.child.wait()?;
        Ok(())
    }
}

/// A free port of 127.0.0.1, chosen by the system, for a peer that must be given one.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// The lines of a log, read to its end so that the program never blocks on it.
fn lines(log: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(std::result::Result::ok) {
            if std::env::var_os("LAKEGRAM_BENCH_LOG").is_some() {
                eprintln!("| {line}");
            }
            // Nobody listens once it has started.
            let _unheard = sender.send(line);
        }
    });
    lines
}
