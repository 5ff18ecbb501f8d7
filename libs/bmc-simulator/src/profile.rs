//! What BMC families do differently, as far as it shows on the wire. Each value is one documented quirk.

/// How a family treats If-Match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Etags {
    /// Wrong ones are refused, none is fine.
    Checked,
    /// As checked, and `*` is refused.
    NoStar,
    /// Only `*` is taken, and something must be sent.
    StarOnly,
    /// There are none.
    None,
}

/// How `@Redfish.SettingsApplyTime` is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyTime {
    /// Not offered; ignored.
    None,
    /// Offered and taken.
    Taken,
    /// Without it no job runs, and the values stay pending for ever.
    Needed,
    /// Offered, and refused when it is sent.
    Refused,
}

/// What a long action is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskForm {
    /// 202, Location of the task, and the task as body.
    Task,
    /// 202, Location of a monitor, and the task as body.
    Monitor,
    /// 202 and the Location of a job below the manager, no body.
    Job,
    /// 202, no Location: the path is among the arguments of a message.
    Hidden,
    /// 202 and nothing else.
    Nothing,
}

/// Where virtual media are, and how they are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// Below the manager, with actions.
    Manager,
    /// Below the system, with actions.
    System,
    /// Below the system, with PATCH only.
    Patched,
    /// Below the manager; the insert action wants `TransferProtocolType`.
    Wordy,
}

/// Where sensors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sensors {
    /// `Power` and `Thermal`.
    Legacy,
    /// `Sensors`.
    New,
}

/// One family.
#[derive(Debug)]
pub struct Profile {
    /// Name, to choose it by.
    pub name: &'static str,
    /// `Vendor` of the root; empty: null.
    pub vendor: &'static str,
    /// `Product` of the root.
    pub product: &'static str,
    /// Key of `Oem` in the root; empty: none.
    pub oem: &'static str,
    /// Maker of the system.
    pub manufacturer: &'static str,
    /// Id of the system.
    pub system_id: &'static str,
    /// Id of the manager.
    pub manager_id: &'static str,
    /// Model of the manager.
    pub manager_model: &'static str,
    /// Firmware of the manager.
    pub firmware: &'static str,
    /// Reset types of the system.
    pub resets: &'static [&'static str],
    /// Whether these are told by an ActionInfo only.
    pub action_info: bool,
    /// Last segment of the pending BIOS.
    pub bios_settings: &'static str,
    /// Apply times.
    pub apply_time: ApplyTime,
    /// Whether the pending BIOS shows all attributes.
    pub pending_shows_all: bool,
    /// If-Match.
    pub etags: Etags,
    /// Sessions that it keeps.
    pub sessions: usize,
    /// Virtual media.
    pub media: Media,
    /// Whether accounts are slots.
    pub account_slots: bool,
    /// Members in a page; 0: all.
    pub page: usize,
    /// Whether registries come compressed or not at all.
    pub gzip_registry: bool,
    /// Answers of long actions.
    pub task_form: TaskForm,
    /// Whether boot settings are refused while the machine starts.
    pub post_refusal: bool,
    /// Whether the boot mode can be written.
    pub mode_writable: bool,
    /// Sensors.
    pub sensors: Sensors,
    /// Whether images can be fetched.
    pub simple_update: bool,
    /// Whether images can be pushed as a form.
    pub multipart: bool,
    /// Whether images can be pushed bare.
    pub raw_push: bool,
    /// Whether certificates can be replaced.
    pub certificates: bool,
    /// Whether logs belong to the manager.
    pub manager_logs: bool,
    /// Whether it is an old event service that wants types.
    pub event_types: bool,
    /// Whether events can be streamed.
    pub sse: bool,
    /// Whether success comes as 200 with an error-shaped body.
    pub success_as_error: bool,
}

const ALL_RESETS: &[&str] = &["On", "ForceOff", "GracefulShutdown", "ForceRestart", "GracefulRestart", "Nmi"];

/// A BMC without quirks.
pub static GENERIC: Profile = Profile {
    name: "generic",
    vendor: "Ironyard",
    product: "Simulated BMC",
    oem: "",
    manufacturer: "Ironyard",
    system_id: "1",
    manager_id: "BMC",
    manager_model: "Simulated BMC",
    firmware: "0.1.0",
    resets: ALL_RESETS,
    action_info: false,
    bios_settings: "Settings",
    apply_time: ApplyTime::Taken,
    pending_shows_all: false,
    etags: Etags::Checked,
    sessions: 16,
    media: Media::Manager,
    account_slots: false,
    page: 0,
    gzip_registry: false,
    task_form: TaskForm::Task,
    post_refusal: false,
    mode_writable: true,
    sensors: Sensors::Legacy,
    simple_update: true,
    multipart: true,
    raw_push: false,
    certificates: true,
    manager_logs: false,
    event_types: false,
    sse: true,
    success_as_error: false,
};

static IDRAC: Profile = Profile {
    name: "idrac",
    vendor: "Dell",
    product: "Integrated Dell Remote Access Controller",
    oem: "Dell",
    manufacturer: "Dell Inc.",
    system_id: "System.Embedded.1",
    manager_id: "iDRAC.Embedded.1",
    manager_model: "16G Monolithic",
    firmware: "7.10.30.00",
    resets: &[
        "On",
        "ForceOff",
        "ForceRestart",
        "GracefulRestart",
        "GracefulShutdown",
        "PushPowerButton",
        "Nmi",
        "PowerCycle",
    ],
    apply_time: ApplyTime::Needed,
    sessions: 8,
    media: Media::System,
    account_slots: true,
    page: 5,
    task_form: TaskForm::Job,
    raw_push: true,
    manager_logs: true,
    ..GENERIC
};

