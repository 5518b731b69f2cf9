//! Strangers with many connections, on a machine that allows a process 1,024 open files: honest posts are answered.

use std::process::{Command, Stdio};

use lakegram::receive::SECRET_HEADER;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::child::{Reaped, on_free_ports};
use crate::support::{PATIENCE, SECRET, TestApp};

/// As many machines have it.
const OPEN_FILES: u64 = 1_024;
/// More than the process may open, on each of its two listeners.
const STRANGERS: usize = 1_100;
const HONEST_POSTS: i64 = 50;

/// The same command with fewer open files.
fn with_few_files(command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {OPEN_FILES}; exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        limited.current_dir(folder);
    }
    limited
}

/// Connections that are never used for anything: every second one begins a header.
async fn strangers(port: u16) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for number in 0..STRANGERS {
        // One that was shown out before it said anything is none the less a connection that was made.
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        if number.is_multiple_of(2) {
            let _shown_out = stream.write_all(b"POST /telegram-webhook HTTP/1.1\r\nx-slow: ").await;
        }
        streams.push(stream);
    }
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_on_both_listeners_do_not_keep_honest_posts_out() {
    // Theirs are opened by this process.
    let descriptors = rlimit::increase_nofile_limit(rlimit::INFINITY).unwrap();
    if descriptors < 4 * OPEN_FILES {
        println!("\nSKIPPED: {descriptors} open files are too few to play so many strangers.\n");
        return;
    }
    let app = TestApp::new().await;
    let mut command = app.command(&["serve"]);
    let ports = on_free_ports(command.env("RUST_LOG", "warn"));
    let mut serving = Reaped(with_few_files(&command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(PATIENCE).build().unwrap();
    let url = format!("http://127.0.0.1:{}", ports[0]);
    serving.wait_for_answer(&client, &format!("{url}/readyz")).await;
    let held = [strangers(ports[1]).await, strangers(ports[0]).await];
    let mut statuses = Vec::new();
    for update_id in 1..=HONEST_POSTS {
        app.telegram.add_chat(update_id);
        let update = json!({"update_id": update_id, "message": {"message_id": 1, "date": 1_760_000_000,
            "chat": {"id": update_id, "type": "private"}, "text": "hello"}});
        let request = client.post(format!("{url}/telegram-webhook")).header(SECRET_HEADER, SECRET).json(&update);
        statuses.push(request.send().await.map_or(0, |answer| answer.status().as_u16()));
    }
    let honest = statuses.iter().filter(|status| **status == 200).count();
    let made: usize = held.iter().map(Vec::len).sum();
    println!("{made} connections of strangers, {honest} of {HONEST_POSTS} honest posts answered with 200");
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    // The stages have the descriptors that they need.
    app.wait_for_sent(usize::try_from(HONEST_POSTS).unwrap()).await;
    assert!(client.get(format!("http://127.0.0.1:{}/metrics", ports[1])).send().await.unwrap().status().is_success());
    drop(held);
    assert_eq!(serving.terminate().await, Some(0));
}
