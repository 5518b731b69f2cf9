//! No secret leaves the process but to whom it belongs: canaries are planted as every secret, a Bot API and a model
//! repeat them in every spelling, and then every output and every file is searched for them, at trace level too.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lakegram::receive::SECRET_HEADER;
use serde_json::{Value, json};

use crate::support::child::{Reaped, on_free_ports};
use crate::support::{TestApp, rows};

const TOKEN: &str = "7000000001:Qx1-canary-token_of-the-bot";
const HOOK: &str = "Qx2-canary_hook-0123456789";
const KEY: &str = "Qx3-canary-key-of-the-model";
const QUERY: &str = "Qx4-canary-in-the-query";
const STORE: &str = "Qx5-canary-of/the+store";
const PROXY: &str = "Qx6-canary-of-the-proxy";

/// How a secret is repeated.
const SPELLINGS: [&str; 9] = ["plain", "dash", "percent", "entity", "entities", "json", "base64", "head", "cut"];

fn spelled(spelling: &str, secret: &str) -> String {
    let all = |form: &dyn Fn(u8) -> String| secret.bytes().map(form).collect::<String>();
    let tail_at = secret.find("Qx").unwrap();
    match spelling {
        "dash" => secret.replace('-', "%2D").replace(':', "%3a"),
        "percent" => all(&|byte| format!("%{byte:02X}")),
        "entity" => secret.replace('-', "&#45;").replace(':', "&colon;"),
        "entities" => all(&|byte| format!("&#x{byte:x};")),
        "json" => all(&|byte| format!("\\u{byte:04x}")),
        "base64" => STANDARD.encode(format!("user:{secret}")),
        "head" => secret[..tail_at + 8].to_owned(),
        // Where an excerpt of two or three hundred characters ends.
        "cut" => format!("{} {secret}", "x".repeat(170)),
        _ => secret.to_owned(),
    }
}

/// What must not be found: each canary has `canary` in it, and `Qx` before it.
fn forbidden() -> Vec<Vec<u8>> {
    let mut forbidden: Vec<Vec<u8>> = [b"canary".to_vec(), b"\\u0063\\u0061\\u006e".to_vec()].into();
    forbidden.extend(["%63%61%6E", "%63%61%6e", "&#x63;&#x61;&#x6e;"].map(|text| text.as_bytes().to_vec()));
    for secret in [TOKEN, HOOK, KEY, QUERY, STORE, PROXY] {
        let secret = &secret[secret.find("Qx").unwrap()..];
        forbidden.push(secret.as_bytes()[..8].to_vec());
        // Whatever is before it.
        for before in 0..3 {
            let encoded = STANDARD.encode(format!("{}{secret}", "x".repeat(before)));
            forbidden.push(encoded.as_bytes()[4..16].to_vec());
        }
    }
    forbidden
}

fn search(what: &str, bytes: &[u8]) {
    for needle in forbidden() {
        if let Some(at) = memchr::memmem::find(bytes, &needle) {
            let around = &bytes[at.saturating_sub(200)..(at + 60).min(bytes.len())];
            panic!("{what} holds {}: {}", String::from_utf8_lossy(&needle), String::from_utf8_lossy(around));
        }
    }
}

fn search_folder(folder: &Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += search_folder(&path);
        } else {
            search(&path.display().to_string(), &std::fs::read(&path).unwrap());
            files += 1;
        }
    }
    files
}