static ILO: Profile = Profile {
    name: "ilo",
    vendor: "HPE",
    product: "ProLiant DL380a Gen11",
    oem: "Hpe",
    manufacturer: "HPE",
    manager_id: "1",
    manager_model: "iLO 6",
    firmware: "iLO 6 v1.66",
    resets: &[
        "On",
        "ForceOff",
        "GracefulShutdown",
        "ForceRestart",
        "Nmi",
        "PushPowerButton",
        "GracefulRestart",
    ],
    bios_settings: "settings",
    apply_time: ApplyTime::None,
    pending_shows_all: true,
    etags: Etags::NoStar,
    gzip_registry: true,
    post_refusal: true,
    mode_writable: false,
    multipart: false,
    certificates: false,
    event_types: true,
    sse: false,
    success_as_error: true,
    ..GENERIC
};

static XCC: Profile = Profile {
    name: "xcc",
    vendor: "Lenovo",
    product: "ThinkSystem SR670 V2",
    oem: "Lenovo",
    manufacturer: "Lenovo",
    manager_id: "1",
    manager_model: "Lenovo XClarity Controller",
    firmware: "TGBT52C 2.83",
    resets: &[
        "On",
        "Nmi",
        "GracefulShutdown",
        "GracefulRestart",
        "ForceOn",
        "ForceOff",
        "ForceRestart",
    ],
    bios_settings: "Pending",
    apply_time: ApplyTime::Refused,
    media: Media::Patched,
    task_form: TaskForm::Monitor,
    sensors: Sensors::New,
    ..GENERIC
};

static SUPERMICRO: Profile = Profile {
    name: "supermicro",
    vendor: "",
    product: "",
    oem: "Supermicro",
    manufacturer: "Supermicro",
    manager_id: "1",
    manager_model: "ASPEED",
    firmware: "11.01.01",
    resets: &[
        "On",
        "ForceOff",
        "GracefulShutdown",
        "GracefulRestart",
        "ForceRestart",
        "Nmi",
        "ForceOn",
        "PowerCycle",
    ],
    action_info: true,
    bios_settings: "SD",
    apply_time: ApplyTime::None,
    task_form: TaskForm::Hidden,
    event_types: true,
    sse: false,
    ..GENERIC
};

static AMI: Profile = Profile {
    name: "ami",
    vendor: "AMI",
    product: "AMI Redfish Server",
    oem: "Ami",
    manufacturer: "GIGABYTE",
    system_id: "Self",
    manager_id: "Self",
    manager_model: "",
    firmware: "12.84.03",
    resets: &["On", "ForceOff", "GracefulShutdown", "ForceRestart"],
    action_info: true,
    bios_settings: "SD",
    apply_time: ApplyTime::None,
    etags: Etags::StarOnly,
    media: Media::Wordy,
    manager_logs: true,
    certificates: false,
    task_form: TaskForm::Nothing,
    ..GENERIC
};

static OPENBMC: Profile = Profile {
    name: "openbmc",
    vendor: "",
    product: "",
    oem: "",
    manufacturer: "",
    system_id: "system",
    manager_id: "bmc",
    manager_model: "OpenBmc",
    firmware: "2.15.0-dev",
    resets: ALL_RESETS,
    action_info: true,
    bios_settings: "Settings",
    apply_time: ApplyTime::Taken,
    etags: Etags::None,
    sensors: Sensors::New,
    simple_update: false,
    raw_push: true,
    ..GENERIC
};

/// All families, the one without quirks first.
pub static PROFILES: [&Profile; 7] = [&GENERIC, &IDRAC, &ILO, &XCC, &SUPERMICRO, &AMI, &OPENBMC];

impl Profile {
    /// The one of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.into_iter().find(|p| p.name == name)
    }

    /// Paths that are called otherwise: as they are inside, as they are shown.
    fn renames(&self) -> [(String, String); 3] {
        [
            (
                "/redfish/v1/Systems/1/Bios/Settings".to_owned(),
                format!("/redfish/v1/Systems/{}/Bios/{}", self.system_id, self.bios_settings),
            ),
            (
                "/redfish/v1/Systems/1".to_owned(),
                format!("/redfish/v1/Systems/{}", self.system_id),
            ),
            (
                "/redfish/v1/Managers/BMC".to_owned(),
                format!("/redfish/v1/Managers/{}", self.manager_id),
            ),
        ]
    }

    /// The path inside of a path that was asked for. BMCs know no case.
    pub(crate) fn inside(&self, path: &str) -> String {
        for (inside, shown) in self.renames() {
            if let Some(rest) = below(path, &shown) {
                return format!("{inside}{rest}");
            }
        }
        path.to_owned()
    }

    /// The path that is shown of one inside.
    pub(crate) fn shown(&self, path: &str) -> Option<String> {
        self.renames()
            .into_iter()
            .find_map(|(inside, shown)| below(path, &inside).map(|rest| format!("{shown}{rest}")))
    }

    /// Renames every path in a body.
    pub(crate) fn show(&self, body: &mut serde_json::Value) {
        match body {
            serde_json::Value::String(text) if text.starts_with("/redfish/v1/") => {
                if let Some(shown) = self.shown(text) {
                    *text = shown;
                }
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(|v| self.show(v)),
            serde_json::Value::Object(map) => map.values_mut().for_each(|v| self.show(v)),
            serde_json::Value::String(_) | serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
        }
    }
}

/// What follows a beginning, at a segment's end.
fn below<'a>(path: &'a str, beginning: &str) -> Option<&'a str> {
    let head = path.get(..beginning.len())?;
    let rest = path.get(beginning.len()..)?;
    (head.eq_ignore_ascii_case(beginning) && (rest.is_empty() || rest.starts_with('/'))).then_some(rest)
}
