//! Polling does what serving does, but for how updates come in.

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_polls_loads_foreign_files_too() {
    let (world, stop) = (World::new().await, CancellationToken::new());
    let (app, stopping) = (world.app(), stop.clone());
    let console = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let polling = tokio::spawn(async move { Box::pin(app.poll(console, stopping)).await });
    world.put_foreign(1).await;
    world.telegram.user_sends(7, "is anybody there?");
    let done = async || world.foreign_rows().await == 1 && world.chats_answered().len() == 1;
    assert!(world.until(done).await, "it has loaded {} rows", world.foreign_rows().await);
    stop.cancel();
    polling.await.unwrap().unwrap();
}
