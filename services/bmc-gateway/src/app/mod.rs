//! Use cases that are more than one call.

pub mod begin_operation;

use ironyard_resource::Kind;
use ironyard_rpc::Reason;

use crate::domain::bmc::Bmc;

impl Kind for Bmc {
    const NOUN: &'static str = "BMC";
    const NOT_FOUND: Reason = Reason::BmcNotFound;
    const EXISTS: Reason = Reason::BmcExists;
    const CHANGED: Reason = Reason::BmcChanged;
}