async fn listening(routes: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

/// Repeats path, body and header of what it is asked, in the spelling that the text of the message names.
async fn bot_api(uri: Uri, body: String) -> Response {
    let text = serde_json::from_str::<Value>(&body).ok().and_then(|body| body["text"].as_str().map(str::to_owned));
    let spelling = text.as_deref().and_then(|text| text.strip_prefix("send-")).unwrap_or("plain").to_owned();
    let echo = format!("cannot {} {} {body}", spelled(&spelling, TOKEN), uri.path());
    match spelling.len() % 2 {
        0 => (StatusCode::FORBIDDEN, format!("<html>{echo}</html>")).into_response(),
        _ => {
            let body = format!(r#"{{"ok":false,"error_code":400,"description":{}}}"#, json!(echo));
            (StatusCode::BAD_REQUEST, body).into_response()
        }
    }
}

/// Answers `send-…` with itself, and repeats the key to anything else.
async fn model(uri: Uri, headers: HeaderMap, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).unwrap();
    let question = body["messages"].as_array().and_then(|messages| messages.last()).unwrap()["content"].clone();
    let question = question.as_str().unwrap();
    assert_eq!(uri.query(), Some(format!("key={QUERY}").as_str()), "the key gets to where it belongs");
    assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
    if question.starts_with("send-") {
        let answer = json!({"model": format!("m {KEY}"), "choices": [{"message": {"content": question},
            "finish_reason": format!("stop {QUERY}")}]});
        return answer.to_string().into_response();
    }
    let spelling = question.strip_prefix("ask-").unwrap_or("plain");
    let echo = format!("wrong key {} for {}", spelled(spelling, KEY), spelled(spelling, QUERY));
    let echo = match spelling.len() % 2 {
        0 => format!(r#"{{"error":{{"message":"{echo}"}}}}"#),
        _ => format!("<html>{echo}</html>"),
    };
    (StatusCode::BAD_REQUEST, echo).into_response()
}

async fn post(client: &reqwest::Client, url: &str, update_id: usize, text: &str) {
    let update = json!({"update_id": update_id, "message": {"message_id": update_id, "date": 1_760_000_000,
        "chat": {"id": update_id, "type": "private"}, "from": {"id": update_id, "is_bot": false, "first_name": "A"},
        "text": text}});
    let request = client.post(format!("{url}/telegram-webhook")).header(SECRET_HEADER, HOOK).json(&update);
    assert_eq!(request.send().await.unwrap().status(), 200, "the secret lets it in");
}

async fn world() -> TestApp {
    let telegram = listening(Router::new().fallback(bot_api)).await;
    let model = listening(Router::new().fallback(model)).await;
    TestApp::new()
        .await
        .variable("TELEGRAM_BOT_TOKEN", TOKEN)
        .variable("TELEGRAM_WEBHOOK_SECRET", HOOK)
        .variable("TELEGRAM_API_URL", &telegram)
        .variable("LLM_API_KEY", KEY)
        .variable("LLM_BASE_URL", &format!("{model}/v1?key={QUERY}"))
        .variable("AWS_SECRET_ACCESS_KEY", STORE)
        .variable("HTTPS_PROXY", &format!("http://me:{PROXY}@127.0.0.1:9"))
        .variable("RUST_LOG", "trace")
        // One reply for each question that is answered, and none else.
        .set("silver.failed_text=")
}

/// Runs a command in every log format, and searches what it prints.
async fn searched(app: &TestApp, arguments: &[&str], variables: &[(&str, String)]) {
    for format in ["pretty", "json"] {
        let arguments: Vec<&str> = ["--log-format", format].iter().chain(arguments).copied().collect();
        let output = app.run_with(&arguments, variables).await;
        search(&format!("{arguments:?}"), &output.stdout);
        search(&format!("{arguments:?}"), &output.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_output_and_no_file_holds_a_secret_whatever_is_repeated_to_us() {
    let app = world().await;
    let log = app.folder().join("serve.log");
    let mut command: Command = app.command(&["serve"]);
    let [port, console] = on_free_ports(&mut command);
    command.stdout(File::create(app.folder().join("serve.out")).unwrap()).stderr(File::create(&log).unwrap());
    let mut serving = Reaped(command.spawn().unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    serving.wait_for_answer(&client, &format!("{url}/livez")).await;
    let questions = ["ask", "send"].iter().flat_map(|what| SPELLINGS.map(|spelling| format!("{what}-{spelling}")));
    for (number, question) in questions.enumerate() {
        post(&client, &url, number + 1, &question).await;
    }
    let wrong = client.post(format!("{url}/telegram-webhook")).header(SECRET_HEADER, TOKEN).send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    app.wait_for_status(|status| rows(status, 1) == 18 && rows(status, 2) == 9).await;
    for page in ["health", "readyz?verbose", "metrics", "livez"] {
        for url in [url.clone(), format!("http://127.0.0.1:{console}")] {
            let shown = client.get(format!("{url}/{page}")).send().await.unwrap().text().await.unwrap();
            search(page, shown.as_bytes());
        }
    }
    let errors = app.stdout(&["query", "select error from silver where error is not null", "--format", "json"]).await;
    assert_eq!(errors.matches("the model server answered 400").count(), 9, "{errors}");
    assert!(errors.contains("***"), "{errors}");
    let errors = app.stdout(&["query", "select error from replies where status = 'failed'", "--format", "json"]).await;
    assert_eq!(errors.matches("cannot").count(), 9, "{errors}");
    for table in ["bronze", "silver", "replies"] {
        searched(&app, &["query", &format!("select * from {table}"), "--format", "json"], &[]).await;
    }
    for arguments in [&["status", "--json"], &["audit", "--json"], &["status", "telegram"], &["maintain", "telegram"]] {
        searched(&app, arguments, &[]).await;
    }
    assert_eq!(serving.terminate().await, Some(0));
    for arguments in [
        &["run", "--deadline", "1s"][..],
        &["check"],
        &["webhook", "info"],
        &["webhook", "set", "https://bot.example.com"],
        &["webhook", "delete"],
    ] {
        searched(&app, arguments, &[]).await;
    }
    assert!(std::fs::metadata(&log).unwrap().len() > 10_000, "it was at trace level");
    assert!(search_folder(app.folder()) > 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_is_wrong_is_told_without_its_value() {
    let app = world().await;
    let wrong = [
        ("LLM_BASE_URL", format!("ftp://me:{KEY}@host/?key={QUERY}")),
        ("LLM_BASE_URL", format!("https://me:{KEY}@127.0.0.1:9/v1")),
        ("TELEGRAM_API_URL", format!("me:{KEY}@host")),
        ("TELEGRAM_API_URL", format!("https://host/?key={QUERY}")),
        ("LAKEGRAM_LISTEN", TOKEN.to_owned()),
        ("LAKEGRAM_CONSOLE", format!("http://me:{KEY}@127.0.0.1:80")),
        ("PORT", KEY.to_owned()),
        ("LAKEGRAM_DATA", format!("s3://key:{KEY}/x@bucket")),
        ("LAKEGRAM_DATA", format!("ftp://key:{KEY}@bucket/?key={QUERY}")),
        ("TELEGRAM_BOT_TOKEN_FILE", TOKEN.to_owned()),
        ("LLM_API_KEY_FILE", KEY.to_owned()),
        ("TELEGRAM_WEBHOOK_SECRET", format!("{HOOK} ")),
        ("TELEGRAM_BOT_TOKEN", KEY.to_owned()),
        ("RUST_LOG", format!("={KEY}=x")),
    ];
    for (name, value) in wrong {
        // A token in a file of its own, and not twice.
        let unset = name.strip_suffix("_FILE").map(|name| (name, String::new()));
        let mut variables = vec![(name, value)];
        variables.extend(unset);
        if name == "PORT" {
            // It only counts without an address.
            variables.push(("LAKEGRAM_LISTEN", String::new()));
        }
        for arguments in [&["check"], &["serve"], &["status"]] {
            if *arguments != ["serve"] || !["TELEGRAM_WEBHOOK_SECRET", "RUST_LOG"].contains(&name) {
                searched(&app, arguments, &variables).await;
            }
        }
    }
    for line in [format!("LLM_API_KEY={KEY} and more"), KEY.to_owned(), format!("A='{TOKEN}")] {
        std::fs::write(app.folder().join(".env"), format!("# settings\n{line}\n")).unwrap();
        let output = app.run(&["check"]).await;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && complaint.contains(".env: line 2"), "{complaint}");
        search(".env", &output.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_its_model_without_the_key() {
    let app = world().await;
    let data = app.folder().join("demo").display().to_string();
    let out = app.folder().join("demo.out");
    let mut command = app.command(&["demo", "--data", &data, "--port", "0"]);
    command.stdout(File::create(&out).unwrap()).stderr(File::create(app.folder().join("demo.log")).unwrap());
    let serving = Reaped(command.spawn().unwrap());
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    let page = loop {
        let printed = std::fs::read_to_string(&out).unwrap();
        if let Some((_, rest)) = printed.split_once("stop    Ctrl-C").and_then(|_| printed.split_once("open ")) {
            break rest.split_whitespace().next().unwrap().to_owned();
        }
        assert!(std::time::Instant::now() < deadline, "{printed}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let info = client.get(format!("{page}/api/info")).send().await.unwrap().text().await.unwrap();
    assert!(info.contains("the model at http://127.0.0.1:") && info.contains("/v1\""), "{info}");
    search("the page", info.as_bytes());
    assert_eq!(serving.terminate().await, Some(0));
    search_folder(app.folder());
}
