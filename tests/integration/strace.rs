//! The order of system calls: no byte of a 200 leaves before the segment's file and folder are on the disk.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{PATIENCE, TestApp};

const DURABLE_CALLS: &str = "trace=fsync,fdatasync,link,linkat,openat,write,writev,sendto,sendmsg";
/// One by one, so that each 200 has its own segment.
const SINGLE: i64 = 5;
/// All at once, so that some share a segment.
const TOGETHER: i64 = 30;

/// A call that has returned, or the start of one that sends.
#[derive(Debug, PartialEq)]
enum Event {
    /// Together with how many events there were when the call began: what came later it need not have seen.
    Synced {
        path: String,
        began: usize,
    },
    Linked {
        from: String,
        to: String,
    },
    /// The first bytes of a 200 are handed to a socket.
    Ok200,
}

/// Attaches strace to a process; `None` if strace is missing or not allowed.
async fn attach(pid: u32, calls: &str, log: &Path) -> Option<Child> {
    let mut command = Command::new("strace");
    command.args(["-f", "-ttt", "-y", "-s", "512", "-e", calls, "-o"]).arg(log).args(["-p", &pid.to_string()]);
    let mut strace = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().ok()?;
    let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
    let attached = tokio::task::spawn_blocking(move || {
        let attached = lines.by_ref().map_while(Result::ok).any(|line| line.contains("attached"));
        // Keep reading, so that strace never blocks on its output.
        std::thread::spawn(move || lines.for_each(drop));
        attached
    });
    if attached.await.unwrap() {
        return Some(strace);
    }
    strace.wait().unwrap();
    None
}

/// The events of a trace, in the order in which they happened.
fn events(trace: &str) -> Vec<Event> {
    let (mut events, mut unfinished) = (Vec::new(), HashMap::new());
    for line in trace.lines() {
        // Short numbers of threads are padded.
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((_time, call)) = rest.trim_start().split_once(' ') else { continue };
        let call = call.trim_start();
        // A call counts as sending when it begins and as done when it returns.
        let begun = !call.starts_with("<...");
        let sends = ["write", "sendto", "sendmsg"].iter().any(|name| call.starts_with(name));
        if begun && sends && call.contains("\"HTTP/1.1 200 ") {
            events.push(Event::Ok200);
        }
        if let Some(call) = call.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread.to_owned(), (call.to_owned(), events.len()));
            continue;
        }
        let (whole, began) = match call.split_once("resumed>") {
            Some((_, rest)) => {
                let (call, began) = unfinished.remove(thread).unwrap_or_default();
                (call + rest, began)
            }
            None => (call.to_owned(), events.len()),
        };
        events.extend(done(&whole, began));
    }
    events
}

/// What a call that has returned did, when it is one that counts and it succeeded.
fn done(call: &str, began: usize) -> Option<Event> {
    call.rsplit_once(" = ").filter(|(_, result)| result.trim() == "0")?;
    if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
        let (_, path) = call.split_once('<')?;
        return Some(Event::Synced { path: path.split('>').next()?.to_owned(), began });
    }
    if call.starts_with("link") {
        let mut names = call.split('"').skip(1).step_by(2);
        return Some(Event::Linked { from: names.next()?.to_owned(), to: names.next()?.to_owned() });
    }
    None
}

