//! What a client sees, and what is landed then.

use super::store::Puts;
use super::*;

const HEAD: &str =
    "POST /telegram-webhook HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-telegram-bot-api-secret-token: right\r\n";

#[tokio::test]
async fn without_the_right_secret_nothing_is_landed() {
    let server = Server::start(LaneSetup::default()).await;
    assert_eq!(server.status("POST", HOOK).await, 401);
    for wrong in ["", "wrong", "right ish"] {
        let request = server.request("POST", HOOK).header(SECRET_HEADER, wrong).body("{}");
        assert_eq!(request.send().await.unwrap().status(), 401, "{wrong}");
    }
    // The body is never waited for.
    let mut stream = server.raw("POST /telegram-webhook HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").await;
    assert!(rest(&server.lane.clock, &mut stream).await.starts_with("HTTP/1.1 401"));
    assert!(server.segments().await.is_empty());
    assert!(server.shows("lakegram_receive_rejected_total{reason=\"secret\"} 5"));
}

#[tokio::test]
async fn silence_may_answer_a_wrong_secret() {
    let settings = ReceiveSettings { reject_with: 200, ..settings() };
    let server = Server::start_with(LaneSetup::default(), settings, &[SECRET], Limits::default()).await;
    assert_eq!(server.status("POST", HOOK).await, 200);
    assert!(server.segments().await.is_empty());
}

#[tokio::test]
async fn both_secrets_of_a_rotation_are_let_in() {
    let server = Server::start_with(LaneSetup::default(), settings(), &["new", "old"], Limits::default()).await;
    for (secret, status) in [("new", 200), ("old", 200), ("older", 401)] {
        let request = server.request("POST", HOOK).header(SECRET_HEADER, secret).body("{}");
        assert_eq!(request.send().await.unwrap().status(), status, "{secret}");
    }
    assert_eq!(server.segments().await.len(), 2);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_counted() {
    let server = Server::start(LaneSetup::default()).await;
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1_000));
    for request in [
        format!("{HEAD}content-length: 1001\r\n\r\n"),
        format!("{HEAD}transfer-encoding: chunked\r\n\r\n{chunk}1\r\nx\r\n0\r\n\r\n"),
    ] {
        let mut stream = server.raw(&request).await;
        assert!(rest(&server.lane.clock, &mut stream).await.starts_with("HTTP/1.1 413"));
    }
    assert!(server.segments().await.is_empty());
    assert!(server.shows("lakegram_receive_rejected_total{reason=\"size\"} 2"));
    assert_eq!(server.post("x".repeat(1_000)).await.status(), 200, "the limit itself fits");
}

