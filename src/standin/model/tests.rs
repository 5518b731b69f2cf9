//! The model client against the stand-in, over real connections on loopback: every fault, both dialects, tokens.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::answer::MODEL_NAME;
use super::{ModelStandIn, ModelStandInOptions, ModelTrouble};
use crate::clock::Clock;
use crate::llm::{ChatAnswer, ChatMessage, ChatRequest, DatabricksAuth, ModelClient, ModelEndpoint, ModelFault, Role};

/// Longer than any test should take.
const PATIENT: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);

async fn start() -> ModelStandIn {
    ModelStandIn::start(ModelStandInOptions::default()).await.unwrap()
}

fn openai(base_url: String, api_key: Option<&str>, timeout: Duration) -> ModelClient {
    let endpoint = ModelEndpoint::OpenAi { base_url, api_key: api_key.map(Into::into) };
    ModelClient::new(endpoint, "m", timeout, &Clock::system()).unwrap()
}

async fn pair() -> (ModelStandIn, ModelClient) {
    let stand_in = start().await;
    let client = openai(stand_in.base_url(), Some("key-secret"), PATIENT);
    (stand_in, client)
}

fn databricks(stand_in: &ModelStandIn, auth: DatabricksAuth) -> ModelClient {
    let endpoint = ModelEndpoint::Databricks { host: stand_in.host().to_owned(), auth };
    ModelClient::new(endpoint, "llama", PATIENT, &Clock::system()).unwrap()
}

fn service_principal(secret: &str) -> DatabricksAuth {
    DatabricksAuth::Client { id: "app".to_owned(), secret: secret.into() }
}

/// A stand-in that gives tokens of this life to `app`, and a client that is it.
async fn with_client(token_life: Duration) -> (ModelStandIn, ModelClient) {
    let stand_in = start().await;
    stand_in.require_client("app", "app-secret", token_life);
    let client = databricks(&stand_in, service_principal("app-secret"));
    (stand_in, client)
}

fn question(text: &str) -> ChatRequest {
    let message = ChatMessage { role: Role::User, content: text.to_owned() };
    ChatRequest { messages: vec![message], request_id: "trace".to_owned(), max_tokens: None }
}

async fn ask(client: &ModelClient) -> Result<ChatAnswer, ModelFault> {
    client.complete(&question("x")).await
}

fn misconfigured(outcome: Result<ChatAnswer, ModelFault>) -> String {
    let Err(ModelFault::Misconfigured { message }) = outcome else { panic!("{outcome:?}") };
    message
}

/// A server that gives these bytes to the first request and closes.
async fn raw_server(bytes: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4_096];
        let _read = stream.read(&mut request).await.unwrap();
        // The client may have seen enough and gone.
        let _written = stream.write_all(&bytes).await;
    });
    address
}

async fn ask_raw(bytes: impl Into<Vec<u8>>) -> Result<ChatAnswer, ModelFault> {
    let address = raw_server(bytes.into()).await;
    ask(&openai(format!("http://{address}/v1"), None, PATIENT)).await
}

#[tokio::test]
async fn each_status_over_the_wire_is_its_fault() {
    let (stand_in, client) = pair().await;
    for (status, name) in [
        (408, "Unavailable"),
        (429, "Unavailable"),
        (400, "Rejected"),
        (413, "Rejected"),
        (422, "Rejected"),
        (401, "Misconfigured"),
        (403, "Misconfigured"),
        (404, "Misconfigured"),
        (500, "Failing"),
        (502, "Failing"),
        (503, "Failing"),
        (504, "Failing"),
    ] {
        stand_in.trouble([ModelTrouble::status(status)]);
        let fault = format!("{:?}", ask(&client).await.unwrap_err());
        assert!(fault.starts_with(name) && fault.contains("scripted"), "{status}: {fault}");
    }
    assert_eq!(stand_in.request_count(), 12, "there is no retry in the client");
}

