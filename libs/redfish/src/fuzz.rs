//! What comes from a BMC is arbitrary: nothing that reads it may panic, and no link may lead elsewhere.
//!
//! IRONYARD_FUZZ is the number of inputs for each property; CI runs a million.

use std::collections::BTreeMap;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use reqwest::Url;
use serde_json::{Map, Value, json};

use crate::{
    Doc, Error, Reply,
    ops::{attributes, bios, boot, drives, events, family, led, logs, power, registry, systems, tasks},
    transport::parse,
    uri,
};

fn runner() -> TestRunner {
    let cases = std::env::var("IRONYARD_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000);
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}

/// Names and texts that the readers look for, and such that nobody would.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "@odata.id",
            "@odata.type",
            "@odata.etag",
            "Id",
            "Name",
            "Members",
            "Members@odata.nextLink",
            "Status",
            "State",
            "Health",
            "HealthRollup",
            "PowerState",
            "Boot",
            "BootOrder",
            "BootSourceOverrideTarget",
            "BootOptionReference",
            "UefiDevicePath",
            "DisplayName",
            "Alias",
            "Actions",
            "#ComputerSystem.Reset",
            "#Drive.SecureErase",
            "target",
            "ResetType@Redfish.AllowableValues",
            "Attributes",
            "RegistryEntries",
            "AttributeName",
            "Type",
            "Value",
            "ValueName",
            "LowerBound",
            "UpperBound",
            "error",
            "code",
            "@Message.ExtendedInfo",
            "MessageId",
            "MessageArgs",
            "Message",
            "MessageSeverity",
            "TaskState",
            "JobState",
            "TaskStatus",
            "PercentComplete",
            "Messages",
            "Oem",
            "Dell",
            "UUID",
            "SerialNumber",
            "SKU",
            "Manufacturer",
            "IndicatorLED",
            "Events",
            "OriginOfCondition",
            "Vendor",
            "Product",
            "Links",
            "Created",
        ])
        .prop_map(str::to_owned),
        ".{0,12}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "On",
            "Off",
            "Completed",
            "Running",
            "Exception",
            "Critical",
            "OK",
            "/redfish/v1/Systems/1",
            "//evil/x",
            "http://evil/",
            "Integer",
            "Enumeration",
            "PciRoot(0x0)/MAC(B83FD2D7F74A,0x1)",
            "MAC(",
            "2024-08-15T21:43:28Z",
            "0000-00-00T00:00:00Z",
            "-1",
            "1e999",
            "Base.1.8.Success",
            "#Task.v1.Task",
            "03000200-0400-0500-0006-000700080009",
            "B8:3F:D2:D7:F7:4A",
            "é\u{0}\u{1b}[31m",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..8).prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Every reader that needs no connection.
fn read_all(value: &Value) {
    let doc = Doc {
        uri: "/redfish/v1/x".to_owned(),
        value: value.clone(),
        ..Doc::default()
    };
    for key in value.as_object().into_iter().flat_map(Map::keys) {
        let _ = (
            doc.text(key),
            doc.number(key),
            doc.integer::<i32>(key),
            doc.integer::<u64>(key),
            doc.boolean(key),
        );
        let _ = (
            doc.link(key),
            doc.links(key),
            doc.texts(key),
            doc.parts(key),
            doc.part(key),
            doc.action(key),
        );
    }
    let _ = (
        doc.id(),
        doc.id_path(),
        doc.is_present(),
        power::state(&doc),
        led::state(&doc),
        drives::health(&doc),
        boot::override_of(&doc),
    );
    let _ = (
        systems::uuid(&doc),
        systems::serial(&doc),
        family::detect(&doc, Some(&doc), Some(&doc)),
        events::origins(value),
    );
    for status in [200, 400, 401, 403, 404, 412, 500, 503] {
        let error = Error::from_status(status, "/x", value, None);
        assert!(error.to_string().len() < 8192, "errors are short");
        let _ = Error::in_success(status, value);
    }
    let reply = Reply {
        status: 202,
        location: None,
        retry_after: None,
        doc: doc.clone(),
        token: None,
    };
    if let Some(task) = tasks::begun(&reply) {
        assert!(!task.uri.is_empty());
    }
    let _ = tasks::state_of(&doc);
    let known = registry::parse("R", value);
    let attributes = value.as_object().cloned().unwrap_or_default();
    let wanted: BTreeMap<String, String> = attributes.keys().take(3).map(|k| (k.clone(), "1".to_owned())).collect();
    let bios = bios::Bios {
        attributes,
        ..bios::Bios::default()
    };
    let _ = registry::difference(&bios.attributes, &bios.pending, Some(&known), &wanted);
    let _ = attributes::as_texts(&bios.attributes);
}

#[test]
fn readers_take_any_document() {
    runner()
        .run(&document(), |value| {
            read_all(&value);
            Ok(())
        })
        .unwrap();
}

#[test]
fn bytes_are_a_document_or_an_error() {
    let mixed = (document(), prop::collection::vec(any::<u8>(), 0..64), 0_usize..400);
    runner()
        .run(&mixed, |(value, noise, at)| {
            let mut bytes = value.to_string().into_bytes();
            let at = at.min(bytes.len());
            bytes.splice(at..at, noise);
            if let Ok(value) = parse(&bytes) {
                read_all(&value);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn no_link_leads_elsewhere() {
    let base = Url::parse("https://10.0.0.1:8443/").unwrap();
    let links = prop_oneof![
        any::<String>(),
        "[a-z]{0,6}:?/{0,3}[a-z0-9.@:\\[\\]%\\\\?#/-]{0,40}",
        "(https?:)?//(10\\.0\\.0\\.1|evil|user:pw@10\\.0\\.0\\.1)(:[0-9]{0,6})?[/\\\\]{0,2}[a-z./]{0,20}",
    ];
    runner()
        .run(&links, |link| {
            if let Ok(url) = uri::resolve(&base, &link) {
                assert_eq!(
                    (url.scheme(), url.host_str(), url.port(), url.username()),
                    ("https", Some("10.0.0.1"), Some(8443), ""),
                    "{link:?}"
                );
            }
            let _ = (uri::identity(&link), logs::time_of(&link), json!(link));
            Ok(())
        })
        .unwrap();
}
