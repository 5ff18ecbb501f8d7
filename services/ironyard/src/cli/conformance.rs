use ironyard_conformance::{Outcome, Place, Scope, by_address};

use super::{Failure, args::Conformance};

/// Tries every operation on any Redfish service, and prints what came of it. Fails when something that is offered does not work.
pub(crate) async fn run(args: Conformance) -> Result<(), Failure> {
    let password = match &args.password_file {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        None => String::new(),
    };
    let place = Place {
        host: args.address.clone(),
        scheme: args.scheme,
        port: args.port,
        username: args.username,
        password,
        certificate_sha256: args.pin,
    };
    let scope = Scope {
        writes: args.writes || args.power,
        power: args.power,
        image: args.image,
    };
    let report = by_address(&place, &scope).await.map_err(Failure::usage)?;
    let (mut works, mut missing, mut fails) = (0, 0, 0);
    let wide = report.checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    for check in &report.checks {
        let (word, text, count) = match &check.outcome {
            Outcome::Works(seen) => ("works", seen.clone(), &mut works),
            Outcome::Missing(what) => ("missing", format!("the BMC does not offer {what}"), &mut missing),
            Outcome::Fails(why) => ("FAILS", why.clone(), &mut fails),
        };
        *count += 1;
        println!("{:wide$}  {word:7}  {:>6} ms  {text}", check.name, check.took.as_millis());
    }
    println!("\n{}: {works} work, {missing} are missing, {fails} fail", args.address);
    if !scope.writes {
        println!("only reads were tried: --writes tries changes and puts them back, --power switches the machine");
    }
    if report.passed() {
        Ok(())
    } else {
        Err(Failure::other(format!("{fails} operations fail")))
    }
}
