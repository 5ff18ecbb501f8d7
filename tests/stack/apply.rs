//! What `ironyard apply` does to what is there already, and to what other people write.

use std::collections::BTreeMap;

use ironyard_proto::{
    common::{Metadata, PowerState},
    inventory::{GetServerRequest, Server, ServerSpec, UpdateServerRequest},
};

use ironyard_discovery::domain::discovery_run::InBand;

use crate::{
    seed::cli,
    world::{On, World},
};

fn words(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

async fn server(world: &World) -> Server {
    let request = GetServerRequest { name: "mine".to_owned() };
    world.clients.servers.clone().get_server(request).await.unwrap().into_inner()
}

/// Somebody else's write, by field.
async fn write(world: &World, paths: &[&str], labels: BTreeMap<String, String>, spec: ServerSpec) {
    let request = UpdateServerRequest {
        server: Some(Server {
            metadata: Some(Metadata {
                name: "mine".to_owned(),
                labels,
                ..Default::default()
            }),
            spec: Some(spec),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        }),
        request_id: String::new(),
    };
    world.clients.servers.clone().update_server(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_leaves_alone_what_a_file_never_named() {
    let world = World::apart(On::Sqlite, 0, InBand::Off).await.unwrap();
    let file = world.data.path().join("server.yaml");
    let apply = |verb: &str, text: &str| {
        let head = "apiVersion: metal.ironcore.dev/v1alpha1\nkind: Server\n";
        std::fs::write(&file, format!("{head}{text}")).unwrap();
        cli(&world.stack.address, &[verb, "-f", &file.display().to_string()]).unwrap()
    };
    let text = "metadata: {name: mine, labels: {rack: r1, row: a}}\nspec: {power: On, locatorLED: true}\n";
    assert_eq!(apply("apply", text), "server/mine created\n");
    assert_eq!(apply("apply", text), "server/mine unchanged\n");

    let mut labels = server(&world).await.metadata.unwrap().labels;
    labels.insert("theirs".to_owned(), "1".to_owned());
    let cordon = ServerSpec {
        unclaimable: true,
        ..Default::default()
    };
    write(&world, &["metadata.labels", "spec.unclaimable"], labels, cordon).await;

    // What the file changes is said; what it does not name any more goes; what it never named stays.
    let said = apply("apply", "metadata: {name: mine, labels: {rack: r2}}\nspec: {power: Off}\n");
    for part in [
        "spec.power: On → Off",
        "spec.locatorLed: true → nothing",
        "labels.rack: r1 → r2",
        "labels.row: a → nothing",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let now = server(&world).await;
    assert_eq!(now.metadata.unwrap().labels, words(&[("rack", "r2"), ("theirs", "1")]));
    let spec = now.spec.unwrap();
    assert!(spec.unclaimable && !spec.locator_led && spec.power() == PowerState::Off, "{spec:?}");

    let said = apply("apply", "metadata: {name: mine}\nspec: {}\n");
    assert!(said.contains("spec.power: Off → nothing"), "{said}");
    let now = server(&world).await;
    assert!(now.spec.unwrap().unclaimable, "an empty spec un-cordons nothing");

    // A replacement is one.
    let said = apply("replace", "metadata: {name: mine, labels: {rack: r3}}\nspec: {}\n");
    assert!(said.contains("spec.unclaimable: true → nothing"), "{said}");
    let now = server(&world).await;
    assert_eq!(now.metadata.unwrap().labels, words(&[("rack", "r3")]));
    assert!(!now.spec.unwrap().unclaimable);
}

/// The gateway and others write status all the time; a file that does not touch that is applied all the same.
#[tokio::test(flavor = "multi_thread")]
async fn apply_repeats_where_somebody_writes_in_between() {
    let world = World::apart(On::Sqlite, 0, InBand::Off).await.unwrap();
    let file = world.data.path().join("server.yaml");
    let name = file.display().to_string();
    let text = |n: usize| format!("apiVersion: v1alpha1\nkind: Server\nmetadata: {{name: mine, labels: {{n: \"{n}\"}}}}\nspec: {{}}\n");
    std::fs::write(&file, text(0)).unwrap();
    cli(&world.stack.address, &["apply", "-f", &name]).unwrap();
    let done = tokio_util::sync::CancellationToken::new();
    let writes = async {
        let mut written = 0;
        while !done.is_cancelled() {
            let led = ServerSpec {
                locator_led: written % 2 == 0,
                ..Default::default()
            };
            write(&world, &["spec.locator_led"], BTreeMap::new(), led).await;
            written += 1;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        written
    };
    let applies = async {
        for n in 1..=20 {
            std::fs::write(&file, text(n)).unwrap();
            let (address, name) = (world.stack.address.clone(), name.clone());
            tokio::task::spawn_blocking(move || cli(&address, &["apply", "-f", &name]))
                .await
                .unwrap()
                .unwrap();
        }
        done.cancel();
    };
    let (written, ()) = tokio::join!(writes, applies);
    assert!(written > 20, "{written}");
    assert_eq!(server(&world).await.metadata.unwrap().labels, words(&[("n", "20")]));
}