/// A client that only reads once it has sent everything: how it was answered.
async fn answer_to_all(server: &Server, head: &str, bytes: usize) -> String {
    let mut stream = server.raw(&format!("{head}content-length: {bytes}\r\n\r\n")).await;
    let chunk = vec![b'x'; 64 * 1_024];
    for _ in 0..bytes.div_ceil(chunk.len()) {
        stream.write_all(&chunk).await.expect("the connection stays open for what is sent");
    }
    rest(&server.lane.clock, &mut stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_though_its_client_sends_all_of_a_large_body_first() {
    let server = Server::start(LaneSetup::default()).await;
    let stranger = HEAD.replace("right", "wrong");
    let elsewhere = HEAD.replace("/telegram-webhook", "/elsewhere");
    for (head, status) in [(HEAD, 413), (stranger.as_str(), 401), (elsewhere.as_str(), 404)] {
        let answer = answer_to_all(&server, head, 20 * 1_024 * 1_024).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_ends_is_not_read_for_ever() {
    let server = Server::start(LaneSetup::default()).await;
    let mut stream = server.raw(&format!("{HEAD}content-length: 999999999999\r\n\r\n")).await;
    let chunk = vec![b'x'; 1_024 * 1_024];
    let sending = server.lane.clock.timeout(LONG, async {
        let mut sent = 0;
        while stream.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
        }
        sent
    });
    let sent = sending.await.expect("the connection is closed at some point");
    assert!((64 << 20..100 << 20).contains(&sent), "{sent}");
    // One that is silent makes room soon.
    let silent = server.raw(&format!("{HEAD}content-length: 999999999999\r\n\r\n")).await;
    until(&server.lane.clock, async || server.shows("lakegram_receive_connections 0")).await;
    drop(silent);
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    let server = Server::start(LaneSetup::default()).await;
    let response = server.request("GET", HOOK).header(SECRET_HEADER, SECRET).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, "POST"));
    for path in ["/", "/telegram-webhook/", "/telegram-webhook2", "/metrics"] {
        let request = server.request("POST", path).header(SECRET_HEADER, SECRET).body("{}");
        assert_eq!(request.send().await.unwrap().status(), 404, "{path}");
    }
    assert!(server.segments().await.is_empty());
}

#[tokio::test]
async fn an_update_is_durable_and_hinted_when_it_is_answered() {
    let mut server = Server::start(LaneSetup::default()).await;
    let response = server.post("{\"update_id\": 1,\n \"x\": 1.0}").await;
    assert_eq!((response.status().as_u16(), response.bytes().await.unwrap().len()), (200, 0));
    assert_eq!(server.segments().await, ["{\"update_id\": 1,  \"x\": 1.0}\n"]);
    let key = keys(&server.lane.storage).await.remove(0);
    assert!(key.as_ref().starts_with("raw/telegram/42/edge/"), "{key}");
    assert_eq!(server.lane.hints.next(10).await.unwrap().keys, [key]);
    for metric in ["updates_total 1", "landing_seconds_count 1", "in_flight_bytes 0"] {
        assert!(server.shows(&format!("lakegram_receive_{metric}")), "{metric}");
    }
}

#[tokio::test]
async fn what_is_authentic_is_landed_however_odd() {
    let server = Server::start(LaneSetup::default()).await;
    for (body, line) in [
        (&b""[..], "{\"_corrupt_record\":\"\"}\n"),
        (b"hello\nworld", "{\"_corrupt_record\":\"hello\\nworld\"}\n"),
        (b"[{}]", "{\"_corrupt_record\":\"[{}]\"}\n"),
        (b"{\"a\": \"\xff\"}", "{\"_corrupt_record\":\"eyJhIjogIv8ifQ==\",\"_encoding\":\"base64\"}\n"),
    ] {
        assert_eq!(server.post(body.to_vec()).await.status(), 200);
        assert_eq!(server.segments().await.last().unwrap(), line);
    }
}

#[tokio::test]
async fn when_too_many_bytes_wait_clients_are_told_to_come_back() {
    let server = Server::start(LaneSetup { max_in_flight: 10, ..LaneSetup::default() }).await;
    server.lane.control.set(Puts::Hang);
    let first = server.posting("{\"a\": 1}");
    server.lane.control.begun(1).await;
    assert!(server.shows("lakegram_receive_in_flight_bytes 9"));
    let response = server.post("{\"b\": 2}").await;
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "2"));
    assert_eq!(server.status("GET", "/readyz").await, 200, "busy is not broken");
    server.lane.control.set(Puts::Work);
    assert_eq!(first.await.unwrap(), 200);
    assert_eq!(server.post("{\"b\": 2}").await.status(), 200);
    assert_eq!(server.segments().await, ["{\"a\": 1}\n", "{\"b\": 2}\n"]);
}

#[tokio::test]
async fn a_body_beyond_the_budget_gives_back_what_it_had_taken() {
    let server = Server::start(LaneSetup { max_in_flight: 10, ..LaneSetup::default() }).await;
    assert_eq!(server.post("{\"update_id\": 123456789}").await.status(), 503);
    assert!(server.segments().await.is_empty());
    assert_eq!(server.post("not json").await.status(), 503, "wrapped it is longer");
    assert_eq!(server.post("{\"a\": 1}").await.status(), 200);
}

#[tokio::test]
async fn a_store_that_fails_is_reported_and_found_to_be_repaired_without_a_request() {
    let server = Server::start(LaneSetup { patience: SHORT, ..LaneSetup::default() }).await;
    server.lane.control.set(Puts::Fail);
    let response = server.post("{\"a\": 1}").await;
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "2"));
    for (path, status) in [("/readyz", 503), ("/health", 503), ("/livez", 200)] {
        assert_eq!(server.status("GET", path).await, status, "{path}");
    }
    assert!(server.segments().await.is_empty());
    server.lane.control.set(Puts::Work);
    until(&server.lane.clock, async || server.status("GET", "/readyz").await == 200).await;
    assert_eq!(server.segments().await, ["{\"a\": 1}\n"], "the same bytes, once");
    assert_eq!(server.post("{\"a\": 1}").await.status(), 200);
}

#[tokio::test]
async fn a_put_that_hangs_is_not_waited_for_for_ever() {
    let server = Server::start(LaneSetup { patience: SHORT, ..LaneSetup::default() }).await;
    server.lane.control.set(Puts::Hang);
    assert_eq!(server.post("{\"a\": 1}").await.status(), 503);
    assert_eq!(server.status("GET", "/readyz").await, 503);
    server.lane.control.set(Puts::Work);
    until(&server.lane.clock, async || server.status("GET", "/readyz").await == 200).await;
    assert_eq!(server.segments().await, ["{\"a\": 1}\n"]);
}

