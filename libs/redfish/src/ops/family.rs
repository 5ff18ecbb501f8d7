//! Which family a BMC belongs to: for people, for consoles, and for the few things that no BMC says of itself.

use crate::Doc;

/// A family of BMC firmware. The maker of the system is another matter: Lenovo, HPE and NVIDIA sell machines with AMI's BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Dell iDRAC.
    Idrac,
    /// HPE iLO.
    Ilo,
    /// Lenovo XClarity Controller.
    Xcc,
    /// Supermicro.
    Supermicro,
    /// AMI MegaRAC.
    Ami,
    /// OpenBMC.
    OpenBmc,
    /// Intel's own.
    Intel,
    /// Fujitsu iRMC.
    Irmc,
    /// Cisco IMC.
    Cimc,
    /// None of these.
    Other,
}

impl Family {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idrac => "iDRAC",
            Self::Ilo => "iLO",
            Self::Xcc => "XCC",
            Self::Supermicro => "Supermicro",
            Self::Ami => "AMI",
            Self::OpenBmc => "OpenBMC",
            Self::Intel => "Intel",
            Self::Irmc => "iRMC",
            Self::Cimc => "CIMC",
            Self::Other => "Other",
        }
    }

    /// From its name.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Idrac,
            Self::Ilo,
            Self::Xcc,
            Self::Supermicro,
            Self::Ami,
            Self::OpenBmc,
            Self::Intel,
            Self::Irmc,
            Self::Cimc,
            Self::Other,
        ];
        all.into_iter().find(|f| f.as_str() == text)
    }
}

/// Decides from evidence, the BMC's own words first: the manager's model, keys of the root's `Oem`, vendor and product, the system's maker.
pub fn detect(root: &Doc, manager: Option<&Doc>, system: Option<&Doc>) -> Family {
    let lower = |doc: Option<&Doc>, key: &str| doc.map(|d| d.text_or_empty(key).to_ascii_lowercase()).unwrap_or_default();
    let manager_text = ["Id", "Model", "FirmwareVersion", "Name", "Description"]
        .map(|key| lower(manager, key))
        .join(" ");
    let root_text = ["Vendor", "Product", "Name"].map(|key| lower(Some(root), key)).join(" ");
    let oem: Vec<String> = root
        .value
        .get("Oem")
        .and_then(serde_json::Value::as_object)
        .map(|map| map.keys().map(|k| k.to_ascii_lowercase()).collect())
        .unwrap_or_default();
    let owns = |names: &[&str]| oem.iter().any(|key| names.contains(&key.as_str()));
    let maker = lower(system, "Manufacturer");
    let says = |text: &str, words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&manager_text, &["idrac"]) || owns(&["dell"]) || says(&root_text, &["dell"]) {
        Family::Idrac
    } else if says(&manager_text, &["ilo "]) || owns(&["hpe", "hp"]) {
        Family::Ilo
    } else if owns(&["ami", "amimegarac"]) || says(&root_text, &["ami ", "ami redfish", "megarac", "american megatrends"]) {
        Family::Ami
    } else if owns(&["lenovo"]) || says(&manager_text, &["lenovo xclarity", "xcc"]) || says(&root_text, &["lenovo"]) {
        Family::Xcc
    } else if says(&manager_text, &["openbmc"]) || says(&root_text, &["openbmc", "bmcweb"]) {
        Family::OpenBmc
    } else if owns(&["supermicro"]) || says(&root_text, &["supermicro"]) || says(&maker, &["supermicro"]) {
        Family::Supermicro
    } else if says(&manager_text, &["irmc"]) || owns(&["ts_fujitsu", "fujitsu", "fsas"]) {
        Family::Irmc
    } else if says(&manager_text, &["cimc"]) || says(&root_text, &["cisco"]) {
        Family::Cimc
    } else if says(&root_text, &["hpe"]) || says(&maker, &["hpe"]) {
        Family::Ilo
    } else if says(&maker, &["intel"]) || says(&root_text, &["intel"]) {
        Family::Intel
    } else if says(&manager_text, &["bmc firmware", "obmc"]) || lower(manager, "Id") == "bmc" && says(&root_text, &["nvidia"]) {
        Family::OpenBmc
    } else {
        Family::Other
    }
}
