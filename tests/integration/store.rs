//! A store that does not keep its promises is refused before anything is written to it.

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::support::TestApp;

/// S3 as far as a start needs it; a put replaces whatever is there, whatever its condition.
async fn careless(method: Method) -> Response {
    match method {
        Method::PUT => ([("etag", "\"1\"")], "").into_response(),
        Method::POST => "<?xml version=\"1.0\"?><DeleteResult></DeleteResult>".into_response(),
        Method::GET => "<?xml version=\"1.0\"?><ListBucketResult><Name>lake</Name></ListBucketResult>".into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn app_on(routes: Router) -> TestApp {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    TestApp::new()
        .await
        .variable("LAKEGRAM_DATA", "s3://lake/in")
        .variable("AWS_ENDPOINT", &url)
        .variable("AWS_ALLOW_HTTP", "true")
        .variable("AWS_REGION", "eu-central-1")
        .variable("AWS_ACCESS_KEY_ID", "an-id")
        .variable("AWS_SECRET_ACCESS_KEY", "a-key-of-the-store")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_ignores_the_condition_of_a_put_is_refused() {
    let app = app_on(Router::new().fallback(careless)).await;
    for verb in ["serve", "poll"] {
        let output = app.run(&[verb]).await;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert!(complaint.contains("LAKEGRAM_DATA: the store at s3://lake/in ignores If-None-Match"), "{complaint}");
    }
    let output = app.run(&["check"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("If-None-Match"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_does_not_keep_the_receiver_from_opening() {
    let app = app_on(Router::new().fallback(async || StatusCode::SERVICE_UNAVAILABLE)).await;
    let running = app.start(&["serve"]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(client.get(format!("{}/livez", running.url)).send().await.unwrap().status(), 200);
    assert_eq!(running.terminate().await, Some(0));
}
