//! Foreign readers: what they find is what was written.

use serde_json::{Value, json};

use crate::support::{TestApp, readers, rows};

async fn filled(messages: i64) -> (TestApp, crate::support::Running) {
    let app = TestApp::new().await;
    let running = app.serve().await;
    for number in 0..messages {
        app.telegram.user_sends(1 + number, &format!("message {number}"));
    }
    app.wait_for_status(|status| rows(status, 2) == messages).await;
    (app, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn deltalake_and_polars_read_all_three_tables() {
    let (app, running) = filled(7).await;
    app.stdout(&["maintain"]).await;
    let found = app.tables().await;
    for table in ["bronze", "silver", "replies"] {
        assert_eq!((&found[table]["rows"], &found[table]["polars_rows"]), (&json!(7), &json!(7)), "{found:#}");
    }
    assert_eq!(found["bronze"]["types"]["_received_at"], "timestamp[us, tz=UTC]");
    assert_eq!(found["bronze"]["types"]["update_id"], "int64");
    assert_eq!(found["silver"]["by_status"], json!({"answered": 7}));
    assert_eq!(found["replies"]["by_status"], json!({"sent": 7}));
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PySpark, Java and the jars of Delta; the Spark group of tests/run.sh runs it"]
async fn spark_reads_all_three_tables_with_their_types() {
    let (app, running) = filled(5).await;
    app.stdout(&["maintain"]).await;
    let found = readers::python("tests/readers/spark.py", &["batch", app.data().to_str().unwrap()]).await;
    for table in ["bronze", "silver", "replies"] {
        assert_eq!(found[table]["rows"], 5, "{found:#}");
    }
    assert_eq!(found["bronze"]["types"]["_received_at"], "timestamp");
    assert_eq!(found["bronze"]["types"]["update_id"], "bigint");
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PySpark, Java and the jars of Delta; the Spark group of tests/run.sh runs it"]
async fn spark_streams_through_compaction_and_clean_up_and_sees_each_row_once() {
    for table in ["bronze", "silver"] {
        let (app, running) = filled(10).await;
        let data = app.data().to_str().unwrap().to_owned();
        let stream =
            tokio::spawn(
                async move { readers::python("tests/readers/spark.py", &["stream", &data, table, "30"]).await },
            );
        for number in 10..30 {
            app.telegram.user_sends(1 + number, &format!("message {number}"));
            if number % 5 == 0 {
                app.stdout(&["maintain"]).await;
            }
        }
        app.wait_for_status(|status| rows(status, 2) == 30).await;
        app.stdout(&["maintain"]).await;
        let found = stream.await.unwrap();
        assert_eq!(found["failure"], Value::Null);
        let mut seen: Vec<i64> = found["seen"].as_array().unwrap().iter().filter_map(Value::as_i64).collect();
        seen.sort_unstable();
        let expected: Vec<i64> = serde_json::from_value(app.tables().await[table]["ids"].clone()).unwrap();
        assert_eq!(seen, expected, "{table}");
        running.terminate().await;
    }
}