#[tokio::test]
async fn what_came_while_a_put_was_in_flight_is_one_segment() {
    let server = Server::start(LaneSetup::default()).await;
    server.lane.control.set(Puts::Hang);
    let mut requests = vec![server.posting("{\"a\": 1}")];
    server.lane.control.begun(1).await;
    requests.extend((0..5).map(|_| server.posting("{\"b\": 2}")));
    until(&server.lane.clock, async || server.shows("lakegram_receive_in_flight_bytes 54")).await;
    // The bytes are admitted a moment before they are queued.
    until(&server.lane.clock, async || server.lane.writer.queued() == 5).await;
    assert!(server.segments().await.is_empty());
    server.lane.control.set(Puts::Work);
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(server.segments().await, ["{\"a\": 1}\n".to_owned(), "{\"b\": 2}\n".repeat(5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_all_landed() {
    let server = Server::start(LaneSetup::default()).await;
    let posts = (0..200).map(|number| server.post(format!("{{\"update_id\": {number}}}")));
    let answers = futures::future::join_all(posts).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    let text = server.segments().await.concat();
    let lines: std::collections::BTreeSet<_> = text.lines().collect();
    assert_eq!((lines.len(), text.lines().count()), (200, 200));
}

#[tokio::test]
async fn a_client_that_has_gone_does_not_take_its_bytes_along() {
    let server = Server::start(LaneSetup::default()).await;
    server.lane.control.set(Puts::Hang);
    let stream = server.raw(&format!("{HEAD}content-length: 8\r\n\r\n{{\"a\": 1}}")).await;
    server.lane.control.begun(1).await;
    drop(stream);
    server.lane.control.set(Puts::Work);
    until(&server.lane.clock, async || server.segments().await == ["{\"a\": 1}\n"]).await;
    until(&server.lane.clock, async || server.shows("lakegram_receive_in_flight_bytes 0")).await;
}

#[tokio::test]
async fn a_client_with_slow_headers_is_cut_off() {
    let limits = with_connections(connections::Limits { stranger: SHORT, ..connections::Limits::default() });
    let server = Server::start_with(LaneSetup::default(), settings(), &[SECRET], limits).await;
    let mut stream = server.raw("POST /telegram-webhook HTTP/1.1\r\nhost:").await;
    assert!(!rest(&server.lane.clock, &mut stream).await.contains("200"));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let limits = Limits { body: SHORT, ..Limits::default() };
    let server = Server::start_with(LaneSetup::default(), settings(), &[SECRET], limits).await;
    let mut stream = server.raw(&format!("{HEAD}content-length: 8\r\n\r\n{{\"a\"")).await;
    assert!(rest(&server.lane.clock, &mut stream).await.starts_with("HTTP/1.1 408"));
    let mut stream = server.raw(&format!("{HEAD}content-length: 8\r\n\r\n{{\"a\"")).await;
    stream.shutdown().await.unwrap();
    rest(&server.lane.clock, &mut stream).await;
    assert!(server.segments().await.is_empty());
    assert!(server.shows("lakegram_receive_in_flight_bytes 0"));
}

#[tokio::test]
async fn a_request_takes_no_longer_than_it_may() {
    let limits = Limits { total: SHORT, ..Limits::default() };
    let server = Server::start_with(LaneSetup::default(), settings(), &[SECRET], limits).await;
    server.lane.control.set(Puts::Hang);
    assert_eq!(server.post("{}").await.status(), 503);
}

fn with_connections(connections: connections::Limits) -> Limits {
    Limits { connections, ..Limits::default() }
}

/// A client that keeps its connection: how its post was answered, or `None` when the connection is gone.
async fn post_on(stream: &mut TcpStream, clock: &Clock) -> Option<u16> {
    let head = HEAD.replace("connection: close\r\n", "");
    stream.write_all(format!("{head}content-length: 2\r\n\r\n{{}}").as_bytes()).await.ok()?;
    let mut answer = [0; 256];
    let read = clock.timeout(LONG, stream.read(&mut answer)).await.expect("it is answered in time");
    let answer = String::from_utf8_lossy(&answer[..read.ok()?]).into_owned();
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[tokio::test]
async fn under_pressure_the_oldest_stranger_goes_and_a_known_client_stays() {
    let limits = with_connections(connections::Limits { connections: 3, ..connections::Limits::default() });
    let server = Server::start_with(LaneSetup::default(), settings(), &[SECRET], limits).await;
    let clock = server.lane.clock.clone();
    let mut known = server.raw("").await;
    assert_eq!(post_on(&mut known, &clock).await, Some(200));
    let mut oldest = server.raw("").await;
    until(&clock, async || server.shows("lakegram_receive_connections 2")).await;
    let mut slow = server.raw("POST /telegram-webhook HTTP/1.1\r\nhost:").await;
    until(&clock, async || server.shows("lakegram_receive_connections 3")).await;
    let mut fresh = server.raw("").await;
    assert_eq!(post_on(&mut fresh, &clock).await, Some(200), "there is room for one more");
    assert_eq!(rest(&clock, &mut oldest).await, "");
    assert_eq!(post_on(&mut known, &clock).await, Some(200), "whoever is known stays");
    assert_eq!(post_on(&mut server.raw("").await, &clock).await, Some(200));
    assert_eq!(rest(&clock, &mut slow).await, "", "slow headers are a stranger's as well");
    assert!(server.shows("lakegram_receive_evicted_connections_total 2"));
}

#[tokio::test]
async fn a_known_client_may_be_quiet_for_longer_than_a_stranger() {
    let quiet = connections::Limits { stranger: SHORT, known: 4 * SHORT, ..connections::Limits::default() };
    let server = Server::start_with(LaneSetup::default(), settings(), &[SECRET], with_connections(quiet)).await;
    let clock = server.lane.clock.clone();
    let (mut known, mut stranger) = (server.raw("").await, server.raw("").await);
    assert_eq!(post_on(&mut known, &clock).await, Some(200));
    assert_eq!(rest(&clock, &mut stranger).await, "");
    assert_eq!(post_on(&mut known, &clock).await, Some(200), "it is still there");
    let began = clock.monotonic();
    assert_eq!(rest(&clock, &mut known).await, "");
    assert!(clock.monotonic() - began >= 3 * SHORT, "and stays for its time after every request");
}

#[tokio::test]
async fn a_client_that_never_reads_is_dropped() {
    let limits = with_connections(connections::Limits { write: SHORT, ..connections::Limits::default() });
    let server = Server::start_with(LaneSetup::default(), settings(), &[SECRET], limits).await;
    let mut stream = server.raw("").await;
    // Requests without an end and no answer read: at some point there is no room for the next answer.
    let requests = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    let dropped =
        server.lane.clock.timeout(LONG, async { while stream.write_all(requests.as_bytes()).await.is_ok() {} });
    assert!(dropped.await.is_some(), "it is held for ever");
}

/// Strangers that keep coming: silent ones, and ones whose headers never end. Returns how many connections they made.
async fn press(address: SocketAddr, clock: Clock, at_once: usize, stop: CancellationToken) -> usize {
    let one = async |number: usize| {
        let mut made = 0;
        while !stop.is_cancelled() {
            let Ok(mut stream) = TcpStream::connect(address).await else { continue };
            made += 1;
            if number.is_multiple_of(2) {
                let _gone = stream.write_all(b"POST /telegram-webhook HTTP/1.1\r\nx-slow: ").await;
            }
            let mut byte = [0];
            // Until it is shown out.
            let _end = stop.run_until_cancelled(stream.read(&mut byte)).await;
            drop(stream);
            stop.run_until_cancelled(clock.sleep(Duration::from_secs(5))).await;
        }
        made
    };
    futures::future::join_all((0..at_once).map(one)).await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_without_end_do_not_keep_honest_posts_out() {
    // Each connection has two ends in this process, and other tests run beside this one.
    let descriptors = rlimit::increase_nofile_limit(rlimit::INFINITY).unwrap_or(1_024);
    let strangers = usize::try_from((descriptors / 4).min(20_000)).unwrap();
    let limits = connections::Limits { connections: strangers / 2, ..connections::Limits::default() };
    let server = Server::start_with(LaneSetup::default(), settings(), &[SECRET], with_connections(limits)).await;
    let stop = CancellationToken::new();
    let pressing = tokio::spawn(press(server.address, server.lane.clock.clone(), strangers, stop.clone()));
    until(&server.lane.clock, async || !server.shows("lakegram_receive_evicted_connections_total 0")).await;
    let mut statuses = Vec::new();
    for _ in 0..100 {
        // A new connection each.
        statuses.push(server.post("{}").await.status().as_u16());
    }
    stop.cancel();
    let made = pressing.await.unwrap();
    let answered = statuses.iter().filter(|status| **status == 200).count();
    println!("{strangers} strangers made {made} connections; {answered} of 100 honest posts were answered with 200");
    assert_eq!(answered, 100);
}

#[tokio::test]
async fn a_drain_answers_the_requests_that_are_open() {
    let server = Server::start(LaneSetup::default()).await;
    server.lane.control.set(Puts::Hang);
    let open = server.posting("{\"a\": 1}");
    server.lane.control.begun(1).await;
    server.stop.cancel();
    until(&server.lane.clock, async || TcpStream::connect(server.address).await.is_err()).await;
    server.lane.control.set(Puts::Work);
    assert_eq!(open.await.unwrap(), 200);
    server.task.await.unwrap().unwrap();
    drop(server.lane.writer);
    server.lane.task.await.unwrap().unwrap();
    assert_eq!(segments(&server.lane.storage).await, ["{\"a\": 1}\n"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_a_body_that_has_begun() {
    let server = Server::start(LaneSetup::default()).await;
    let mut stream = server.raw(&format!("{HEAD}content-length: 2\r\n\r\n{{")).await;
    until(&server.lane.clock, async || server.shows("lakegram_receive_in_flight_bytes 1")).await;
    server.stop.cancel();
    until(&server.lane.clock, async || TcpStream::connect(server.address).await.is_err()).await;
    stream.write_all(b"}").await.unwrap();
    assert!(rest(&server.lane.clock, &mut stream).await.starts_with("HTTP/1.1 200"));
    server.task.await.unwrap().unwrap();
    assert_eq!(segments(&server.lane.storage).await, ["{}\n"]);
}

#[tokio::test]
async fn a_drain_says_so_and_ends_in_time() {
    let drain = Duration::from_secs(1);
    let limits = with_connections(connections::Limits { drain, ..connections::Limits::default() });
    let lane = LaneSetup::default().open().await;
    let endpoint = Endpoint { settings: settings(), secrets: SECRET.into(), writer: lane.writer.clone() };
    let receiver = Receiver::with_limits(vec![endpoint], &lane.clock, &lane.telemetry, &Health::default(), limits);
    let readiness = receiver.readiness();
    assert_eq!(readiness(), Ok(()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let server = tokio::spawn(receiver.serve(listener, stop.clone()));
    lane.control.set(Puts::Hang);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{HEAD}content-length: 2\r\n\r\n{{}}").as_bytes()).await.unwrap();
    lane.control.begun(1).await;
    stop.cancel();
    until(&lane.clock, async || readiness().is_err()).await;
    server.await.unwrap().unwrap();
    assert_eq!(rest(&lane.clock, &mut stream).await, "", "it is cut off unanswered");
    // Nothing but the writer of the test holds the lane any more, the readiness least of all.
    lane.control.set(Puts::Work);
    drop(lane.writer);
    lane.task.await.unwrap().unwrap();
    assert_eq!(readiness(), Err("the service is stopping".to_owned()));
}

#[tokio::test]
async fn a_disk_that_fails_ends_the_lane_with_its_error() {
    let server = Server::start(LaneSetup::default()).await;
    server.lane.control.set(Puts::BreakTheDisk);
    assert_eq!(server.post("{}").await.status(), 503);
    assert_eq!(server.status("GET", "/readyz").await, 503);
    let error = server.lane.task.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Fatal);
}

#[tokio::test]
async fn pipelines_have_lanes_of_their_own_behind_one_listener() {
    let lanes = [LaneSetup { patience: SHORT, ..LaneSetup::default() }.open().await, LaneSetup::default().open().await];
    let endpoints = ["/one", "/two"].into_iter().zip(&lanes).map(|(path, lane)| Endpoint {
        settings: ReceiveSettings { paths: vec![path.to_owned(), format!("{path}/more")], ..settings() },
        secrets: format!("secret-of{}", path.replace('/', "-")).into(),
        writer: lane.writer.clone(),
    });
    let receiver = Receiver::new(endpoints.collect(), &lanes[0].clock, &lanes[0].telemetry, &Health::default());
    let readiness = receiver.readiness();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _server = tokio::spawn(receiver.serve(listener, CancellationToken::new()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |path: &str, secret: &str| {
        let request = client.post(format!("http://{address}{path}")).header(SECRET_HEADER, secret).body("{}");
        request.send().await.unwrap().status().as_u16()
    };
    lanes[0].control.set(Puts::Fail);
    assert_eq!(post("/one", "secret-of-two").await, 401);
    assert_eq!(post("/one", "secret-of-one").await, 503);
    assert_eq!(post("/two/more", "secret-of-two").await, 200);
    assert!(readiness().unwrap_err().contains("lane `edge`"), "a lane that works does not hide one that does not");
    assert_eq!((segments(&lanes[0].storage).await.len(), segments(&lanes[1].storage).await.len()), (0, 1));
}