#[tokio::test]
async fn retry_after_comes_along_in_seconds_or_as_a_date() {
    let (stand_in, client) = pair().await;
    stand_in.trouble([
        ModelTrouble::retry_after(429, "3"),
        ModelTrouble::retry_after(503, "4"),
        ModelTrouble::retry_after(429, "Wed, 21 Oct 2015 07:28:00 GMT"),
        ModelTrouble::retry_after(429, "when it suits"),
    ]);
    let mut waits = Vec::new();
    for _ in 0..4 {
        match ask(&client).await {
            Err(ModelFault::Unavailable { retry_after, .. } | ModelFault::Failing { retry_after, .. }) => {
                waits.push(retry_after.map(|wait| wait.as_secs()));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits, [Some(3), Some(4), Some(0), None]);
}

#[tokio::test]
async fn a_refused_key_is_told_by_its_variable_and_not_by_itself() {
    let stand_in = start().await;
    stand_in.require_key("another");
    let wrong = openai(stand_in.base_url(), Some("key-secret"), PATIENT);
    assert!(misconfigured(ask(&wrong).await).contains("LLM_API_KEY"));
    stand_in.require_key("key-secret");
    ask(&wrong).await.unwrap();
    stand_in.trouble([ModelTrouble::body(401, "Incorrect API key provided: key-secret")]);
    let message = misconfigured(ask(&wrong).await);
    assert!(message.contains("***") && !message.contains("key-secret"), "{message}");
    stand_in.trouble([ModelTrouble::status(404)]);
    let message = misconfigured(ask(&wrong).await);
    assert!(message.contains("`m`") && message.contains("LLM_BASE_URL"), "{message}");
    let authorized: Vec<bool> = stand_in.requests().iter().map(|seen| seen.authorized).collect();
    assert_eq!(authorized, [false, true, true, true]);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let location = "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    assert!(misconfigured(ask_raw(location).await).contains("307"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let (stand_in, client) = pair().await;
    ask(&client).await.unwrap();
    stand_in.stop().await;
    assert!(matches!(ask(&client).await, Err(ModelFault::Unavailable { retry_after: None, .. })));
}

#[tokio::test]
async fn a_connection_that_breaks_may_be_the_rows_fault() {
    let (stand_in, client) = pair().await;
    stand_in.trouble([ModelTrouble::Drop]);
    assert!(matches!(ask(&client).await, Err(ModelFault::Failing { .. })));
    assert_eq!(stand_in.request_count(), 1, "it may have been worked on: asking again is the caller's decision");
    ask(&client).await.unwrap();
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"choices\":";
    assert!(matches!(ask_raw(half).await, Err(ModelFault::Failing { .. })));
}

#[tokio::test]
async fn the_status_of_an_error_counts_though_its_body_breaks_off() {
    let half = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 9\r\ncontent-length: 1000\r\n\r\nslow do";
    let Err(ModelFault::Unavailable { retry_after, message }) = ask_raw(half).await else { panic!("not a 429") };
    assert_eq!(retry_after, Some(Duration::from_secs(9)));
    assert!(message.contains("slow do"), "{message}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_or_none_is_failing() {
    let (stand_in, client) = pair().await;
    stand_in.trouble([ModelTrouble::malformed(), ModelTrouble::body(200, "<html>Sign in</html>")]);
    for _ in 0..2 {
        assert!(matches!(ask(&client).await, Err(ModelFault::Failing { .. })));
    }
    let text = "x".repeat(4 * 1_024 * 1_024);
    stand_in.answer_raw(&json!({"choices": [{"message": {"content": text}}]}).to_string());
    let Err(ModelFault::Failing { message, .. }) = ask(&client).await else { panic!("it was read whole") };
    assert!(message.contains("larger than"), "{message}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_may_be_the_rows_fault() {
    let stand_in = start().await;
    let hasty = openai(stand_in.base_url(), None, Duration::from_millis(200));
    stand_in.trouble([ModelTrouble::Hang, ModelTrouble::Delay(HOUR)]);
    for _ in 0..2 {
        let Err(ModelFault::Failing { message, .. }) = ask(&hasty).await else { panic!("it came") };
        assert!(message.contains("did not respond in time"), "{message}");
    }
}

#[tokio::test]
async fn a_request_id_that_no_header_can_carry_is_rejected_before_it_is_sent() {
    let (stand_in, client) = pair().await;
    let request = ChatRequest { request_id: "a\nb".to_owned(), ..question("x") };
    assert!(matches!(client.complete(&request).await, Err(ModelFault::Rejected { .. })));
    assert_eq!(stand_in.request_count(), 0);
}

#[tokio::test]
async fn a_question_goes_out_as_it_should_and_its_answer_comes_back_whole() {
    let (stand_in, client) = pair().await;
    let answer = client.complete(&question("What is Delta?")).await.unwrap();
    assert!(answer.text.contains("stand-in") && answer.text.contains("> What is Delta?"), "{}", answer.text);
    assert_eq!((answer.input_tokens, answer.model.as_deref()), (Some(3), Some(MODEL_NAME)));
    assert_eq!(answer.finish_reason.as_deref(), Some("stop"));
    let seen = stand_in.requests().remove(0);
    assert_eq!((seen.request_id.as_deref(), seen.idempotency_key.as_deref()), (Some("trace"), Some("trace")));
    assert_eq!(seen.authorization.as_deref(), Some("Bearer key-secret"));
    let message = json!({"role": "user", "content": "What is Delta?"});
    assert_eq!(seen.body, json!({"model": "m", "messages": [message], "stream": false}));

    let short = ChatRequest { max_tokens: Some(1), ..question("x") };
    let answer = client.complete(&short).await.unwrap();
    assert_eq!((answer.finish_reason.as_deref(), answer.output_tokens), (Some("length"), Some(1)));
    assert_eq!(stand_in.requests()[1].body["max_tokens"], 1);
}

#[tokio::test]
async fn without_a_key_none_is_sent() {
    let stand_in = start().await;
    for key in [None, Some("  ")] {
        ask(&openai(stand_in.base_url(), key, PATIENT)).await.unwrap();
    }
    assert!(stand_in.requests().iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn blocks_are_read_and_the_reasoning_stays_away() {
    let (stand_in, client) = pair().await;
    stand_in.answer_with("Forty-two.");
    stand_in.answer_in_blocks();
    assert_eq!(ask(&client).await.unwrap().text, "Forty-two.");
}

#[tokio::test]
async fn poison_hits_its_question_alone_and_hangs_until_released() {
    let (stand_in, client) = pair().await;
    stand_in.poison("bad", ModelTrouble::status(500));
    stand_in.poison("slow", ModelTrouble::Hang);
    assert!(matches!(client.complete(&question("a bad one")).await, Err(ModelFault::Failing { .. })));
    client.complete(&question("a good one")).await.unwrap();
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.complete(&question("a slow one")).await }
    });
    stand_in.wait_for_requests(3).await;
    client.complete(&question("another good one")).await.unwrap();
    assert!(!slow.is_finished());
    stand_in.release();
    assert!(slow.await.unwrap().unwrap().text.contains("a slow one"));
    stand_in.recover();
    client.complete(&question("a bad one")).await.unwrap();
}

#[tokio::test]
async fn a_stand_in_that_stops_ends_what_hangs() {
    let (stand_in, client) = pair().await;
    stand_in.trouble([ModelTrouble::Hang]);
    let hanging = tokio::spawn(async move { ask(&client).await });
    stand_in.wait_for_requests(1).await;
    stand_in.stop().await;
    assert!(matches!(hanging.await.unwrap(), Err(ModelFault::Failing { .. })));
}

#[tokio::test]
async fn databricks_is_asked_at_its_endpoint_and_without_a_model_in_the_body() {
    let stand_in = start().await;
    stand_in.require_key("dapi-secret");
    ask(&databricks(&stand_in, DatabricksAuth::Token("dapi-secret".into()))).await.unwrap();
    let seen = stand_in.requests().remove(0);
    assert_eq!(seen.path, "/serving-endpoints/llama/invocations");
    assert_eq!(seen.authorization.as_deref(), Some("Bearer dapi-secret"));
    assert_eq!(seen.body.get("model"), None);
    let wrong = databricks(&stand_in, DatabricksAuth::Token("dapi-other".into()));
    assert!(misconfigured(ask(&wrong).await).contains("DATABRICKS_TOKEN"));
    assert_eq!(stand_in.request_count(), 2, "a token that does not change is not tried twice");
}

#[tokio::test]
async fn one_token_serves_all_who_ask_at_once_and_after() {
    let (stand_in, client) = with_client(HOUR).await;
    let asked = futures::future::join_all((0..20).map(|_| ask(&client))).await;
    assert!(asked.iter().all(Result::is_ok), "{asked:?}");
    ask(&client.clone()).await.unwrap();
    assert_eq!(stand_in.tokens_given(), 1);
}

#[tokio::test]
async fn a_token_refused_before_its_time_is_replaced_once() {
    let (stand_in, client) = with_client(HOUR).await;
    ask(&client).await.unwrap();
    stand_in.revoke_tokens();
    let asked = futures::future::join_all((0..10).map(|_| ask(&client))).await;
    assert!(asked.iter().all(Result::is_ok), "{asked:?}");
    assert_eq!(stand_in.tokens_given(), 2, "whoever was refused too uses the new one");

    let before = stand_in.request_count();
    stand_in.fail_all(401);
    assert!(misconfigured(ask(&client).await).contains("DATABRICKS_CLIENT_ID"));
    assert_eq!((stand_in.request_count() - before, stand_in.tokens_given()), (2, 3));
}

#[tokio::test]
async fn a_token_that_has_ended_is_not_sent() {
    let (stand_in, client) = with_client(Duration::ZERO).await;
    for count in 1..=3 {
        ask(&client).await.unwrap();
        assert_eq!(stand_in.tokens_given(), count);
    }
}

#[tokio::test]
async fn no_row_has_a_part_in_a_token_server_that_fails() {
    let (stand_in, client) = with_client(HOUR).await;
    stand_in.token_trouble([
        ModelTrouble::retry_after(503, "5"),
        ModelTrouble::retry_after(429, "5"),
        ModelTrouble::Drop,
        ModelTrouble::malformed(),
        ModelTrouble::body(200, r#"{"access_token": "not\na header", "expires_in": 3600}"#),
    ]);
    let mut waits = Vec::new();
    for _ in 0..5 {
        let outcome = ask(&client).await;
        let Err(ModelFault::Unavailable { retry_after, message }) = outcome else { panic!("{outcome:?}") };
        assert!(message.starts_with("no token from Databricks") && !message.contains("app-secret"), "{message}");
        waits.push(retry_after.map(|wait| wait.as_secs()));
    }
    assert_eq!(waits, [Some(5), Some(5), None, None, None]);
    assert_eq!(stand_in.request_count(), 0, "nothing is asked without a token");
    ask(&client).await.unwrap();
}

#[tokio::test]
async fn a_client_that_gets_no_token_is_misconfigured() {
    let (stand_in, _) = with_client(HOUR).await;
    let wrong = databricks(&stand_in, service_principal("wrong-secret"));
    let message = misconfigured(ask(&wrong).await);
    assert!(message.contains("DATABRICKS_CLIENT_SECRET") && message.contains("invalid_client"), "{message}");
    stand_in.token_trouble([ModelTrouble::body(400, "we know wrong-secret not"), ModelTrouble::status(404)]);
    assert!(!misconfigured(ask(&wrong).await).contains("wrong-secret"));
    assert!(misconfigured(ask(&wrong).await).contains("DATABRICKS_HOST"));
}
