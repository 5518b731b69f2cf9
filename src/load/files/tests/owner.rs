//! Whose table it is: a loader appends to its own, and to another's only once it is adopted.

use async_trait::async_trait;
use object_store::{PutOptions, PutPayload, PutResult};

use super::*;
use crate::error::ErrorKind;
use crate::id::{BotId, Name};
use crate::storage::tests::intercepted::{Inner, Intercept};
use crate::table::{Identity, TableRole, TableSpec};

impl World {
    /// The loader under another name, with its source in another folder.
    fn as_loader(&self, name: &str, source: &str) -> FilesOptions {
        let mut options = self.options("");
        options.pipeline.name = Name::new(name).unwrap();
        options.pipeline.source.path = source.to_owned();
        options
    }

    async fn said(&self, name: &str, source: &str) -> String {
        let error = FilesStage::open(self.as_loader(name, source)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    }

    async fn load_as(&self, name: &str, source: &str) -> FilesSummary {
        let mut stage = FilesStage::open(self.as_loader(name, source)).await.unwrap();
        stage.work_until_idle(&CancellationToken::new()).await.unwrap()
    }

    /// Makes the table one of an earlier release, which does not say whose it is.
    fn forget_owner(&self) {
        let first = self.folder.path().join("data/bronze/t/_delta_log/00000000000000000000.json");
        let text = std::fs::read_to_string(&first).unwrap();
        let actions = text.lines().map(|line| {
            let mut action: Value = serde_json::from_str(line).unwrap();
            if let Some(properties) = action.pointer_mut("/metaData/configuration") {
                properties.as_object_mut().unwrap().retain(|name, _| !name.starts_with("lakegram."));
            }
            action.to_string() + "\n"
        });
        std::fs::write(&first, actions.collect::<String>()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_says_which_loader_it_belongs_to_and_from_which_source_it_is_fed() {
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    world.load("").await.unwrap();
    let identity = world.table().await.identity().unwrap().unwrap();
    let made = Identity::new(&Name::new("p").unwrap(), TableRole::Bronze, None, None);
    assert_eq!(identity, Identity { source: Some("in".to_owned()), ..made });
    let version = world.table().await.version();
    world.load("").await.unwrap();
    assert_eq!(world.table().await.version(), version);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_loader_is_refused_until_it_adopts_the_table_and_then_loads_nothing_twice() {
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    world.load("").await.unwrap();
    let mut before = world.stage("").await.unwrap();
    let said = world.said("q", "in").await;
    assert!(said.contains("belongs to loader `p`, but this is `q`") && said.contains("`lakegram adopt q`"), "{said}");
    world.put("b.json", "{\"id\":2}");
    let version = world.table().await.version();
    let found = plan(world.as_loader("q", "in")).await.unwrap();
    assert_eq!((found.loaded_files, found.would_be_loaded), (1, 1));
    assert!(found.problem.is_some_and(|problem| said.contains(&problem)));
    assert_eq!(world.table().await.version(), version, "a plan changes nothing");
    for _ in 0..2 {
        adopt(world.as_loader("q", "in")).await.unwrap();
    }
    assert_eq!(world.table().await.version(), version + 1);
    assert_eq!(plan(world.as_loader("q", "in")).await.unwrap().problem, None);
    let error = before.work_until_idle(&CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("belongs to loader `q`, but this is `p`"), "one that still runs: {error}");
    assert_eq!(world.load_as("q", "in").await.files, 1);
    assert_eq!(world.values("id").await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_moved_is_refused_until_it_is_adopted_and_known_by_the_paths_below_it() {
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    let (there, elsewhere) = (world.input(), world.folder.path().join("elsewhere"));
    let [from, to] = [&there, &elsewhere].map(|folder| folder.to_str().unwrap());
    assert_eq!(world.load_as("p", from).await.files, 1);
    assert_eq!(world.load_as("p", &format!("{from}/")).await.files, 0, "the same folder");
    assert_eq!(world.load_as("p", &format!("file://{from}")).await.files, 0, "the same folder");
    world.put("b.json", "{\"id\":2}");
    std::fs::rename(&there, &elsewhere).unwrap();
    let said = world.said("p", to).await;
    assert!(said.contains(&format!("fed from source file://{from}, but source.path is file://{to}")), "{said}");
    let found = plan(world.as_loader("p", to)).await.unwrap();
    assert_eq!((found.loaded_files, found.would_be_loaded, found.source), (1, 1, format!("file://{to}")));
    adopt(world.as_loader("p", to)).await.unwrap();
    assert_eq!(world.load_as("p", to).await.files, 1);
    assert_eq!(world.values("id").await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_an_earlier_release_says_whose_it_is_with_the_next_commit() {
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    world.load("").await.unwrap();
    world.forget_owner();
    assert_eq!(world.table().await.identity().unwrap(), None);
    assert_eq!(world.load("").await.unwrap().files, 0);
    assert_eq!(survey(world.options("")).await.unwrap().loaded_files, 1);
    assert_eq!(world.table().await.identity().unwrap(), None, "looking at it changes nothing");
    let (mut one, mut other) = (world.stage("").await.unwrap(), world.stage("").await.unwrap());
    world.put("b.json", "{\"id\":2}");
    let stop = CancellationToken::new();
    assert_eq!(one.work_until_idle(&stop).await.unwrap().files, 1);
    assert_eq!(other.work_until_idle(&stop).await.unwrap().files, 0);
    world.put("c.json", "{\"id\":3}");
    assert_eq!(other.work_until_idle(&stop).await.unwrap().files, 1);
    assert!(world.table().await.identity().unwrap().is_some());
    assert_eq!(world.values("id").await, [1, 2, 3]);
    assert!(world.said("q", "in").await.contains("belongs to loader `p`"));
}

/// Another loader that runs right before the first commit of this one.
#[derive(Debug)]
struct Faster(tokio::sync::Mutex<Option<FilesStage>>);

#[async_trait]
impl Intercept for Faster {
    async fn put(
        &self,
        inner: &Inner,
        to: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        if to.as_ref().contains("_delta_log")
            && let Some(mut other) = self.0.lock().await.take()
        {
            assert_eq!(other.work_until_idle(&CancellationToken::new()).await.unwrap().files, 1);
        }
        inner.put_opts(to, payload, options).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_loaders_that_take_over_a_table_of_an_earlier_release_at_once_the_first_keeps_it() {
    for faster in ["p", "q"] {
        let world = World::new();
        world.put("a.json", "{\"id\":1}");
        world.load("").await.unwrap();
        world.forget_owner();
        let other = FilesStage::open(world.as_loader(faster, "in")).await.unwrap();
        let mut options = world.as_loader("p", "in");
        options.data = options.data.intercepted(Faster(tokio::sync::Mutex::new(Some(other))));
        let mut stage = FilesStage::open(options).await.unwrap();
        world.put("b.json", "{\"id\":2}");
        let loaded = stage.work_until_idle(&CancellationToken::new()).await;
        assert_eq!(world.table().await.identity().unwrap().unwrap().pipeline.as_str(), faster);
        match faster {
            "p" => assert_eq!(loaded.unwrap().files, 0),
            _ => assert!(loaded.unwrap_err().to_string().contains("belongs to loader `q`, but this is `p`")),
        }
        assert_eq!(world.values("id").await, [1, 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_a_bot_is_refused_and_cannot_be_adopted() {
    for role in TableRole::ALL {
        let world = World::new();
        world.put("a.json", "{\"id\":1}");
        let schema = crate::schema::built_in(crate::schema::MESSAGES).unwrap();
        let spec = TableSpec { path: Path::from("bronze/t"), schema, stats_columns: Vec::new(), id: None };
        let identity = Identity::new(&Name::new("p").unwrap(), role, Some(BotId(1)), None);
        LakeTable::create(&world.data(), &spec, Some(&identity), &world.clock).await.unwrap();
        let said = world.said("p", "in").await;
        assert!(
            said.contains(&format!("is the {role} table of pipeline `p`")) && said.contains("another table"),
            "{said}"
        );
        assert_eq!(plan(world.options("")).await.unwrap_err().to_string(), said);
        assert_eq!(adopt(world.options("")).await.unwrap_err().to_string(), said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_not_cleaned_by_what_the_table_of_another_loader_says() {
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    world.load("").await.unwrap();
    let mut options = world.as_loader("q", "in");
    options.pipeline.source.clean_source = toml::from_str("action = \"delete\"\nafter = \"0s\"").unwrap();
    let error = clean(options, false, &CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("belongs to loader `p`"), "{error}");
    assert!(world.input().join("a.json").exists());
}
