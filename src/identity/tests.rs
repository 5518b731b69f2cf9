//! What matches, what is refused, and what adopting does about it.

use super::*;

#[tokio::test]
async fn the_table_of_a_loader_is_no_pipelines_bronze_table_and_cannot_be_adopted_as_one() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let pipeline = Name::new("p").unwrap();
    let paths = ["bronze/t", "silver/t", "silver/r"].map(Path::from);
    let schema = crate::schema::built_in(crate::schema::MESSAGES).unwrap();
    let spec = TableSpec { path: paths[0].clone(), schema, stats_columns: Vec::new(), id: None };
    let identity = Identity::new(&pipeline, TableRole::Bronze, None, None);
    let identity = Identity { source: Some("landing".to_owned()), ..identity };
    LakeTable::create(&storage, &spec, Some(&identity), &clock).await.unwrap();
    let wanted = Wanted::paths(&pipeline, Some(BotId(1)), paths);
    let inspection = inspect(&storage, &clock, wanted).await.unwrap();
    let what = "table bronze/t belongs to loader `p`, not to a bot's pipeline";
    assert_eq!(inspection.problems()[0].what, what);
    let error = inspection.plan(false).await.unwrap_err().to_string();
    assert!(error.starts_with(what) && error.contains("use another table"), "{error}");
}
