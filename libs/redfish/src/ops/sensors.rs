//! Power, temperature, fans, and how healthy the parts are.

use ironyard_types::hardware::Health;

use super::drives::health;
use crate::{Client, Doc, Members, Result};

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

/// Members of a collection of sensors that are read one by one; beyond them a BMC must be able to expand.
const SINGLY: usize = 300;

/// Reads the sensors of a system's chassis: from the old documents that hold all of them where there are such, else from the new ones.
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
    for chassis in members.linked(system.part("Links").links("Chassis")).await {
        readings.health = readings.health.max(rollup(&chassis));
        let legacy = legacy(&members, &chassis, &mut readings).await;
        if !legacy && let Some(link) = chassis.link("Sensors") {
            for doc in members.of_at_most(&link, SINGLY).await {
                if doc.text("PhysicalContext").as_deref() == Some("Chassis") && doc.text("ReadingType").as_deref() == Some("Power") {
                    readings.watts = readings.watts.or(doc.number("Reading"));
                }
                readings.sensors.push(Sensor {
                    name: doc.text("Name").unwrap_or_else(|| doc.id()),
                    kind: doc.text_or_empty("ReadingType"),
                    reading: doc.number("Reading"),
                    unit: doc.text_or_empty("ReadingUnits"),
                    health: health(&doc),
                    critical: doc.part("Thresholds").part("UpperCritical").number("Reading"),
                });
            }
        }
        if readings.watts.is_none()
            && let Some(link) = chassis.link("EnvironmentMetrics")
            && let Some(doc) = members.get(&link).await
        {
            readings.watts = doc.part("PowerWatts").number("Reading");
        }
    }
    readings.unreadable = members.unreadable();
    Ok(readings)
}

/// The documents that hold all readings of a chassis; whether there was any.
async fn legacy(members: &Members<'_>, chassis: &Doc, readings: &mut Readings) -> bool {
    let before = readings.sensors.len();
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
            readings.sensors.push(sensor(&part, "Fan", "Reading", unit));
        }
    }
    if let Some(link) = chassis.link("Power")
        && let Some(doc) = members.get(&link).await
    {
        for part in doc.parts("PowerControl") {
            readings.watts = readings.watts.or(part.number("PowerConsumedWatts"));
        }
        for part in doc.parts("Voltages") {
            readings.sensors.push(sensor(&part, "Voltage", "ReadingVolts", "V"));
        }
        for part in doc.parts("PowerSupplies") {
            readings.sensors.push(sensor(&part, "Power", "LastPowerOutputWatts", "W"));
        }
    }
    readings.sensors.len() > before || readings.watts.is_some()
}

fn sensor(part: &Doc, kind: &str, reading: &str, unit: &str) -> Sensor {
    Sensor {
        name: part.text("Name").or_else(|| part.text("FanName")).unwrap_or_else(|| part.id()),
        kind: kind.to_owned(),
        reading: part.number(reading),
        unit: unit.to_owned(),
        health: health(part),
        critical: part.number("UpperThresholdCritical"),
    }
}