/// Replays the events; returns how many 200s there were. Each must find as many updates durable as were answered.
fn check(events: &[Event]) -> usize {
    let (mut synced, mut linked) = (Vec::new(), Vec::new());
    let (mut durable, mut answered) = (0, 0);
    for (index, event) in events.iter().enumerate() {
        match event {
            Event::Synced { path, began } => {
                let seen = |(segment, linked_at): &(String, usize)| {
                    linked_at < began && Path::new(segment).parent() == Some(path.as_ref())
                };
                let (now, later): (Vec<_>, Vec<_>) = linked.into_iter().partition(seen);
                for (segment, _) in now {
                    durable += std::fs::read_to_string(segment).unwrap().lines().count();
                }
                linked = later;
                synced.push(path.clone());
            }
            Event::Linked { from, to } if to.contains("/raw/") => {
                assert!(synced.contains(from), "{to} got its name before its bytes were on the disk");
                linked.push((to.clone(), index));
            }
            Event::Linked { .. } => {}
            Event::Ok200 => {
                answered += 1;
                assert!(answered <= durable, "200 number {answered} was sent when {durable} updates were durable");
            }
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace and the right to trace; tests/run.sh runs it with --ignored strace"]
async fn strace_sees_no_200_before_the_segment_and_its_folder_are_on_the_disk() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    let log = app.folder().join("trace");
    let Some(mut strace) = attach(running.pid(), DURABLE_CALLS, &log).await else {
        println!(
            "\nSKIPPED: strace is not there or may not trace here. The order of fsync and 200 was not looked at.\n"
        );
        return;
    };
    for chat in 1..=SINGLE {
        app.telegram.user_sends(chat, "alone");
        assert!(app.telegram.wait_for_acks(PATIENCE).await);
    }
    for chat in 1..=TOGETHER {
        app.telegram.user_sends(100 + chat, "together");
    }
    assert!(app.telegram.wait_for_acks(PATIENCE).await);
    running.terminate().await;
    tokio::task::spawn_blocking(move || strace.wait().unwrap()).await.unwrap();
    let answered = check(&events(&std::fs::read_to_string(&log).unwrap()));
    assert_eq!(answered as i64, SINGLE + TOGETHER, "the trace does not show every 200");
}

/// Looks at what is on the disk, of each message: two at the root for each of eight puts and a delete, before and after
/// it, but at the head of a table instead before each of two puts to each of three; one at each of three commits that was
/// put; one at what was read before, in two tables; two for an outcome that nobody else has recorded.
const LOOKS: usize = 18 + 3 + 2 + 2;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace and the right to trace; tests/run.sh runs it with --ignored strace"]
async fn strace_sees_no_more_looks_at_the_disk_than_a_message_needs() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    // The first ones find the folders.
    for chat in 1..=SINGLE {
        app.telegram.user_sends(chat, "alone");
        app.wait_for_sent(usize::try_from(chat).unwrap()).await;
    }
    let log = app.folder().join("trace");
    let Some(mut strace) = attach(running.pid(), "trace=statx,newfstatat,fstat", &log).await else {
        println!("\nSKIPPED: strace is not there or may not trace here. Looks at the disk were not counted.\n");
        return;
    };
    let sent = usize::try_from(SINGLE).unwrap();
    for (number, chat) in (1..).zip(SINGLE + 1..=SINGLE + TOGETHER) {
        app.telegram.user_sends(chat, "alone");
        app.wait_for_sent(sent + number).await;
    }
    running.terminate().await;
    tokio::task::spawn_blocking(move || strace.wait().unwrap()).await.unwrap();
    let trace = std::fs::read_to_string(&log).unwrap();
    let looks = trace.lines().filter(|line| line.contains("stat") && !line.contains("resumed>")).count();
    let messages = usize::try_from(TOGETHER).unwrap();
    println!("{:.1} looks at the disk per message", looks as f64 / messages as f64);
    // The last one of the first messages may still be recorded, and timers look as well.
    assert!(looks <= messages * LOOKS + 2 * LOOKS, "{looks} looks for {messages} messages");
}

#[test]
fn a_trace_is_read_in_the_order_of_what_happened() {
    let trace = "\
1 1.0 fsync(3</d/raw/.s>) = 0
1 1.1 linkat(AT_FDCWD</d>, \"/d/raw/.s\", AT_FDCWD</d>, \"/d/raw/1.json\", 0) = 0
1 1.2 fsync(4</d/raw> <unfinished ...>
2 1.3 writev(9<socket:[1]>, [{iov_base=\"HTTP/1.1 200 OK\\r\\n\", iov_len=17}], 1 <unfinished ...>
1 1.4 <... fsync resumed>)              = 0
2 1.5 <... writev resumed>)             = 17
1 1.6 fsync(4</d/raw>) = -1 EIO (Input/output error)
";
    let linked = Event::Linked { from: "/d/raw/.s".to_owned(), to: "/d/raw/1.json".to_owned() };
    let synced = |path: &str, began| Event::Synced { path: path.to_owned(), began };
    assert_eq!(events(trace), [synced("/d/raw/.s", 0), linked, Event::Ok200, synced("/d/raw", 2)]);
}

#[test]
#[should_panic(expected = "200 number 1 was sent when 0 updates were durable")]
fn a_200_before_the_sync_of_the_folder_is_noticed() {
    let linked = Event::Linked { from: "/d/raw/.s".to_owned(), to: "/d/raw/1.json".to_owned() };
    let synced = |path: &str, began| Event::Synced { path: path.to_owned(), began };
    // The last one began before the link and need not have seen the name.
    check(&[synced("/d/raw/.s", 0), linked, synced("/d/raw", 1), Event::Ok200]);
}
