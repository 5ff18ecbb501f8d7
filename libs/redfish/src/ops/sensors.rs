//! Power, temperature, fans, and how healthy the parts are.

use std::collections::HashSet;

use ironyard_types::hardware::Health;

use super::{drives::health, topology};
use crate::{Client, Doc, Members, Result, uri};

/// A reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sensor {
    /// Name.
    pub name: String,
    /// `Temperature`, `Fan`, `Power`, `Voltage`, …
    pub kind: String,
    /// Reading.
    pub reading: Option<f64>,
    /// Unit: `Cel`, `RPM`, `%`, `W`, `V`.
    pub unit: String,
    /// Health, where the BMC says so.
    pub health: Option<Health>,
    /// Upper critical threshold.
    pub critical: Option<f64>,
}

/// All readings, and what the machine draws.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readings {
    /// Readings.
    pub sensors: Vec<Sensor>,
    /// Watts that the machine draws.
    pub watts: Option<f64>,
    /// The worst health of the system and its parts, as they sum it up themselves.
    pub health: Option<Health>,
    /// What could not be read.
    pub unreadable: Vec<String>,
}

/// Members of a collection of sensors that are read.
const SINGLY: usize = 1000;

/// Reads the sensors of a server: of its own chassis, of those that belong to it, and of the systems that are parts of it. The old documents
/// that hold all readings of a chassis come first; some BMCs show the same readings again as sensors, and others only a part of them.
pub async fn read(client: &Client, system: &Doc) -> Result<Readings> {
    let members = Members::new(client);
    let mut readings = Readings::default();
    let rollup = |doc: &Doc| match doc.part("Status").text("HealthRollup").as_deref() {
        Some("OK") => Some(Health::Ok),
        Some("Warning") => Some(Health::Warning),
        Some("Critical") => Some(Health::Critical),
        Some(_) | None => health(doc),
    };
    readings.health = rollup(system);
    let around = topology::surroundings(client, &members, system).await;
    let mut known = HashSet::new();
    for chassis in &around.own_chassis {
        readings.health = readings.health.max(rollup(chassis));
    }
    let own = around.own_chassis.len();
    for (n, chassis) in around.chassis().enumerate() {
        let old = legacy(&members, chassis).await;
        let names: HashSet<String> = old.sensors.iter().map(|sensor| plain(&sensor.name)).collect();
        // What the machine draws is what its own chassis say, not a board in it.
        if n < own {
            readings.watts = readings.watts.or(old.watts);
        }
        readings.sensors.extend(old.sensors);
        if let Some(link) = chassis.link("Sensors") {
            for doc in members.of_at_most(&link, SINGLY).await {
                if !known.insert(uri::identity(&doc.id_path())) {
                    continue;
                }
                let sensor = of_document(&doc);
                let whole = doc.text("PhysicalContext").as_deref() == Some("Chassis") && sensor.kind == "Power";
                if n < own && whole {
                    readings.watts = readings.watts.or(sensor.reading);
                }
                if !names.contains(&plain(&sensor.name)) {
                    readings.sensors.push(sensor);
                }
            }
        }
        if n < own
            && readings.watts.is_none()
            && let Some(link) = chassis.link("EnvironmentMetrics")
            && let Some(doc) = members.get(&link).await
        {
            readings.watts = doc.part("PowerWatts").number("Reading");
        }
    }
    readings.unreadable = members.unreadable();
    Ok(readings)
}

/// A name without its spelling: the same reading is called "CPU1 Temp" here and "CPU1_Temp" there.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn of_document(doc: &Doc) -> Sensor {
    Sensor {
        name: doc.text("Name").unwrap_or_else(|| doc.id()),
        kind: doc.text_or_empty("ReadingType"),
        reading: doc.number("Reading"),
        unit: doc.text_or_empty("ReadingUnits"),
        health: health(doc),
        critical: doc.part("Thresholds").part("UpperCritical").number("Reading"),
    }
}

/// The documents that hold all readings of a chassis.
async fn legacy(members: &Members<'_>, chassis: &Doc) -> Readings {
    let mut readings = Readings::default();
    if let Some(link) = chassis.link("Thermal")
        && let Some(doc) = members.get(&link).await
    {
        for part in doc.parts("Temperatures") {
            readings.sensors.push(sensor(&part, "Temperature", "ReadingCelsius", "Cel"));
        }
        for part in doc.parts("Fans") {
            let unit = match part.text("ReadingUnits").as_deref() {
                Some("Percent") => "%",
                _ => "RPM",
            };
            let reading = if part.number("Reading").is_some() {
                "Reading"
            } else {
                "ReadingRPM"
            };
            readings.sensors.push(sensor(&part, "Fan", reading, unit));
        }
    }
    if let Some(link) = chassis.link("Power")
        && let Some(doc) = members.get(&link).await
    {
        for (n, part) in doc.parts("PowerControl").into_iter().enumerate() {
            readings.watts = readings.watts.or(part.number("PowerConsumedWatts"));
            // The first is the machine's; others are those of its parts.
            if n > 0 && part.number("PowerConsumedWatts").is_some() {
                readings.sensors.push(sensor(&part, "Power", "PowerConsumedWatts", "W"));
            }
        }
        for part in doc.parts("Voltages") {
            readings.sensors.push(sensor(&part, "Voltage", "ReadingVolts", "V"));
        }
        for part in doc.parts("PowerSupplies") {
            supply(&part, &mut readings.sensors);
        }
    }
    readings
}

/// What a power supply tells: what it gives, what it takes, and the voltage of its line.
fn supply(part: &Doc, sensors: &mut Vec<Sensor>) {
    let output = ["LastPowerOutputWatts", "PowerOutputWatts"];
    let output = output.into_iter().find(|key| part.number(key).is_some());
    sensors.push(sensor(part, "Power", output.unwrap_or("LastPowerOutputWatts"), "W"));
    for (key, kind, unit, what) in [
        ("PowerInputWatts", "Power", "W", "input"),
        ("LineInputVoltage", "Voltage", "V", "line input"),
    ] {
        if part.number(key).is_some() {
            let reading = sensor(part, kind, key, unit);
            sensors.push(Sensor {
                name: format!("{} {what}", reading.name),
                ..reading
            });
        }
    }
    // Some tell both, and not the same.
    if output == Some("LastPowerOutputWatts")
        && let (Some(last), Some(now)) = (part.number("LastPowerOutputWatts"), part.number("PowerOutputWatts"))
        && (last - now).abs() > f64::EPSILON
    {
        let reading = sensor(part, "Power", "PowerOutputWatts", "W");
        sensors.push(Sensor {
            name: format!("{} output", reading.name),
            ..reading
        });
    }
}

fn sensor(part: &Doc, kind: &str, reading: &str, unit: &str) -> Sensor {
    let name = ["Name", "FanName"].into_iter().find_map(|key| part.text(key));
    Sensor {
        name: name.or_else(|| part.text("MemberId")).unwrap_or_else(|| part.id()),
        kind: kind.to_owned(),
        reading: part.number(reading),
        unit: unit.to_owned(),
        health: health(part),
        critical: part.number("UpperThresholdCritical"),
    }
}
