//! Holds a certificate against the evidence that it rests on: by a program that was written from the documents alone and shares nothing with
//! the one that judges.

use std::process::Command;

use ironyard::json::to_json;
use ironyard_proto::claim::{SanitizationCertificate, SanitizationEvidence};
use serde_json::{Value, json};

fn program() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("checkers/evidence.py")
}

fn evidence_json(evidence: &SanitizationEvidence) -> Value {
    to_json("ironyard.claim.v1.SanitizationEvidence", evidence)
}

/// What the program objects to; `None` where there is no Python.
pub fn objections(
    certificate: &SanitizationCertificate,
    evidence: &SanitizationEvidence,
    earlier: &[SanitizationEvidence],
) -> Option<String> {
    let document = json!({
        "certificate": to_json("ironyard.claim.v1.SanitizationCertificate", certificate),
        "evidence": evidence_json(evidence),
        "earlier": earlier.iter().map(evidence_json).collect::<Vec<_>>(),
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wipe.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let Ok(output) = Command::new("python3").arg(program()).arg(&file).output() else {
        ironyard_testkit::skip("the checker of wipe evidence", "python3 is not here");
        return None;
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    match output.status.code() {
        Some(0) => Some(String::new()),
        Some(1) => Some(said),
        _ => panic!("the checker could not judge: {said}"),
    }
}

/// The program knows a good wipe from a spoiled one.
#[test]
fn the_checker_of_evidence_can_object() {
    match Command::new("python3").arg(program()).arg("--self-check").output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(_) => ironyard_testkit::skip("the checker of wipe evidence", "python3 is not here"),
    }
}
